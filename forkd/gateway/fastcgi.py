"""fastcgi: requests, responses and tunnels in records (FastCGI 1.0; scgi_fastcgi.md 2, 4).

One request at a time on a connection; with the host option ``keep-conn`` it may carry another one
when that is over.
"""

from __future__ import annotations

import logging
import time

from ..config.model import BackendSpec, GatewayServer, Route
from ..http.exchange import Exchange
from ..message import Request
from ..protocol.conversation import RequestEncoder, ResponseParser
from ..protocol.fastcgi import Role
from ..protocol.fastcgi_request import FastCgiEncoder, FastCgiParser
from ..protocol.tunnel import TunnelCodec
from ..stderr import StderrLines
from . import base
from .base import WorkerContext
from .conversation import Backend
from .script import ScriptConversation

log = logging.getLogger(__name__)


def serve(
    exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
) -> None:
    """Ask a backend of *route*, be it for an answer or for permission; raises as ``base.serve``."""
    base.serve(FastCgi(exchange, server, route, worker), exchange, worker)


class FastCgi(ScriptConversation):
    """One request."""

    _parser: FastCgiParser
    # Most applications, PHP among them, serve one connection at a time: one that idles in this
    # worker would keep the others of all workers waiting.
    kept_seconds = 1.0
    is_exclusive = True

    def kept_connections(self, spec: BackendSpec) -> int:
        return spec.keep_conn

    def begin(
        self, request: Request, length: int | None, backend: Backend
    ) -> tuple[RequestEncoder, ResponseParser]:
        assert backend.proc is not None
        variables = self.variables(request, length, backend)
        # What may become a tunnel has its connection to itself: the application is to close it.
        is_plain = not request.protocol and "upgrade" not in request.fields
        keep_conn = is_plain and self.kept_connections(backend.proc.backend) > 0
        role = Role.AUTHORIZER if self.authorizes else Role.RESPONDER
        self._parser = FastCgiParser(
            _Complaints(f"fastcgi {backend.name} {request.path}"),
            head_only=request.method == "HEAD",
            keep_conn=keep_conn,
        )
        return FastCgiEncoder(variables, role, keep_conn), self._parser

    def ended_well(self, backend: Backend) -> bool:
        # The records say so themselves; without their end the parser has refused the response.
        return True

    def tunnel_codec(self) -> TunnelCodec:
        return self._parser.tunnel_codec()


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
