"""Which FastCGI applications let requests share connections, and these connections
(scgi_fastcgi.md 4).

An application is asked on the first connection to it, and again when it has been started anew:
the scoreboard tells of those that we start; others are asked anew when no connection to them is
left.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from gevent import spawn
from gevent.event import Event

from ..config.backend import Proc
from ..config.model import ServerSettings
from ..errors import ClientGone
from ..net.blocking import BlockingPort
from ..net.port import Port
from ..protocol.fastcgi_mux import (
    NO_LIMIT,
    ONE_AT_A_TIME,
    Answer,
    Capability,
    encode_question,
)
from ..scoreboard import Board, ProcState
from .mux_connection import MuxConnection
from .mux_port import MuxPort

log = logging.getLogger(__name__)

ANSWER_TIME = 1.0  # seconds for an application that runs to say what it can do
LOOK = 0.05  # seconds between two looks at an application that has all the requests it takes

_YET_TO_RUN = frozenset({ProcState.LISTENING, ProcState.STARTING})

Connect = Callable[[], Port]
"""Reaches a proc; raises OSError."""


class SharedConnections:
    """The shared connections of one worker."""

    def __init__(self, board: Board, server: ServerSettings, workers: int) -> None:
        """*workers*: how many share what connections an application takes."""
        self._board = board
        self._server = server
        self._workers = workers
        self._applications: dict[Proc, Application] = {}
        self._is_closed = False

    def open(self, proc: Proc, connect: Connect, patience: float) -> MuxPort | None:
        """A request's place on a connection to *proc*, made by *connect* if there is none; None
        when its requests do not share connections.

        At most *patience* seconds (0: any time) are spent on waiting until another request is over.
        Raises OSError, TimeoutError among them.
        """
        while not self._is_closed:
            application = self._application(proc)
            port = application.open(connect, patience)
            if port is not None or application.is_alive:
                return port
        return None

    def _application(self, proc: Proc) -> Application:
        known = self._applications.get(proc)
        if known is not None and known.is_alive:
            return known
        if known is not None:
            known.close()
        self._applications[proc] = new = Application(
            proc, self._board, self._server, self._workers
        )
        return new

    def close(self) -> None:
        """Open no more; connections end with the last request on them."""
        self._is_closed = True
        for application in self._applications.values():
            application.close()


class Application:
    """One proc from its start to its end, as far as this worker knows it."""

    def __init__(
        self, proc: Proc, board: Board, server: ServerSettings, workers: int
    ) -> None:
        self._proc = proc
        self._board = board
        self._server = server
        self._workers = workers
        self._epoch = (-1, -1)  # when it was asked
        self._capability: Capability | None = None
        self._connections: list[MuxConnection] = []
        self._opening: Any = None  # the greenlet that does, while there is one
        self._waiting: deque[Event] = deque()

    @property
    def is_alive(self) -> bool:
        """Whether what is known still holds."""
        return self._capability is None or self._epoch == self._epoch_now

    @property
    def _epoch_now(self) -> tuple[int, int]:
        # The pid too: while a program is kept from dying again and again, the master answers.
        return self._board.deaths(self._proc), self._board.pid(self._proc)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.retire()

    # -- a place for a request --------------------------------------------------------------------

    def open(self, connect: Connect, patience: float) -> MuxPort | None:
        """As ``SharedConnections.open``; None also when it has ended by now."""
        deadline = time.monotonic() + (patience or inf)
        while self.is_alive and (self._capability is None or self._multiplexes):
            connection = self._with_room()
            if connection is not None:
                return connection.open()
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{self._proc}: no room for a request for {patience:g} s")
            if self._may_connect:
                self._connect(connect)
            else:
                self._wait()
        return None

    @property
    def _multiplexes(self) -> bool:
        return self._capability is not None and self._capability.multiplexes

    def _with_room(self) -> MuxConnection | None:
        """The connection with the fewest requests; none when another one would serve better."""
        if self._is_full:
            return None
        most = self._proc.backend.multiplex
        usable = [one for one in self._connections if one.requests < most]
        clear = [one for one in usable if not one.is_congested]
        if not clear and self._may_connect:
            return None
        return min(clear or usable, key=lambda one: one.requests, default=None)

    @property
    def _is_full(self) -> bool:
        """Whether it has as many requests as it takes: those of all workers, and among them those
        that nobody wants but that it has not ended."""
        limit = self._capability.max_requests if self._capability is not None else NO_LIMIT
        return limit != NO_LIMIT and self._board.load(self._proc) >= limit

    @property
    def _may_connect(self) -> bool:
        if self._capability is None or self._opening is not None:
            return True
        most = min(self._proc.backend.pool, self._capability.max_connections // self._workers)
        return len(self._connections) < most and not self._is_full

    def _wait(self) -> None:
        """Until a request may be over."""
        over = Event()
        self._waiting.append(over)
        try:
            over.wait(LOOK)  # nobody tells us of those of other workers
        finally:
            if over in self._waiting:
                self._waiting.remove(over)

    # -- connections ------------------------------------------------------------------------------

    def _connect(self, connect: Connect) -> None:
        """Open a connection, or wait for one that is being opened.  Raises OSError."""
        if self._opening is None:
            # In a greenlet of its own: others wait for it too, whose clients have not left.
            self._opening = spawn(self._open_connection, connect)
        error: OSError | None = self._opening.get()
        if error is not None:
            raise error
        if self._multiplexes and not self._connections:
            raise ConnectionResetError(f"{self._proc}: closed as soon as it was open")

    def _open_connection(self, connect: Connect) -> OSError | None:
        try:
            port = connect()
            if self._capability is None:
                self._capability = self._shared_out(self._ask(port))
                self._epoch = self._epoch_now
            if not self._multiplexes:
                port.close(0)
                return None
            backend = self._proc.backend
            self._connections.append(
                MuxConnection(port, str(self._proc), self, self._server, backend.pool_idle)
            )
        except OSError as error:
            return error
        finally:
            self._opening = None
        return None

    def _ask(self, port: Port) -> Capability:
        """What the application says it can do; its silence is an answer too."""
        blocking, answer = BlockingPort(port), Answer()
        found: Capability | None = None
        try:
            blocking.send(encode_question(), ANSWER_TIME)
            while found is None:
                data = self._answered(blocking)
                found = answer.feed(data) if data else ONE_AT_A_TIME
        except ClientGone:
            found = ONE_AT_A_TIME
        return found

    def _answered(self, port: BlockingPort) -> bytes:
        """b"" when nothing came.  One that has yet to be started is not the one to be blamed."""
        while True:
            is_patient = self._board.state(self._proc) in _YET_TO_RUN
            try:
                return port.recv(ANSWER_TIME)
            except TimeoutError:
                if not is_patient:
                    return b""

    def _shared_out(self, told: Capability) -> Capability:
        """One that takes fewer connections than there are workers must not have idle ones."""
        if not told.multiplexes or told.max_connections >= self._workers:
            return told
        log.warning(
            "backend %s: takes %d connections, and there are %d workers: not multiplexed",
            self._proc,
            told.max_connections,
            self._workers,
        )
        return ONE_AT_A_TIME

    # -- from its connections ---------------------------------------------------------------------

    def has_room(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()

    def cannot_share(self, why: str) -> None:
        if self._capability is not ONE_AT_A_TIME:
            log.warning("backend %s: no more multiplexed: %s", self._proc, why)
            self._capability = ONE_AT_A_TIME
            self.close()
            while self._waiting:
                self.has_room()

    def gone(self, connection: MuxConnection) -> None:
        self._connections.remove(connection)
        if self._multiplexes and not self._connections and not self._proc.backend.is_spawned:
            self._capability = None  # there may be another application by the next time
        self.has_room()
