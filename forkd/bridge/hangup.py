"""Who has hung up: clients that are gone altogether, not only done with sending.

The end of a stream cannot tell the two apart, and a client that is not read cannot even say that;
epoll(7) reports a hang-up of its own, asked or not.  A unix socket hangs up when its other end is
closed; over TCP that shows only once something comes back, so idle connections are probed.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gevent import get_hub

_READ = 1  # libev's EV_READ
# A peer that has closed answers a probe with a reset as soon as its kernel has forgotten the
# connection, after 60 seconds (tcp_fin_timeout).
_PROBE_IDLE, _PROBE_INTERVAL, _PROBES = 30, 10, 4

log = logging.getLogger(__name__)


class Hangups:
    """Watches any number of sockets for nothing but their hanging up."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._watcher: Any = get_hub().loop.io(self._epoll.fileno(), _READ)
        self._watcher.start(self._ready)

    def watch(self, sock: socket.socket, callback: Callable[[], None]) -> None:
        """Call *callback* once when the other side of *sock* is gone."""
        if sock.family != socket.AF_UNIX:
            _probe(sock)
        self._callbacks[sock.fileno()] = callback
        self._epoll.register(sock.fileno(), 0)

    def forget(self, fd: int) -> None:
        """*fd* is closed, or nobody cares any more."""
        if self._callbacks.pop(fd, None) is not None:
            with suppress(OSError):  # closing it has done this
                self._epoll.unregister(fd)

    def close(self) -> None:
        self._watcher.close()
        self._epoll.close()

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            self.forget(fd)
            if callback is not None:
                try:
                    callback()
                except Exception:  # one connection's bug is not the others'
                    log.exception("hang-up of a connection")


def _probe(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_IDLE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
