"""forkd/bridge/run.py: what tests/e2e/test_bridge.py cannot bring about from outside."""

from __future__ import annotations

import os
from typing import Any

import gevent
import psutil
import pytest

from forkd.bridge import run as module
from forkd.bridge.launch import Command
from forkd.bridge.run import Run, Runs
from forkd.errors import NoBackend


class Audience:
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.output = b""
        self.stderr = b""
        self.ends = 0
        self.over: list[int] = []

    def on_output(self, data: Any) -> None:
        self.output += data

    def on_output_end(self) -> None:
        self.ends += 1

    def on_stderr(self, data: Any) -> None:
        self.stderr += data

    def on_room(self) -> None: ...

    def on_over(self, status: int) -> None:
        self.over.append(status)


def sh(text: str) -> Command:
    return Command((b"/bin/sh", b"-c", text.encode()), b"/")


def started(text: str, audience: Audience, runs: Runs | None = None) -> Run:
    return Run(sh(text), os.environb, audience, runs or Runs(), hears_stderr=True)


def await_end(audience: Audience) -> None:
    with gevent.Timeout(10):
        while not audience.over:
            gevent.sleep(0.002)


def open_descriptors() -> list[str]:
    gevent.sleep(0)  # the loop has some of its own
    return sorted(os.listdir("/proc/self/fd"))


def test_everything_is_heard_once_and_nothing_stays_open() -> None:
    before = open_descriptors()
    for text, output, stderr, status in (
        ("echo out; echo err >&2; exit 3", b"out\n", b"err\n", 3),
        ("exec >&-; echo err >&2; kill -TERM $$", b"", b"err\n", -15),
        ("(sleep 0.2; echo late) & echo out", b"out\nlate\n", b"", 0),
        ("read x; echo $x", b"x\n", b"", 0),
    ):
        audience = Audience()
        run = started(text, audience)
        run.write(b"x\n")
        await_end(audience)
        assert (audience.output, audience.stderr) == (output, stderr)
        assert (audience.ends, audience.over) == (1, [status])
        gevent.sleep(0.01)
        assert audience.over == [status]
        run.write_eof()
        run.hurry()
        del run
    gevent.sleep(0.01)
    assert open_descriptors() == before


def test_a_lost_run_is_heard_no_more(caplog: pytest.LogCaptureFixture) -> None:
    audience = Audience()
    run = started("read x; echo heard; echo 'to the log' >&2; exit 4", audience)
    run.lose()
    run.write(b"\n")
    await_end(audience)
    assert (audience.output, audience.stderr, audience.ends) == (b"", b"", 0)
    assert audience.over == [4]
    assert "to the log" in caplog.text


def test_a_lost_run_whose_program_has_ended_is_over_at_once() -> None:
    audience = Audience()
    run = started("sleep 1000 & exit 5", audience)
    with gevent.Timeout(10):
        while not run._program.ended.is_set():
            gevent.sleep(0.002)
    run.lose()
    assert audience.over == [5]


def test_in_haste_a_lost_run_gets_half_a_second() -> None:
    runs = Runs()
    audiences = [Audience(), Audience()]
    stubborn = "trap '' TERM; echo; while :; do sleep 0.1; done"
    first, second = (started(stubborn, audience, runs) for audience in audiences)
    with gevent.Timeout(10):
        while not all(audience.output for audience in audiences):
            gevent.sleep(0.002)
    first.lose()
    runs.hurry()
    with gevent.Timeout(3):
        while not audiences[0].over:
            gevent.sleep(0.002)
    assert audiences[1].over == []
    second.lose()
    with gevent.Timeout(3):
        while not audiences[1].over:
            gevent.sleep(0.002)
    assert audiences[0].over == audiences[1].over == [-9]


def test_a_program_that_cannot_be_watched_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pid: int) -> int:
        raise OSError(24, "Too many open files")

    before, children = open_descriptors(), psutil.Process().children()
    monkeypatch.setattr(os, "pidfd_open", fail)
    with pytest.raises(NoBackend):
        started("sleep 1000", Audience())
    assert psutil.Process().children() == children
    assert open_descriptors() == before
    assert module.GRACE < 5
