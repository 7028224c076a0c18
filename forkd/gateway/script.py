"""What scgi and fastcgi have in common: their backends are told the variables of CGI."""

from __future__ import annotations

import logging

from ..message import Pair, Request
from .base import SocketConversation
from .conversation import Backend
from .environ import Dialect, environ_for

log = logging.getLogger(__name__)


class ScriptConversation(SocketConversation):
    """One request as a program of CGI would see it; a subclass has the codecs."""

    def variables(self, request: Request, length: int | None, backend: Backend) -> list[Pair]:
        """As ``environ_for``; the access log may ask for them later.  Raises BadRequest."""
        assert backend.proc is not None
        dialect = Dialect.of(backend.proc.backend, self.route.key)
        variables = environ_for(request, self.exchange.settings, length, dialect)
        self.exchange.environment = tuple(variables)
        if self.server.debug:
            log.info("%s %s: %s", self.server.name, backend.name, _listed(variables))
        return variables


def _listed(variables: list[Pair]) -> str:
    return "".join(f"\n  {name}={value}" for name, value in variables)
