"""proxy: requests go on to HTTP/1.1 servers, over TCP or unix sockets (proxy.md).

What is said to them is ``proxy_headers`` and ``proxy_map``, how it is written ``protocol.http1``.
"""

from __future__ import annotations

import logging
from functools import partial

from ..config.backend import BackendSpec, GatewayServer, Route
from ..errors import ClientGone, MethodNotAllowed
from ..http.exchange import Exchange
from ..message import Head, Request
from ..protocol.conversation import RequestEncoder, ResponseParser
from ..protocol.http1 import Http1Encoder, Http1Parser
from ..protocol.tunnel import BlindCodec
from . import base
from .base import SocketConversation, WorkerContext
from .conversation import Backend, Terms
from .proxy_headers import host_of, may_upgrade, request_fields, response_head, speaks_http10
from .proxy_map import Mapping

log = logging.getLogger(__name__)


def serve(
    exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
) -> None:
    """Pass the request on to a backend of *route*; raises as ``base.serve``."""
    request = exchange.request
    if request.method == "CONNECT" and not request.protocol:
        _serve_connect(exchange, server, route, worker)
    else:
        base.serve(Proxy(exchange, server, route, worker), exchange, worker)


class Proxy(SocketConversation):
    """One request in HTTP/1.1, or in HTTP/1.0 where that is all a backend is trusted with."""

    def __init__(
        self, exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
    ) -> None:
        super().__init__(exchange, server, route, worker)
        self._settings = exchange.settings.proxy
        self._is_http10 = speaks_http10(exchange.request, self._settings)
        # HTTP/1.0 has no chunks.
        self.needs_length = self._is_http10

    def kept_connections(self, spec: BackendSpec) -> int:
        return spec.keep_alive

    def terms(self, backend: Backend) -> Terms:
        assert backend.proc is not None
        header = self._settings.header
        terms = Terms.of(backend.proc.backend, upgrade=header.upgrade)
        return terms._replace(upgrade=False) if self._is_http10 else terms

    def begin(
        self, request: Request, length: int | None, backend: Backend
    ) -> tuple[RequestEncoder, ResponseParser]:
        assert backend.proc is not None
        spec, settings = backend.proc.backend, self._settings
        mapping = Mapping(settings.header, host_of(request), request.scheme)
        target = mapping.target(request.full_target)  # before the fields: its pairs come first
        fields = request_fields(
            request,
            settings,
            mapping,
            length,
            label=self._label(spec),
            keeps=spec.keep_alive > 0,
        )
        if self.server.debug > 1:
            log.info("proxy: Host %r for %r", dict(fields).get("Host", ""), host_of(request))
        encoder = Http1Encoder(
            request.method,
            target,
            fields,
            version="HTTP/1.0" if self._is_http10 else "HTTP/1.1",
            chunked=length is None,
        )
        parser = Http1Parser(
            request.method,
            may_switch=may_upgrade(request, settings),
            translate=partial(response_head, mapping=mapping),
        )
        return encoder, parser

    def _label(self, spec: BackendSpec) -> str:
        """The label that *spec* has here: equal hosts are one backend, whatever they are called."""
        return next((host.label for host in self.route.backends if host == spec), spec.label)


def _serve_connect(
    exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
) -> None:
    """A tunnel to a backend of the configuration, whatever the request's target: this is no open
    proxy (upgrade.md 11).  The backend is not told of the request."""
    if not exchange.settings.proxy.header.connect:
        raise MethodNotAllowed('CONNECT without proxy.header "connect"')
    backend = base.connect_any(server, route, exchange.request, worker)
    try:
        if exchange.gone.is_set():
            raise ClientGone("left before the tunnel was open")
        assert backend.proc is not None
        times = base.tunnel_times(exchange.settings.limits, Terms.of(backend.proc.backend))
        base.open_tunnel(exchange, Head(200), backend, BlindCodec(), times, worker)
    except BaseException:
        backend.port.abort("tunnel not opened")
        base.release(backend)
        raise
