"""Did the backend end its connection, or did it die?"""

from __future__ import annotations

import os
import signal
import subprocess

import gevent
import pytest

from forkd.address import Address
from forkd.config.backend import BackendSpec, Proc
from forkd.gateway.verdict import Judge, is_exiting

PROC = Proc(BackendSpec("wstunnel", "/", "", Address("/s")), 0, Address("/s-0"), 0)


class Board:
    def __init__(self, pid: int) -> None:
        self._pid, self._deaths, self._status = pid, 0, 0

    def pid(self, proc: Proc) -> int:
        return self._pid

    def deaths(self, proc: Proc) -> int:
        return self._deaths

    def last_status(self, proc: Proc) -> int:
        return self._status

    def bury(self, status: int) -> None:
        self._deaths += 1
        self._status = status


@pytest.fixture
def zombie():
    """A dead process that nobody has reaped."""
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child.pid
    child.wait()


def verdict(board: Board, meanwhile=None) -> bool:
    said: list[bool] = []
    Judge(board, PROC)(said.append)
    if meanwhile:
        meanwhile()
    with gevent.Timeout(5):
        while not said:
            gevent.sleep(0.001)
    assert len(said) == 1
    return said[0]


def test_a_living_process_meant_it():
    assert verdict(Board(os.getpid())) is True


def test_an_exit_with_status_0_is_an_end(zombie):
    board = Board(zombie)
    assert verdict(board, lambda: board.bury(0)) is True


def test_a_signal_is_a_death(zombie):
    board = Board(zombie)
    assert verdict(board, lambda: board.bury(-9)) is False


def test_silence_of_the_master_is_a_death(zombie):
    assert verdict(Board(zombie)) is False


def test_a_death_that_was_counted_before_the_end_was_seen():
    board = Board(os.getpid())
    judge = Judge(board, PROC)
    board.bury(1)
    said: list[bool] = []
    judge(said.append)
    assert said == [False]


def test_is_exiting(zombie):
    assert is_exiting(zombie) and is_exiting(0) and not is_exiting(os.getpid())
