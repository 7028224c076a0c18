"""When a server is idle, with rows by hand and a clock by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from forkd.master.idle import IdleWatch
from forkd.metrics import Column
from forkd.scoreboard import LAYOUT, Board


class FakeLoop:
    """Timers that fire when the clock is moved over them."""

    def __init__(self) -> None:
        self.clock = 100.0
        self._timers: list[tuple[float, int, Callable[[], object]]] = []

    def now(self) -> float:
        return self.clock

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (self.clock + delay, len(self._timers), callback))

    def run_until(self, end: float) -> None:
        while self._timers and self._timers[0][0] <= end:
            self.clock, _, callback = heapq.heappop(self._timers)
            callback()
        self.clock = end


class World:
    def __init__(self) -> None:
        self.loop: Any = FakeLoop()
        self.stops: list[float] = []
        self.generations: list[Any] = []
        self.old, self.new = self.add(), self.add()
        IdleWatch(
            self.loop, 2, lambda: self.generations, lambda: self.stops.append(self.loop.now())
        )

    def add(self) -> Any:
        board = Board(bytearray(LAYOUT.size(3, 0)), 1, 3, ())
        self.generations.append(SimpleNamespace(board=board))
        return board.claim(1)


@pytest.fixture
def world() -> World:
    return World()


def test_nobody_ever_came(world: World) -> None:
    world.loop.run_until(200)
    assert world.stops == [102]


def test_a_connection_of_an_old_generation_counts(world: World) -> None:
    world.old[Column.CONNECTIONS] = 1
    world.loop.run_until(150)
    assert world.stops == []
    world.old[Column.CONNECTIONS] = 0
    world.loop.run_until(200)
    assert world.stops == [152.25]


def test_a_connection_between_two_looks_counts(world: World) -> None:
    world.loop.run_until(101.6)
    world.new[Column.ACCEPTED] = 1
    world.loop.run_until(200)
    assert world.stops == [104]


def test_a_generation_that_goes_is_no_connection(world: World) -> None:
    """Its counters are carried to the one that serves."""
    world.old[Column.ACCEPTED] = 5
    world.loop.run_until(101)
    gone = world.generations.pop(0)
    world.generations[0].board.inherit(gone.board)
    world.loop.run_until(200)
    assert len(world.stops) == 1
