"""Connections to backends that have served a request and may serve another one.

A connection that is not in use has nothing to say: if it becomes readable, whether by bytes or by
its end, it is of no use any more.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from gevent import get_hub

from ..config.backend import Proc
from ..message import Request
from ..net.port import Port
from ..protocol.tunnel import Buffer

MAX_IDLE = 60.0  # seconds; a firewall on the way forgets a silent connection, and tells nobody

# RFC 9110 section 9.2.2: what may be sent twice.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})


def may_use_kept(request: Request) -> bool:
    """Whether *request* may go out on a connection that may turn out dead, to be sent again on
    another one: that must not do anything twice, and there must be nothing to be kept for it."""
    return request.method in IDEMPOTENT and request.content_length == 0 and not request.protocol


class Pool:
    """The idle connections of one worker."""

    def __init__(self, max_idle: float = MAX_IDLE) -> None:
        self._max_idle = max_idle
        self._idle: dict[Proc, list[_Idle]] = {}
        self._is_closed = False

    def take(self, proc: Proc) -> Port | None:
        """A connection to *proc*, of several the one used last; the caller's from here.

        What has come on it since the loop last looked must not pass for the next response.
        """
        while idle := self._idle.get(proc):
            port = idle[-1].leave()
            if not port.is_readable:  # type: ignore[attr-defined]  # only sockets are kept
                return port
            port.close(0)
        return None

    def spare(self, proc: Proc) -> None:
        """Give up an idle connection to *proc*, which can serve only so many and is wanted for
        another."""
        idle = self._idle.get(proc)
        if idle:
            idle[0].close()

    def keep(self, proc: Proc, port: Port, limit: int, seconds: float = inf) -> None:
        """Keep *port*, on which nothing is under way, unless *limit* are kept for *proc* already;
        at most *seconds*.

        Either way it is no more the caller's.
        """
        idle = self._idle.setdefault(proc, [])
        if self._is_closed or len(idle) >= limit:
            port.close(0)
        else:
            most = min(seconds, self._max_idle)
            idle.append(_Idle(port, most, lambda left: self._forget(proc, left)))
        if not idle:
            del self._idle[proc]

    def close(self) -> None:
        """Close all, and keep none from now on."""
        self._is_closed = True
        for idle in list(self._idle.values()):
            for connection in list(idle):
                connection.close()

    def _forget(self, proc: Proc, left: _Idle) -> None:
        idle = self._idle[proc]
        idle.remove(left)
        if not idle:
            del self._idle[proc]

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))


class _Idle:
    """Hears the port of an idle connection; *on_leave* is called, once, when it is that no more."""

    def __init__(self, port: Port, max_idle: float, on_leave: Callable[[_Idle], None]) -> None:
        self._port = port
        self._on_leave = on_leave
        self._has_left = False
        self._timer: Any = get_hub().loop.timer(max_idle)
        self._timer.start(self.close)
        port.attach(self)

    def leave(self) -> Port:
        """Somebody else will hear the port."""
        self._has_left = True
        self._timer.close()
        self._on_leave(self)
        self._port.pause()
        return self._port

    def close(self) -> None:
        self.leave().close(0)

    def on_data(self, data: Buffer) -> None:
        self.close()

    def on_eof(self) -> None:
        self.close()

    def on_drain(self) -> None: ...

    def on_close(self, why: str) -> None:
        if not self._has_left:
            self.leave()
