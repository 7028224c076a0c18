"""forkd/master/strays.py: what a dead worker leaves, in a process that adopts it as the master
does."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import pytest

from forkd.master import strays as module
from forkd.master.loop import Loop
from forkd.master.strays import Strays
from forkd.unix import fork
from forkd.unix.reap import Reaper
from forkd.unix.session import groups_of
from forkd.unix.spawn import spawn_cgi

HEEDS = "echo x; sleep 60 & wait"
STUBBORN = "trap '' TERM; echo x; sleep 60 & wait; sleep 60"


def in_a_master(run: Callable[[], bool]) -> bool:
    """Whether *run* is true in a process that is a subreaper."""

    def be_master() -> int:
        fork.adopt_orphans()
        return 0 if run() else 1

    return os.waitstatus_to_exitcode(os.waitpid(fork.fork(be_master, ()), 0)[1]) == 0


def worker(*scripts: str) -> int:
    """A worker that starts the programs and is killed; not reaped yet."""
    output, stdout = os.pipe()

    def serve() -> int:
        for script in scripts:
            spawn_cgi([b"/bin/sh", b"-c", script.encode()], {}, b"/", (0, stdout, 2))
        time.sleep(60)
        return 0

    pid = fork.fork(serve, (stdout,))
    for _ in scripts:
        os.read(output, 2)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def go_on(loop: Loop, reaper: Reaper, until: Callable[[], bool]) -> bool:
    """Run the loop as the master does, for a few seconds at most."""
    deadline = time.monotonic() + 5
    while not until() and time.monotonic() < deadline:
        loop.call_later(0.01, lambda: None)
        loop.run_once()
        reaper.reap()
    return until()


@pytest.mark.parametrize(
    ("scripts", "seconds"), [((), 0), ((HEEDS, HEEDS), 0), ((HEEDS, STUBBORN), 0.3)]
)
def test_all_that_a_worker_has_left_is_ended(
    monkeypatch: pytest.MonkeyPatch, scripts: tuple[str, ...], seconds: float
) -> None:
    monkeypatch.setattr(module, "KILL_DELAY", 0.3)

    def run() -> bool:
        loop, reaper = Loop(), Reaper()
        strays = Strays(loop, reaper)
        pid = worker(*scripts)
        began = time.monotonic()
        left = len(groups_of(pid))
        reaper.add(pid, lambda status: None, on_dead=lambda: strays.take_over("worker", pid))
        reaper.reap()
        ended: list[bool] = []
        strays.await_end(lambda: ended.append(True))
        over = go_on(loop, reaper, lambda: bool(ended) and not groups_of(pid))
        return left == len(scripts) and over and time.monotonic() - began >= seconds

    assert in_a_master(run)


def test_the_end_of_the_server_waits_less() -> None:
    def run() -> bool:
        loop, reaper = Loop(), Reaper()
        strays = Strays(loop, reaper)
        pid = worker(STUBBORN)
        strays.take_over("worker", pid)
        strays.hurry(0.05)
        ended: list[bool] = []
        strays.await_end(lambda: ended.append(True))
        return go_on(loop, reaper, lambda: bool(ended))

    assert in_a_master(run)


def test_a_group_without_its_leader_is_killed_at_once() -> None:
    """The worker has reaped the leader; what is left holds the number alone."""
    script = "trap '' TERM; (trap '' TERM; echo x; sleep 60) & exit"

    def run() -> bool:
        output, stdout = os.pipe()

        def serve() -> int:
            started = spawn_cgi([b"/bin/sh", b"-c", script.encode()], {}, b"/", (0, stdout, 2))
            os.waitpid(started, 0)
            os.write(stdout, b"r\n")
            time.sleep(60)
            return 0

        pid = fork.fork(serve, (stdout,))
        said = b""
        while len(said) < 4:
            said += os.read(output, 4)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        loop, reaper = Loop(), Reaper()
        Strays(loop, reaper).take_over("worker", pid)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        return go_on(loop, reaper, lambda: not groups_of(pid))

    assert in_a_master(run)


def test_a_session_that_cannot_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(session: int) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "groups_of", fail)
    loop = Loop()
    Strays(loop, Reaper()).take_over("worker 1", os.getpid())
    assert "worker 1: what it left behind is not known: Too many open files" in caplog.text
    loop.close()
