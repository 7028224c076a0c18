"""Connections from the listening socket that was given as descriptor 0."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from gevent import get_hub

from ..errors import StartError

OUT_OF_FDS_PAUSE = 1.0  # seconds until the next try after EMFILE

_READ = 1  # libev's EV_READ
_OUT_OF_FDS = (errno.EMFILE, errno.ENFILE)

log = logging.getLogger(__name__)


def take_listener() -> socket.socket:
    """Descriptor 0 as a listening socket; its place is taken by /dev/null.

    Raises StartError when it is none.
    """
    try:
        listener = socket.socket(fileno=os.dup(0))
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listens = 0
    if not listens:
        raise StartError("descriptor 0 is no listening socket; spawn-fcgi or a server gives one")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    return listener


class Acceptor:
    """Hands connections to *on_accept*, at most *limit* at a time: the others wait in the backlog.

    *count* says how many there are; ``room`` must be called when they have become fewer.
    """

    def __init__(
        self,
        listener: socket.socket,
        limit: int,
        count: Callable[[], int],
        on_accept: Callable[[socket.socket], None],
    ) -> None:
        self.limit = limit
        self._listener = listener
        self._count = count
        self._on_accept = on_accept
        self._watcher: Any = get_hub().loop.io(listener.fileno(), _READ)
        self._timer: Any = None
        self._watches = False

    @property
    def is_closed(self) -> bool:
        return self._watcher is None

    def start(self) -> None:
        self.room()

    def room(self) -> None:
        """Accept again, if there is room and this is not over."""
        may = self._watcher is not None and self._timer is None and self._count() < self.limit
        if may and not self._watches:
            self._watches = True
            self._watcher.start(self._readable)

    def close(self) -> None:
        """Accept no more; what waits in the backlog is for others who hold the socket."""
        if self._watcher is not None:
            self._stop()
            self._watcher.close()
            self._watcher = None
            self._end_pause()
            self._listener.close()

    def _readable(self) -> None:
        try:
            # Others may accept on it too, so it must not block; and each time, since it is theirs
            # as well to say so.
            self._listener.setblocking(False)
            sock, _ = self._listener.accept()
        except OSError as error:
            self._failed(error)
            return
        sock.setblocking(False)
        self._on_accept(sock)
        if self._count() >= self.limit:
            self._stop()

    def _stop(self) -> None:
        if self._watches:
            self._watches = False
            self._watcher.stop()

    def _failed(self, error: OSError) -> None:
        if error.errno in (errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO):
            return
        if error.errno in _OUT_OF_FDS:
            self.limit = max(1, self._count() // 2)
        log.error("accept: %s; from now on at most %d connections", error.strerror, self.limit)
        self._stop()
        self._timer = get_hub().loop.timer(OUT_OF_FDS_PAUSE)
        self._timer.start(self._resume)

    def _resume(self) -> None:
        self._end_pause()
        self.room()

    def _end_pause(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
