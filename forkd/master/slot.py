"""A slot: the place of one proc, with its listening socket, and whatever process runs in it now."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from ..address import Address, numbered
from ..config.model import BackendSpec, Proc
from ..scoreboard import Board, ProcCell, ProcState
from ..stderr import StderrLines
from ..unix import listen, proctitle, spawn
from ..unix.reap import Reaper, describe, kill_group
from ..unix.user import Identity
from .backoff import PROC_CEILING, BackOff
from .failure import cause
from .loop import Loop, Timer
from .proc_states import ProcEvent, after

POLL_INTERVAL = 0.05  # seconds between two looks at whether a new proc accepts
STARTING_TIME = 10.0  # seconds after which a proc counts as running without proof
KILL_DELAY = 5.0  # seconds from the kill-signal to KILL
SOCKET_MODE = 0o600

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Habitat:
    """What a proc depends on beside its spec: with equal ones it may stay over a reload."""

    identity: Identity | None = None
    chroot: str = ""
    breakagelog: str = ""
    """Name of the log that takes standard error as it is; "" for tagged lines in the error log."""

    @property
    def uid(self) -> int:
        return os.geteuid() if self.identity is None else self.identity.uid


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a slot needs of the master."""

    loop: Loop
    reaper: Reaper
    raw_stderr: Callable[[str], int]
    """The descriptor of a breakage log by its name."""
    on_death: Callable[[Slot, str], None]
    """A proc that nobody asked to end has ended, and why; before it is started again."""
    on_closed: Callable[[Slot], None]
    """The slot has neither process nor socket any more."""


class Slot:
    """One proc's place.  Its state is shown on every board that knows the proc."""

    def __init__(
        self, spec: BackendSpec, number: int, habitat: Habitat, around: Surroundings
    ) -> None:
        self.spec = spec
        self.number = number
        self.habitat = habitat
        self.address: Address = numbered(spec.address, number)
        self.state = ProcState.UNBOUND
        self.pid = 0
        self.deaths = 0
        self.last_status = 0
        self.last_failure = ""
        self.started = 0.0
        self.stderr = StderrLines()
        self.boards: dict[Board, Proc] = {}
        self._around = around
        self._loop = around.loop
        self._backoff = BackOff(PROC_CEILING)
        self._unix: listen.UnixSocket | None = None
        self._listener: socket.socket | None = None
        self._partner: Slot | None = None
        self._stderr_fd = -1
        self._timer: Timer | None = None
        self._taken_before = 0
        self._has_waited = False
        self._is_leaving = False

    def __str__(self) -> str:
        return f"backend {self.address}"

    # -- the boards it is shown on --------------------------------------------------------------

    def show(self, board: Board, proc: Proc) -> None:
        """From now on *proc* of *board* says how this slot is."""
        self.boards[board] = proc
        self._write()

    def hide(self, board: Board) -> None:
        """*board* goes; what its workers took is not missed."""
        proc = self.boards.pop(board, None)
        if proc is not None:
            self._taken_before -= board.taken(proc)
            self.share_load()

    def share_load(self) -> None:
        """Tell each board what the workers of the others hold."""
        loads = {board: board.load_here(proc) for board, proc in self.boards.items()}
        total = sum(loads.values())
        for board, proc in self.boards.items():
            board.set_proc(proc, ProcCell.ELSEWHERE, total - loads[board])

    @property
    def load(self) -> int:
        return sum(board.load_here(proc) for board, proc in self.boards.items())

    def _taken(self) -> int:
        return sum(board.taken(proc) for board, proc in self.boards.items())

    def _write(self) -> None:
        for board, proc in self.boards.items():
            # A worker that sees a new number of deaths reads the status of the last: it goes first.
            board.set_proc(proc, ProcCell.LAST_STATUS, self.last_status)
            board.set_proc(proc, ProcCell.DEATHS, self.deaths)
            board.set_proc(proc, ProcCell.PID, self.pid)
            board.set_proc(proc, ProcCell.STATE, self.state)

    def _become(self, event: ProcEvent) -> None:
        self.state = after(self.state, event)
        self._write()

    # -- its socket -----------------------------------------------------------------------------

    def bind(self, sibling: Slot | None = None) -> None:
        """Listen at the address, where *sibling* has listened for an older generation.

        A unix path that the sibling still serves changes hands with ``publish``; a TCP socket is
        shared.  A program of the target user that serves the path already is adopted.  Raises
        OSError.
        """
        if self.address.is_unix:
            if sibling is None and self._adopts_what_is_there():
                self._become(ProcEvent.ADOPT)
                return
            self._unix = listen.UnixSocket(
                self._path, self.spec.listen_backlog, SOCKET_MODE, self.habitat.identity
            )
            self._listener = self._unix.socket
            if sibling is None or sibling._is_leaving:
                self.publish()
        elif sibling is not None and sibling._listener is not None:
            self._listener = sibling._share_with(self)
        else:
            self._listener = listen.bind_tcp(self.address, self.spec.listen_backlog)
        self._become(ProcEvent.BIND)

    def _share_with(self, heir: Slot) -> socket.socket:
        assert self._listener is not None
        self._stop_refusing()
        self._partner, heir._partner = heir, self
        shared = self._listener.dup()
        shared.listen(heir.spec.listen_backlog)
        return shared

    def publish(self) -> None:
        """Put the unix socket at its path, if it is not there yet.  Raises OSError."""
        if self._unix is not None:
            self._unix.publish()

    @property
    def is_adopted(self) -> bool:
        return self._listener is None and self.state is ProcState.RUNNING

    @property
    def _path(self) -> str:
        return self.habitat.chroot.rstrip("/") + self.address.host

    def _adopts_what_is_there(self) -> bool:
        found = listen.occupant(self._path)
        if found is None or (found.pid and not os.path.exists(f"/proc/{found.pid}")):
            return False  # nobody, or what a dead server left behind: renamed over
        if found.pid == 0 or found.owner != self.habitat.uid or proctitle.is_forkd(found.pid):
            raise OSError(errno.EADDRINUSE, "is served by somebody else", self._path)
        log.warning("%s: served by pid %d already, not started by us", self, found.pid)
        return True

    # -- its process ----------------------------------------------------------------------------

    def start(self) -> None:
        """Spawn the first process.  Raises OSError when the program cannot be executed."""
        if not self.is_adopted:
            self._spawn()

    def _spawn(self) -> None:
        assert self._listener is not None
        raw = self.habitat.breakagelog
        if raw:
            self.pid = spawn.spawn_proc(
                self._program(), self._listener.fileno(), self._around.raw_stderr(raw)
            )
        else:
            self.pid = self._spawn_with_pipe(self._listener.fileno())
        self._around.reaper.add(self.pid, self._exited, leads_group=True)
        self.started = self._loop.now()
        self._taken_before, self._has_waited = self._taken(), False
        self._become(ProcEvent.SPAWN)
        self._timer = self._loop.call_later(POLL_INTERVAL, self._look)
        log.info("%s pid %d: started", self, self.pid)

    def _spawn_with_pipe(self, listener: int) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        try:
            pid = spawn.spawn_proc(self._program(), listener, writer)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._close_stderr()
        self._stderr_fd = reader
        self._loop.watch(reader, self._read_stderr)
        return pid

    def _program(self) -> spawn.Program:
        spec, habitat = self.spec, self.habitat
        return spawn.Program(
            argv=spec.bin_path,
            env=spawn.environment(os.environ, spec.bin_copy_environment, spec.bin_environment),
            cwd=os.path.dirname(spec.bin_path[0]) or ".",
            identity=habitat.identity,
            chroot=habitat.chroot,
            death_signal=spec.kill_signal,
        )

    def _look(self) -> None:
        """Has the new process accepted?  A connection that waited is gone, or one was made."""
        assert self._listener is not None
        waits = listen.has_waiting(self._listener)
        accepted = not waits and (self._has_waited or self._taken() > self._taken_before)
        self._has_waited = waits
        if accepted or self._loop.now() - self.started >= STARTING_TIME:
            self._timer = None
            self._become(ProcEvent.ACCEPTED)
        else:
            self._timer = self._loop.call_later(POLL_INTERVAL, self._look)

    def _exited(self, status: int) -> None:
        self._read_stderr()
        self._cancel_timer()
        self.pid, self.last_status = 0, status
        self.deaths += 1
        if self.state is ProcState.STOPPING:
            self._become(ProcEvent.EXITED)
            self._drop()
            return
        self._died(
            describe(status),
            lived=self._loop.now() - self.started,
            served=self._taken() > self._taken_before,
            failed=status != 0,
        )

    def _died(self, how: str, *, lived: float, served: bool, failed: bool) -> None:
        delay = self._backoff.died(self._loop.now(), lived, served=served, failed=failed)
        self.last_failure = f"{'ended' if served else 'died before serving'}, {how}"
        self._become(ProcEvent.DIED_EARLY if delay else ProcEvent.EXITED)
        self._around.on_death(self, self._epitaph())
        if self._is_leaving:
            return
        if delay:
            log.error("%s: %s; next try in %g s", self, self.last_failure, delay)
            self._throttle(delay)
        else:
            level = logging.WARNING if failed else logging.INFO
            log.log(level, "%s: %s; started again", self, self.last_failure)
            self._spawn_again()

    def _epitaph(self) -> str:
        last = f": {self.stderr.last[-1]}" if self.stderr.last else ""
        return f"{self}: {self.last_failure}{last}"

    def _spawn_again(self) -> None:
        try:
            self._spawn()
        except OSError as error:
            self._become(ProcEvent.SPAWN)
            self._died(cause(error), lived=0.0, served=False, failed=True)

    def _throttle(self, delay: float) -> None:
        """Until *delay* is over who waits is refused now, rather than left to wait."""
        if self._partner is None or self._partner._listener is None:
            self._start_refusing()
        self._timer = self._loop.call_later(delay, self._delay_over)

    def _start_refusing(self) -> None:
        assert self._listener is not None
        self._listener.setblocking(False)  # of the open file: nobody else accepts on it now
        self._loop.watch(self._listener.fileno(), self._refuse)

    def _refuse(self) -> None:
        assert self._listener is not None
        listen.refuse_waiting(self._listener)

    def _stop_refusing(self) -> None:
        if self._listener is not None and not self._listener.getblocking():
            self._loop.unwatch(self._listener.fileno())
            self._listener.setblocking(True)  # programs that accept on it expect that

    def _delay_over(self) -> None:
        self._stop_refusing()
        self._become(ProcEvent.DELAY_OVER)
        self._spawn_again()

    def _read_stderr(self) -> None:
        if self._stderr_fd < 0:
            return
        now = self._loop.now()
        try:
            data = os.read(self._stderr_fd, 65536)
        except BlockingIOError:
            return
        lines = self.stderr.feed(data, now) if data else self.stderr.end(now)
        for line in lines:
            log.warning("%s: %s", self, line)
        if not data:
            self._close_stderr()

    def _close_stderr(self) -> None:
        if self._stderr_fd >= 0:
            self._loop.unwatch(self._stderr_fd)
            os.close(self._stderr_fd)
            self._stderr_fd = -1

    # -- its end --------------------------------------------------------------------------------

    def end(self, kill_delay: float = KILL_DELAY) -> None:
        """End the process if there is one, then close the socket and unlink its path.

        Called again, it changes when the process is killed if it has not ended by then.
        """
        is_first, self._is_leaving = not self._is_leaving, True
        if self.pid:
            self._cancel_timer()
            if is_first:
                self._become(ProcEvent.END)
                kill_group(self.pid, self.spec.kill_signal)
            self._timer = self._loop.call_later(kill_delay, self.kill)
        elif is_first:
            self._drop()

    def kill(self) -> None:
        """KILL the process and its group; the reaper does the rest."""
        if self.pid:
            log.warning("%s pid %d: killed, it did not end when told", self, self.pid)
            kill_group(self.pid, signal.SIGKILL)

    def _drop(self) -> None:
        self._cancel_timer()
        self._stop_refusing()
        self._close_stderr()
        if self._unix is not None:
            self._unix.close()
        elif self._listener is not None:
            self._listener.close()
        self._listener = None
        if self.state is not ProcState.UNBOUND:
            self._become(ProcEvent.DROP)
        self._around.on_closed(self)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

