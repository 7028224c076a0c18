"""The end of a server that nobody uses (``-i``): meant for one that a socket unit starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..metrics import Column
from ..scoreboard import MASTER_ROW
from .loop import Loop
from .workers import Generation

INTERVAL = 0.25  # seconds from look to look


class IdleWatch:
    """Calls *on_idle*, once, when there was no connection for *limit* seconds.

    *generations* gives all that have workers; a tunnel of an old one is a connection too.
    """

    def __init__(
        self,
        loop: Loop,
        limit: float,
        generations: Callable[[], Sequence[Generation]],
        on_idle: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._generations = generations
        self._on_idle = on_idle
        self._accepted = 0
        self._used_at = loop.now()
        self._look()

    def _look(self) -> None:
        now = self._loop.now()
        connections, accepted = self._count()
        if connections or accepted != self._accepted:
            self._accepted = accepted
            self._used_at = now + INTERVAL  # it may end just before the next look
        if now - self._used_at >= self._limit:
            self._on_idle()
        else:
            self._loop.call_later(INTERVAL, self._look)

    def _count(self) -> tuple[int, int]:
        """Connections now, and accepted ever by workers that may still be asked."""
        connections = accepted = 0
        for generation in self._generations():
            for row in (generation.board.row(MASTER_ROW), *generation.board.rows()):
                connections += row[Column.CONNECTIONS]
                accepted += row[Column.ACCEPTED]
        return connections, accepted
