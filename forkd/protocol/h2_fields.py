"""The fields of an HTTP/2 request (RFC 9113 section 8): what is well formed, as a ``RawHead``.

A malformed request is an error of its stream alone (section 8.1.1).  Two kinds are answered with a
status instead: an extended CONNECT without its place, and a content-length that is no number, as
they would be over HTTP/1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import BadRequest, ForkdError, HeadTooLarge, MethodNotAllowed, NotImplementedHere
from ..message import Pair
from .h2_frames import ErrorCode, StreamBroken
from .strict_head import RawHead, known_method

_PSEUDO = frozenset({":method", ":scheme", ":authority", ":path", ":protocol"})
_OF_HTTP1 = frozenset(
    {"connection", "http2-settings", "proxy-connection", "transfer-encoding", "upgrade"}
)
_IGNORED = frozenset({"keep-alive"})
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER = re.compile(r"[0-9]{1,19}")
WEBSOCKET = "websocket"  # case counts (RFC 8441 section 5)


class H2Head(NamedTuple):
    """One request as it came."""

    head: RawHead
    """``host`` is its first field; the target of a plain CONNECT is its authority."""
    protocol: str
    """``:protocol``, "" without."""
    length: int | None
    """content-length; None without."""
    refusal: ForkdError | None
    """Why it is to be answered without looking at it."""


def read_fields(pairs: Iterable[tuple[bytes, bytes]], limit: int) -> H2Head:
    """The request in the decoded block *pairs*, of at most *limit* bytes.  Raises StreamBroken."""
    pseudo, fields, size = _split(pairs)
    method = pseudo.get(":method", "")
    if not method:
        raise _malformed("no :method")
    protocol = pseudo.get(":protocol", "") if method == "CONNECT" else ""
    refusal = _check_target(pseudo, method, protocol)
    _check_host(pseudo, fields)
    length, bad_length = _length(fields)
    refusal = refusal or bad_length
    if size > limit:
        refusal = HeadTooLarge(f"fields of {size} bytes, limit {limit}")
    known = known_method(method)
    if known is None:
        refusal = refusal or NotImplementedHere(f"unknown method {method!r}")
    authority = pseudo.get(":authority", "")
    if authority:
        fields = [("host", authority), *(pair for pair in fields if pair[0] != "host")]
    is_plain_connect = method == "CONNECT" and not protocol
    target = authority if is_plain_connect else pseudo.get(":path", "")
    return H2Head(RawHead(known or method, target, "HTTP/2.0", fields), protocol, length, refusal)


def check_trailers(pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises StreamBroken (section 8.1)."""
    pseudo, _, _ = _split(pairs)
    if pseudo:
        raise _malformed("pseudo field in the trailers")


def _split(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], list[Pair], int]:
    """(pseudo fields, other fields, bytes of all)."""
    pseudo: dict[str, str] = {}
    fields: list[Pair] = []
    size = 0
    for raw_name, raw_value in pairs:
        name, value = str(raw_name, "latin-1"), str(raw_value, "latin-1")
        size += len(name) + len(value) + 4  # as a line of HTTP/1.1
        if _BAD_VALUE.search(value) or value[:1] in (" ", "\t") or value[-1:] in (" ", "\t"):
            raise _malformed(f"bad value of {name!r}")
        if name[:1] == ":":
            if name not in _PSEUDO or name in pseudo or fields:
                raise _malformed(f"pseudo field {name!r} unknown, repeated or late")
            pseudo[name] = value
        else:
            _check_field(name, value)
            if name not in _IGNORED:
                fields.append((name, value))
    return pseudo, fields, size


def _check_field(name: str, value: str) -> None:
    """Sections 8.2.1 and 8.2.2."""
    if not _NAME.fullmatch(name):
        raise _malformed(f"bad field name {name!r}")
    if name in _OF_HTTP1 or (name == "te" and value.lower() != "trailers"):
        raise _malformed(f"field {name} in HTTP/2")


def _check_target(pseudo: dict[str, str], method: str, protocol: str) -> ForkdError | None:
    """Sections 8.3.1 and 8.5, RFC 8441 section 4."""
    has_place = ":scheme" in pseudo and ":path" in pseudo
    if method == "CONNECT" and ":protocol" not in pseudo:
        if ":scheme" in pseudo or ":path" in pseudo or not pseudo.get(":authority"):
            raise _malformed("CONNECT is for an authority and nothing else")
        return None
    if method == "CONNECT":
        if not has_place or not pseudo[":path"].startswith("/"):
            return BadRequest("extended CONNECT without :scheme or :path")
        if protocol != WEBSOCKET:
            return MethodNotAllowed(f"CONNECT for {protocol!r}")
        return None
    if not has_place or not pseudo[":scheme"]:
        raise _malformed("no :scheme or no :path")
    path = pseudo[":path"]
    if not path.startswith("/") and not (method == "OPTIONS" and path == "*"):
        raise _malformed("bad :path")
    return None


def _check_host(pseudo: dict[str, str], fields: list[Pair]) -> None:
    """Section 8.3.1: host and :authority name the same."""
    hosts = {value.lower() for name, value in fields if name == "host"}
    if ":authority" in pseudo:
        if not pseudo[":authority"]:
            raise _malformed("empty :authority")
        hosts.add(pseudo[":authority"].lower())
    if len(hosts) != 1:
        raise _malformed("not one host")


def _length(fields: list[Pair]) -> tuple[int | None, BadRequest | None]:
    values = [value for name, value in fields if name == "content-length"]
    if not values:
        return None, None
    if len(values) > 1:
        raise _malformed("content-length twice")
    if not _NUMBER.fullmatch(values[0]):
        return None, BadRequest("content-length is not a number of bytes")
    return int(values[0]), None


def _malformed(text: str) -> StreamBroken:
    return StreamBroken(ErrorCode.PROTOCOL_ERROR, text)
