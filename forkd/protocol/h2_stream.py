"""One stream of an HTTP/2 connection, as both directions know it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..message import Pair
from .h2_priority import DEFAULT
from .tunnel import Buffer

STREAM_WINDOW = 65536  # bytes that a client may send before any have been taken


class StreamListener(Protocol):
    """Who hears a stream."""

    def on_data(self, data: Buffer) -> None:
        """Valid during the call.  What is taken is to be credited (``Http2.credit``)."""

    def on_end(self) -> None:
        """END_STREAM: the client will send nothing more."""

    def on_reset(self, why: str) -> None:
        """The stream is over, by either side; nothing can be sent."""


class Stream:
    """One stream that is not over."""

    __slots__ = (
        "has_ended", "id", "is_answered", "is_tunnel", "left", "listener", "owed", "priority",
        "room", "sends", "trailers", "window",
    )  # fmt: skip

    def __init__(self, number: int, room: int, is_tunnel: bool, left: int | None) -> None:
        self.id = number
        self.room = room
        """Bytes that we may send; less than none when the client has closed its window."""
        self.window = STREAM_WINDOW
        """Bytes that the client may send."""
        self.owed = 0
        """Bytes taken for which it has got no credit yet."""
        self.is_tunnel = is_tunnel
        self.left = left
        """Bytes that content-length has announced and that have not come; None: not known."""
        self.listener: StreamListener = _NOBODY
        self.has_ended = False
        """The client has sent END_STREAM."""
        self.sends = True
        """We have not."""
        self.is_answered = False
        self.trailers: Sequence[Pair] = ()
        self.priority = DEFAULT


class _Nobody:
    def on_data(self, data: Buffer) -> None: ...
    def on_end(self) -> None: ...
    def on_reset(self, why: str) -> None: ...


_NOBODY = _Nobody()
