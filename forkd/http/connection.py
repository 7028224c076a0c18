"""What the connections of every HTTP version have in common: whom they serve for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..config.model import Config
from .exchange import Handler, Log


class Connection(Protocol):
    """One client's connection."""

    def serve(self, handle: Handler) -> None:
        """In the connection's greenlet: until it is over, or its port belongs to a tunnel."""

    def drain(self) -> None:
        """``Service.draining`` has been set."""

    def close_if_idle(self) -> None:
        """Close, unless a request is being read or answered."""


@dataclass(slots=True, eq=False)
class Service:
    """A worker, as its connections see it."""

    config: Config
    log: Log
    """Called once for each request, after its last byte; a tunnel's when the tunnel ends."""
    draining: bool = False
    """Set by the worker: no response promises another one."""
    connections: set[Connection] = field(default_factory=set)
    """Those that are not tunnels."""
    streams: int = 0
    """Requests of HTTP/2 that are being answered."""
    has_room: Callable[[], bool] = lambda: True
    """Whether one more of them may be: each counts as a connection does."""

    def drain(self) -> None:
        """No connection is to take another request than it must."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.drain()

    def close_idle(self) -> None:
        """Close the connections that wait for a request."""
        for connection in tuple(self.connections):
            connection.close_if_idle()
