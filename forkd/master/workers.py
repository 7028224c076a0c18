"""The workers of one generation: fork, ready, drain, reap; and what to do about each, when."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from ..certs import Contexts
from ..channel import DRAIN, FINISH, READY, REOPEN, STOP, WorkerMain, WorkerStart
from ..config.model import Config, ListenerSpec
from ..log import LogFiles
from ..metrics import Column
from ..scoreboard import Board, WorkerState
from ..unix import fork, proctitle, user
from ..unix.reap import Reaper, describe, kill
from .backoff import WORKER_CEILING, BackOff
from .loop import Loop
from .strays import Strays

ABORT_TIME = 5.0  # seconds from ABRT to KILL
DEAF_TIME = 5.0  # seconds that a worker may live without its channel

log = logging.getLogger(__name__)


# -- policy -----------------------------------------------------------------------------------


class Do(Enum):
    """What may have to be done about a worker."""

    START = auto()
    DRAIN = auto()
    ABORT = auto()
    KILL = auto()


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What the policy knows of a worker.  Times are those of one monotonic clock."""

    number: int
    is_active: bool
    """Not told to end: it takes part in serving, or will."""
    alive_at: float
    """Its last sign of life."""
    aborted_at: float | None = None


def decide(
    now: float,
    wanted: int,
    workers: Sequence[WorkerView],
    not_before: Mapping[int, float],
    timeout: float,
) -> list[tuple[Do, int]]:
    """What to do: START with the number to start, the others with an index into *workers*.

    *not_before* says until when a number has to wait; a worker silent for *timeout* seconds is
    stuck, 0: never.
    """
    actions: list[tuple[Do, int]] = []
    for index, worker in enumerate(workers):
        if worker.aborted_at is not None:
            if now - worker.aborted_at >= ABORT_TIME:
                actions.append((Do.KILL, index))
        elif timeout and now - worker.alive_at > timeout:
            actions.append((Do.ABORT, index))
        elif worker.is_active and worker.number >= wanted:
            actions.append((Do.DRAIN, index))
    active = {worker.number for worker in workers if worker.is_active}
    for number in range(wanted):
        if number not in active and not_before.get(number, now) <= now:
            actions.append((Do.START, number))
    return actions


# -- one worker -------------------------------------------------------------------------------


class Phase(Enum):
    """How a worker is, as far as the master knows."""

    STARTING = auto()
    READY = auto()
    ENDING = auto()


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

    def __str__(self) -> str:
        return f"worker {self.number} gen {self.generation} pid {self.pid}"

    def tell(self, message: bytes) -> None:
        """Send one byte.  A worker that is gone, or stuck with a full channel, needs none."""
        with suppress(OSError):
            self.channel.send(message)

    def end(self, message: bytes) -> None:
        """Tell it how to end: DRAIN, FINISH or STOP."""
        self.phase = Phase.ENDING
        self.tell(message)

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
        self.is_over = False
        self._listeners = listeners
        self._tls = tls
        self._identity = identity
        self._crew = crew
        self._backoffs: dict[int, BackOff] = {}
        self._not_before: dict[int, float] = {}
        self._forgiven = 0.0
        self._master = os.getpid()

    @property
    def is_ready(self) -> bool:
        """Whether as many accept as are wanted."""
        return sum(worker.phase is Phase.READY for worker in self.workers) >= self.wanted

    # -- growing and shrinking ------------------------------------------------------------------

    def tend(self) -> None:
        """Do what ``decide`` says; once a second, and whenever something has changed."""
        now = self._crew.loop.now()
        workers = list(self.workers)
        views = [self._view(worker) for worker in workers]
        timeout = self.config.server.worker_timeout
        actions = decide(now, self.wanted, views, self._not_before, timeout)
        if any(do is Do.START for do, _ in actions):
            fork.share_heap()
        for do, which in actions:
            match do:
                case Do.START:
                    self._try_to_start(which)
                case Do.DRAIN:
                    workers[which].end(DRAIN)
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
        if worker.phase is Phase.READY and row.state >= WorkerState.DRAINING:
            worker.phase = Phase.ENDING  # somebody sent it a signal by hand
        return WorkerView(
            worker.number,
            worker.phase is not Phase.ENDING,
            max(row[Column.TICK] / 1000, worker.forked, self._forgiven),
            worker.aborted_at,
        )

    def _abort(self, worker: Worker, timeout: float) -> None:
        log.error("%s: stuck, no sign of life for %g s; aborted", worker, timeout)
        worker.aborted_at = self._crew.loop.now()
        kill(worker.pid, signal.SIGABRT)

    # -- birth ----------------------------------------------------------------------------------

    def _try_to_start(self, number: int) -> None:
        row = self._free_row()
        if row is None:
            log.error("worker %d gen %d: no row is free on the scoreboard", number, self.number)
            return
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
        worker = Worker(number, self.number, row, pid, ours, self._crew.loop.now())
        self.workers.append(worker)
        self._crew.reaper.add(
            pid,
            lambda status: self._exited(worker, status),
            on_dead=lambda: self._crew.strays.take_over(str(worker), pid),
        )
        self._crew.loop.watch(ours.fileno(), lambda: self._heard(worker))

    def _be_worker(self, number: int, row: int, channel: socket.socket) -> int:
        """In the child, until its end."""
        server = self.config.server
        proctitle.set_title(f"worker {number}")
        user.raise_fd_limit(server.max_fds)
        if server.chroot:
            os.chroot(server.chroot)
            os.chdir("/")
        if self._identity is not None:
            self._identity.drop()
        if server.core_files:
            user.allow_core_files()
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
        elif READY in data and worker.phase is Phase.STARTING:
            worker.phase = Phase.READY
            log.info("%s: ready", worker)
            self._crew.on_ready(self)

    # -- death ----------------------------------------------------------------------------------

    def _exited(self, worker: Worker, status: int) -> None:
        self.board.bury(worker.row)
        self.workers.remove(worker)
        self._crew.loop.unwatch(worker.channel.fileno())
        worker.channel.close()
        if worker.phase is Phase.ENDING and worker.aborted_at is None:
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
        if self.is_over:
            return
        log.error("%s: %s; %s", worker, how, f"next try in {delay:g} s" if delay else "replaced")
        self._not_before[worker.number] = now + delay
        self._crew.loop.call_later(delay, self.tend)

    def _kill_deaf(self, worker: Worker) -> None:
        if worker in self.workers:
            log.error("%s: does not listen to the master; killed", worker)
            kill(worker.pid, signal.SIGKILL)

    # -- the end of all -------------------------------------------------------------------------

    def end(self, message: bytes) -> None:
        """Tell every worker how to end (DRAIN, FINISH or STOP); none is started any more."""
        self.is_over, self.wanted = True, 0
        for worker in self.workers:
            worker.end(message)
        if not self.workers:
            self._crew.on_empty(self)

    def drain(self) -> None:
        """Another generation serves: finish what runs, tunnels live on."""
        self.end(DRAIN)

    def finish(self) -> None:
        """The server stops, in order."""
        self.end(FINISH)

    def stop(self) -> None:
        """The server stops now, or this generation is not to be."""
        self.end(STOP)

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


def worker_count(config: Config) -> int:
    """``server.max-worker``, or one for each CPU this process may run on."""
    return config.server.max_worker or len(os.sched_getaffinity(0))
