"""How many procs a backend has, as a table: states, loads and quiet times in, actions out."""

from __future__ import annotations

import pytest

from forkd.address import Address
from forkd.config.backend import BackendSpec
from forkd.master.adaptive import Do, SlotView, decide
from forkd.scoreboard import ProcState

NOW = 1000.0
LONG = 100.0  # seconds of quiet, more than any idle-timeout here

STATES = {
    "U": ProcState.UNBOUND,
    "L": ProcState.LISTENING,
    "S": ProcState.STARTING,
    "R": ProcState.RUNNING,
    "T": ProcState.THROTTLED,
    "D": ProcState.DRAINING,
    "X": ProcState.STOPPING,
}


def slots(text: str) -> list[SlotView]:
    """``R5`` runs with load 5; ``R0q`` has been quiet for long; without q it was used just now."""
    return [
        SlotView(
            STATES[word[0]],
            int(word[1:].rstrip("q") or 0),
            NOW - LONG if word.endswith("q") else NOW,
        )
        for word in text.split()
    ]


@pytest.mark.parametrize(
    ("least", "states", "expected"),
    [
        # at least min-procs
        (2, "L L L", "SPAWN 0, SPAWN 1"),
        (2, "R0 L L", "SPAWN 1"),
        (2, "L R0 L", "SPAWN 0"),
        (2, "S0 S0 L", ""),
        (2, "T T L", ""),  # they come back by themselves
        (2, "R9 T L", "SPAWN 2"),
        (2, "U U U", ""),
        (2, "R0 X L", "SPAWN 2"),
        (2, "R0 D0 L", "RECALL 1"),
        # min-procs 0: whoever waits at the socket is seen there
        (0, "L L", ""),
        (0, "T L", ""),
        # one more when all are above 4
        (1, "R5 L L", "SPAWN 1"),
        (1, "R4 L L", ""),
        (1, "R5 R4 L", ""),
        (1, "R5 R5 L", "SPAWN 2"),
        (1, "R5 S0 L", ""),  # there is room where one starts
        (1, "R5 S4 L", ""),
        (1, "R5 S5 L", "SPAWN 2"),
        (1, "R5 L R5", "SPAWN 1"),
        (1, "R5 D0 L", "RECALL 1"),
        (1, "R5 X0 L", "SPAWN 2"),
        (1, "R9 R9 R9", ""),
        (1, "R9 X0", ""),
        # one fewer when one was idle for 60 seconds
        (1, "R1 R0q R0q", "RETIRE 2"),
        (1, "R0q R0q R1", "RETIRE 1"),
        (1, "R1 R0q R0", "RETIRE 1"),
        (1, "R1 R0 R0", ""),
        (1, "R0q", ""),
        (2, "R1 R0q", ""),
        (0, "R0q L", "RETIRE 0"),
        (1, "R5 R0q L", ""),  # it would be started again at once
        (1, "R5 R0q R0q", "RETIRE 2"),
        (0, "R5 R0q L", ""),
        (1, "R1 R0q D0q", ""),  # one at a time
        (1, "R1 R0q X0q", ""),
        (1, "R1 S0q", ""),
        (1, "R0q T", ""),  # the one that runs is needed
    ],
)
def test_decide(least: int, states: str, expected: str) -> None:
    spec = BackendSpec(
        "wstunnel", "/", "", Address("/x"), bin_path=("/x",),
        min_procs=least, max_procs=8, max_load_per_proc=4, idle_timeout=60,
    )  # fmt: skip
    found = decide(NOW, spec, slots(states))
    assert ", ".join(f"{do.name} {index}" for do, index in found) == expected


def test_idle_timeout_is_waited_for() -> None:
    spec = BackendSpec("wstunnel", "/", "", Address("/x"), min_procs=0, idle_timeout=10)
    view = SlotView(ProcState.RUNNING, 0, NOW)
    assert decide(NOW + 10, spec, [view]) == []
    assert decide(NOW + 10.1, spec, [view]) == [(Do.RETIRE, 0)]
