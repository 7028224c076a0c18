"""What is to be done about workers, as a table."""

from __future__ import annotations

import pytest

from forkd.master.workers import Do, WorkerView, decide

NOW = 1000.0


def view(
    number: int, active: bool = True, silent: float = 0.0, aborted: float | None = None
) -> WorkerView:
    """A worker silent for *silent* seconds and aborted *aborted* seconds ago."""
    return WorkerView(number, active, NOW - silent, None if aborted is None else NOW - aborted)


CASES = [
    ("none yet", 2, [], {}, [(Do.START, 0), (Do.START, 1)]),
    ("all there", 2, [view(0), view(1)], {}, []),
    ("one is missing", 3, [view(0), view(2)], {}, [(Do.START, 1)]),
    ("one has to wait", 2, [view(0)], {1: NOW + 0.1}, []),
    ("its time has come", 2, [view(0)], {1: NOW}, [(Do.START, 1)]),
    ("one that drains is replaced", 1, [view(0, active=False)], {}, [(Do.START, 0)]),
    ("one too many drains", 1, [view(0), view(1)], {}, [(Do.DRAIN, 1)]),
    ("but once", 1, [view(0), view(1, active=False)], {}, []),
    ("none is wanted", 0, [view(0), view(1)], {}, [(Do.DRAIN, 0), (Do.DRAIN, 1)]),
    ("silent, but not long", 1, [view(0, silent=60)], {}, []),
    ("stuck", 1, [view(0, silent=60.1)], {}, [(Do.ABORT, 0)]),
    ("a draining one can be stuck too", 1, [view(0), view(0, False, silent=61)], {},
     [(Do.ABORT, 1)]),
    ("aborted, may still die of it", 1, [view(0, silent=64, aborted=4)], {}, []),
    ("aborted in vain", 1, [view(0, silent=65, aborted=5)], {}, [(Do.KILL, 0)]),
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
    assert decide(NOW, wanted, workers, not_before, 60) == actions


def test_no_timeout_means_never_stuck() -> None:
    assert decide(NOW, 1, [view(0, silent=1e6)], {}, 0) == []
