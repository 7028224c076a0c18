"""The end: workers first, in order or at once, then the backends and what else is left of them,
then the master itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from .backends import Backends
from .loop import Loop, Timer
from .strays import Strays
from .workers import Generation

FLUSH_TIME = 1.0  # seconds that a worker told to stop takes at most
MERCY = 0.25  # seconds beyond its time before a worker is killed
BACKEND_TIME = 5.0  # seconds from a backend's kill-signal to KILL
BACKEND_TIME_QUICK = 1.0

log = logging.getLogger(__name__)


class Shutdown:
    """Ends everything; *on_end* is called when nothing runs any more.

    *generations* is the master's own list: those that are gone are gone from it.
    """

    def __init__(
        self,
        loop: Loop,
        generations: Sequence[Generation],
        backends: Backends,
        strays: Strays,
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._generations = generations
        self._backends = backends
        self._strays = strays
        self._on_end = on_end
        self._timers: list[Timer] = []
        self._is_quick = False
        self._ends_backends = False

    def finish(self, timeout: float) -> None:
        """In order: requests are finished, tunnels closed; what is left after *timeout* is cut."""
        if timeout <= 0:
            self.cut()
            return
        # A worker that does not keep the time is told with a second to go, and killed after it.
        self._after(max(timeout - FLUSH_TIME, timeout / 2), lambda: self._each(Generation.stop))
        self._after(timeout + MERCY, lambda: self._each(Generation.kill))
        self._each(Generation.finish)

    def cut(self) -> None:
        """Now: Close 1001, a second to flush.  Also while ``finish`` is under way."""
        if self._is_quick:
            return
        self._is_quick = True
        for timer in self._timers:
            timer.cancel()
        if self._ends_backends:
            self._after(BACKEND_TIME_QUICK, self._backends.kill_all)
            self._after(BACKEND_TIME_QUICK, self._strays.kill_all)
            return
        self._after(FLUSH_TIME + MERCY, lambda: self._each(Generation.kill))
        self._each(Generation.stop)

    def generation_gone(self) -> None:
        """The last worker of one of them has ended."""
        self._next()

    def _each(self, act: Callable[[Generation], None]) -> None:
        for generation in list(self._generations):
            act(generation)
        self._next()

    def _next(self) -> None:
        if self._generations or self._ends_backends:
            return
        self._ends_backends = True
        for timer in self._timers:
            timer.cancel()
        delay = BACKEND_TIME_QUICK if self._is_quick else BACKEND_TIME
        # Both end side by side; the one waits for the other.
        self._backends.end_all(delay, lambda: self._strays.await_end(self._on_end))
        self._strays.hurry(delay)

    def _after(self, delay: float, callback: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(delay, callback))
