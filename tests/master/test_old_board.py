"""Boards of another version: the same numbers in other places."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from forkd.address import Address
from forkd.config.backend import BackendSpec
from forkd.master import old_board
from forkd.master.old_board import OldBoard
from forkd.metrics import COUNTERS, Column
from forkd.scoreboard import (
    CELL,
    LAYOUT,
    MASTER_ROW,
    Board,
    BoardRecord,
    Layout,
    ProcCell,
    ProcState,
    WorkerCell,
    WorkerState,
    procs_for,
)

SPEC = BackendSpec("scgi", "", "", Address("/x"), bin_path=("/bin/x",), max_procs=2)
PROCS = procs_for((SPEC,))

OTHER = Layout(
    columns=("GONE", *reversed(LAYOUT.columns[1:])),  # no PID
    worker_cells=("GONE", *reversed(LAYOUT.worker_cells)),
    proc_cells=tuple(name for name in reversed(LAYOUT.proc_cells) if name != "ELSEWHERE"),
)


def board_of(layout: Layout) -> OldBoard:
    memory = bytearray(layout.size(3, len(PROCS)))
    return OldBoard(memory, 4, 3, PROCS, -1, layout)


def fill(board: Board) -> None:
    """As two workers and the master would."""
    for index in (1, 2):
        row = board.row(index)
        row[Column.PID] = 100 + index
        row[Column.STATE] = WorkerState.READY
        row[Column.REQUESTS] = 10 * index
        for proc in PROCS:
            board._cells[board._worker_cell(index, proc, WorkerCell.LOAD)] = index + proc.number
            board._cells[board._worker_cell(index, proc, WorkerCell.TAKEN)] = 5 * index
    for proc in PROCS:
        board.set_proc(proc, ProcCell.STATE, ProcState.RUNNING)
        board.set_proc(proc, ProcCell.PID, 7)
        board.set_proc(proc, ProcCell.ELSEWHERE, 100)


def names_of(board: Board) -> dict[str, int]:
    """Every cell that is not 0, by what its layout calls it."""
    layout, cells, found = board.layout, board._cells, {}
    stride = layout.stride(len(PROCS))
    for row in range(board.size):
        names = list(layout.columns)
        names += [f"{proc}/{cell}" for proc in PROCS for cell in layout.worker_cells]
        for place, name in enumerate(names):
            found[f"{row}:{name}"] = cells[row * stride + place]
    for place, name in enumerate(f"{proc}/{cell}" for proc in PROCS for cell in layout.proc_cells):
        found[name] = cells[board.size * stride + place]
    return {name: value for name, value in found.items() if value}


def test_every_number_lies_where_its_name_is() -> None:
    ours, theirs = Board(bytearray(LAYOUT.size(3, 2)), 4, 3, PROCS), board_of(OTHER)
    for board in (ours, theirs):
        fill(board)
    expected = {
        name: value
        for name, value in names_of(ours).items()
        if not name.endswith((":PID", "/ELSEWHERE"))
    }
    assert names_of(theirs) == expected


def test_what_the_other_version_did_not_count_is_0() -> None:
    board = board_of(OTHER)
    fill(board)
    assert board.row(1)[Column.PID] == 0
    assert board.proc(PROCS[0], ProcCell.ELSEWHERE) == 0
    fewer = board_of(replace(OTHER, worker_cells=("LOAD",)))
    assert fewer.taken(PROCS[0]) == 0


def test_the_sums_are_right() -> None:
    board = board_of(OTHER)
    fill(board)
    assert [board.load(proc) for proc in PROCS] == [3, 5]
    assert [board.taken(proc) for proc in PROCS] == [15, 15]
    assert board.state(PROCS[1]) is ProcState.RUNNING


def test_the_dead_are_buried_and_the_finished_inherited() -> None:
    board = board_of(OTHER)
    fill(board)
    board.bury(1)
    board.bury(2)
    assert not any(name.startswith(("1:", "2:")) for name in names_of(board))
    assert [board.taken(proc) for proc in PROCS] == [15, 15]
    assert board.load_here(PROCS[0]) == 0
    ours = Board(bytearray(LAYOUT.size(3, 2)), 5, 3, PROCS)
    ours.inherit(board)
    assert ours.master[Column.REQUESTS] == 30
    assert all(ours.master[column] == 0 for column in COUNTERS if column is not Column.REQUESTS)


def test_rows_of_the_living() -> None:
    board = board_of(replace(OTHER, columns=tuple(reversed(LAYOUT.columns))))
    fill(board)
    assert [row.index for row in board.rows()] == [1, 2]


@pytest.mark.parametrize("kind", [Board, OldBoard])
def test_a_board_is_mapped_again(kind: type[Board]) -> None:
    before = Board.create(4, 3, PROCS)
    before.claim(MASTER_ROW)
    fill(before)
    record = before.snapshot()
    assert record == BoardRecord(before.fd, 4, 3, PROCS, LAYOUT)
    copy = os.dup(record.fd)
    layout = LAYOUT if kind is Board else replace(LAYOUT, proc_cells=(*LAYOUT.proc_cells, "NEW"))
    os.ftruncate(copy, layout.size(3, 2))
    again = old_board.restore(replace(record, fd=copy, layout=layout))
    assert type(again) is kind
    assert again.master[Column.PID] == os.getpid()
    assert [row[Column.REQUESTS] for row in again.rows()] == [10, 20]
    before.row(1).add(Column.REQUESTS)
    assert again.row(1)[Column.REQUESTS] == 11
    before.close()
    again.close()
    assert LAYOUT.size(3, 2) % CELL == 0
