"""What is to be done about a generation's workers: whom to start, drain, abort, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

ABORT_TIME = 5.0  # seconds from ABRT to KILL


class Phase(Enum):
    """How a worker is, as far as the master knows."""

    STARTING = auto()
    READY = auto()
    SPENT = auto()
    """Accepts, and has asked to be replaced."""
    ENDING = auto()


SERVING = (Phase.READY, Phase.SPENT)


class Do(Enum):
    """What may have to be done about a worker."""

    START = auto()
    DRAIN = auto()
    EXPIRE = auto()
    ABORT = auto()
    KILL = auto()


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What the policy knows of a worker.  Times are those of one monotonic clock."""

    number: int
    phase: Phase
    alive_at: float
    """Its last sign of life."""
    aborted_at: float | None = None
    drained_at: float | None = None
    """Since when it drains; None also when its tunnels have been told to end."""


def decide(
    now: float,
    wanted: int,
    workers: Sequence[WorkerView],
    not_before: Mapping[int, float],
    timeout: float,
    drain_timeout: float,
) -> list[tuple[Do, int]]:
    """What to do: START with the number to start, the others with an index into *workers*.

    *not_before* says until when a number has to wait; a worker silent for *timeout* seconds is
    stuck; one that drains ends its tunnels after *drain_timeout* seconds.  0 is never.
    """
    actions: list[tuple[Do, int]] = []
    ready = {worker.number for worker in workers if worker.phase is Phase.READY}
    for index, worker in enumerate(workers):
        if worker.aborted_at is not None:
            if now - worker.aborted_at >= ABORT_TIME:
                actions.append((Do.KILL, index))
        elif timeout and now - worker.alive_at > timeout:
            actions.append((Do.ABORT, index))
        elif worker.phase is Phase.ENDING:
            if worker.drained_at is not None and 0 < drain_timeout <= now - worker.drained_at:
                actions.append((Do.EXPIRE, index))
        elif worker.number >= wanted or (worker.phase is Phase.SPENT and worker.number in ready):
            actions.append((Do.DRAIN, index))
    staying = {w.number for w in workers if w.phase in (Phase.STARTING, Phase.READY)}
    for number in range(wanted):
        if number not in staying and not_before.get(number, now) <= now:
            actions.append((Do.START, number))
    return actions
