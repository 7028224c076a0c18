"""Boards of the program before this one, whose cells may lie elsewhere: found by their names.

A number that it did not count is 0 and stays so.  The workers that write the rows are of that
program too; of this one, the master alone looks at them.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from enum import IntEnum

from ..config.backend import Proc
from ..metrics import Column
from ..scoreboard import LAYOUT, Board, BoardRecord, Layout, ProcCell, Row, WorkerCell

Places = Mapping[IntEnum, int]


def restore(record: BoardRecord) -> Board:
    """Map the board again.  Raises OSError, ValueError."""
    size = record.layout.size(record.rows, len(record.procs))
    kind = Board if record.layout == LAYOUT else OldBoard
    return kind(
        mmap.mmap(record.fd, size),
        record.generation,
        record.rows,
        record.procs,
        record.fd,
        record.layout,
    )


class OldBoard(Board):
    """A board of another layout, for its master."""

    def __init__(
        self,
        memory: mmap.mmap | bytearray,
        generation: int,
        rows: int,
        procs: tuple[Proc, ...],
        fd: int,
        layout: Layout,
    ) -> None:
        self._columns = _places(Column, layout.columns)
        self._of_worker = _places(WorkerCell, layout.worker_cells)
        self._of_proc = _places(ProcCell, layout.proc_cells)
        super().__init__(memory, generation, rows, procs, fd, layout)

    def _make_row(self, index: int) -> Row:
        return OldRow(self._cells, index * self._stride, index, self._columns)

    def rows(self) -> tuple[Row, ...]:
        return tuple(row for row in self._rows[1:] if row[Column.PID])

    def proc(self, proc: Proc, cell: ProcCell) -> int:
        place = self._proc_place(proc, cell)
        return 0 if place is None else self._cells[place]

    def set_proc(self, proc: Proc, cell: ProcCell, value: int) -> None:
        place = self._proc_place(proc, cell)
        if place is not None:
            self._cells[place] = value

    def _proc_place(self, proc: Proc, cell: ProcCell) -> int | None:
        place = self._of_proc.get(cell)
        if place is None:
            return None
        return self._proc_cells + proc.column * len(self.layout.proc_cells) + place

    def _worker_cell(self, row: int, proc: Proc, cell: WorkerCell) -> int:
        """Raises KeyError for a cell that the layout does not have."""
        place = proc.column * len(self.layout.worker_cells) + self._of_worker[cell]
        return row * self._stride + len(self.layout.columns) + place

    def _sum(self, proc: Proc, cell: WorkerCell) -> int:
        return super()._sum(proc, cell) if cell in self._of_worker else 0


class OldRow(Row):
    """One process's numbers in another layout."""

    __slots__ = ("_places",)

    def __init__(self, cells: memoryview, base: int, index: int, places: Places) -> None:
        super().__init__(cells, base, index)
        self._places = places

    def __getitem__(self, column: Column) -> int:
        place = self._places.get(column)
        return 0 if place is None else self._cells[self._base + place]

    def __setitem__(self, column: Column, value: int) -> None:
        place = self._places.get(column)
        if place is not None:
            self._cells[self._base + place] = value

    def add(self, column: Column, n: int = 1) -> None:
        self[column] += n


def _places(kind: type[IntEnum], names: Sequence[str]) -> Places:
    """Where each member of *kind* lies, of those that *names* has."""
    return {member: names.index(name) for name, member in kind.__members__.items() if name in names}
