"""What everybody above sees of a live tunnel: how it is, when it ends, and how it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

CLOSE_GOING_AWAY = 1001  # RFC 6455 section 7.4.1
CLOSE_POLICY = 1008
CLOSE_INTERNAL = 1011
CLOSE_RESTART = 1012  # IANA's registry of close codes: the client is welcome to come again


class Traffic(NamedTuple):
    """Bytes of a tunnel so far; ``client_out`` counts what the system took."""

    client_in: int
    client_out: int
    client_queued: int
    backend_in: int
    backend_out: int
    backend_queued: int


@dataclass(frozen=True, slots=True)
class TunnelTimes:
    """Seconds; 0 is none.  Shared by all tunnels of one configuration."""

    idle: float = 60
    """No byte in either direction for longer: Close 1001."""
    write_idle: float = 360
    """Bytes wait for the client, and it takes none for longer: cut."""
    backend_read: float = 0
    """The backend sends nothing for longer: Close 1011."""
    backend_write: float = 0
    """Bytes wait for the backend, and it takes none for longer: Close 1011."""
    ping_interval: float = 0
    pong: float = 0
    close: float = 5
    """How long the other side's end is awaited after ours."""


class Clocks:
    """What the once-a-second pass remembers of a tunnel (``net.sweep``); seconds."""

    __slots__ = (
        "backend_quiet",
        "backend_stuck",
        "client_stuck",
        "idle",
        "last",
        "ping",
        "pong",
        "pongs",
    )

    def __init__(self) -> None:
        self.idle = self.client_stuck = self.backend_quiet = self.backend_stuck = 0
        self.ping = 0
        self.pong: int | None = None
        """Since the first ping that is still unanswered; None when all are."""
        self.pongs = 0
        self.last: Traffic | None = None


class TunnelHandle(Protocol):
    """What everybody above sees of a tunnel, whichever machinery moves its bytes."""

    reason: str
    """Why it ended, one true reason; "" while both directions live."""
    times: TunnelTimes
    clocks: Clocks

    @property
    def code(self) -> int:
        """The close code sent to the client, 0 for none."""

    @property
    def traffic(self) -> Traffic: ...

    @property
    def messages(self) -> tuple[int, int]:
        """Whole messages (from client, from backend)."""

    @property
    def pongs(self) -> int: ...

    def ping(self) -> bool:
        """Send a keep-alive; False when the client cannot take one now or has none."""

    def close(self, code: int, reason: str) -> None:
        """Tell the client with *code* where the protocol can, and end."""

    def finish(self) -> None:
        """End of input to the backend now; what it still sends is delivered, then 1001."""

    def expire(self) -> None:
        """Close 1012 where the protocol is ours; else ``finish``, and cut a close timeout later."""

    def look(self) -> None:
        """End the tunnel if its client was lost while nobody could hear of it."""

    def abort(self, why: str) -> None:
        """Cut both ends."""


OnTunnelClose = Callable[[TunnelHandle], None]
