"""What a backend of wstunnel is told of its client before the first message: ``"metadata"``.

Bytes in front of the stream, or the first packet; the framing of messages begins behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..address import split_port
from ..config.backend import BackendSpec, Route
from ..http.exchange import Exchange
from ..message import ConnInfo, Request
from ..protocol import scgi
from ..protocol.handshake import upgrade_request
from ..protocol.proxy_protocol import Details, Tls, encode_v1, encode_v2
from .environ import Dialect, environ_for


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """What is told of: one exchange that becomes a tunnel to a proc of *spec*."""

    exchange: Exchange
    route: Route
    spec: BackendSpec
    unique_id: str


def introduction(tunnelled: Tunnelled) -> bytes:
    """The bytes for its backend; b"" for none.  Raises BadRequest when it cannot be told."""
    return _INTRODUCTIONS[tunnelled.spec.metadata](tunnelled)


def _none(tunnelled: Tunnelled) -> bytes:
    return b""


def _proxy_v1(tunnelled: Tunnelled) -> bytes:
    request = tunnelled.exchange.request
    return encode_v1(request.remote, request.connection.local)


def _proxy_v2(tunnelled: Tunnelled) -> bytes:
    request = tunnelled.exchange.request
    told = details(request, tunnelled.unique_id)
    return encode_v2(request.remote, request.connection.local, told)


def details(request: Request, unique_id: str) -> Details:
    """What version 2 tells beside the addresses.  Over TLS the authority is the name that the
    handshake asked for, where it did."""
    connection = request.connection
    told = dict(connection.environment)
    return Details(
        authority=told.get("SSL_TLS_SNI") or split_port(request.host)[0],
        alpn=connection.alpn,
        unique_id=unique_id,
        tls=_tls(connection, told) if connection.tls else None,
    )


def _tls(connection: ConnInfo, told: dict[str, str]) -> Tls:
    return Tls(
        version=told.get("SSL_PROTOCOL", ""),
        cipher=told.get("SSL_CIPHER", ""),
        has_certificate=told.get("SSL_CLIENT_VERIFY") == "SUCCESS",
        common_name=told.get("SSL_CLIENT_S_DN_CN", ""),
    )


def _cgi(tunnelled: Tunnelled) -> bytes:
    """As scgi would send it, an extended CONNECT too: but for its key, which nobody has."""
    request = tunnelled.exchange.request
    if request.protocol:
        request = upgrade_request(request, "")
    dialect = Dialect.of(tunnelled.spec, tunnelled.route.key)
    variables = environ_for(request, tunnelled.exchange.settings, 0, dialect)
    tunnelled.exchange.environment = tuple(variables)
    return scgi.encode_environment((dict(variables) | {"SCGI": "1"}).items())


_INTRODUCTIONS: dict[str, Callable[[Tunnelled], bytes]] = {
    "none": _none,
    "proxy-v1": _proxy_v1,
    "proxy-v2": _proxy_v2,
    "cgi": _cgi,
}
