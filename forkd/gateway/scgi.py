"""scgi: a connection for each request, the variables first, then the body (scgi_fastcgi.md 1).

uwsgi says the same in other bytes: ``scgi.protocol`` chooses.
"""

from __future__ import annotations

from ..config.backend import GatewayServer, Route
from ..http.exchange import Exchange
from ..message import Request
from ..protocol import scgi, uwsgi
from ..protocol.cgi import CgiParser
from ..protocol.conversation import RequestEncoder, ResponseParser
from ..protocol.scgi import RawEncoder
from . import base
from .base import WorkerContext
from .conversation import Backend
from .script import ScriptConversation


def serve(
    exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
) -> None:
    """Pass the request on to a backend of *route*; raises as ``base.serve``."""
    base.serve(Scgi(exchange, server, route, worker), exchange, worker)


class Scgi(ScriptConversation):
    """One request.  The backend ends its response by closing the connection."""

    def begin(
        self, request: Request, length: int | None, backend: Backend
    ) -> tuple[RequestEncoder, ResponseParser]:
        variables = self.variables(request, length, backend)
        if self.exchange.settings.scgi_protocol == "uwsgi":
            head = uwsgi.encode_environment(variables)
        else:
            head = scgi.encode_environment((dict(variables) | {"SCGI": "1"}).items())
        return RawEncoder(head), CgiParser(head_only=request.method == "HEAD")
