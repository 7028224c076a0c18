"""The workers of one generation: fork, ready, drain, reap."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..certs import Contexts
from ..channel import (
    DRAIN,
    EXPIRE,
    FINISH,
    NEED,
    READY,
    REOPEN,
    SERVE,
    SPENT,
    STOP,
    WorkerMain,
    WorkerStart,
    worker_count,
)
from ..config.model import Config, ListenerSpec, ServerSettings
from ..log import LogFiles
from ..metrics import Column
from ..scoreboard import Board, WorkerState
from ..unix import fork, proctitle, user
from ..unix.reap import Reaper, describe, kill
from .backoff import WORKER_CEILING, BackOff
from .loop import Loop
from .strays import Strays
from .worker_policy import SERVING, Do, Phase, WorkerView, decide

DEAF_TIME = 5.0  # seconds that a worker may live without its channel

log = logging.getLogger(__name__)


# -- one worker -------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Worker:
    """The master's side of one worker process."""

    number: int
    generation: int
    row: int
    pid: int
    channel: socket.socket
    forked: float
    phase: Phase = Phase.STARTING
    aborted_at: float | None = None
    drained_at: float | None = None

    def __str__(self) -> str:
        return f"worker {self.number} gen {self.generation} pid {self.pid}"

    def tell(self, message: bytes) -> None:
        """Send one byte.  A worker that is gone, or stuck with a full channel, needs none."""
        with suppress(OSError):
            self.channel.send(message)

    def end(self, message: bytes) -> None:
        """Tell it how to end: FINISH or STOP; see ``drain``."""
        self.phase = Phase.ENDING
        self.drained_at = None
        self.tell(message)

    def drain(self, now: float) -> None:
        """Its tunnels live on, until ``expire``."""
        self.end(DRAIN)
        self.drained_at = now

    def expire(self) -> None:
        """Have it end its tunnels."""
        self.drained_at = None
        self.tell(EXPIRE)

    def hand_logs(self, fds: Sequence[int]) -> None:
        """Send reopened log files."""
        try:
            socket.send_fds(self.channel, [REOPEN], fds)
        except BrokenPipeError:
            pass  # it has ended, and is reaped in a moment
        except OSError as error:
            log.warning("%s: keeps its old logs: %s", self, error.strerror)


# -- all of a generation ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crew:
    """What a generation's workers are made from and with."""

    loop: Loop
    reaper: Reaper
    strays: Strays
    """Ends what workers leave behind."""
    main: WorkerMain
    on_ready: Callable[[Generation], None]
    """A worker has become ready."""
    on_death: Callable[[Generation, str], None]
    """A worker that nobody told to end has ended, and how."""
    on_empty: Callable[[Generation], None]
    """The last worker of a generation that is over has ended."""
    on_need: Callable[[], None]
    """All running procs of a backend are busy."""


class Generation:
    """The workers that serve one load of the configuration."""

    def __init__(
        self,
        number: int,
        config: Config,
        board: Board,
        logs: LogFiles,
        listeners: tuple[tuple[ListenerSpec, socket.socket], ...],
        tls: Contexts,
        identity: user.Identity | None,
        crew: Crew,
    ) -> None:
        self.number = number
        self.config = config
        self.board = board
        self.logs = logs
        self.wanted = worker_count(config)
        self.workers: list[Worker] = []
        self.serves = False
        """Its workers, and those to come, may accept."""
        self.is_over = False
        self.drained_at: float | None = None
        """Since when another generation serves."""
        self.lives_on = True
        """Whether its tunnels may go on."""
        self.drain_timeout: float = config.server.drain_timeout
        """That of the newest configuration."""
        self._listeners = listeners
        self._tls = tls
        self._identity = identity
        self._crew = crew
        self._backoffs: dict[int, BackOff] = {}
        self._not_before: dict[int, float] = {}
        self._forgiven = 0.0
        self._has_no_room = False
        self._master = os.getpid()

    @property
    def is_ready(self) -> bool:
        """Whether as many can serve as are wanted."""
        return sum(worker.phase in SERVING for worker in self.workers) >= self.wanted

    # -- growing and shrinking ------------------------------------------------------------------

    def tend(self) -> None:
        """Do what ``decide`` says; once a second, and whenever something has changed."""
        now = self._crew.loop.now()
        workers = list(self.workers)
        views = [self._view(worker) for worker in workers]
        timeout = self.config.server.worker_timeout
        actions = decide(now, self.wanted, views, self._not_before, timeout, self.drain_timeout)
        if any(do is Do.START for do, _ in actions):
            fork.share_heap()
        for do, which in actions:
            match do:
                case Do.START:
                    self._try_to_start(which)
                case Do.DRAIN:
                    workers[which].drain(now)
                case Do.EXPIRE:
                    log.info("%s: its tunnels end", workers[which])
                    workers[which].expire()
                case Do.ABORT:
                    self._abort(workers[which], timeout)
                case Do.KILL:
                    kill(workers[which].pid, signal.SIGKILL)

    def resize(self, by: int) -> bool:
        """One worker more or fewer, at least one stays; False when that is not possible."""
        wanted = max(min(self.wanted, 1), self.wanted + by)
        if wanted == self.wanted or (by > 0 and self._free_row() is None):
            return False
        self.wanted = wanted
        self.tend()
        return True

    def rest(self) -> None:
        """Drain all workers; ``resize`` starts some again."""
        self.wanted = 0
        self.tend()

    def forgive(self, now: float) -> None:
        """The master itself was late: silence until *now* proves nothing against a worker."""
        self._forgiven = now

    def _view(self, worker: Worker) -> WorkerView:
        row = self.board.row(worker.row)
        if worker.phase in SERVING and row.state >= WorkerState.DRAINING:
            # Somebody sent it a signal by hand.
            worker.phase, worker.drained_at = Phase.ENDING, self._crew.loop.now()
        return WorkerView(
            worker.number,
            worker.phase,
            max(row[Column.TICK] / 1000, worker.forked, self._forgiven),
            worker.aborted_at,
            worker.drained_at,
        )

    def _abort(self, worker: Worker, timeout: float) -> None:
        log.error("%s: stuck, no sign of life for %g s; aborted", worker, timeout)
        worker.aborted_at = self._crew.loop.now()
        kill(worker.pid, signal.SIGABRT)

    # -- birth ----------------------------------------------------------------------------------

    def _try_to_start(self, number: int) -> None:
        row = self._free_row()
        if row is None:
            if not self._has_no_room:
                log.warning("generation %d: no row is free on the scoreboard, new workers wait "
                            "until old ones have ended", self.number)  # fmt: skip
            self._has_no_room = True
            return
        self._has_no_room = False
        try:
            self._start(number, row)
        except OSError as error:  # too many processes, or descriptors; ``tend`` comes again
            log.error("worker %d gen %d: cannot fork: %s", number, self.number, error.strerror)

    def _start(self, number: int, row: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            pid = fork.fork(
                lambda: self._be_worker(number, row, theirs),
                (theirs.fileno(), *self.logs.fds(), *(s.fileno() for _, s in self._listeners)),
            )
        finally:
            theirs.close()
        self._enlist(Worker(number, self.number, row, pid, ours, self._crew.loop.now()))

    def _enlist(self, worker: Worker) -> None:
        self.workers.append(worker)
        self._crew.reaper.add(
            worker.pid,
            lambda status: self._exited(worker, status),
            on_dead=lambda: self._crew.strays.take_over(str(worker), worker.pid),
        )
        self._crew.loop.watch(worker.channel.fileno(), lambda: self._heard(worker))

    def _be_worker(self, number: int, row: int, channel: socket.socket) -> int:
        """In the child, until its end."""
        server = self.config.server
        proctitle.set_title(f"worker {number}")
        confine(server, self._identity)
        fork.die_with_parent(self._master, signal.SIGQUIT)
        self.board.claim(row, number)
        return self._crew.main(
            WorkerStart(
                self.config,
                self.number,
                number,
                self.board,
                self._listeners,
                channel,
                self.logs,
                self._tls,
            )
        )

    def _free_row(self) -> int | None:
        used = {worker.row for worker in self.workers}
        return next((row for row in range(1, self.board.size) if row not in used), None)

    def _heard(self, worker: Worker) -> None:
        try:
            data = worker.channel.recv(64)
        except BlockingIOError:
            return
        except ConnectionResetError:  # it ended with a message of ours unread
            data = b""
        if not data:
            self._crew.loop.unwatch(worker.channel.fileno())
            self._crew.loop.call_later(DEAF_TIME, lambda: self._kill_deaf(worker))
        if NEED in data:
            self._crew.on_need()
        if READY in data and worker.phase is Phase.STARTING:
            worker.phase = Phase.READY
            log.info("%s: ready", worker)
            if self.serves:
                worker.tell(SERVE)
            self._crew.on_ready(self)
            self.tend()  # it may be another one's replacement
        if SPENT in data and worker.phase is Phase.READY:
            worker.phase = Phase.SPENT
            log.info("%s: spent, is replaced", worker)
            self.tend()

    # -- death ----------------------------------------------------------------------------------

    def _exited(self, worker: Worker, status: int) -> None:
        self.board.bury(worker.row)
        self.workers.remove(worker)
        self._crew.loop.unwatch(worker.channel.fileno())
        worker.channel.close()
        if worker.phase is Phase.ENDING:
            log.log(
                logging.WARNING if status else logging.INFO,
                "%s: ended, %s", worker, describe(status),
            )  # fmt: skip
        else:
            self._died(worker, status)
        if self.is_over and not self.workers:
            self._crew.on_empty(self)

    def _died(self, worker: Worker, status: int) -> None:
        now = self._crew.loop.now()
        served = worker.phase is not Phase.STARTING
        backoff = self._backoffs.setdefault(worker.number, BackOff(WORKER_CEILING))
        delay = backoff.died(now, now - worker.forked, served=served, failed=status != 0)
        how = f"{'died' if served else 'died before it was ready'}, {describe(status)}"
        self._crew.on_death(self, f"{worker}: {how}")
        log.error("%s: %s; %s", worker, how, f"next try in {delay:g} s" if delay else "replaced")
        self._not_before[worker.number] = now + delay
        self._crew.loop.call_later(delay, self.tend)

    def _kill_deaf(self, worker: Worker) -> None:
        if worker in self.workers:
            log.error("%s: does not listen to the master; killed", worker)
            kill(worker.pid, signal.SIGKILL)

    # -- the end of all -------------------------------------------------------------------------

    def serve(self) -> None:
        """All are ready, and all else is in place: accept."""
        self.serves = True
        for worker in self.workers:
            if worker.phase is Phase.READY:
                worker.tell(SERVE)

    def drain(self) -> None:
        """Another generation serves: finish what runs, tunnels live on."""
        self.drained_at = now = self._crew.loop.now()
        self._end_each(lambda worker: worker.drain(now))

    def expire(self) -> None:
        """End the tunnels too."""
        log.info("generation %d: its tunnels end, there are too many generations", self.number)
        self.lives_on = False
        for worker in self.workers:
            worker.expire()

    def finish(self) -> None:
        """The server stops, in order."""
        self._end_all(FINISH)

    def stop(self) -> None:
        """The server stops now, or this generation is not to be."""
        self._end_all(STOP)

    def _end_all(self, message: bytes) -> None:
        self.lives_on = False
        self._end_each(lambda worker: worker.end(message))

    def _end_each(self, end: Callable[[Worker], None]) -> None:
        """Nobody is started any more."""
        self.is_over, self.wanted = True, 0
        for worker in self.workers:
            end(worker)
        if not self.workers:
            self._crew.on_empty(self)

    def kill(self) -> None:
        for worker in self.workers:
            log.warning("%s: killed, it did not end when told", worker)
            kill(worker.pid, signal.SIGKILL)

    def reopen_logs(self) -> tuple[str, ...]:
        """Reopen all logs, here and in the workers; what could not be reopened, and why."""
        problems = self.logs.reopen()
        for worker in self.workers:
            worker.hand_logs(self.logs.fds())
        return problems

    def close(self) -> None:
        """Let go of board, logs and keys, when no worker has them any more."""
        self.board.close()
        self.logs.close()
        self._tls.close()


def confine(server: ServerSettings, identity: user.Identity | None) -> None:
    """What a process that serves has, and what it gives up for good."""
    user.raise_fd_limit(server.max_fds)
    if server.chroot:
        os.chroot(server.chroot)
        os.chdir("/")
    if identity is not None:
        identity.drop()
    if server.core_files:
        user.allow_core_files()
