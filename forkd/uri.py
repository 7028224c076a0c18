"""Request targets and hosts: normalise, decode, simplify (core.md 5, 6). Pure; Latin-1 text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from .errors import BadRequest


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """``server.http-parseopts``; defaults as in core.md 6."""

    header_strict: bool = True
    host_strict: bool = True
    host_normalize: bool = True
    url_normalize: bool = True
    url_normalize_unreserved: bool = True
    url_normalize_required: bool = False
    url_ctrls_reject: bool = True
    url_path_backslash_trans: bool = False
    url_path_2f_decode: bool = True
    url_path_2f_reject: bool = False
    url_path_dotseg_remove: bool = True
    url_path_dotseg_reject: bool = False
    url_query_20_plus: bool = False
    url_invalid_utf8_reject: bool = True
    method_get_body: bool = False


# -- targets ----------------------------------------------------------------------------------


_RAW = "!$%&'()*+,\\-./0-9:;=?@A-Z\\[\\]_a-z~"  # what may stand as it is; % only before two digits
_PLAIN = re.compile(r"/[!$&'()*+,\-./0-9:;=@A-Z_a-z~]*")
_PERCENT = re.compile(rf"%([0-9A-Fa-f]{{2}})|[^{_RAW}]|%")
_CONTROL = re.compile(r"%(?:[01][0-9A-F]|7F)")
_NOT_UTF8 = re.compile(r"%(?:C[01]|F[5-9A-F])")  # bytes that no UTF-8 text has (RFC 3629)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SUB_DELIMS = frozenset("!$&'()*+,;=:@[]/?")
_DECODED_IN_PATH = _UNRESERVED | _SUB_DELIMS - frozenset("/?")
_DECODED_IN_QUERY = _UNRESERVED | _SUB_DELIMS - frozenset("&=;+")
_DOT_SEGMENT = re.compile(r"(?:^|/)\.{1,2}(?:/|$)|//")


def normalise_target(target: str, options: ParseOptions) -> tuple[str, str | None]:
    """Path and query of *target* after the steps of core.md 6; the fragment is dropped.

    The query is None where there is no ``?``.  Both stay percent-encoded.  Raises BadRequest for
    what the options reject.
    """
    if _PLAIN.fullmatch(target) and "//" not in target and "/." not in target:
        return target, None  # no option changes it
    target = target.partition("#")[0]
    path, mark, query = target.partition("?")
    if options.url_normalize:
        path = _normalise_path(path, options)
        query = _normalise_query(query, options)
    return path, query if mark else None


def _normalise_path(path: str, options: ParseOptions) -> str:
    if options.url_path_backslash_trans:
        path = path.replace("\\", "/")
    path = _encode(path, _DECODED_IN_PATH, options)
    if options.url_path_2f_reject and "%2F" in path:
        raise BadRequest("encoded slash in the path")
    if options.url_path_2f_decode:
        path = path.replace("%2F", "/")
    if options.url_path_dotseg_reject and _DOT_SEGMENT.search(path):
        raise BadRequest("dot segment in the path")
    return simplify_path(path) if options.url_path_dotseg_remove else path


def _normalise_query(query: str, options: ParseOptions) -> str:
    query = _encode(query, _DECODED_IN_QUERY, options)
    return query.replace("%20", "+") if options.url_query_20_plus else query


def _encode(text: str, required: frozenset[str], options: ParseOptions) -> str:
    """*text* with its percent-encoding in the one form that the options ask for."""
    decoded = required if options.url_normalize_required else _UNRESERVED

    def canonical(found: re.Match[str]) -> str:
        digits = found[1]
        if digits is None:
            return f"%{ord(found[0]):02X}"
        char = chr(int(digits, 16))
        return char if char in decoded else found[0].upper()

    text = _PERCENT.sub(canonical, text)
    if options.url_ctrls_reject and _CONTROL.search(text):
        raise BadRequest("control character in the target")
    if options.url_invalid_utf8_reject and _NOT_UTF8.search(text):
        raise BadRequest("byte in the target that UTF-8 does not have")
    return text


_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")


def decode_path(path: str) -> str:
    """*path* decoded once and simplified, for file lookup.  Raises BadRequest for a NUL."""
    if "%" in path:
        path = _ENCODED.sub(lambda found: chr(int(found[1], 16)), path)
    if "\0" in path:
        raise BadRequest("NUL in the path")
    return simplify_path(path)


_TO_ENCODE_IN_PATH = re.compile(r"[^!$&'()*+,\-./0-9:;=@A-Z\[\]_a-z~]")


def encode_path(path: str) -> str:
    """The inverse of decoding: *path* as it may stand in a target or a Location field."""
    return _TO_ENCODE_IN_PATH.sub(lambda found: f"%{ord(found[0]):02X}", path)


def simplify_path(path: str) -> str:
    """*path* without ``.``, ``..`` and empty segments; ``..`` above the root stays at the root.

    A last segment that goes leaves its slash.  A path that does not begin with a slash gets one
    as soon as a ``..`` takes its first segment away.
    """
    if path.startswith("/") and "//" not in path and "/." not in path:
        return path
    first, *rest = path.split("/")
    if not rest:
        return "" if first in (".", "..") else first
    kept = ["" if first in (".", "..") else first]
    for segment in rest:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
            else:
                kept[0] = ""
        elif segment not in ("", "."):
            kept.append(segment)
    if rest[-1] in ("", ".", ".."):
        kept.append("")
    return "/".join(kept)


# -- hosts ------------------------------------------------------------------------------------


MAX_HOST = 1023  # bytes; lighttpd's limit

_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([^:]*))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NAME = re.compile(r"[0-9a-z][0-9a-z\-]*(?:\.[0-9a-z][0-9a-z\-]*)*")
_QUAD = re.compile(r"[0-9]+(?:\.[0-9]+){3}")


@lru_cache(maxsize=512)  # clients send few hosts, and each of them often
def normalise_host(text: str, default_port: int, strict: bool, normalize: bool) -> str:
    """The authority *text* in lower case, without its final dot and *default_port* (core.md 5).

    *strict* and *normalize* are the parse options ``host-strict`` and ``host-normalize``; with
    both off, only the case is folded.  Raises BadRequest.
    """
    if not text or len(text) > MAX_HOST:
        raise BadRequest("host empty or too long")
    text = text.lower()
    if not (strict or normalize):
        return text
    found = _HOST.fullmatch(text)
    if found is None:
        raise BadRequest(f"bad host {text!r}")
    name, port = found[1], found[2] or ""
    if name.startswith("["):
        name = _inet6(name[1:-1])
    elif strict:
        name = _strict_name(name)
    if not name:
        raise BadRequest("port without host")
    if port and not (_PORT.fullmatch(port) and int(port) <= 0xFFFF):
        raise BadRequest(f"bad port in host {text!r}")
    if normalize:
        return f"{name}:{port}" if port and int(port) != default_port else name
    return text if found[2] is not None else name


def _strict_name(name: str) -> str:
    name = name.removesuffix(".")
    if not _NAME.fullmatch(name):
        raise BadRequest(f"bad host name {name!r}")
    # RFC 1123 section 2.1: dotted-decimal is told from a name by its last label.
    if name.rpartition(".")[2].isdigit() and not _QUAD.fullmatch(name):
        raise BadRequest(f"bad host name {name!r}")
    return name


def _inet6(text: str) -> str:
    """The address as inet_ntop(3) writes it, in brackets."""
    try:
        address = IPv6Address(text)
    except AddressValueError as error:
        raise BadRequest(f"bad IPv6 address in host: {error}") from None
    if address.scope_id is not None:
        raise BadRequest("zone in host")
    high, low = divmod(int(address), 1 << 32)
    if high == 0xFFFF or (high == 0 and low > 0xFFFF):
        dotted = ".".join(str(byte) for byte in low.to_bytes(4, "big"))
        return f"[::ffff:{dotted}]" if high else f"[::{dotted}]"
    return f"[{address.compressed}]"
