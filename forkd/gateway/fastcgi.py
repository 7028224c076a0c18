"""fastcgi: requests, responses and tunnels in records (FastCGI 1.0; scgi_fastcgi.md 2, 4).

One request at a time on a connection; with the host option ``keep-conn`` it may carry another one
when that is over.  With ``multiplex``, and an application that can, requests and tunnels share
connections: each has a port of its own (``gateway.mux_port``) and hardly notices.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from ..config.backend import BackendSpec, GatewayServer, Proc, Route
from ..http.exchange import Exchange
from ..message import Request
from ..net.port import Port
from ..protocol.conversation import RequestEncoder, ResponseParser
from ..protocol.fastcgi import Role
from ..protocol.fastcgi_request import REQUEST_ID, FastCgiEncoder, FastCgiParser
from ..protocol.tunnel import TunnelCodec
from ..stderr import StderrLines
from . import base
from .base import WorkerContext
from .conversation import Backend
from .mux_port import MuxPort
from .script import ScriptConversation

log = logging.getLogger(__name__)


def serve(
    exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
) -> None:
    """Ask a backend of *route*, be it for an answer or for permission; raises as ``base.serve``."""
    base.serve(FastCgi(exchange, server, route, worker), exchange, worker)


class FastCgi(ScriptConversation):
    """One request."""

    _parser: FastCgiParser | None = None
    # Most applications, PHP among them, serve one connection at a time: one that idles in this
    # worker would keep the others of all workers waiting.
    kept_seconds = 1.0
    is_exclusive = True

    def kept_connections(self, spec: BackendSpec) -> int:
        return spec.keep_conn

    def kept(self, proc: Proc) -> Port | None:
        if proc.backend.multiplex:
            patience = proc.backend.connect_timeout
            reach = partial(base.connect_proc, proc, patience, self.worker)
            shared = self.worker.shared.open(proc, reach, patience)
            if shared is not None:
                return shared
        return super().kept(proc)

    def connect(self, fresh: bool = False) -> Backend:
        backend = super().connect(fresh)
        if isinstance(backend.port, MuxPort):
            return backend._replace(is_kept=backend.port.is_awaited, is_shared=True)
        return backend

    def begin(
        self, request: Request, length: int | None, backend: Backend
    ) -> tuple[RequestEncoder, ResponseParser]:
        assert backend.proc is not None
        shared = backend.port if isinstance(backend.port, MuxPort) else None
        number = shared.number if shared is not None else REQUEST_ID
        # What may become a tunnel has its connection to itself: the application is to close it.
        is_plain = not request.protocol and "upgrade" not in request.fields
        may_stay = is_plain and self.kept_connections(backend.proc.backend) > 0
        keep_conn = shared is not None or may_stay
        role = Role.AUTHORIZER if self.authorizes else Role.RESPONDER
        self._parser = FastCgiParser(
            _Complaints(f"fastcgi {backend.name} {request.path}"),
            head_only=request.method == "HEAD",
            keep_conn=keep_conn,
            request_id=number,
        )
        variables = self.variables(request, length, backend)
        return FastCgiEncoder(variables, role, keep_conn, number), self._parser

    def ended_well(self, backend: Backend) -> bool:
        # The records say so themselves; without their end the parser has refused the response.
        return True

    def done(self, backend: Backend, reusable: bool) -> None:
        # A shared connection is not the request's to be kept or closed.
        is_shared = _hand_on(backend)
        super().done(backend, reusable and not is_shared)

    def abort(self, backend: Backend, why: str) -> None:
        if self._parser is not None and self._parser.is_overloaded and backend.proc is not None:
            self.worker.balancer.avoid(backend.proc)
        _hand_on(backend)
        super().abort(backend, why)

    def tunnel_codec(self) -> TunnelCodec:
        assert self._parser is not None
        return self._parser.tunnel_codec()


def _hand_on(backend: Backend) -> bool:
    """Whether the connection is shared: then the application may be at work on the request still,
    which counts until it has ended it."""
    port = backend.port
    if not isinstance(port, MuxPort):
        return False
    if backend.lease is not None:
        port.keep(backend.lease.detach())
    return True


class _Complaints:
    """What an application says on STDERR goes to the error log, each record in lines of its own.

    Small: it lives as long as a tunnel.
    """

    __slots__ = ("_lines", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: StderrLines | None = None

    def __call__(self, text: bytes) -> None:
        if self._lines is None:
            self._lines = StderrLines()
        for line in self._lines.feed(text.rstrip(b"\n") + b"\n", time.monotonic()):
            log.warning("%s: stderr: %s", self._name, line)
