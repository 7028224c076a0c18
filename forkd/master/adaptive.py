"""How many procs a backend is to have, by how busy those are that it has.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from ..config.backend import BackendSpec
from ..scoreboard import ProcState

_SERVES = frozenset({ProcState.STARTING, ProcState.RUNNING})
_GOES = frozenset({ProcState.DRAINING, ProcState.STOPPING})


class Do(Enum):
    """What may have to be done with a slot."""

    SPAWN = auto()
    RECALL = auto()
    """It drains, and is to stay."""
    RETIRE = auto()


@dataclass(frozen=True, slots=True)
class SlotView:
    """What the policy knows of a slot.  Times are those of one monotonic clock."""

    state: ProcState
    load: int
    """Connections that all workers hold."""
    quiet_since: float
    """When it last had one, or the time now."""


def decide(now: float, spec: BackendSpec, slots: Sequence[SlotView]) -> list[tuple[Do, int]]:
    """What to do with which of *slots*, by index.

    One more than run when each has more than max-load-per-proc connections; one fewer when more
    than min-procs run and one had none for idle-timeout seconds, unless it would be missed at once:
    the last such, and the next when that one has gone.  A proc that waits after an early death
    counts for min-procs: it comes back.
    """
    serving = [view for view in slots if view.state in _SERVES]
    throttled = sum(view.state is ProcState.THROTTLED for view in slots)
    missing = spec.min_procs - len(serving) - throttled
    room = sum(not _is_busy(spec, view) for view in serving)
    if missing <= 0 and serving and not room:
        missing = 1
    if missing > 0:
        return _growth(slots)[:missing]
    can_spare = len(serving) > spec.min_procs and (room > 1 or len(serving) == 1)
    if can_spare and not any(view.state in _GOES for view in slots):
        for index in reversed(range(len(slots))):
            if _is_idle(now, spec, slots[index]):
                return [(Do.RETIRE, index)]
    return []


def _growth(slots: Sequence[SlotView]) -> list[tuple[Do, int]]:
    """Ways to one proc more, the cheapest first: one that is about to go stays."""
    recalls = [(Do.RECALL, n) for n, view in enumerate(slots) if view.state is ProcState.DRAINING]
    spawns = [(Do.SPAWN, n) for n, view in enumerate(slots) if view.state is ProcState.LISTENING]
    return recalls + spawns


def _is_busy(spec: BackendSpec, view: SlotView) -> bool:
    """One that starts has room, until as many wait for it as it should ever have."""
    return view.load > spec.max_load_per_proc


def _is_idle(now: float, spec: BackendSpec, view: SlotView) -> bool:
    return (
        view.state is ProcState.RUNNING
        and view.load == 0
        and now - view.quiet_since > spec.idle_timeout
    )
