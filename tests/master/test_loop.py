"""The loop: descriptors and timers, in order, whatever their callbacks do."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from forkd.master.loop import Loop


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    one = Loop(clock)
    yield one
    one.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_timers_fire_in_their_order(loop: Loop, clock: Clock) -> None:
    found: list[str] = []
    for name, delay in (("late", 2.0), ("soon", 1.0), ("soon too", 1.0), ("later", 9.0)):
        loop.call_later(delay, lambda name=name: found.append(name))
    clock.now += 2
    loop.run_once()
    assert found == ["soon", "soon too", "late"]


def test_cancelled_timer_does_not_fire(loop: Loop, clock: Clock) -> None:
    timer = loop.call_later(0, lambda: pytest.fail("cancelled"))
    fired: list[int] = []
    loop.call_later(0, lambda: fired.append(1))
    assert timer.is_pending
    timer.cancel()
    assert not timer.is_pending
    loop.run_once()
    assert fired == [1]


def test_a_timer_may_start_the_next(loop: Loop, clock: Clock) -> None:
    found: list[float] = []

    def tick() -> None:
        found.append(clock.now)
        loop.call_later(1.0, tick)

    tick()
    for _ in range(3):
        clock.now += 1
        loop.run_once()
    assert found == [100.0, 101.0, 102.0, 103.0]


def test_watch_and_unwatch(loop: Loop, pipe: tuple[int, int]) -> None:
    found: list[bytes] = []
    loop.watch(pipe[0], lambda: found.append(os.read(pipe[0], 10)))
    os.write(pipe[1], b"x")
    loop.run_once()
    loop.unwatch(pipe[0])
    loop.unwatch(pipe[0])
    os.write(pipe[1], b"y")
    loop.call_later(0, lambda: None)
    loop.run_once()
    assert found == [b"x"]


def test_a_callback_may_unwatch_what_is_ready_too(loop: Loop) -> None:
    one, other = os.pipe(), os.pipe()
    found: list[str] = []

    def handle(name: str, rival: int) -> None:
        found.append(name)
        loop.unwatch(rival)

    loop.watch(one[0], lambda: handle("one", other[0]))
    loop.watch(other[0], lambda: handle("other", one[0]))
    for end in (one[1], other[1]):
        os.write(end, b"x")
    loop.run_once()
    assert len(found) == 1
    for fd in (*one, *other):
        os.close(fd)


def test_a_defect_in_a_callback_is_logged_and_survived(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[int] = []
    loop.call_later(0, lambda: 1 // 0)
    loop.call_later(0, lambda: found.append(1))
    loop.run_once()
    assert found == [1]
    assert "ZeroDivisionError" in caplog.text


def test_stop_before_run_holds(loop: Loop) -> None:
    loop.stop()
    loop.run()
