"""Which backend, and which of its procs, takes the next connection (gateway.md 4, 5).

The choices are pure: loads and states in, a choice out.  ``Balancer`` is a worker's memory beside
them: where round-robin stands, and which procs it avoids for the moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ..config.backend import BackendSpec, GatewayServer, Proc, Route
from ..message import Request
from ..scoreboard import ProcState

_SERVES = frozenset({ProcState.RUNNING, ProcState.STARTING})
_NOT_YET = frozenset({ProcState.STARTING, ProcState.LISTENING})
# A proc that runs is better than one about to go, and that than one that has yet to start.  Where
# one has been told to end its clients wait for the next in its place.
_RANK = {
    ProcState.RUNNING: 0,
    ProcState.STARTING: 0,
    ProcState.DRAINING: 1,
    ProcState.LISTENING: 2,
    ProcState.STOPPING: 3,
}
NEED_INTERVAL = 0.05  # seconds between two times that the master is asked for more procs


class Loads(Protocol):
    """What of a scoreboard is read here."""

    def procs_of(self, backend: BackendSpec) -> tuple[Proc, ...]: ...
    def load(self, proc: Proc) -> int: ...
    def state(self, proc: Proc) -> ProcState: ...
    def retry_at(self, proc: Proc) -> float: ...


def djb2a(text: str, start: int = 5381) -> int:
    """The 32-bit hash that hash and sticky balancing use: ``h = h * 33 ^ byte``."""
    value = start
    for byte in text.encode("latin-1"):
        value = ((value * 33) ^ byte) & 0xFFFFFFFF
    return value


def backend_hash(backend: BackendSpec) -> int:
    return djb2a(backend.address.host) ^ backend.address.port


def highest_score(backends: Sequence[BackendSpec], seed: int) -> BackendSpec:
    """The backend with the highest ``seed ^ hash``; ties go to the higher index, as in lighttpd."""
    best = max(range(len(backends)), key=lambda n: (seed ^ backend_hash(backends[n]), n))
    return backends[best]


def request_hash(server: GatewayServer, request: Request) -> int:
    """Equal for requests that ``hash`` or ``sticky`` sends to the same backend."""
    if server.balance == "sticky":
        return djb2a(request.remote.host)
    return djb2a(request.host, djb2a(request.decoded_path + request.path_info))


def next_in_turn(count: int, usable: Callable[[int], bool], last: int) -> int | None:
    """The first usable index after *last*, going round."""
    for step in range(1, count + 1):
        index = (last + step) % count
        if usable(index):
            return index
    return None


def least_loaded(
    backend: BackendSpec, board: Loads, is_avoided: Callable[[Proc], bool]
) -> Proc | None:
    """The proc of *backend* that takes the next connection; None when none can.

    One that runs before one that has to be started; of these the least load; of these the first.
    None is started beside one that is throttled: their program is the same.
    """
    best: Proc | None = None
    best_key = (9, 0, 0)
    is_throttled = False
    for proc in board.procs_of(backend):
        state = board.state(proc)
        is_throttled |= state is ProcState.THROTTLED
        if state not in _RANK or is_avoided(proc):
            continue
        load = counted = board.load(proc)
        if state in _NOT_YET:
            # It has not accepted yet: others are better until they are as busy.  One that nobody
            # waits for is not started while those that are about to start have room.
            is_asleep = state is ProcState.LISTENING and load == 0
            counted = max(load, backend.max_load_per_proc + is_asleep)
        key = (_RANK[state], counted, load)
        if key < best_key:
            best, best_key = proc, key
    if is_throttled and best_key[0] >= _RANK[ProcState.LISTENING]:
        return None
    return best


def is_short(backend: BackendSpec, board: Loads) -> bool:
    """Whether every running proc of *backend* is busy, and another may be started."""
    procs = board.procs_of(backend)
    serving = [proc for proc in procs if board.state(proc) in _SERVES]
    return 0 < len(serving) < len(procs) and all(
        board.load(proc) > backend.max_load_per_proc for proc in serving
    )


class Balancer:
    """The choices of one worker."""

    def __init__(
        self,
        board: Loads,
        clock: Callable[[], float] = time.monotonic,
        on_need: Callable[[], None] = lambda: None,
    ) -> None:
        """*on_need* is called when more procs are wanted, at most once in NEED_INTERVAL."""
        self._board = board
        self._clock = clock
        self._on_need = on_need
        self._asked = -NEED_INTERVAL
        self._avoided: dict[Proc, float] = {}
        self._last: dict[Route, int] = {}

    def choose(self, server: GatewayServer, route: Route, request: Request) -> Proc | None:
        """The proc for *request*, or None when no backend of *route* has one to offer."""
        index, proc = self._next(server, route, request)
        if proc is not None:
            self._last[route] = index
        return proc

    def peek(self, server: GatewayServer, route: Route, request: Request) -> Proc | None:
        """What ``choose`` would say; nothing is made of it, so it is nobody's turn."""
        return self._next(server, route, request)[1]

    def _next(
        self, server: GatewayServer, route: Route, request: Request
    ) -> tuple[int, Proc | None]:
        """The choice, and the index of its backend."""
        procs = [least_loaded(b, self._board, self.is_avoided) for b in route.backends]
        usable = [n for n, proc in enumerate(procs) if proc is not None]
        if len(usable) <= 1:
            index: int | None = usable[0] if usable else None
        elif server.balance == "round-robin":
            last = self._last.get(route, -1)
            index = next_in_turn(len(procs), lambda n: procs[n] is not None, last)
        elif server.balance == "least-connection":
            index = min(usable, key=lambda n: self._backend_load(route.backends[n]))
        else:
            backends = [route.backends[n] for n in usable]
            chosen = highest_score(backends, request_hash(server, request))
            index = usable[backends.index(chosen)]
        return (-1, None) if index is None else (index, procs[index])

    def _backend_load(self, backend: BackendSpec) -> int:
        return sum(self._board.load(proc) for proc in self._board.procs_of(backend))

    def taken(self, proc: Proc) -> None:
        """A connection more is counted for *proc*: that may have been its backend's last room."""
        backend = proc.backend
        if backend.min_procs == backend.max_procs:
            return
        if self._board.load(proc) > backend.max_load_per_proc:
            now = self._clock()
            if now - self._asked >= NEED_INTERVAL and is_short(backend, self._board):
                self._asked = now
                self._on_need()

    def avoid(self, proc: Proc) -> None:
        """A connect to *proc* failed: leave it alone for its backend's disable-time."""
        self._avoided[proc] = self._clock() + proc.backend.disable_time

    def is_avoided(self, proc: Proc) -> bool:
        until = self._avoided.get(proc)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._avoided[proc]
        return False

    def retry_after(self, route: Route) -> int:
        """Whole seconds, at least 1, until a proc of *route* may be tried again that is avoided, or
        throttled by the master."""
        procs = [p for b in route.backends for p in self._board.procs_of(b)]
        times = [self._avoided[p] for p in procs if p in self._avoided] + [
            self._board.retry_at(p) for p in procs if self._board.state(p) is ProcState.THROTTLED
        ]
        return max(1, round(min(times) - self._clock() + 0.5)) if times else 1
