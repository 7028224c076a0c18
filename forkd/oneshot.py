"""One client on standard input (``-1``), as inetd(8) hands it over: served, and that was it.

Nothing listens, no pid file is written, and the process that was started is the one that serves.
Only programs of ``bin-path`` need somebody who owns them: a child keeps them for so long.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat

from . import log
from .certs import Contexts
from .channel import READY, WorkerStart
from .config.model import Config
from .errors import StartError
from .http.negotiate import offered
from .log import LogFiles, LogPlan
from .master.backends import Backends
from .master.habitat import Habitat
from .master.loop import Loop
from .master.rollout import identity_of
from .master.shutdown import BACKEND_TIME
from .master.workers import confine
from .scoreboard import MASTER_ROW, Board, procs_for
from .server import preload
from .unix import daemon, fork, proctitle, user
from .unix.reap import Reaper
from .unix.signals import SignalPipe
from .worker import worker
from .worker.visitor import Visitor

STDIN, STDOUT = 0, 1
TICK = 1.0  # seconds
ROWS = 2  # of the scoreboard: the keeper's and ours

logger = logging.getLogger(__name__)


def serve(config: Config) -> int:
    """Serve the client on standard input; the exit status when he has left.

    Raises StartError.
    """
    daemon.open_standard()
    visitor = take_visitor()
    preload()
    identity = identity_of(config)
    logs = _open_logs(config, identity)
    tls = Contexts(config, offered(config.server.features))
    board = Board.create(1, ROWS, procs_for(config.backends))
    server = config.server
    habitat = Habitat(identity, chroot=server.chroot, breakagelog=server.breakagelog)
    keeper = Keeper(config, board, habitat, logs)
    try:
        confine(server, identity)
        board.claim(MASTER_ROW + 1)
        start = WorkerStart(config, 1, 0, board, (), keeper.channel, logs, tls)
        return worker.serve_one(start, visitor)
    finally:
        log.flush()
        keeper.dismiss()


def take_visitor() -> Visitor:
    """The client, away from 0 and 1, where nobody else is to find him.

    Raises StartError when there is none.
    """
    kinds = [os.fstat(fd).st_mode for fd in (STDIN, STDOUT)]
    if stat.S_ISSOCK(kinds[0]):
        fds = [os.dup(STDIN)]
    elif all(map(stat.S_ISFIFO, kinds)):
        fds = [os.dup(STDIN), os.dup(STDOUT)]
    else:
        raise StartError("-1: standard input is not a socket, nor are it and the output pipes")
    daemon.to_null(STDIN, STDOUT)
    for fd in fds:
        os.set_blocking(fd, False)
    try:
        return Visitor.on(fds)
    except OSError as error:
        raise StartError(f"-1: standard input: {error.strerror}") from None


def _open_logs(config: Config, identity: user.Identity | None) -> LogFiles:
    server = config.server
    owner = None if identity is None else (identity.uid, identity.gid)
    logs = LogFiles(
        LogPlan(
            server.errorlog,
            config.log_files,
            owner,
            server.syslog_facility,
            server.errorlog_use_syslog,
        )
    )
    log.set_up(logs)
    return logs


class Keeper:
    """A process that owns the programs of ``bin-path``; nobody, where there are none.

    It lives as long as the other end of ``channel``, and its end is told by that channel's.
    """

    def __init__(self, config: Config, board: Board, habitat: Habitat, logs: LogFiles) -> None:
        """Returns when the programs are started.  Raises StartError when one cannot be."""
        self.channel, theirs = socket.socketpair()
        self._theirs = theirs  # its end would be the end of a keeper
        self._pid = 0
        self._board, self._habitat, self._logs = board, habitat, logs
        if any(spec.is_spawned for spec in config.backends):
            self._pid = fork.fork(lambda: self._keep(theirs), (theirs.fileno(), *logs.fds()))
            theirs.close()
            said = self.channel.recv(4096)
            if said != READY:
                self.dismiss()
                raise StartError(said.decode() or "the programs could not be started")

    def dismiss(self) -> None:
        """End the programs, and wait until they have ended."""
        self.channel.close()
        if self._pid:
            os.waitpid(self._pid, 0)

    def _keep(self, channel: socket.socket) -> int:
        """In the child, to its end."""
        proctitle.set_title("keeper")
        loop, reaper = Loop(), Reaper()
        self._board.claim(MASTER_ROW)
        backends = Backends(loop, reaper, self._logs.fd, lambda slot, why: None)
        signals = SignalPipe((signal.SIGCHLD,))

        def took_signals() -> None:
            signals.take()
            reaper.reap()

        def tick() -> None:
            loop.call_later(TICK, tick)
            backends.tick()

        def heard() -> None:
            if channel.recv(64):
                backends.tend_soon()  # NEED is all that a worker says to us
            else:
                loop.unwatch(channel.fileno())
                backends.end_all(BACKEND_TIME, loop.stop)

        loop.watch(signals.fd, took_signals)
        loop.watch(channel.fileno(), heard)
        try:
            backends.add(self._board, self._habitat)
            backends.publish()
            channel.send(READY)
        except StartError as error:
            channel.send(str(error).encode())
        tick()
        loop.run()
        log.flush()
        return 0
