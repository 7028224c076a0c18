"""The table of a proc's life, walked."""

from __future__ import annotations

import pytest

from forkd.master.proc_states import TRANSITIONS, ProcEvent, after
from forkd.scoreboard import ProcState

S, E = ProcState, ProcEvent

LIVES = [
    ("born, serves, ends with the server",
     [E.BIND, E.SPAWN, E.ACCEPTED, E.END, E.EXITED, E.DROP], S.UNBOUND),
    ("dies and comes back", [E.BIND, E.SPAWN, E.ACCEPTED, E.EXITED, E.SPAWN], S.STARTING),
    ("waits after an early death",
     [E.BIND, E.SPAWN, E.DIED_EARLY, E.DELAY_OVER, E.SPAWN], S.STARTING),
    ("is dropped while it waits", [E.BIND, E.SPAWN, E.DIED_EARLY, E.DROP], S.UNBOUND),
    ("is retired, and comes back when somebody waits",
     [E.BIND, E.SPAWN, E.ACCEPTED, E.RETIRE, E.EMPTY, E.EXITED, E.SPAWN], S.STARTING),
    ("is needed while it drains",
     [E.BIND, E.SPAWN, E.ACCEPTED, E.RETIRE, E.TAKEN], S.RUNNING),
    ("dies while it drains",
     [E.BIND, E.SPAWN, E.ACCEPTED, E.RETIRE, E.DIED_EARLY, E.DELAY_OVER], S.LISTENING),
    ("is being retired when the server ends",
     [E.BIND, E.SPAWN, E.ACCEPTED, E.RETIRE, E.EMPTY, E.END, E.EXITED, E.DROP], S.UNBOUND),
    ("is ended before it accepted", [E.BIND, E.SPAWN, E.END], S.STOPPING),
    ("belongs to somebody else", [E.ADOPT, E.DROP], S.UNBOUND),
    ("belongs to others, and is taken over from the last", [E.ADOPT, E.ADOPT, E.BIND], S.LISTENING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "end"), [one[1:] for one in LIVES], ids=[one[0] for one in LIVES]
)
def test_lives(events: list[ProcEvent], end: ProcState) -> None:
    state = S.UNBOUND
    for event in events:
        state = after(state, event)
    assert state is end


def test_from_every_state_the_socket_can_be_given_up() -> None:
    reached = {S.UNBOUND}
    while True:
        more = {a for (a, _), b in TRANSITIONS.items() if b in reached} | reached
        if more == reached:
            break
        reached = more
    assert reached == {state for state, _ in TRANSITIONS} | {S.UNBOUND}


def test_every_event_has_a_use() -> None:
    assert {event for _, event in TRANSITIONS} == set(ProcEvent)


def test_what_cannot_happen_is_said_with_both_names() -> None:
    with pytest.raises(LookupError, match="a proc that is UNBOUND cannot SPAWN"):
        after(S.UNBOUND, E.SPAWN)
