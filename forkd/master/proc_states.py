"""The life of a proc as a table: from one state, by one event, to the next."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto, unique

from ..scoreboard import ProcState


@unique
class ProcEvent(Enum):
    """What happens to a proc."""

    BIND = auto()  # the master listens at its address
    ADOPT = auto()  # somebody else's program listens there already
    SPAWN = auto()
    ACCEPTED = auto()  # it took its first connection, or had time enough to
    EXITED = auto()  # and may be started again at once
    DIED_EARLY = auto()  # and has to wait; or could not be started at all
    DELAY_OVER = auto()
    RETIRE = auto()  # nobody needs it: no new connections if others can take them
    TAKEN = auto()  # somebody needed it after all
    EMPTY = auto()  # nobody did: it is told to end
    END = auto()  # the server stops, or no generation knows the backend any more
    DROP = auto()  # its socket goes


_S = ProcState
_E = ProcEvent

TRANSITIONS: Mapping[tuple[ProcState, ProcEvent], ProcState] = {
    (_S.UNBOUND, _E.BIND): _S.LISTENING,
    (_S.UNBOUND, _E.ADOPT): _S.RUNNING,
    (_S.LISTENING, _E.SPAWN): _S.STARTING,
    (_S.LISTENING, _E.DROP): _S.UNBOUND,
    (_S.STARTING, _E.ACCEPTED): _S.RUNNING,
    (_S.STARTING, _E.EXITED): _S.LISTENING,
    (_S.STARTING, _E.DIED_EARLY): _S.THROTTLED,
    (_S.STARTING, _E.END): _S.STOPPING,
    (_S.RUNNING, _E.EXITED): _S.LISTENING,
    (_S.RUNNING, _E.DIED_EARLY): _S.THROTTLED,
    (_S.RUNNING, _E.RETIRE): _S.DRAINING,
    (_S.RUNNING, _E.END): _S.STOPPING,
    (_S.RUNNING, _E.BIND): _S.LISTENING,  # adopted, and has ended
    (_S.RUNNING, _E.ADOPT): _S.RUNNING,  # and another has come in its place
    (_S.RUNNING, _E.DROP): _S.UNBOUND,  # adopted: there is nobody to end
    (_S.THROTTLED, _E.DELAY_OVER): _S.LISTENING,
    (_S.THROTTLED, _E.DROP): _S.UNBOUND,
    (_S.DRAINING, _E.TAKEN): _S.RUNNING,
    (_S.DRAINING, _E.EMPTY): _S.STOPPING,
    (_S.DRAINING, _E.EXITED): _S.LISTENING,
    (_S.DRAINING, _E.DIED_EARLY): _S.THROTTLED,
    (_S.DRAINING, _E.END): _S.STOPPING,
    (_S.STOPPING, _E.END): _S.STOPPING,
    (_S.STOPPING, _E.EXITED): _S.LISTENING,
}


def after(state: ProcState, event: ProcEvent) -> ProcState:
    """The state that follows.  Raises LookupError, naming both, for what cannot happen."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LookupError(f"a proc that is {state.name} cannot {event.name}") from None
