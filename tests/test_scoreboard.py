"""The scoreboard: rows, leases, procs; shared between real processes where that is the point."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from forkd import scoreboard
from forkd.address import Address
from forkd.config.backend import BackendSpec
from forkd.metrics import COUNTERS, GAUGES, METRICS, Column, Kind, responses, totals
from forkd.scoreboard import (
    LAYOUT,
    MASTER_ROW,
    Board,
    ProcCell,
    ProcState,
    WorkerState,
    now_ms,
    procs_for,
    rows_for,
)

SPAWNED = BackendSpec(
    "wstunnel", "/ws/", "", Address("/run/echo.sock"), bin_path=("/bin/echo",), max_procs=3
)
REMOTE = BackendSpec("wstunnel", "/r/", "far", Address("10.0.0.1", 80))
PROCS = procs_for((SPAWNED, REMOTE))


@pytest.fixture(params=["memfd", "bytearray"])
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    if request.param == "memfd":
        one = Board.create(1, 5, PROCS)
        yield one
        one.close()
    else:
        yield Board(bytearray(LAYOUT.size(5, len(PROCS))), 1, 5, PROCS)


def test_procs_are_numbered_within_their_backend() -> None:
    assert [(str(proc.address), proc.number, proc.column) for proc in PROCS] == [
        ("/run/echo.sock-0", 0, 0),
        ("/run/echo.sock-1", 1, 1),
        ("/run/echo.sock-2", 2, 2),
        ("10.0.0.1:80", 0, 3),
    ]


def test_a_new_board_is_empty_but_for_remote_backends() -> None:
    board = Board.create(1, 5, PROCS)
    assert [board.state(proc) for proc in PROCS] == [ProcState.UNBOUND] * 3 + [ProcState.RUNNING]
    assert board.rows() == ()
    assert board.mine is board.master
    board.close()


def test_claim_makes_a_row_mine(board: Board) -> None:
    before = now_ms()
    row = board.claim(3, number=2)
    assert board.mine is row is board.row(3)
    assert row.state is WorkerState.STARTING
    assert (row[Column.PID], row[Column.NUMBER], row[Column.GENERATION]) == (os.getpid(), 2, 1)
    assert before <= row[Column.TICK] == row[Column.STARTED] <= now_ms()
    assert board.rows() == (row,)


def test_rows_do_not_overlap(board: Board) -> None:
    cells = [(row, column) for row in range(board.size) for column in Column]
    for value, (row, column) in enumerate(cells):
        board.row(row)[column] = value
    for row in range(1, board.size):
        board.claim(row)
        for proc in PROCS:
            for _ in range(row):
                board.acquire(proc)
    for proc in PROCS:
        for cell in ProcCell:
            board.set_proc(proc, cell, 1000 + proc.column * 10 + cell)
    kept = [column for column in Column if METRICS[column].kind is not Kind.MARK]
    for value, (row, column) in enumerate(cells):
        if column in kept:
            assert board.row(row)[column] == value
    for proc in PROCS:
        assert board.load_here(proc) == board.taken(proc) == 1 + 2 + 3 + 4
        for cell in ProcCell:
            assert board.proc(proc, cell) == 1000 + proc.column * 10 + cell


def test_lease_counts_once(board: Board) -> None:
    board.claim(1)
    proc = PROCS[1]
    lease = board.acquire(proc)
    other = board.acquire(proc)
    assert (board.load(proc), board.taken(proc)) == (2, 2)
    lease.release()
    lease.release()
    assert (board.load(proc), board.taken(proc)) == (1, 2)
    with other:
        pass
    assert board.load(proc) == 0


def test_detached_lease_outlives_its_block(board: Board) -> None:
    board.claim(1)
    with board.acquire(PROCS[0]) as lease:
        detached = lease.detach()
    assert board.load(PROCS[0]) == 1
    detached.release()
    assert board.load(PROCS[0]) == 0


def test_load_counts_other_generations_too(board: Board) -> None:
    board.claim(1)
    board.acquire(PROCS[0])
    board.set_proc(PROCS[0], ProcCell.ELSEWHERE, 7)
    assert board.load(PROCS[0]) == 8
    assert board.load_here(PROCS[0]) == 1


def test_bury_keeps_the_counters_and_frees_the_row(board: Board) -> None:
    row = board.claim(2)
    row[Column.CONNECTIONS] = 3
    row.add(Column.REQUESTS, 5)
    board.acquire(PROCS[0])
    board.master[Column.REQUESTS] = 10
    board.bury(2)
    assert board.rows() == ()
    assert all(row[column] == 0 for column in Column)
    assert board.load(PROCS[0]) == 0
    assert board.taken(PROCS[0]) == 1
    assert board.master[Column.REQUESTS] == 15
    assert board.master[Column.CONNECTIONS] == 0


def test_inherit_carries_a_finished_generation() -> None:
    old, new = Board.create(1, 2, ()), Board.create(2, 2, PROCS)
    old.master[Column.BYTES_IN] = 1 << 40
    new.master[Column.BYTES_IN] = 1
    new.inherit(old)
    assert new.master[Column.BYTES_IN] == (1 << 40) + 1


def test_procs_of(board: Board) -> None:
    assert board.procs_of(SPAWNED) == PROCS[:3]
    assert board.procs_of(REMOTE) == PROCS[3:]
    stranger = BackendSpec("scgi", "/", "", Address("/x"))
    assert board.procs_of(stranger) == ()


def test_procs_keep_their_place_through_a_pickled_configuration(board: Board) -> None:
    assert board.procs_of(pickle.loads(pickle.dumps(SPAWNED))) == PROCS[:3]


def test_what_a_child_counts_is_seen(board: Board) -> None:
    if board.fd < 0:
        return
    pid = os.fork()
    if pid == 0:
        board.claim(1, number=0)
        board.acquire(PROCS[2])
        board.mine.add(Column.REQUESTS, 3)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.row(1)[Column.PID] == pid
    assert board.row(1)[Column.REQUESTS] == 3
    assert board.load(PROCS[2]) == 1
    assert board.mine is board.master


def test_untouched_rows_cost_no_memory() -> None:
    """64 rows of 4096 procs: 4 MiB of board, of which one row's pages are there."""
    many = procs_for([BackendSpec("x", "", "", Address("/a"), ("/b",), 1, 4096)])
    board = Board.create(1, rows_for(4), many)
    board.claim(1)
    blocks = os.fstat(board.fd).st_blocks * 512
    assert blocks <= 4 * 4096
    board.close()


def test_age(board: Board) -> None:
    row = board.claim(1)
    row[Column.TICK] = now_ms() - 2500
    assert 2.5 <= row.age() < 3
    row.tick()
    assert row.age() < 1


def test_every_column_has_a_meaning() -> None:
    assert set(METRICS) == set(Column)
    assert list(Column) == list(range(len(Column)))
    assert set(GAUGES) | set(COUNTERS) <= set(Column)


@pytest.mark.parametrize(
    ("status", "column"),
    [(101, Column.RESPONSES_1XX), (200, Column.RESPONSES_2XX), (301, Column.RESPONSES_3XX),
     (404, Column.RESPONSES_4XX), (599, Column.RESPONSES_5XX)],
)  # fmt: skip
def test_responses(status: int, column: Column) -> None:
    assert responses(status) is column


def test_totals_sum_what_can_be_summed(board: Board) -> None:
    board.master[Column.REQUESTS] = 2
    board.claim(1)[Column.REQUESTS] = 3
    board.mine[Column.TUNNELS] = 4
    found = totals(row.__getitem__ for row in (board.master, *board.rows()))
    assert found["requests"] == 5
    assert found["tunnels"] == 4
    assert "pid" not in found


def test_closed_board_leaks_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    maps = Path("/proc/self/maps").read_text().count("forkd-board")
    for _ in range(10):
        Board.create(1, 5, PROCS).close()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert Path("/proc/self/maps").read_text().count("forkd-board") == maps


def test_a_board_that_cannot_be_mapped_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(scoreboard.mmap, "mmap", fail)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Too many"):
        Board.create(1, 5, PROCS)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_master_row_is_no_worker(board: Board) -> None:
    board.claim(MASTER_ROW)
    assert board.rows() == ()
