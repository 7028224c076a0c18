"""The opening handshake of WebSocket, server side (RFC 6455 section 4.2, RFC 8441 section 5).

Checks and the answer, no I/O.  Whether a request asks for a WebSocket at all is
``Request.wants_websocket``; one that does not is somebody else's (wstunnel.md 2).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha1
from typing import Protocol

from ..errors import BackendBroken, BadRequest, OriginRefused, UpgradeRequired
from ..message import Fields, Head, Pair, Request

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
VERSION = "13"
BINARY = "binary"  # the subprotocol that asks for binary frames
DEFAULT_SUBPROTOCOLS = (BINARY,)  # answered where none are configured, as lighttpd does

# Section 4.2.1: base64 of 16 bytes.  128 bits end in the middle of the 22nd character, whose other
# four bits are 0 in canonical base64 (RFC 4648 section 3.5).
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")

_CHARACTER = "[!#$%&'*+.^_`|~0-9A-Za-z-]"
_TOKEN = f"{_CHARACTER}+"  # RFC 9110 section 5.6.2
_BLANKS = "[ \t]*"
# Section 9.1; a value that is quoted is a token all the same.
_VALUE = rf'(?:{_TOKEN}|"(?:\\?{_CHARACTER})+")'
_PARAMETER = rf";{_BLANKS}{_TOKEN}{_BLANKS}(?:={_BLANKS}{_VALUE}{_BLANKS})?"
_EXTENSION = re.compile(rf"{_BLANKS}(?:{_TOKEN}{_BLANKS}(?:{_PARAMETER})*)?")
_SUBPROTOCOL = re.compile(_TOKEN)
_SEPARATOR = re.compile("[ \t,]")  # between origins (RFC 6454 section 7.1), and between fields


class HandshakeSettings(Protocol):
    """What the handshake asks of ``wstunnel.*``."""

    @property
    def origins(self) -> Sequence[str]:
        """Who may connect; everybody when empty."""

    @property
    def subprotocols(self) -> Sequence[str]:
        """What may be answered, the best first; those of DEFAULT_SUBPROTOCOLS when empty."""

    @property
    def binary(self) -> bool:
        """Whether frames sent are binary even if the client does not ask for it."""


def check_request(request: Request, settings: HandshakeSettings) -> None:
    """Refuse a handshake that section 4.2.1 or the configuration forbids, in wstunnel.md 3's order.

    Raises BadRequest (400), OriginRefused (403) or UpgradeRequired (426, section 4.4).
    """
    fields = request.fields
    if not request.host:
        raise BadRequest("WebSocket handshake without Host")
    if settings.origins:
        _check_origin(fields.get("origin"), settings.origins)
    # Zeros in front are no part of the grammar, but lighttpd takes them.
    if fields.get("sec-websocket-version").strip(" \t").lstrip("0") != VERSION:
        raise UpgradeRequired("Sec-WebSocket-Version is not 13")
    if request.version != "HTTP/2.0" and not _KEY.fullmatch(fields.get("sec-websocket-key")):
        raise BadRequest("Sec-WebSocket-Key is not base64 of 16 bytes")
    _check_subprotocols(_offered(request))
    _check_extensions(fields.get("sec-websocket-extensions"))


def _check_origin(origin: str, origins: Sequence[str]) -> None:
    if not origin:
        raise BadRequest("WebSocket handshake without Origin")
    if _SEPARATOR.search(origin):  # the end of a list would speak for all of it
        raise BadRequest("WebSocket handshake from several origins")
    if not origin_allowed(origin, origins):
        listed = ", ".join(f'"{entry}"' for entry in origins)
        raise OriginRefused(f'origin "{origin}" is not in wstunnel.origins = ( {listed} )')


def origin_allowed(origin: str, origins: Sequence[str]) -> bool:
    """Whether *origin* is one of *origins* or, behind a dot, ends with one; case is ignored.

    ``example.com`` stands for ``https://www.example.com`` but not for ``https://example.com``:
    that has to be listed as a whole, with its port if it has one (wstunnel.md 3).  The scheme of
    ``https://.example.com`` is demanded, and anything may stand before the dot.
    """
    origin = origin.lower()
    return any(_fits(origin, entry.lower()) for entry in origins)


def _fits(origin: str, allowed: str) -> bool:
    if origin == allowed or origin.endswith("." + allowed):
        return True
    scheme, separator, rest = allowed.partition("://.")
    return (
        bool(separator and rest)
        and origin.startswith(scheme + "://")
        and origin.endswith("." + rest)
    )


def _check_subprotocols(offered: Sequence[str]) -> None:
    """Section 4.1, item 10."""
    if not all(map(_SUBPROTOCOL.fullmatch, offered)):
        raise BadRequest("Sec-WebSocket-Protocol is not a list of tokens")
    if len(set(offered)) < len(offered):
        raise BadRequest("Sec-WebSocket-Protocol names one twice")


def _check_extensions(offered: str) -> None:
    """Section 9.1: what does not conform to the grammar ends the handshake."""
    if offered and not all(map(_EXTENSION.fullmatch, offered.split(","))):
        raise BadRequest("Sec-WebSocket-Extensions is malformed")


def response_head(request: Request, settings: HandshakeSettings, extensions: str = "") -> Head:
    """The answer to a request that ``check_request`` let pass (section 4.2.2).

    101; 200 for an extended CONNECT, which has no key and so no proof of having been understood
    (RFC 8441 section 5).  *extensions* are those agreed on.  The Connection field is added by the
    HTTP version that sends it.
    """
    found = (
        ("Sec-WebSocket-Protocol", _subprotocol(request, settings)),
        ("Sec-WebSocket-Extensions", extensions),
    )
    agreed = tuple(pair for pair in found if pair[1])
    if request.version == "HTTP/2.0":
        return Head(200, Fields(agreed))
    accept = accept_key(request.fields.get("sec-websocket-key"))
    return Head(101, Fields((("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept), *agreed)))


# -- an extended CONNECT at a backend that knows HTTP/1.1 (RFC 8441; upgrade.md 4) --------------


def upgrade_request(request: Request, key: str) -> Request:
    """The extended CONNECT *request* as the upgrade of HTTP/1.1 that asks for the same.

    *key* is the Sec-WebSocket-Key, unless the client has sent one, which nobody asked of it.
    """
    fields = request.fields.without("upgrade", "connection", "content-length")
    added: list[Pair] = [("Upgrade", request.protocol), ("Connection", "Upgrade")]
    if "sec-websocket-key" not in fields:
        added.append(("Sec-WebSocket-Key", key))
    return request._replace(
        method="GET", version="HTTP/1.1", protocol="", fields=fields.plus(*added)
    )


def check_accept(asked: Request, head: Head) -> None:
    """Refuse a 101 that does not prove that the backend has understood *asked* (section 4.1).

    Raises BackendBroken.
    """
    expected = accept_key(asked.fields.get("sec-websocket-key"))
    if head.fields.get("sec-websocket-accept").strip(" \t") != expected:
        raise BackendBroken("Sec-WebSocket-Accept does not fit the key")


def connect_head(head: Head) -> Head:
    """The answer to an extended CONNECT that says what the 101 *head* would."""
    if head.status != 101:
        return head
    fields = head.fields.without("upgrade", "connection", "sec-websocket-accept")
    return head._replace(status=200, fields=fields, length=None)


def sends_binary(request: Request, settings: HandshakeSettings) -> bool:
    """Whether frames to this client are binary: the configuration says so, or it asked for it."""
    return settings.binary or _subprotocol(request, settings) == BINARY


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (section 4.2.2, step 5.4)."""
    digest = sha1(key.encode("latin-1") + GUID, usedforsecurity=False).digest()
    return b64encode(digest).decode("ascii")


def _subprotocol(request: Request, settings: HandshakeSettings) -> str:
    """The one that is answered: the first of ours that the client offers; "" for none."""
    offered = _offered(request)
    ours = settings.subprotocols or DEFAULT_SUBPROTOCOLS
    return next((name for name in ours if name in offered), "")


def _offered(request: Request) -> list[str]:
    """The subprotocols that the client offers; empty elements of a list are no elements."""
    names = request.fields.get("sec-websocket-protocol").split(",")
    return [name for item in names if (name := item.strip(" \t"))]
