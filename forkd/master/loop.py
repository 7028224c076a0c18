"""The master's loop: one thread, one selector, a heap of timers."""

from __future__ import annotations

import heapq
import itertools
import logging
import selectors
import time
from collections.abc import Callable

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Callback = Callable[[], object]

log = logging.getLogger(__name__)


class Timer:
    """A callback that is due once, unless it is cancelled before."""

    __slots__ = ("_callback", "due")

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def is_pending(self) -> bool:
        return self._callback is not None

    def fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Loop:
    """Calls back when descriptors are ready and when times have come, until ``stop``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopped = False

    def watch(self, fd: int, callback: Callback, events: int = READ) -> None:
        """Call *callback* whenever *fd* is ready for *events*; replaces an earlier watch."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Before *fd* is closed.  Nothing happens when it is not watched."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Call *callback* once, *delay* seconds from now."""
        timer = Timer(self.now() + delay, callback)
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def run(self) -> None:
        """Go round until ``stop``, which may have come before."""
        while not self._stopped:
            self.run_once()

    def stop(self) -> None:
        self._stopped = True

    def run_once(self) -> None:
        """Wait for the next event or timer and handle what is due."""
        for key, _ in self._selector.select(self._patience()):
            # A callback before may have unwatched this descriptor, or given its number away.
            if self._selector.get_map().get(key.fd) is key:
                _call(key.data)
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            _call(heapq.heappop(self._timers)[2].fire)

    def close(self) -> None:
        self._selector.close()

    def _patience(self) -> float | None:
        while self._timers and not self._timers[0][2].is_pending:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self.now()) if self._timers else None


def _call(callback: Callback) -> None:
    """A defect of ours in one callback must not end all processes that the master holds."""
    try:
        callback()
    except Exception:
        log.exception("the master goes on after a defect")
