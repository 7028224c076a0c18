"""What is to be done about workers, as a table."""

from __future__ import annotations

import pytest

from forkd.master.worker_policy import Do, Phase, WorkerView, decide

NOW = 1000.0
SPENT, STARTING, ENDING = Phase.SPENT, Phase.STARTING, Phase.ENDING


def view(
    number: int,
    phase: Phase = Phase.READY,
    silent: float = 0.0,
    aborted: float | None = None,
    drained: float | None = None,
) -> WorkerView:
    """A worker silent for *silent* seconds, aborted or drained so many seconds ago."""
    return WorkerView(number, phase, NOW - silent, _ago(aborted), _ago(drained))


def _ago(seconds: float | None) -> float | None:
    return None if seconds is None else NOW - seconds


CASES = [
    ("none yet", 2, [], {}, [(Do.START, 0), (Do.START, 1)]),
    ("all there", 2, [view(0), view(1)], {}, []),
    ("one is missing", 3, [view(0), view(2)], {}, [(Do.START, 1)]),
    ("one has to wait", 2, [view(0)], {1: NOW + 0.1}, []),
    ("its time has come", 2, [view(0)], {1: NOW}, [(Do.START, 1)]),
    ("one that drains is replaced", 1, [view(0, ENDING)], {}, [(Do.START, 0)]),
    ("one too many drains", 1, [view(0), view(1)], {}, [(Do.DRAIN, 1)]),
    ("but once", 1, [view(0), view(1, ENDING)], {}, []),
    ("none is wanted", 0, [view(0), view(1, STARTING)], {}, [(Do.DRAIN, 0), (Do.DRAIN, 1)]),
    ("silent, but not long", 1, [view(0, silent=60)], {}, []),
    ("stuck", 1, [view(0, silent=60.1)], {}, [(Do.ABORT, 0)]),
    ("a draining one can be stuck too", 1, [view(0), view(0, ENDING, silent=61)], {},
     [(Do.ABORT, 1)]),
    ("aborted, may still die of it", 1, [view(0, silent=64, aborted=4)], {}, []),
    ("aborted in vain", 1, [view(0, silent=65, aborted=5)], {}, [(Do.KILL, 0)]),
    ("spent: another one first", 2, [view(0, SPENT), view(1)], {}, [(Do.START, 0)]),
    ("spent, and the other one starts", 1, [view(0, SPENT), view(0, STARTING)], {}, []),
    ("spent, and the other one is ready", 1, [view(0, SPENT), view(0)], {}, [(Do.DRAIN, 0)]),
    ("spent, and the other one is somebody else's", 2, [view(0, SPENT), view(1)], {0: NOW + 1}, []),
    ("spent, and not wanted", 1, [view(0), view(1, SPENT)], {}, [(Do.DRAIN, 1)]),
    ("drains, but not long", 1, [view(0), view(0, ENDING, drained=29.9)], {}, []),
    ("drains for too long", 1, [view(0), view(0, ENDING, drained=30)], {}, [(Do.EXPIRE, 1)]),
    ("ends in another way", 1, [view(0), view(0, ENDING)], {}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "workers", "not_before", "actions"),
    [one[1:] for one in CASES],
    ids=[one[0] for one in CASES],
)
def test_decide(
    wanted: int,
    workers: list[WorkerView],
    not_before: dict[int, float],
    actions: list[tuple[Do, int]],
) -> None:
    assert decide(NOW, wanted, workers, not_before, 60, 30) == actions


def test_no_timeout_means_never() -> None:
    workers = [view(0, silent=1e6), view(0, ENDING, drained=1e6)]
    assert decide(NOW, 1, workers, {}, 0, 0) == []
