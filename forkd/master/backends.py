"""All backends that this master starts, of all generations: kept where nothing changed, added and
ended where something did, and as many procs of each as its load asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..address import Address
from ..config.backend import BackendSpec
from ..errors import StartError
from ..scoreboard import Board
from ..unix import user
from ..unix.reap import Reaper
from .adaptive import Do, decide
from .failure import BAD_CONFIG, NO_PERMISSION, cannot_execute, cannot_listen
from .habitat import Habitat
from .loop import Loop, Timer
from .slot import KILL_DELAY, Slot, Surroundings
from .state import BackendsRecord

log = logging.getLogger(__name__)

_ACTS = {Do.SPAWN: Slot.spawn, Do.RECALL: Slot.recall, Do.RETIRE: Slot.retire}


@dataclass(eq=False, slots=True)
class Backend:
    """The slots of one backend: max-procs of them, all bound, of which some have a process."""

    spec: BackendSpec
    habitat: Habitat
    slots: list[Slot]
    """In the order of their numbers."""

    @property
    def is_superseded(self) -> bool:
        """Whether another backend has its addresses: it only serves what it has."""
        return any(slot.is_superseded for slot in self.slots)

    def start(self) -> None:
        """Spawn the first procs.  Raises StartError."""
        for slot in self.slots[: self.spec.min_procs]:
            try:
                slot.start()
            except OSError as error:
                raise cannot_execute(str(slot), error) from None

    def tend(self, now: float) -> None:
        """Do what ``decide`` says."""
        for do, index in decide(now, self.spec, [slot.view(now) for slot in self.slots]):
            if do is Do.RETIRE or not self.is_superseded:
                _ACTS[do](self.slots[index])


class Backends:
    """The procs that this master starts.  Remote backends need nobody and are not here."""

    def __init__(
        self,
        loop: Loop,
        reaper: Reaper,
        raw_stderr: Callable[[str], int],
        on_death: Callable[[Slot, str], None],
    ) -> None:
        """*raw_stderr* gives a breakage log's descriptor by its name; *on_death* hears of each
        proc that ends unasked, and why, before it is started again."""
        self._backends: list[Backend] = []
        self._leaving: dict[Slot, None] = {}
        self._loop = loop
        self._around = Surroundings(
            loop, reaper, raw_stderr, on_death, self.tend_soon, self._closed
        )
        self._tending: Timer | None = None
        self._on_empty: Callable[[], None] = _nothing

    def __iter__(self) -> Iterator[Slot]:
        """Those that live and those that are on their way out."""
        return iter([*self._living(), *self._leaving])

    def _living(self) -> Iterator[Slot]:
        return (slot for backend in self._backends for slot in backend.slots)

    # -- what generations want ------------------------------------------------------------------

    def add(self, board: Board, habitat: Habitat) -> list[Slot]:
        """Give every proc of *board* a slot, and start the backends that are new: the result is
        their slots.

        Raises StartError at the first that fails; ``remove`` of the board then undoes everything.
        """
        added: list[Backend] = []
        newest = {slot.address: slot for slot in (*self._leaving, *self._living())}
        for spec in dict.fromkeys(proc.backend for proc in board.procs):
            if not spec.is_spawned:
                continue
            own = replace(habitat, runs_as=_identity_of(spec, habitat))
            backend = self._known(spec, own)
            if backend is not None:
                for slot, proc in zip(backend.slots, board.procs_of(spec), strict=True):
                    slot.show(board, proc)
            else:
                added.append(self._bound(spec, own, board, newest))
        for backend in added:
            backend.start()
        return [slot for backend in added for slot in backend.slots]

    def _known(self, spec: BackendSpec, habitat: Habitat) -> Backend | None:
        for backend in self._backends:
            same = (backend.spec, backend.habitat) == (spec, habitat)
            if same and not backend.is_superseded:
                return backend
        return None

    def _bound(
        self, spec: BackendSpec, habitat: Habitat, board: Board, newest: Mapping[Address, Slot]
    ) -> Backend:
        """*newest*: who has each address now."""
        backend = Backend(spec, habitat, [])
        self._backends.append(backend)
        for proc in board.procs_of(spec):
            slot = Slot(spec, proc.number, habitat, self._around)
            backend.slots.append(slot)
            slot.show(board, proc)
            try:
                slot.bind(newest.get(slot.address))
            except OSError as error:
                raise cannot_listen(str(slot.address), error) from None
        return backend

    def publish(self) -> None:
        """Let sockets that take a path over from an older generation appear there."""
        for slot in self._living():
            slot.publish()

    def remove(self, board: Board) -> None:
        """*board* has no workers any more: what no other board shows is ended."""
        for slot in self._living():
            slot.presence.hide(board)
        unknown = [one for one in self._backends if not any(s.presence.boards for s in one.slots)]
        self._end(unknown, KILL_DELAY)

    # -- what load wants ------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second: each board learns what the workers of the others hold, and procs that are
        wanted or idle are seen to; what adopted programs have left is taken over."""
        for slot in self._living():
            slot.take_over()
            if len(slot.presence.boards) > 1:
                slot.presence.share_load()
        self.tend()

    def tend(self) -> None:
        """Start procs that are wanted, retire those that are not."""
        for backend in list(self._backends):
            backend.tend(self._loop.now())

    def tend_soon(self) -> None:
        """The same in the next turn of the loop."""
        if self._tending is None or not self._tending.is_pending:
            self._tending = self._loop.call_later(0, self.tend)

    # -- from one program to the next -----------------------------------------------------------

    def restore(self, record: BackendsRecord, boards: Mapping[int, Board]) -> None:
        """What the program before this one ran.  *boards* by generation."""
        groups = (*record.living, record.leaving)
        slots = [[Slot.restore(one, boards, self._around) for one in group] for group in groups]
        self._leaving = dict.fromkeys(slots.pop())
        self._backends = [Backend(own[0].spec, own[0].habitat, own) for own in slots]
        everyone = list(zip(self, sum(groups, ()), strict=True))
        for slot, one in everyone:
            if one.predecessor >= 0:
                slot.succeed(everyone[one.predecessor][0])
        for slot, one in everyone:
            slot.resume(one)

    def snapshot(self) -> BackendsRecord:
        everyone = {slot: index for index, slot in enumerate(self)}
        return BackendsRecord(
            tuple(
                tuple(slot.snapshot(everyone) for slot in backend.slots)
                for backend in self._backends
            ),
            tuple(slot.snapshot(everyone) for slot in self._leaving),
        )

    # -- the end --------------------------------------------------------------------------------

    def end_all(self, kill_delay: float, on_empty: Callable[[], None]) -> None:
        """End everything; *on_empty* is called when it has ended."""
        self._on_empty = on_empty
        for slot in list(self._leaving):
            slot.end(kill_delay)
        self._end(self._backends, kill_delay)
        if not self._leaving and self._on_empty is on_empty:
            self._on_empty = _nothing
            on_empty()

    def kill_all(self) -> None:
        """KILL what still runs."""
        for slot in list(self):
            slot.kill()

    def _end(self, backends: list[Backend], kill_delay: float) -> None:
        slots = [slot for backend in backends for slot in backend.slots]
        gone = set(backends)
        self._backends = [one for one in self._backends if one not in gone]
        self._leaving.update(dict.fromkeys(slots))
        for slot in slots:
            slot.end(kill_delay)

    def _closed(self, slot: Slot) -> None:
        del self._leaving[slot]
        if not self._backends and not self._leaving:
            on_empty, self._on_empty = self._on_empty, _nothing
            on_empty()


def _identity_of(spec: BackendSpec, habitat: Habitat) -> user.Identity | None:
    """Whom the program of *spec* runs as.  Raises StartError."""
    try:
        return user.of_program(spec.user, spec.group, habitat.identity)
    except (ValueError, PermissionError) as error:
        code = NO_PERMISSION if isinstance(error, PermissionError) else BAD_CONFIG
        raise StartError(f"{spec.gateway}.server, {spec}: {error}", code) from None


def _nothing() -> None:
    """Nobody waits for the last slot to close."""
