"""A generation without processes: who is started, drained, forgiven, when rows run out."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from forkd.config.model import Config, RequestConfig, ServerSettings
from forkd.master import workers
from forkd.master.worker_policy import Phase
from forkd.master.workers import Crew, Generation
from forkd.metrics import Column
from forkd.scoreboard import LAYOUT, Board

NUMBERS = itertools.count(1_000_000)


class FakeLoop:
    def __init__(self) -> None:
        self.clock = 1000.0

    def now(self) -> float:
        return self.clock

    def watch(self, fd: int, callback: object) -> None: ...
    def unwatch(self, fd: int) -> None: ...


def a_generation(rows: int = 10, **settings: Any) -> Generation:
    config = Config(
        file="/x.conf",
        server=ServerSettings(max_worker=1, **settings),
        listeners=(),
        backends=(),
        base=RequestConfig(),
        conditions=None,  # type: ignore[arg-type]
    )
    reaper: Any = SimpleNamespace(add=lambda pid, on_exit, on_dead: None)
    nothing: Any = None
    crew = Crew(
        loop=FakeLoop(),  # type: ignore[arg-type]
        reaper=reaper,
        strays=nothing,
        main=nothing,
        on_ready=lambda generation: None,
        on_death=lambda generation, why: None,
        on_empty=lambda generation: None,
        on_need=lambda: None,
    )
    board = Board(bytearray(LAYOUT.size(rows, 0)), 1, rows, ())
    logs: Any = SimpleNamespace(fds=lambda: ())
    return Generation(1, config, board, logs, (), nothing, None, crew)


@pytest.fixture(autouse=True)
def _no_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.fork, "fork", lambda run, keep: next(NUMBERS))
    monkeypatch.setattr(workers, "kill", lambda pid, number: None)


def pass_time(generation: Generation, seconds: float) -> None:
    generation._crew.loop.clock += seconds  # type: ignore[attr-defined]
    for worker in generation.workers:
        tick = int(generation._crew.loop.now() * 1000)
        generation.board.row(worker.row)[Column.TICK] = tick
    generation.tend()


def phases(generation: Generation) -> list[tuple[int, Phase]]:
    return [(worker.number, worker.phase) for worker in generation.workers]


def test_a_spent_worker_serves_until_another_one_does() -> None:
    generation = a_generation()
    generation.tend()
    (spent,) = generation.workers
    spent.phase = Phase.SPENT
    generation.tend()
    assert phases(generation) == [(0, Phase.SPENT), (0, Phase.STARTING)]
    assert generation.is_ready
    generation.workers[1].phase = Phase.READY
    generation.tend()
    assert phases(generation) == [(0, Phase.ENDING), (0, Phase.READY)]


def test_it_waits_for_a_row(caplog: pytest.LogCaptureFixture) -> None:
    generation = a_generation(rows=3)
    for _ in range(2):
        generation.tend()
        generation.workers[-1].phase = Phase.SPENT
    pass_time(generation, 1)
    pass_time(generation, 1)
    assert [phase for _, phase in phases(generation)] == [Phase.SPENT, Phase.SPENT]
    assert caplog.text.count("no row is free") == 1
    generation.workers.pop(0)
    generation.tend()
    assert [phase for _, phase in phases(generation)] == [Phase.SPENT, Phase.STARTING]


def test_tunnels_end_once_at_the_newest_deadline() -> None:
    generation = a_generation(drain_timeout=100)
    generation.tend()
    (worker,) = generation.workers
    worker.phase = Phase.READY
    generation.drain()
    generation.drain_timeout = 5
    pass_time(generation, 4.9)
    assert worker.drained_at == 1000
    pass_time(generation, 0.1)
    assert worker.drained_at is None
    assert generation.drained_at == 1000


def test_silence_in_which_the_master_slept_is_forgiven() -> None:
    generation = a_generation()
    generation.tend()
    (worker,) = generation.workers
    generation._crew.loop.clock += 61  # type: ignore[attr-defined]
    generation.forgive(generation._crew.loop.now())
    generation.tend()
    assert worker.aborted_at is None
    generation._crew.loop.clock += 61  # type: ignore[attr-defined]
    generation.tend()
    assert worker.aborted_at == 1122


def test_the_end_of_a_stuck_one_that_drains_is_said(caplog: pytest.LogCaptureFixture) -> None:
    generation = a_generation()
    generation.tend()
    (worker,) = generation.workers
    generation.drain()
    worker.aborted_at = 1000
    generation._exited(worker, -9)
    assert "ended, signal 9 (SIGKILL)" in caplog.text
    assert generation.workers == []
