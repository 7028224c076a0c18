"""Programs that a worker has left behind when it ended: CGI programs, each with its own group.

A worker that ends in order has seen to its own.  One that was killed has not, so the master, as
subreaper the parent of all of them now, ends what it finds in the dead worker's session: TERM,
then KILL.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from ..unix.reap import Reaper, kill_group
from ..unix.session import groups_of
from .loop import Loop

KILL_DELAY = 5.0  # seconds from TERM to KILL

log = logging.getLogger(__name__)


class Strays:
    """The groups that are being ended."""

    def __init__(self, loop: Loop, reaper: Reaper) -> None:
        self._loop = loop
        self._reaper = reaper
        self._leaders: set[int] = set()
        self._on_empty: Callable[[], None] = _nothing

    def restore(self, leaders: Iterable[int]) -> None:
        """Groups that the program before this one was ending: KILL is still due."""
        for leader in leaders:
            self._await(leader)

    def snapshot(self) -> tuple[int, ...]:
        return tuple(self._leaders)

    def take_over(self, name: str, worker: int) -> None:
        """End all groups in the session of *worker*, which is dead and not yet reaped."""
        try:
            groups = groups_of(worker)
        except OSError as error:  # out of descriptors
            log.error("%s: what it left behind is not known: %s", name, error.strerror)
            return
        for leader, parent in groups.items():
            if parent == os.getpid():
                log.info("%s: left program %d behind, which is ended", name, leader)
                self._end(leader)
            else:  # no child of ours holds the number until the time for KILL has come
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(leader, signal.SIGKILL)

    def _end(self, leader: int) -> None:
        self._await(leader)
        kill_group(leader, signal.SIGTERM)

    def _await(self, leader: int) -> None:
        self._leaders.add(leader)
        self._reaper.add(leader, partial(self._ended, leader), leads_group=True)
        self._loop.call_later(KILL_DELAY, partial(self._kill, leader))

    def _kill(self, leader: int) -> None:
        if leader in self._leaders:
            kill_group(leader, signal.SIGKILL)

    def _ended(self, leader: int, status: int) -> None:
        self._leaders.discard(leader)
        if not self._leaders:
            on_empty, self._on_empty = self._on_empty, _nothing
            on_empty()

    def hurry(self, kill_delay: float) -> None:
        """The server ends: KILL after *kill_delay* seconds."""
        self._loop.call_later(kill_delay, self.kill_all)

    def await_end(self, on_empty: Callable[[], None]) -> None:
        """Call *on_empty* when the last group has ended."""
        if self._leaders:
            self._on_empty = on_empty
        else:
            on_empty()

    def kill_all(self) -> None:
        for leader in self._leaders:
            kill_group(leader, signal.SIGKILL)


def _nothing() -> None:
    """Nobody waits for the last group to end."""
