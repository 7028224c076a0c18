"""Accepting: which worker takes the next connection, and when none is taken.

All workers of a generation share the listeners.  The kernel's wake-up order alone would put most
long-lived connections on one of them, so a worker that holds more than its share lets the others
go first, for a moment: a preference, not a ban (decisions 12).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from gevent import get_hub

log = logging.getLogger(__name__)

COURTESY = 0.002  # seconds in which others may take what this worker leaves
BATCH = 8  # connections taken in one turn of the loop, which costs more than an accept
SPARE = 2  # connections above the mean that are still one's share
OUT_OF_FDS_PAUSE = 1.0  # seconds until the next try after EMFILE
_READ = 1  # libev's EV_READ
# What accept() may say of a connection that is gone again, or of a moment (accept(2)).
_PASSING = frozenset(
    {errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN,
     errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
)  # fmt: skip

OnAccept = Callable[[socket.socket, Any], None]


def may_accept(mine: int, others: Sequence[int]) -> bool:
    """Whether a worker with *mine* connections is within its share, *others* being those of the
    other ready workers: the mean of all, and a few on top."""
    if not others:
        return True
    return mine <= (mine + sum(others)) / (1 + len(others)) + SPARE


class Acceptor:
    """Takes connections from one listener and hands them to *on_accept*."""

    def __init__(
        self,
        listener: socket.socket,
        on_accept: OnAccept,
        is_my_turn: Callable[[], bool],
        has_room: Callable[[], bool],
    ) -> None:
        """While *has_room* says no, nothing is accepted; ``room`` must be called afterwards."""
        self._listener = listener
        self._on_accept = on_accept
        self._is_my_turn = is_my_turn
        self._has_room = has_room
        self._watcher: Any = get_hub().loop.io(listener.fileno(), _READ)
        self._timer: Any = None

    def start(self) -> None:
        self._watcher.start(self._readable)

    def room(self) -> None:
        """The connection limit is no longer reached."""
        if self._watcher is not None and self._timer is None:
            self._watcher.start(self._readable)

    def close(self) -> None:
        """Accept no more; what waits in the backlog is for others."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
            self._cancel_pause()
            self._listener.close()

    def _readable(self) -> None:
        for _ in range(BATCH):
            if not self._has_room():
                self._watcher.stop()
                return
            if not self._is_my_turn():
                self._pause(COURTESY, self._accept_late)
                return
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Whether there was one to take."""
        try:
            sock, peer = self._listener.accept()
        except OSError as error:
            self._failed(error)
            return False
        sock.setblocking(False)
        self._on_accept(sock, peer)
        return True

    def _accept_late(self) -> None:
        """Nobody else was quicker: take one that still waits."""
        self._resume()
        self._accept()

    def _failed(self, error: OSError) -> None:
        if error.errno in _PASSING:
            return
        log.error("accept: %s; next try in %g s", error, OUT_OF_FDS_PAUSE)
        self._pause(OUT_OF_FDS_PAUSE, self._resume)

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._watcher.stop()
        self._timer = get_hub().loop.timer(seconds)
        self._timer.start(then)

    def _resume(self) -> None:
        self._cancel_pause()
        self._watcher.start(self._readable)

    def _cancel_pause(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
