"""What passes between the master and a worker: one socketpair, one byte at a time.

Workers get bytes, not signals: a signal lands anywhere, a byte is read where it is safe.  End of
file is a message too: for the worker, that the master is dead; for the master, that the worker is.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .certs import Contexts
from .config.model import Config, ListenerSpec
from .scoreboard import Board

if TYPE_CHECKING:
    from .log import LogFiles

DRAIN = b"D"  # master to worker: accept no more, finish what you have, tunnels live on; exit 0
FINISH = b"F"  # master to worker: the server stops: as DRAIN, but tunnels end now and politely
EXPIRE = b"E"  # master to worker: end your tunnels (Close 1012), spread over forkd.drain-spread
STOP = b"T"  # master to worker: cut what you have (Close 1001, 1 s to flush); exit 0
REOPEN = b"L"  # master to worker: the descriptors of LogFiles.fds() come with it (SCM_RIGHTS)
SERVE = b"G"  # master to worker, once: accept; all that the generation needs is in place
READY = b"R"  # worker to master, once: I can serve
NEED = b"N"  # worker to master: all running procs of a backend are busy; now and then
SPENT = b"S"  # worker to master, once: put another in my place, then let me drain


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a worker is given, after the fork, before its first step."""

    config: Config
    generation: int
    number: int
    """From 0; unique among the workers of a generation that are to stay."""
    board: Board
    """Its row is claimed: ``board.mine``."""
    listeners: tuple[tuple[ListenerSpec, socket.socket], ...]
    """Bound, listening, non-blocking; the worker only accepts."""
    channel: socket.socket
    logs: LogFiles
    tls: Contexts


WorkerMain = Callable[[WorkerStart], int]
"""Runs a worker until it is done; the result is its exit status."""


def worker_count(config: Config) -> int:
    """``server.max-worker``, or one for each CPU this process may run on."""
    return config.server.max_worker or len(os.sched_getaffinity(0))
