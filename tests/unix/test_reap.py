"""Children are reaped once, and the right one is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NoReturn

import pytest

from forkd.unix.reap import Reaper, describe, kill, kill_group


def child(status: int = 0, *, group: bool = False, sleeps: bool = False) -> int:
    pid = os.fork()
    if pid == 0:
        if group:
            os.setpgid(0, 0)
        if sleeps:
            time.sleep(1000)
        os._exit(status)
    return pid


def wait_dead(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_defect_costs_nobody_his_turn(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("a defect")

    reaper, found = Reaper(), []
    first, second, third = (child() for _ in range(3))
    reaper.add(first, found.append, on_dead=fail)
    reaper.add(second, fail)
    reaper.add(third, found.append)
    for pid in (first, second, third):
        wait_dead(pid)
    reaper.reap()
    assert found == [0, 0]
    assert caplog.text.count("RuntimeError: a defect") == 2


def test_each_callback_gets_its_own_status() -> None:
    reaper, found = Reaper(), {}
    pids = [child(status) for status in (0, 3)] + [child(sleeps=True)]
    for pid in pids:
        reaper.add(pid, lambda status, pid=pid: found.__setitem__(pid, status))
    kill(pids[2], signal.SIGKILL)
    for pid in pids:
        wait_dead(pid)
    reaper.reap()
    assert found == {pids[0]: 0, pids[1]: 3, pids[2]: -9}
    assert not any(pid in reaper for pid in pids)
    reaper.reap()


def test_living_children_are_left_alone() -> None:
    reaper = Reaper()
    pid = child(sleeps=True)
    reaper.add(pid, lambda status: pytest.fail("it lives"))
    reaper.reap()
    assert pid in reaper
    kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_strangers_are_reaped_in_silence() -> None:
    pid = child(5)
    wait_dead(pid)
    Reaper().reap()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_group_goes_with_its_leader() -> None:
    reader, writer = os.pipe()
    leader = os.fork()
    if leader == 0:
        os.setpgid(0, 0)
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
    os.close(writer)
    wait_dead(leader)
    reaper, found = Reaper(), []
    reaper.add(leader, found.append, leads_group=True)
    reaper.reap()
    assert found == [0]
    assert os.read(reader, 1) == b""  # the grandchild, that held the writing end, is dead
    os.close(reader)


def test_kill_group_without_a_group_kills_the_child() -> None:
    pid = child(sleeps=True)
    kill_group(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_killing_the_dead_is_no_error() -> None:
    pid = child()
    os.waitpid(pid, 0)
    kill(pid, signal.SIGTERM)
    kill_group(pid, signal.SIGTERM)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "status 0"), (3, "status 3"), (-9, "signal 9 (SIGKILL)"), (-40, "signal 40")],
)
def test_describe(status: int, text: str) -> None:
    assert describe(status) == text


def test_the_dead_are_looked_at_before_they_are_reaped() -> None:
    reaper, found = Reaper(), []
    pid = child(4)
    reaper.add(pid, found.append, on_dead=lambda: found.append(Path(f"/proc/{pid}").exists()))
    wait_dead(pid)
    reaper.reap()
    assert found == [True, 4]
