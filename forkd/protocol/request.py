"""From a well-formed HTTP/1.x head to a ``Request``: what its fields and target mean (core.md 4-6).

Everything that decides where a request ends, whom it is for and which path it names is settled
here, once, before anybody acts on it.
"""

from __future__ import annotations

from ..errors import BadRequest, LengthRequired, NotImplementedHere
from ..message import ConnInfo, Fields, Pair, Request, has_token
from ..uri import ParseOptions, decode_path, normalise_host, normalise_target
from .strict_head import RawHead

MAX_LENGTH = (1 << 63) - 1  # bytes of a body: what an off_t holds

_Index = dict[str, Pair]
"""Name in lower case to the field: its name as first written, its values joined."""

_ONCE = frozenset({"host", "content-type", "if-modified-since"})  # may be repeated, not changed
_KEPT_EMPTY = frozenset({"host", "content-length"})  # whose being empty is an error


def make_request(
    head: RawHead,
    connection: ConnInfo,
    options: ParseOptions,
    *,
    number: int = 0,
    started: float = 0.0,
    has_ended: bool = True,
    protocol: str = "",
) -> Request:
    """The request that *head* makes on *connection*.

    In HTTP/2, *has_ended* says that no body follows, and *protocol* is that of an extended
    CONNECT.  *number* and *started* as in ``Request``.  Raises BadRequest, LengthRequired,
    NotImplementedHere.
    """
    index = _indexed(head.fields)
    length: int | None
    if head.version == "HTTP/2.0":
        length, keep_alive = _h2_length(head.method, index, has_ended, options), True
    else:
        length, framed = _framing(head, index, options)
        keep_alive = framed and _keep_alive(head, index)
    _check_upgrade(head, index)
    authority, target = ("", head.target) if protocol else _split_target(head, options)
    host = _host(head, index, authority, connection, options)
    path, query, decoded = _path(target, options)
    return Request(
        method=head.method,
        target=head.target,
        version=head.version,
        host=host,
        path=path,
        query=query,
        decoded_path=decoded,
        fields=Fields.indexed(index),
        content_length=length,
        keep_alive=keep_alive,
        connection=connection,
        remote=connection.peer,
        environment=connection.environment,
        protocol=protocol,
        number=number,
        started=started,
    )


# -- fields -----------------------------------------------------------------------------------


def _indexed(fields: list[Pair]) -> _Index:
    """Repeated fields as one, empty ones dropped."""
    index = {pair[0].lower(): pair for pair in fields if pair[1]}
    return index if len(index) == len(fields) else _joined(fields)


def _joined(fields: list[Pair]) -> _Index:
    index: _Index = {}
    for name, value in fields:
        key = name.lower()
        before = index.get(key)
        if before is not None:
            index[key] = before[0], _joint(key, before[1], value)
        elif value or key in _KEPT_EMPTY:
            index[key] = name, value
    return index


def _joint(key: str, before: str, value: str) -> str:
    if key == "content-length":
        raise BadRequest("content-length twice")
    if key in _ONCE:
        if value.lower() != before.lower():
            raise BadRequest(f"two different fields {key}")
        return before
    if key == "transfer-encoding" and value.lower() != before.lower():
        raise NotImplementedHere("transfer codings other than chunked")
    if not value or key in ("transfer-encoding", "if-none-match"):
        return before
    return f"{before}; {value}" if key == "cookie" else f"{before}, {value}"


def _keep_alive(head: RawHead, index: _Index) -> bool:
    """RFC 9112 section 9.3; in HTTP/1.0 the last of several Connection fields counts."""
    if head.version == "HTTP/1.1":
        return "connection" not in index or not has_token(index["connection"][1], "close")
    keep = False
    for name, value in head.fields:
        if name.lower() == "connection":
            if has_token(value, "close"):
                keep = False
            elif has_token(value, "keep-alive"):
                keep = True
    return keep


def _check_upgrade(head: RawHead, index: _Index) -> None:
    """Drop what asks for HTTP/2, and an Upgrade that no Connection field names (upgrade.md 2)."""
    connection = index.get("connection")
    if head.version == "HTTP/1.0":
        for name in ("upgrade", "http2-settings"):
            if name in index or (connection and has_token(connection[1], name)):
                raise BadRequest(f"{name} in HTTP/1.0")
        return
    index.pop("http2-settings", None)
    upgrade = index.get("upgrade")
    if upgrade and (connection is None or has_token(upgrade[1], "h2c")):
        del index["upgrade"]


# -- framing ----------------------------------------------------------------------------------


def _framing(head: RawHead, index: _Index, options: ParseOptions) -> tuple[int | None, bool]:
    """(bytes of body or None for a chunked one, whether the connection is sound behind it)."""
    coding = index.pop("transfer-encoding", None)
    field = index.get("content-length")
    length = None if field is None else _length(field[1])
    if coding is None:
        _check_body(head.method, length, options)
        return length or 0, True
    if head.version == "HTTP/1.0":
        raise BadRequest("transfer-encoding in HTTP/1.0")
    if coding[1].lower() != "chunked":
        raise NotImplementedHere("transfer codings other than chunked")
    if length is not None and options.header_strict:
        raise BadRequest("transfer-encoding and content-length")
    index.pop("content-length", None)
    _check_body(head.method, MAX_LENGTH, options)
    return None, length is None


def _h2_length(
    method: str, index: _Index, has_ended: bool, options: ParseOptions
) -> int | None:
    """Frames tell where a body of HTTP/2 ends; that of CONNECT belongs to the tunnel."""
    field = index.get("content-length")
    length = None if field is None else _length(field[1])
    if has_ended or method == "CONNECT":
        length = 0
    if method in ("GET", "HEAD"):
        _check_body(method, 1 if length is None else length, options)
    return length


def _length(text: str) -> int:
    # A Latin-1 superscript is a digit to isdigit(); int() refuses texts of thousands of digits.
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_LENGTH.bit_length():
        raise BadRequest("content-length is not a number of bytes")
    length = int(text)
    if length > MAX_LENGTH:
        raise BadRequest("content-length out of range")
    return length


def _check_body(method: str, length: int | None, options: ParseOptions) -> None:
    if method == "POST":
        if length is None:
            raise LengthRequired("POST without a length")
    elif method in ("GET", "HEAD") and length and not options.method_get_body:
        raise BadRequest(f"{method} with a body")


# -- target and host --------------------------------------------------------------------------


def _split_target(head: RawHead, options: ParseOptions) -> tuple[str, str]:
    """(authority of an absolute form or "", target in origin, asterisk or authority form)."""
    target = head.target
    if target[0] == "/":
        return "", target
    if head.method == "OPTIONS" and target == "*":
        return "", target
    if head.method == "CONNECT":
        if options.header_strict and target[0] not in ":0123456789":
            raise BadRequest("target of CONNECT is not :port or address:port")
        return "", target
    scheme, _, rest = target.partition("://")
    authority, slash, path = rest.partition("/")
    if scheme.lower() not in ("http", "https") or not authority or not slash:
        raise BadRequest("target is neither a path nor an absolute URL with one")
    return authority, "/" + path


def _host(
    head: RawHead, index: _Index, authority: str, connection: ConnInfo, options: ParseOptions
) -> str:
    """The host, which also replaces the field's value; "" when HTTP/1.0 has none."""
    name, text = index.get("host", ("Host", ""))
    if authority:
        if "host" in index and text.lower() != authority.lower():
            raise BadRequest("authority of the target differs from host")
        text = authority
    if not text:
        if head.version != "HTTP/1.0":
            raise BadRequest("no host")
        index.pop("host", None)
        return ""
    port = 443 if connection.tls else 80
    host = normalise_host(text, port, options.host_strict, options.host_normalize)
    index["host"] = name, host
    return host


def _path(target: str, options: ParseOptions) -> tuple[str, str | None, str]:
    """(path, query, decoded path)."""
    if target[0] != "/":  # asterisk form, authority form
        return target, None, target
    path, query = normalise_target(target, options)
    decoded = decode_path(path)
    if not decoded.startswith("/"):
        raise BadRequest("path does not begin with a slash")
    return path, query, decoded
