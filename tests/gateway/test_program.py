"""forkd/gateway/program.py and worker/programs.py, with real processes."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import psutil
import pytest

from forkd.gateway import program as module
from forkd.gateway.program import Program
from forkd.metrics import Column
from forkd.scoreboard import LAYOUT, Board
from forkd.unix.spawn import spawn_cgi
from forkd.worker.programs import ProgramSet


def until(condition: Callable[[], object], deadline: float = 5.0) -> None:
    """Let the loop run until *condition* holds."""
    with gevent.Timeout(deadline):
        while not condition():
            gevent.sleep(0.001)


def exists(pid: int) -> bool:
    """Whether *pid* has not been reaped."""
    return os.path.exists(f"/proc/{pid}")


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class Shell:
    """Programs in shell; what they print can be read, and who has ended is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: list[Program] = []
        self.live: list[Program] = []

    def run(self, script: str, grace: float = 30, *, hears: bool = False) -> tuple[Program, int]:
        """The program, and the reading end of its output."""
        output, stdout = os.pipe()
        heard, stderr = os.pipe()
        stdin = os.open(os.devnull, os.O_RDONLY)
        argv = [b"/bin/sh", b"-c", script.encode()]
        pid = spawn_cgi(argv, {}, bytes(self.folder), (stdin, stdout, stderr))
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        if not hears:
            os.close(heard)
        program = Program(pid, "cgi /x", grace, heard if hears else -1, self.ended.append)
        self.live.append(program)
        return program, output


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    for program in made.live:
        program.kill()
        program.dismiss()
    until(lambda: len(made.ended) == len(made.live))


def line(output: int) -> bytes:
    """A line that a program has printed."""
    os.set_blocking(output, False)
    data = bytearray()

    def complete() -> bool:
        try:
            data.extend(os.read(output, 1))
        except BlockingIOError:
            return False
        return data.endswith(b"\n")

    until(complete)
    return bytes(data)


def test_a_program_that_ends_by_itself(shell: Shell) -> None:
    program, _ = shell.run("exit 3")
    assert program.wait(5)
    assert program.status == 3
    assert shell.ended == []  # somebody may still read what it has written
    program.dismiss()
    program.dismiss()
    assert shell.ended == [program]
    assert not exists(program.pid)


def test_the_grace_time_is_for_ending_by_itself(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    program, output = shell.run("echo on; sleep 0.05", grace=30)
    line(output)
    program.dismiss()
    until(lambda: shell.ended)
    assert program.status == 0
    assert caplog.messages == []


def test_after_the_grace_time_its_whole_group_is_told_to_end(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    program, output = shell.run("sleep 60 & echo $!; wait", grace=0.05)
    child = int(line(output))
    began = time.monotonic()
    program.dismiss()
    until(lambda: shell.ended)
    assert time.monotonic() - began > 0.04
    assert program.status == -signal.SIGTERM
    until(lambda: not runs(child))
    assert caplog.messages == []  # it was our doing


def test_who_does_not_heed_it_is_killed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_DELAY", 0.05)
    program, output = shell.run("trap '' TERM; sleep 60 & echo $!; while :; do wait; done", 0)
    child = int(line(output))
    program.dismiss()
    until(lambda: shell.ended)
    assert program.status == -signal.SIGKILL
    until(lambda: not runs(child))


def test_what_a_program_leaves_running_goes_when_it_is_dismissed(shell: Shell) -> None:
    program, output = shell.run("sleep 60 & echo $!")
    child = int(line(output))
    assert program.wait(5)
    assert runs(child)
    assert exists(program.pid)  # unreaped, so that its number stays its group's
    program.dismiss()
    until(lambda: not runs(child))
    assert not exists(program.pid)


def test_a_death_that_nobody_wanted_is_logged(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    program, _ = shell.run("kill -SEGV $$")
    assert program.wait(5)
    assert caplog.messages == [f"cgi /x pid {program.pid}: died, signal 11 (SIGSEGV)"]


def test_signals_reach_the_group_until_it_has_ended(shell: Shell) -> None:
    program, output = shell.run("trap 'echo usr1; exit 0' USR1; echo on; sleep 60 & wait")
    line(output)
    program.signal(signal.SIGUSR1)
    assert line(output) == b"usr1\n"
    assert program.wait(5)
    program.dismiss()
    program.signal(signal.SIGUSR1)  # its number may be anybody's now
    program.kill()


def test_standard_error_goes_to_the_log(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    program, _ = shell.run("echo one >&2; echo two >&2; printf three >&2", hears=True)
    name = f"cgi /x pid {program.pid}"
    until(lambda: len(caplog.messages) == 3)
    assert caplog.messages == [f"{name}: one", f"{name}: two", f"{name}: three"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_last_words_are_logged_when_a_program_is_reaped(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    program, _ = shell.run("printf last >&2; kill -TERM $$", hears=True)
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    program.dismiss()
    until(lambda: shell.ended)
    assert f"cgi /x pid {program.pid}: last" in caplog.messages


# -- all of a worker --------------------------------------------------------------------------


@pytest.fixture
def board() -> Board:
    board = Board(bytearray(LAYOUT.size(4, 0)), 1, 4, ())
    board.claim(2, 1)
    board.row(1)[Column.PID] = 4711
    board.row(1)[Column.CGI_PROGRAMS] = 5
    return board


def test_programs_of_all_workers_are_counted(shell: Shell, board: Board) -> None:
    programs = ProgramSet(board)
    program, _ = shell.run("sleep 60")
    programs.add(program)
    assert (len(programs), programs.count()) == (1, 6)
    programs.discard(program)
    programs.discard(program)
    assert (len(programs), programs.count()) == (0, 5)
    assert board.mine[Column.CGI_PROGRAMS] == 0


def test_a_graceful_stop_ends_those_that_nobody_waits_for(shell: Shell, board: Board) -> None:
    programs = ProgramSet(board)
    wanted, _ = shell.run("sleep 60")
    dismissed, _ = shell.run("sleep 60")
    for program in (wanted, dismissed):
        programs.add(program)
    dismissed.dismiss()
    programs.finish()
    until(lambda: shell.ended == [dismissed])
    assert not wanted.wait(0)
    programs.terminate()
    assert wanted.wait(5)
    assert wanted.status == -signal.SIGTERM


def test_without_a_master_they_are_killed(shell: Shell, board: Board) -> None:
    programs = ProgramSet(board)
    program, output = shell.run("trap '' TERM; echo on; while :; do sleep 60; done")
    programs.add(program)
    line(output)
    programs.terminate()
    programs.kill()
    assert program.wait(5)
    assert program.status == -signal.SIGKILL
