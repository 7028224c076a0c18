"""A slot: the place of one proc, with its listening socket, and whatever process runs in it now."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ..address import Address, numbered
from ..config.backend import BackendSpec, Proc
from ..scoreboard import Board, ProcState
from ..unix import listen
from ..unix.reap import Reaper, describe, kill_group
from ..unix.spawn import spawn_proc
from .adaptive import SlotView
from .backoff import PROC_CEILING, BackOff
from .failure import cause
from .habitat import Habitat
from .loop import Loop, Timer
from .presence import Presence
from .proc_states import ProcEvent, after
from .slot_socket import SlotSocket
from .state import SlotRecord
from .stderr_pipe import StderrPipe
from .stranger import Stranger

POLL_INTERVAL = 0.05  # seconds between two looks at whether a new proc accepts
STARTING_TIME = 10.0  # seconds after which a proc counts as running without proof
DRAIN_TIME = 1.0  # seconds without a new connection before a proc that drains is told to end
KILL_DELAY = 5.0  # seconds from the kill-signal to KILL

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a slot needs of the master."""

    loop: Loop
    reaper: Reaper
    raw_stderr: Callable[[str], int]
    """The descriptor of a breakage log by its name."""
    on_death: Callable[[Slot, str], None]
    """A proc that nobody asked to end has ended, and why; before it is started again."""
    on_change: Callable[[], None]
    """A slot has changed its state by itself: procs may be wanted, here or elsewhere."""
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
        self.starts = 0
        self.deaths = 0
        """Ends that nobody asked for."""
        self.last_status = 0
        self.last_failure = ""
        self.started = 0.0
        self.is_superseded = False
        """Another slot has its address now."""
        self.presence = Presence()
        self.stderr = StderrPipe(around.loop, str(self))
        self._around = around
        self._loop = around.loop
        self._backoff = BackOff(PROC_CEILING)
        self._socket = SlotSocket(spec, self.address, habitat, around.loop)
        self._stranger: Stranger | None = None
        self._predecessor: Slot | None = None
        self._heir: Slot | None = None
        self._timer: Timer | None = None
        self._ends = 0
        self._taken_at_start = 0
        self._taken_by_predecessor = 0
        self._taken_seen = 0
        self._quiet_since = 0.0
        self._retired = 0.0
        self._has_waited = False
        self._is_leaving = False

    def __str__(self) -> str:
        return f"backend {self.address}"

    def _become(self, event: ProcEvent) -> None:
        self.state = after(self.state, event)
        self._write()
        self._watch_listener()

    def show(self, board: Board, proc: Proc) -> None:
        """From now on *proc* of *board* says how this slot is."""
        self.presence.show(board, proc)
        self._write()

    def _write(self) -> None:
        is_throttled = self.state is ProcState.THROTTLED
        retry_at = self._timer.due if is_throttled and self._timer is not None else 0.0
        self.presence.write(self.state, self.pid, self._ends, self.last_status, retry_at)

    def view(self, now: float) -> SlotView:
        """What decides whether it is needed."""
        load, taken = self.presence.load, self.presence.taken
        if load or taken != self._taken_seen or not self.pid or self._may_serve_others:
            self._quiet_since, self._taken_seen = now, taken
        return SlotView(self.state, load, self._quiet_since)

    @property
    def _may_serve_others(self) -> bool:
        """Whether it may hold connections that are counted for another slot of its address."""
        if self._shared_with is not None:
            return True
        before = self._predecessor
        return before is not None and before.presence.taken != self._taken_by_predecessor

    # -- its socket -----------------------------------------------------------------------------

    def bind(self, sibling: Slot | None = None) -> None:
        """Listen at the address, where *sibling* has listened for an older generation.

        A unix path that the sibling still serves changes hands with ``publish``; a TCP socket is
        shared.  A program of the target user that serves the path already is adopted.  Raises
        OSError.
        """
        if sibling is not None:
            self.succeed(sibling)
        if self.address.is_unix:
            is_free = sibling is None or sibling.is_adopted
            if is_free and self._adopts_what_is_there():
                self._become(ProcEvent.ADOPT)
                return
            self._socket.bind()
            if sibling is None or sibling._is_leaving or sibling.is_superseded:
                self.publish()
        elif sibling is not None and sibling._socket.listener is not None:
            self._socket.share(sibling._socket.listener)
            sibling._watch_listener()
        else:
            self._socket.bind()
        self._become(ProcEvent.BIND)

    @property
    def _shared_with(self) -> Slot | None:
        """The slot whose process accepts on the same socket."""
        for other in (self._predecessor, self._heir):
            if not self.address.is_unix and other is not None and other._socket.listener:
                return other
        return None

    @property
    def _backlog(self) -> int:
        """What the newest slot of its address asks for."""
        return self.spec.listen_backlog if self._heir is None else self._heir._backlog

    def _revive(self) -> None:
        """Some programs shut their socket down when they are told to end.  Raises OSError."""
        if self._socket.revive(self._backlog):
            log.info("%s: its program has shut the socket down; it listens again", self)

    def publish(self) -> None:
        """Put the unix socket at its path, if it is not there yet; the slot whose address this was
        is superseded.  Raises OSError."""
        self._socket.publish()
        before = self._predecessor
        if before is not None and not before.is_superseded:
            before.is_superseded = True
            before._watch_listener()
            # From now on who is counted there comes here.
            self._taken_by_predecessor = before.presence.taken

    @property
    def is_adopted(self) -> bool:
        return self._socket.listener is None and self.state is ProcState.RUNNING

    def _adopts_what_is_there(self) -> bool:
        found = Stranger.at(self._socket.path, self.habitat.uid, self._socket.kind)
        self._forget_stranger()
        self._stranger = found
        if found is not None:
            log.warning("%s: served by pid %d already, not started by us", self, found.pid)
        return found is not None

    def _forget_stranger(self) -> None:
        if self._stranger is not None:
            self._stranger.close()
            self._stranger = None

    def take_over(self) -> None:
        """Listen where an adopted program has ended, unless another has come in its place."""
        lives = self._stranger is not None and not self._stranger.has_ended
        if lives or not self.is_adopted or self.is_superseded:
            return
        try:
            self.bind(self._predecessor)
        except OSError as error:  # the next call tries again
            self._socket.close()
            before, self.last_failure = self.last_failure, f"cannot be taken over: {cause(error)}"
            if self.last_failure != before:
                log.error("%s: %s", self, self.last_failure)
            return
        self.last_failure = ""
        if not self.is_adopted:
            log.warning("%s: the program that was not ours has ended: taken over", self)

    def _watch_listener(self) -> None:
        """Who waits at the socket is the master's business while no process accepts there."""
        listener = self._socket.listener
        if listener is None:
            return
        refuses = self.state is ProcState.THROTTLED and self._shared_with is None
        if not self.pid and self._shared_with is None:
            # Blocking or not belongs to the open file (decisions 6): programs expect that it is,
            # and it is theirs to change as long as they live.
            listener.setblocking(not refuses)
        if refuses and not listen.is_shut(listener):
            self._socket.watch(self._refuse)
        elif self.state is ProcState.LISTENING and not (self.is_superseded and self._shared_with):
            self._socket.watch(self.spawn)
        else:
            self._socket.watch(None)

    def _refuse(self) -> None:
        """Who comes while it is throttled is told now, rather than left to wait."""
        listen.refuse_waiting(self._socket.open())

    # -- its process ----------------------------------------------------------------------------

    def start(self) -> None:
        """Spawn the first process.  Raises OSError when the program cannot be executed."""
        if not self.is_adopted:
            self._spawn()

    def spawn(self) -> None:
        """Start a process where none is; one that cannot be started counts as an early death."""
        if self.state is not ProcState.LISTENING:
            return
        try:
            self._spawn()
        except OSError as error:
            self._become(ProcEvent.SPAWN)
            self._died(cause(error), lived=0.0, served=False, failed=True)

    def _spawn(self) -> None:
        self._revive()
        listener = self._socket.open()
        self._taken_at_start = self.presence.taken
        self._has_waited = listen.has_waiting(listener)
        raw = self.habitat.breakagelog
        stderr = self._around.raw_stderr(raw) if raw else self.stderr.open()
        try:
            self.pid = spawn_proc(self.habitat.program(self.spec), listener.fileno(), stderr)
        finally:
            if not raw:
                os.close(stderr)
        self._around.reaper.add(self.pid, self._exited, leads_group=True)
        self.starts += 1
        self.started = self._loop.now()
        self._become(ProcEvent.SPAWN)
        self._timer = self._loop.call_later(POLL_INTERVAL, self._look)
        log.info("%s pid %d: started", self, self.pid)

    def _look(self) -> None:
        now = self._loop.now()
        if self._has_accepted() or now - self.started >= STARTING_TIME:
            self._timer, self._quiet_since = None, now
            self._become(ProcEvent.ACCEPTED)
            self._around.on_change()
        else:
            self._timer = self._loop.call_later(POLL_INTERVAL, self._look)

    def _has_accepted(self) -> bool:
        """Whether the new process has: a connection that waited is gone, or one was made."""
        waits, waited = listen.has_waiting(self._socket.open()), self._has_waited
        self._has_waited = waits
        return not waits and (waited or self._was_taken)

    @property
    def _was_taken(self) -> bool:
        return self.presence.taken > self._taken_at_start

    def _exited(self, status: int) -> None:
        self.stderr.read()
        self._cancel_timer()
        pid, self.pid, self.last_status = self.pid, 0, status
        self._ends += 1
        served = self._was_taken or self.state is not ProcState.STARTING or self._has_accepted()
        if not self._is_leaving or self._shared_with is not None:
            with suppress(OSError):  # ``spawn`` tries again, and says why not
                self._revive()
        if self.state is not ProcState.STOPPING:
            self.deaths += 1
            self._died(
                describe(status),
                lived=self._loop.now() - self.started,
                served=served,
                failed=status != 0,
            )
            return
        log.info("%s pid %d: ended, %s", self, pid, describe(status))
        self._become(ProcEvent.EXITED)
        if self._is_leaving:
            self._drop()
        else:
            self._around.on_change()

    def _died(self, how: str, *, lived: float, served: bool, failed: bool) -> None:
        delay = self._backoff.died(self._loop.now(), lived, served=served, failed=failed)
        self.last_failure = f"{'ended' if served else 'died before serving'}, {how}"
        self._become(ProcEvent.DIED_EARLY if delay else ProcEvent.EXITED)
        self._around.on_death(self, self._epitaph())
        if self._is_leaving:
            return
        if delay:
            log.error("%s: %s; next try in %g s", self, self.last_failure, delay)
            self._timer = self._loop.call_later(delay, self._delay_over)
            self._write()
        else:
            log.log(logging.WARNING if failed else logging.INFO, "%s: %s", self, self.last_failure)
        self._around.on_change()

    def _epitaph(self) -> str:
        last = f": {self.stderr.last[-1]}" if self.stderr.last else ""
        return f"{self}: {self.last_failure}{last}"

    def _delay_over(self) -> None:
        self._timer = None
        self._become(ProcEvent.DELAY_OVER)
        self._around.on_change()

    # -- its end --------------------------------------------------------------------------------

    def retire(self) -> None:
        """Nobody needs it: it ends, unless it is needed within the next second."""
        self._retired = self._loop.now()
        self._become(ProcEvent.RETIRE)
        self._timer = self._loop.call_later(DRAIN_TIME, self._drained)

    def recall(self) -> None:
        """It drains, and is needed."""
        self._cancel_timer()
        self._become(ProcEvent.TAKEN)

    def _drained(self) -> None:
        if self.view(self._loop.now()).quiet_since > self._retired:
            self.recall()
        else:
            log.info("%s pid %d: idle, told to end", self, self.pid)
            self._become(ProcEvent.EMPTY)
            self._tell_to_end(KILL_DELAY)

    def end(self, kill_delay: float = KILL_DELAY) -> None:
        """End the process if there is one, then close the socket and unlink its path.

        Called again, it changes when the process is killed if it has not ended by then.
        """
        is_first, self._is_leaving = not self._is_leaving, True
        if not self.pid:
            if is_first:
                self._drop()
        elif is_first:
            self._become(ProcEvent.END)
            self._tell_to_end(kill_delay)
        else:
            self._kill_after(kill_delay)

    def _tell_to_end(self, kill_delay: float) -> None:
        kill_group(self.pid, self.spec.kill_signal)
        self._kill_after(kill_delay)

    def _kill_after(self, delay: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(delay, self.kill)

    def kill(self) -> None:
        """KILL the process and its group; the reaper does the rest."""
        if self.pid:
            log.warning("%s pid %d: killed, it did not end when told", self, self.pid)
            kill_group(self.pid, signal.SIGKILL)

    def _drop(self) -> None:
        self._cancel_timer()
        self.stderr.close()
        self._forget_stranger()
        self._socket.close()
        self._leave_line()
        if self.state is not ProcState.UNBOUND:
            self._become(ProcEvent.DROP)
        self._around.on_closed(self)

    def _leave_line(self) -> None:
        """Who had the address before and who has it afterwards know each other from now on."""
        before, after = self._predecessor, self._heir
        if before is not None:
            before._heir = after
            before._watch_listener()
        if after is not None:
            after._predecessor = before
            after._taken_by_predecessor = self._taken_by_predecessor
            after._watch_listener()

    # -- from one program to the next -----------------------------------------------------------

    @classmethod
    def restore(cls, record: SlotRecord, boards: Mapping[int, Board], around: Surroundings) -> Slot:
        """As the program before this one has left it; ``succeed`` and ``resume`` come when all
        slots are there.  *boards* by generation.
        """
        self = cls(record.spec, record.number, record.habitat, around)
        self.state = record.state
        self.pid = record.pid
        self.starts, self.deaths, self._ends = record.starts, record.deaths, record.ends
        self.last_status, self.last_failure = record.last_status, record.last_failure
        self.started, self._retired = record.started, record.retired
        self._quiet_since = record.quiet_since
        self._taken_at_start = record.taken_at_start
        self._taken_by_predecessor = record.taken_by_predecessor
        self._taken_seen = record.taken_seen
        self._has_waited = record.has_waited
        self.is_superseded, self._is_leaving = record.is_superseded, record.is_leaving
        self._backoff = BackOff.restore(PROC_CEILING, record.backoff)
        self.presence.taken_before = record.taken_before
        for generation in record.boards:
            board = boards[generation]
            self.presence.show(board, board.procs_of(self.spec)[self.number])
        self.stderr.restore(record.stderr_fd, record.stderr_last)
        self._socket.restore(record.socket_fd, record.place)
        return self

    def succeed(self, predecessor: Slot) -> None:
        """Its address was that of *predecessor* before."""
        self._predecessor, predecessor._heir = predecessor, self

    def resume(self, record: SlotRecord) -> None:
        """Look after the process and the socket again."""
        if self.pid:
            self._around.reaper.add(self.pid, self._exited, leads_group=True)
        if record.due is not None:
            delay = max(0.0, record.due - self._loop.now())
            self._timer = self._loop.call_later(delay, partial(_WHEN_DUE[self.state], self))
        self._write()
        self._watch_listener()

    def snapshot(self, slots: Mapping[Slot, int]) -> SlotRecord:
        """For ``restore``; *slots* are all there are, each with its index."""
        timer, before = self._timer, self._predecessor
        return SlotRecord(
            spec=self.spec,
            number=self.number,
            habitat=self.habitat,
            state=self.state,
            boards=tuple(board.generation for board in self.presence.boards),
            pid=self.pid,
            socket_fd=self._socket.fd,
            place=self._socket.place,
            stderr_fd=self.stderr.fd,
            stderr_last=tuple(self.stderr.last),
            predecessor=-1 if before is None else slots.get(before, -1),
            due=timer.due if timer is not None and timer.is_pending else None,
            backoff=self._backoff.snapshot(),
            starts=self.starts,
            deaths=self.deaths,
            ends=self._ends,
            last_status=self.last_status,
            last_failure=self.last_failure,
            started=self.started,
            retired=self._retired,
            quiet_since=self._quiet_since,
            taken_before=self.presence.taken_before,
            taken_at_start=self._taken_at_start,
            taken_by_predecessor=self._taken_by_predecessor,
            taken_seen=self._taken_seen,
            has_waited=self._has_waited,
            is_superseded=self.is_superseded,
            is_leaving=self._is_leaving,
        )

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_WHEN_DUE: Mapping[ProcState, Callable[[Slot], None]] = {
    ProcState.STARTING: Slot._look,
    ProcState.THROTTLED: Slot._delay_over,
    ProcState.DRAINING: Slot._drained,
    ProcState.STOPPING: Slot.kill,
}
"""What a slot's timer is for."""
