"""One end of a byte path: the interface, and a port over plain file descriptors.

A port can be heard and written to; who hears it can be changed at any time, and that change *is*
the hand-over from a greenlet to a tunnel: no descriptor moves, no byte falls between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..protocol.tunnel import Buffer

HIGH_WATER = 64 * 1024  # bytes queued for one port before its peer is paused; as lighttpd

OnData = Callable[[Buffer], None]
OnEvent = Callable[[], None]
OnClose = Callable[[str], None]


class Port(Protocol):
    """One end.  Callbacks run in the hub: they never block and never let an exception out."""

    bytes_in: int
    """Bytes received so far."""
    bytes_out: int
    """Bytes handed to the system so far."""
    queued: int
    """Bytes that wait to be sent."""

    def attach(
        self, on_data: OnData, on_eof: OnEvent, on_drain: OnEvent, on_close: OnClose
    ) -> None:
        """From now on these four are called, and reading is on.

        *on_data* gets a buffer that is valid during the call only; *on_eof* once, when the other
        side will send nothing more; *on_drain* when the queue has run empty after a ``write`` that
        returned False; *on_close* once, with "" after ``close`` or the reason of an abort.
        """

    def write(self, data: Buffer) -> bool:
        """Send or queue *data*.  False: over HIGH_WATER; ``on_drain`` will follow."""

    def write_eof(self) -> None:
        """Nothing more will be written: half-close after what is queued."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""

    def close(self, linger: float = 5.0) -> None:
        """Flush, half-close, discard input until EOF or *linger* seconds, then close."""

    def abort(self, why: str) -> None:
        """Close now; what is queued is lost.  The other side sees a reset where there is one."""
