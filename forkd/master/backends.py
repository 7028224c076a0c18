"""All slots of all generations: kept where nothing changed, added and ended where something did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from ..address import Address
from ..config.model import BackendSpec
from ..scoreboard import Board
from ..unix.reap import Reaper
from .failure import cannot_execute, cannot_listen
from .loop import Loop
from .slot import KILL_DELAY, Habitat, Slot, Surroundings

log = logging.getLogger(__name__)

Key = tuple[BackendSpec, int, Habitat]


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
        self._slots: dict[Key, Slot] = {}
        self._leaving: set[Slot] = set()
        self._around = Surroundings(loop, reaper, raw_stderr, on_death, self._closed)
        self._on_empty: Callable[[], None] = _nothing

    def __iter__(self) -> Iterator[Slot]:
        """Those that live and those that are on their way out."""
        return iter([*self._slots.values(), *self._leaving])

    def add(self, board: Board, habitat: Habitat) -> list[Slot]:
        """Give every proc of *board* a slot, and start those that are new: they are the result.

        Raises StartError at the first that fails; ``remove`` of the board then undoes everything.
        """
        added: list[Slot] = []
        for proc in board.procs:
            if not proc.backend.is_spawned:
                continue
            key = (proc.backend, proc.number, habitat)
            slot = self._slots.get(key)
            if slot is None:
                slot = Slot(*key, self._around)
                sibling = self._at(slot.address)
                self._slots[key] = slot
                try:
                    slot.bind(sibling)
                except OSError as error:
                    raise cannot_listen(str(slot.address), error) from None
                added.append(slot)
            slot.show(board, proc)
        for slot in added:
            try:
                slot.start()
            except OSError as error:
                raise cannot_execute(str(slot), error) from None
        return added

    def publish(self) -> None:
        """Let sockets that take a path over from an older generation appear there."""
        for slot in self._slots.values():
            slot.publish()

    def remove(self, board: Board) -> None:
        """*board* has no workers any more: what no other board shows is ended."""
        for key, slot in list(self._slots.items()):
            slot.hide(board)
            if not slot.boards:
                self._end(key, slot, KILL_DELAY)

    def end_all(self, kill_delay: float, on_empty: Callable[[], None]) -> None:
        """End everything; *on_empty* is called when it has ended."""
        self._on_empty = on_empty
        for slot in list(self._leaving):
            slot.end(kill_delay)
        for key, slot in list(self._slots.items()):
            self._end(key, slot, kill_delay)
        if not self._leaving and self._on_empty is on_empty:
            self._on_empty = _nothing
            on_empty()

    def kill_all(self) -> None:
        """KILL what still runs."""
        for slot in list(self):
            slot.kill()

    def share_loads(self) -> None:
        """Once a second: each board learns what the workers of the others hold."""
        for slot in self._slots.values():
            if len(slot.boards) > 1:
                slot.share_load()

    def _at(self, address: Address) -> Slot | None:
        for slot in self:
            if slot.address == address:
                return slot
        return None

    def _end(self, key: Key, slot: Slot, kill_delay: float) -> None:
        del self._slots[key]
        self._leaving.add(slot)
        slot.end(kill_delay)

    def _closed(self, slot: Slot) -> None:
        self._leaving.discard(slot)
        if not self._slots and not self._leaving:
            on_empty, self._on_empty = self._on_empty, _nothing
            on_empty()


def _nothing() -> None:
    """Nobody waits for the last slot to close."""
