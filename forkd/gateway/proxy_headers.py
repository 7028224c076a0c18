"""Which fields of a request go to an HTTP backend, and which of its answer come back.

As proxy.md 2 and 3 have it, but for one thing: fields that concern a single connection are taken
out in both directions, those that Connection names too (RFC 9110 section 7.6.1).  What a backend
cannot see of the client's connection it is told here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..address import Address
from ..config.model import ProxySettings
from ..message import Fields, Head, Pair, Request
from .proxy_map import Mapping

# RFC 9110 section 7.6.1, and what older clients took for their connection's.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}
)
# Set-Cookie is no request field; Proxy would become HTTP_PROXY, which programs obey.
_NOT_FOR_BACKENDS = frozenset({"host", "http2-settings", "proxy", "set-cookie"})
# Who names these in Connection wants to hide something from the backend: they are for everybody.
_NEVER_NAMED = frozenset(
    {
        "content-length",
        "forwarded",
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-host",
    }
)
_UNKNOWN = "unknown"  # RFC 7239 section 6.2


def request_fields(
    request: Request,
    settings: ProxySettings,
    mapping: Mapping,
    length: int | None,
    *,
    label: str = "",
    keeps: bool = False,
) -> list[Pair]:
    """The fields for the backend, in lighttpd's order: Host, Transfer-Encoding, those of the
    client, Connection.

    *request* has an Upgrade field only if it may be obeyed.  *length*: bytes of body, None for a
    chunked one.  *label*: the backend's, for ``replace-http-host``.  *keeps*: the connection is to
    outlive the request.
    """
    fields = _own_fields(request)
    options = _connection_options(request, settings, keeps)
    if "te" not in options:
        fields.pop("te", None)
    if "upgrade" not in options:
        fields.pop("upgrade", None)
    _set_length(fields, request.method, length)
    _tell_of_the_client(fields, request, settings.forwarded)
    out: list[Pair] = []
    host = label if settings.replace_http_host and label else mapping.host()
    if host:
        out.append(("Host", host))
    if length is None:
        out.append(("Transfer-Encoding", "chunked"))
    out += [(name, mapping.request_field(name, value)) for name, value in fields.values()]
    if options:
        out.append(("Connection", ", ".join(options)))
    return out


def host_of(request: Request) -> str:
    """The host that *request* is for, as hooks have left it; "" for none."""
    return request.fields.get("host") or request.host


def speaks_http10(request: Request, settings: ProxySettings) -> bool:
    """Whether the backend is asked in HTTP/1.0."""
    return settings.header.force_http10 or not host_of(request)


def may_upgrade(request: Request, settings: ProxySettings) -> bool:
    """Whether the Upgrade field of *request* is passed on: RFC 9110 section 7.8 wants it named in
    Connection, but lighttpd is content unless that says nothing but ``close``."""
    return (
        request.fields.get("upgrade") != ""
        and not _wants_close(request)
        and not speaks_http10(request, settings)
    )


def _own_fields(request: Request) -> dict[str, Pair]:
    """By name in lower case; without those of the connection, but with TE and Upgrade."""
    named = _named_in_connection(request.fields) - {"te", "upgrade"}
    dropped = (_HOP_BY_HOP - {"te", "upgrade"}) | _NOT_FOR_BACKENDS | named
    if request.content_length != 0:
        dropped |= {"expect"}  # it is met by whoever reads the body
    fields: dict[str, Pair] = {}
    for name, _ in request.fields:
        key = name.lower()
        value = request.fields.get(key)
        if value and key not in dropped:
            fields.setdefault(key, (name, value))
    return fields


def _named_in_connection(fields: Fields) -> frozenset[str]:
    value = fields.get("connection")
    return frozenset(item.strip(" \t").lower() for item in value.split(",")) - _NEVER_NAMED


def _wants_close(request: Request) -> bool:
    return request.version == "HTTP/1.0" or request.fields.get("connection").lower() == "close"


def _connection_options(request: Request, settings: ProxySettings, keeps: bool) -> list[str]:
    if speaks_http10(request, settings):
        return ["close"]
    options = [] if keeps else ["close"]
    if request.fields.get("te").lower() == "trailers" and not _wants_close(request):
        options.append("te")
    if may_upgrade(request, settings):
        options.append("upgrade")
    return options


def _set_length(fields: dict[str, Pair], method: str, length: int | None) -> None:
    """RFC 9110 section 8.6: a length where there is a body or where one would be expected."""
    if length is None or (length == 0 and method in ("GET", "HEAD")):
        fields.pop("content-length", None)
    else:
        name = fields.get("content-length", ("Content-Length", ""))[0]
        fields["content-length"] = name, str(length)


# -- what the backend cannot see itself -----------------------------------------------------------


def _tell_of_the_client(
    fields: dict[str, Pair], request: Request, wanted: frozenset[str]
) -> None:
    """Forwarded (RFC 7239) where it is switched on, and the older fields always.

    The client is the peer that has really connected, whatever a proxy before it has said.
    """
    if wanted:
        before = fields.get("forwarded") or _converted(fields.get("x-forwarded-for"))
        _append(fields, "Forwarded", before, forwarded_element(request, wanted))
    peer = _visible(request.connection.peer)
    _append(fields, "X-Forwarded-For", fields.get("x-forwarded-for"), peer)
    for name, value in (
        ("X-Host", host_of(request)),
        ("X-Forwarded-Host", host_of(request)),
        ("X-Forwarded-Proto", request.scheme),
    ):
        _overwrite(fields, name, value)


def _append(fields: dict[str, Pair], name: str, before: Pair | None, value: str) -> None:
    if before is not None:
        name, value = before[0], f"{before[1]}, {value}"
    fields[name.lower()] = name, value


def _overwrite(fields: dict[str, Pair], name: str, value: str) -> None:
    key = name.lower()
    if value:
        fields[key] = fields.get(key, (name, ""))[0], value
    else:
        fields.pop(key, None)


def _converted(field: Pair | None) -> Pair | None:
    """An X-Forwarded-For as the Forwarded that says the same (RFC 7239 section 7.4)."""
    if field is None:
        return None
    entries = (entry.strip(" \t") for entry in field[1].split(","))
    return "Forwarded", ", ".join(f"for={_node(entry)}" for entry in entries if entry)


def _node(entry: str) -> str:
    """One entry of an X-Forwarded-For, quoted; an IPv6 address gets its brackets."""
    is_bare_inet6 = entry.count(":") > 1 and not entry.startswith("[")
    return _quoted(f"[{entry}]" if is_bare_inet6 else entry)


def forwarded_element(request: Request, wanted: frozenset[str]) -> str:
    """What RFC 7239 section 4 lets a proxy say of *request*, of that what is *wanted*."""
    return ";".join(
        f"{name}={value}" for name, value in _forwarded_pairs(request) if name in wanted
    )


def _forwarded_pairs(request: Request) -> Iterator[Pair]:
    peer = request.connection.peer
    yield "for", _identifier(peer)
    yield "by", _quoted(_visible(request.connection.local, with_port=True))
    yield "proto", request.scheme
    host = host_of(request)
    if host:
        yield "host", _quoted(host)
    user = dict(request.environment).get("REMOTE_USER")
    if user:
        yield "remote_user", _quoted(user)


def _identifier(address: Address) -> str:
    if address.is_inet6:
        return _quoted(f"[{address.host}]")
    visible = _visible(address)
    return _quoted(visible) if visible.startswith("/") else visible


def _visible(address: Address, with_port: bool = False) -> str:
    """The address as text; a unix socket without a name has none."""
    if address.host == "/":
        return _UNKNOWN
    return address.text if with_port else address.host


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# -- back to the client ---------------------------------------------------------------------------


def response_head(head: Head, mapping: Mapping) -> Head:
    """*head* as the client may see it: URLs mapped back, nothing of the backend's connection."""
    dropped = _HOP_BY_HOP | _named_in_connection(head.fields)
    if head.status == 101:
        dropped -= {"upgrade"}
    fields = head.fields.without(*dropped)
    return Head(head.status, mapping.response_fields(fields), head.length)
