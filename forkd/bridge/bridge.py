"""The process: it accepts while it has room, and leaves when it is told to and all is done.

The first INT, TERM or HUP ends accepting; idle connections close, programs finish.  The second
ends the programs too.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any

from gevent import get_hub
from gevent.event import Event

from .accept import Acceptor
from .connection import Connection, Service
from .hangup import Hangups
from .run import HASTE, Runs

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

OnEnd = Callable[[Connection], None]
Protocol = Callable[[socket.socket, Service, OnEnd], Connection]


class Bridge:
    """Serves the connections of one listening socket."""

    def __init__(
        self, listener: socket.socket, protocol: Protocol, limit: int, binary: bytes = b""
    ) -> None:
        """At most *limit* connections at a time; *binary*: see ``Service``."""
        self._protocol = protocol
        self._runs = Runs()
        self._hangups = Hangups()
        self._service = Service(self._runs, self._hangups, limit, binary)
        self._connections: set[Connection] = set()
        self._acceptor = Acceptor(listener, limit, self._count, self._accepted)
        self._over = Event()
        self._watchers: list[Any] = []  # one that nobody holds stops

    def run(self) -> None:
        """Until told to end, and done."""
        for number in SIGNALS:
            watcher = get_hub().loop.signal(number)
            watcher.start(self.stop)
            self._watchers.append(watcher)
        self._acceptor.start()
        self._over.wait()
        for number in SIGNALS:  # nothing is left to be told to end
            signal.signal(number, signal.SIG_IGN)
        self._hangups.close()

    def stop(self) -> None:
        """Accept no more, and leave when the last program has ended; again: end them."""
        if self._acceptor.is_closed:
            self._force()
            return
        self._acceptor.close()
        self._runs.hurry()
        for connection in list(self._connections):
            connection.drain()
        self._step()

    def _force(self) -> None:
        for connection in list(self._connections):
            connection.client.abort("ended by force")  # a response cut must not look whole
        self._runs.terminate()
        timer = get_hub().loop.timer(2 * HASTE)
        timer.start(self._over.set, update=True)
        self._watchers.append(timer)

    # -- connections ------------------------------------------------------------------------------

    def _count(self) -> int:
        """Connections, those included that are closed and whose programs go on."""
        return len(self._connections)

    def _accepted(self, sock: socket.socket) -> None:
        self._connections.add(self._protocol(sock, self._service, self._closed))

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._step()

    def _step(self) -> None:
        if not self._acceptor.is_closed:
            self._acceptor.room()
        elif not self._connections:
            self._over.set()
