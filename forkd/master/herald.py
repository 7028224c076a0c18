"""Tells the service manager how the server is: ready, reloading, stopping, alive, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..metrics import Column
from ..unix.notify import Notifier
from .loop import Loop
from .worker_policy import SERVING
from .workers import Generation

STATUS_INTERVAL = 5.0  # seconds between two looks at the numbers
STALE = 5.0  # seconds without a tick after which a worker proves nothing


class Herald:
    """*generations* gives those that have workers, the one that serves last."""

    def __init__(
        self, notifier: Notifier, loop: Loop, generations: Callable[[], Sequence[Generation]]
    ) -> None:
        self._notifier = notifier
        self._loop = loop
        self._generations = generations
        self._said = ""
        self._is_stopping = False

    def ready(self) -> None:
        """The server serves; from now on it is watched."""
        self.reloaded()
        self._report()
        if self._notifier.interval:
            self._feed_watchdog()

    def reloading(self) -> None:
        self._notifier.reloading()

    def reloaded(self) -> None:
        """A reload has ended, well or not: either way somebody serves."""
        self._said = describe(self._generations())
        self._notifier.ready(self._said)

    def stopping(self) -> None:
        self._is_stopping = True
        self._notifier.stopping()

    def _report(self) -> None:
        if self._is_stopping or not self._notifier.address:
            return
        self._loop.call_later(STATUS_INTERVAL, self._report)
        text = describe(self._generations())
        if text != self._said:
            self._said = text
            self._notifier.status(text)

    def _feed_watchdog(self) -> None:
        self._loop.call_later(self._notifier.interval, self._feed_watchdog)
        if self._is_stopping or is_serving(self._generations()[-1]):
            self._notifier.alive()


def is_serving(generation: Generation) -> bool:
    """Whether a worker of it accepts and lives, or none is wanted at the moment."""
    rows = [generation.board.row(w.row) for w in generation.workers if w.phase in SERVING]
    return generation.wanted == 0 or any(row.age() < STALE for row in rows)


def describe(generations: Sequence[Generation]) -> str:
    """The server in one line."""
    rows = [row for generation in generations for row in generation.board.rows()]
    connections, tunnels, requests = (
        sum(row[column] for row in rows)
        for column in (Column.CONNECTIONS, Column.TUNNELS, Column.REQUESTS)
    )
    draining = f", {len(generations) - 1} draining" if len(generations) > 1 else ""
    return (
        f"generation {generations[-1].number}{draining}: {generations[-1].wanted} workers, "
        f"{connections} connections, {tunnels} tunnels, {requests} requests"
    )
