"""The scoreboard: shared memory in which every process shows its numbers and reads the others'.

One board for each generation: a memfd, mapped shared, made by the master before it forks.  It
holds 64-bit integers, a row for each process.  Row 0 is the master's and has, beside the columns
of ``metrics``, the cells in which the master says how every proc is.  Rows from 1 are the workers':
each has two cells for each proc, the connections it holds (load) and those it ever took (taken).

Every row has one living writer, so there are no locks.  A load belongs to the worker that counted
it: when the master has reaped a worker it adds the worker's counters to its own row and zeroes the
dead one, and a crash leaks nothing.  The shape never changes, and the memory holds no pointers.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from .address import numbered
from .config.backend import BackendSpec, Proc
from .metrics import COUNTERS, Column

CELL = 8  # bytes
LINE = 64 // CELL  # cells of a cache line: two processes never write into the same one
MASTER_ROW = 0


class WorkerState(IntEnum):
    """How a worker is: written by itself into its row."""

    FREE = 0  # nobody's row
    STARTING = 1
    READY = 2  # accepts
    DRAINING = 3  # accepts no more; finishes what it has
    STOPPING = 4  # cuts what it has


class ProcState(IntEnum):
    """How a proc is: written by the master into row 0."""

    UNBOUND = 0  # no socket
    LISTENING = 1  # the master holds the socket; nobody accepts yet
    STARTING = 2  # spawned; has not accepted yet
    RUNNING = 3
    THROTTLED = 4  # died before serving; waits
    DRAINING = 5  # no new connections; goes when its load is 0
    STOPPING = 6  # told to end; KILL follows


class ProcCell(IntEnum):
    """The master's cells of one proc."""

    STATE = 0  # ProcState
    PID = 1
    DEATHS = 2  # times it ended; written after LAST_STATUS
    LAST_STATUS = 3  # as waitstatus_to_exitcode: exit status, or minus the signal
    ELSEWHERE = 4  # its load on other generations' boards, written once a second
    RETRY_AT = 5  # when it is started again if it is THROTTLED, as ``now_ms``


class WorkerCell(IntEnum):
    """A worker's cells of one proc."""

    LOAD = 0
    TAKEN = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """What the cells of a board mean: their names in the order in memory."""

    columns: tuple[str, ...]
    worker_cells: tuple[str, ...]
    proc_cells: tuple[str, ...]

    def stride(self, procs: int) -> int:
        """Cells from one row to the next: whole cache lines."""
        cells = len(self.columns) + procs * len(self.worker_cells)
        return -(-cells // LINE) * LINE

    def size(self, rows: int, procs: int) -> int:
        """Bytes of a board."""
        return (rows * self.stride(procs) + procs * len(self.proc_cells)) * CELL


def _names(cells: type[IntEnum]) -> tuple[str, ...]:
    return tuple(cell.name for cell in sorted(cells))


LAYOUT = Layout(_names(Column), _names(WorkerCell), _names(ProcCell))


@dataclass(frozen=True, slots=True)
class BoardRecord:
    """A board for a program that goes on in this process, and may have another layout."""

    fd: int
    generation: int
    rows: int
    procs: tuple[Proc, ...]
    layout: Layout


def procs_for(backends: Iterable[BackendSpec]) -> tuple[Proc, ...]:
    """Every proc that *backends* may have: max_procs of a spawned one, one of a remote one."""
    procs: list[Proc] = []
    for spec in backends:
        if not spec.is_spawned:
            procs.append(Proc(spec, 0, spec.address, len(procs)))
            continue
        for number in range(spec.max_procs):
            procs.append(Proc(spec, number, numbered(spec.address, number), len(procs)))
    return tuple(procs)


def rows_for(workers: int) -> int:
    """Rows of a board for *workers*: room for the master, for TTIN, and for workers that drain.

    Pages that nobody touches cost nothing.
    """
    return 1 + 4 * workers + 64


def now_ms() -> int:
    """The monotonic clock as it stands in STARTED and TICK, the same for all processes."""
    return time.monotonic_ns() // 1_000_000


class Row:
    """One process's numbers.  Who owns it writes; everybody reads."""

    __slots__ = ("_base", "_cells", "index")

    def __init__(self, cells: memoryview, base: int, index: int) -> None:
        self._cells = cells
        self._base = base
        self.index = index

    def __getitem__(self, column: Column) -> int:
        value: int = self._cells[self._base + column]
        return value

    def __setitem__(self, column: Column, value: int) -> None:
        self._cells[self._base + column] = value

    def add(self, column: Column, n: int = 1) -> None:
        self._cells[self._base + column] += n

    @property
    def state(self) -> WorkerState:
        return WorkerState(self[Column.STATE])

    def tick(self) -> None:
        """Write a sign of life."""
        self[Column.TICK] = now_ms()

    def age(self) -> float:
        """Seconds since the last sign of life."""
        return (now_ms() - self[Column.TICK]) / 1000


class Lease:
    """The right to count one connection to a proc.  Given back once, however often it is asked."""

    __slots__ = ("_cell", "_cells")

    def __init__(self, cells: memoryview, cell: int) -> None:
        self._cells = cells
        self._cell = cell

    def release(self) -> None:
        if self._cell >= 0:
            self._cells[self._cell] -= 1
            self._cell = -1

    def detach(self) -> Lease:
        """Hand the count on: the lease returned releases it, this one no more."""
        lease = Lease(self._cells, self._cell)
        self._cell = -1
        return lease

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Board:
    """The shared rows of one generation.

    ``mine`` is the row of this process: the master's, until a worker claims its own.  ``fd`` is the
    memfd, or -1 for a board over plain memory.  A process that closes the descriptors it does not
    know keeps its board until it ends: the mapping has a descriptor of its own.
    """

    def __init__(
        self,
        memory: mmap.mmap | bytearray,
        generation: int,
        rows: int,
        procs: tuple[Proc, ...],
        fd: int = -1,
        layout: Layout = LAYOUT,
    ) -> None:
        self.generation = generation
        self.procs = procs
        self.fd = fd
        self._memory = memory
        self._cells = memoryview(memory).cast("q")
        self.layout = layout
        self._stride = layout.stride(len(procs))
        self._rows = tuple(self._make_row(n) for n in range(rows))
        self._proc_cells = rows * self._stride
        self._by_backend: dict[BackendSpec, tuple[Proc, ...]] = {}
        for proc in procs:
            self._by_backend[proc.backend] = (*self._by_backend.get(proc.backend, ()), proc)
        self.mine = self.master

    @classmethod
    def create(cls, generation: int, rows: int, procs: tuple[Proc, ...]) -> Board:
        """A board in a memfd, all zero but the remote procs, which are RUNNING for ever.

        Raises OSError.
        """
        size = LAYOUT.size(rows, len(procs))
        fd = os.memfd_create(f"forkd-board-{generation}", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            memory = mmap.mmap(fd, size)
        except OSError:
            os.close(fd)
            raise
        board = cls(memory, generation, rows, procs, fd)
        for proc in procs:
            if not proc.backend.is_spawned:
                board.set_proc(proc, ProcCell.STATE, ProcState.RUNNING)
        return board

    def snapshot(self) -> BoardRecord:
        return BoardRecord(self.fd, self.generation, self.size, self.procs, self.layout)

    def close(self) -> None:
        """Unmap.  The board and its rows cannot be used any more."""
        self._cells.release()
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()
            os.close(self.fd)

    # -- rows -----------------------------------------------------------------------------------

    @property
    def master(self) -> Row:
        return self._rows[MASTER_ROW]

    @property
    def size(self) -> int:
        """How many rows there are, the master's included."""
        return len(self._rows)

    def row(self, index: int) -> Row:
        return self._rows[index]

    def _make_row(self, index: int) -> Row:
        return Row(self._cells, index * self._stride, index)

    def rows(self) -> tuple[Row, ...]:
        """The rows of living workers, in the order of their indexes."""
        first = self._stride + Column.PID
        pids = self._cells[first : self._proc_cells : self._stride].tolist()
        return tuple(row for row, pid in zip(self._rows[1:], pids, strict=True) if pid)

    def claim(self, index: int, number: int = 0) -> Row:
        """Make row *index* that of this process, worker *number*; it is STARTING from now."""
        row = self.mine = self._rows[index]
        row[Column.NUMBER] = number
        row[Column.GENERATION] = self.generation
        row[Column.STATE] = WorkerState.STARTING
        row[Column.STARTED] = row[Column.TICK] = now_ms()
        row[Column.PID] = os.getpid()
        return row

    def bury(self, index: int) -> None:
        """The master's, after reaping: carry the counters of row *index*, then zero it."""
        dead, master = self._rows[index], self.master
        for column in COUNTERS:
            master.add(column, dead[column])
        for proc in self.procs:
            self._cells[self._worker_cell(MASTER_ROW, proc, WorkerCell.TAKEN)] += self._cells[
                self._worker_cell(index, proc, WorkerCell.TAKEN)
            ]
        base = index * self._stride
        self._cells[base : base + self._stride] = memoryview(bytes(self._stride * CELL)).cast("q")

    def inherit(self, finished: Board) -> None:
        """The master's: carry the counters of a *finished* generation, whose workers are buried."""
        for column in COUNTERS:
            self.master.add(column, finished.master[column])

    # -- procs: workers count, everybody reads --------------------------------------------------

    def procs_of(self, backend: BackendSpec) -> tuple[Proc, ...]:
        """The procs of *backend* in the order of their numbers."""
        return self._by_backend.get(backend, ())

    def acquire(self, proc: Proc) -> Lease:
        """Count one connection to *proc* in this process's row."""
        cell = self._worker_cell(self.mine.index, proc, WorkerCell.LOAD)
        self._cells[cell] += 1
        self._cells[cell + 1] += 1
        return Lease(self._cells, cell)

    def load(self, proc: Proc) -> int:
        """Live connections to *proc*, of all workers of all generations."""
        return self.load_here(proc) + self.proc(proc, ProcCell.ELSEWHERE)

    def load_here(self, proc: Proc) -> int:
        """Live connections to *proc* of this generation's workers."""
        return self._sum(proc, WorkerCell.LOAD)

    def taken(self, proc: Proc) -> int:
        """How many connections this generation's workers, dead ones included, ever made to it."""
        return self._sum(proc, WorkerCell.TAKEN)

    def state(self, proc: Proc) -> ProcState:
        return ProcState(self.proc(proc, ProcCell.STATE))

    def pid(self, proc: Proc) -> int:
        """The process, or 0 when there is none."""
        return self.proc(proc, ProcCell.PID)

    def deaths(self, proc: Proc) -> int:
        """How often it ended; when this has changed, ``last_status`` is that of the end."""
        return self.proc(proc, ProcCell.DEATHS)

    def last_status(self, proc: Proc) -> int:
        """How it ended last: its exit status, or minus the number of the signal."""
        return self.proc(proc, ProcCell.LAST_STATUS)

    def retry_at(self, proc: Proc) -> float:
        """When a proc that is THROTTLED is started again, by the monotonic clock in seconds."""
        return self.proc(proc, ProcCell.RETRY_AT) / 1000

    def proc(self, proc: Proc, cell: ProcCell) -> int:
        value: int = self._cells[self._proc_cells + proc.column * len(ProcCell) + cell]
        return value

    def set_proc(self, proc: Proc, cell: ProcCell, value: int) -> None:
        """The master's alone."""
        self._cells[self._proc_cells + proc.column * len(ProcCell) + cell] = value

    def _worker_cell(self, row: int, proc: Proc, cell: WorkerCell) -> int:
        return row * self._stride + len(Column) + proc.column * len(WorkerCell) + cell

    def _sum(self, proc: Proc, cell: WorkerCell) -> int:
        first = self._worker_cell(MASTER_ROW, proc, cell)
        return sum(self._cells[first : self._proc_cells : self._stride])
