"""Another program in the place of this one: what it gets, and what a failure leaves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forkd.unix import reexec, signals
from forkd.unix.reexec import CommandLine
from forkd.unix.signals import SignalPipe

NEXT = """
import os, signal, sys
state = int(os.environ["FORKD_STATE"])
fds = {int(name) for name in os.listdir("/proc/self/fd")}
with open("said", "w") as file:
    print(os.getpid(), os.pread(state, 99, 0).decode(), os.read(int(sys.argv[1]), 9).decode(),
          sorted(set(map(int, sys.argv[1:])) & fds), signal.SIGTERM in signal.sigpending(),
          os.environ["NAME"], file=file)
"""


def in_a_child(run: Callable[[], None]) -> tuple[int, int]:
    """(pid, exit status)"""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        finally:
            os._exit(99)
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_next_program(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    other = os.open("/dev/null", os.O_RDONLY)
    os.write(writer, b"handed")
    argv = (sys.executable, "-c", NEXT, str(reader), str(other))

    def run() -> None:
        caught = SignalPipe([signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
        with signals.blocked():
            caught.give_back()
            reexec.execute(
                CommandLine(argv, str(tmp_path)), {"NAME": "value"}, b"what is left", [reader]
            )

    pid, status = in_a_child(run)
    assert status == 0
    said = (tmp_path / "said").read_text().split("\n")[0]
    assert said == f"{pid} what is left handed [{reader}] True value"
    for fd in (reader, writer, other):
        os.close(fd)


def test_a_failure_changes_nothing(tmp_path: Path) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    home, before = os.getcwd(), os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        reexec.execute(CommandLine(("/no/such/program",), str(tmp_path)), {}, b"", [fd])
    assert (os.getcwd(), os.get_inheritable(fd)) == (home, False)
    assert os.listdir("/proc/self/fd") == before
    os.close(fd)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    assert CommandLine(("x",), str(tmp_path)).cwd == str(tmp_path)
    assert CommandLine(("x",), str(tmp_path / "gone")).cwd == "/"


def test_how_this_process_was_called() -> None:
    command = CommandLine.own()
    assert command.argv[0] == sys.executable
    assert command.argv[1:] == tuple(sys.orig_argv[1:])
    assert command.folder == os.getcwd()


def test_what_was_left_is_taken_once() -> None:
    fd = reexec.hold(b"text")
    environment = {reexec.VARIABLE: str(fd), "OTHER": "1"}
    assert reexec.take(environment) == b"text"
    assert environment == {"OTHER": "1"}
    assert reexec.take(environment) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("value", ["x", "0", "1000000"])
def test_a_variable_that_means_nothing(value: str) -> None:
    with pytest.raises((ValueError, OSError)):
        reexec.take({reexec.VARIABLE: value})


def test_what_is_held_can_be_read_from_its_beginning() -> None:
    fd = reexec.hold(b"text")
    assert os.read(fd, 9) == b"text"
    assert reexec.read(fd) == b"text"
    os.close(fd)
