"""A worker: set-up after the fork, the wait, the drain.

Three ways to end.  *Drain* (a reload): accept no more, finish what runs, tunnels live on.
*Finish* (a graceful stop): besides, idle connections close at once and tunnels get their end of
input.  *Stop*: Close 1001 to every tunnel, a second to flush, gone.
"""

from __future__ import annotations

import array
import logging
import os
import signal
import socket
import time
from typing import Any

from gevent import get_hub, spawn
from gevent.event import Event

from ..accesslog import AccessLogs
from ..address import Address
from ..channel import DRAIN, FINISH, READY, REOPEN, STOP, WorkerStart
from ..config.model import ListenerSpec
from ..errors import ClientGone
from ..gateway.balance import Balancer
from ..gateway.dispatch import handle
from ..http.exchange import Exchange
from ..http.negotiate import serve_connection
from ..message import ConnInfo
from ..metrics import Column
from ..net.port import FdPort
from ..scoreboard import ProcCell, WorkerState
from .accept import Acceptor, may_accept
from .tunnels import TunnelSet

log = logging.getLogger(__name__)

FLUSH_TIME = 1.0  # seconds that a stop leaves for what is queued
LINGER_TIME = 5.0  # seconds that closing connections may still take at the end of a drain
STALE = 5.0  # seconds without a tick after which a worker's numbers do not count
SPARE_FDS = 64  # descriptors that are not connections: logs, listeners, files being served
_READ = 1  # libev's EV_READ
_MAX_LOG_FDS = 253  # SCM_MAX_FD


def main(start: WorkerStart) -> int:
    """Run until drained or stopped; the exit status."""
    return Worker(start).run()


class Worker:
    """Everything one worker process has; gateways see it as ``gateway.base.WorkerContext``."""

    def __init__(self, start: WorkerStart) -> None:
        self.config = start.config
        self.board = start.board
        self.row = start.board.mine
        self.tunnels = TunnelSet(self.row)
        self.balancer = Balancer(start.board)
        self.access_logs = AccessLogs(start.logs)
        self._start = start
        self._name = f"worker {start.number} gen {start.generation}"
        self._connections: set[Any] = set()
        self._over = Event()
        self._empty = Event()
        self._limit = connection_limit(start)
        self._acceptors = [
            Acceptor(sock, self._acceptor_for(spec), self._is_my_turn, self._has_room)
            for spec, sock in start.listeners
        ]
        self._swept = time.monotonic()
        self._keep: list[Any] = []  # watchers live as long as somebody holds them
'''
'''
