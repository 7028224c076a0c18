"""The end: workers first, in order or at once, then the backends, then the master itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from .backends import Backends
from .loop import Loop, Timer
from .workers import Generation

FLUSH_TIME = 1.0  # seconds that a worker told to stop takes at most
MERCY = 0.5  # seconds beyond its time before a worker is killed
BACKEND_TIME = 5.0  # seconds from a backend's kill-signal to KILL
BACKEND_TIME_QUICK = 1.0

log = logging.getLogger(__name__)


class Shutdown:
    """Ends everything; *on_end* is called when nothing runs any more."""

    def __init__(
        self,
        loop: Loop,
        generations: Iterable[Generation],
        backends: Backends,
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._generations = list(generations)
        self._backends = backends
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
        self._at(max(timeout - FLUSH_TIME, timeout / 2), Generation.stop)
        self._at(timeout + MERCY, Generation.kill)
        self._each(Generation.finish)

    def cut(self) -> None:
        """Now: Close 1001, a second to flush.  Also while ``finish`` is under way."""
        if self._is_quick:
            return
        self._is_quick = True
        for timer in self._timers:
            timer.cancel()
        if self._ends_backends:
            self._at_once(self._backends.kill_all, BACKEND_TIME_QUICK)
            return
        self._at(FLUSH_TIME + MERCY, Generation.kill)
        self._each(Generation.stop)

    def generation_gone(self, generation: Generation) -> None:
        """The last worker of *generation* has ended."""
        if generation in self._generations:
            self._generations.remove(generation)
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
        self._backends.end_all(
            BACKEND_TIME_QUICK if self._is_quick else BACKEND_TIME, self._on_end
        )

    def _at(self, delay: float, act: Callable[[Generation], None]) -> None:
        self._at_once(lambda: self._each(act), delay)

    def _at_once(self, callback: Callable[[], None], delay: float) -> None:
        self._timers.append(self._loop.call_later(delay, callback))
