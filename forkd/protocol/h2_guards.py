"""What a client may not do too often (core.md 15.5): each guard counts, and says when it is enough.

Told to the client: first a GOAWAY with NO_ERROR, so that one that only overdoes it may go on
elsewhere; whoever does not heed it gets ENHANCE_YOUR_CALM.
"""

from __future__ import annotations

from .h2_frames import ConnectionBroken, ErrorCode

REFUSALS = 16  # streams refused for being too many
QUICK_RESETS, OF_STREAMS = 16, 32  # streams reset by the client before they were answered
PROVOKED_RESETS = 100  # stream errors
UNACKNOWLEDGED_STREAMS = 200  # the highest stream while our SETTINGS are not acknowledged
# Field blocks behind our GOAWAY that are thrown away: as many as a client in good faith may have
# sent before it could read that.
AFTER_GOAWAY = 64
IDLE_FRAMES = 10_000  # frames that move nothing, between two that do
EMPTY_FRAMES = 1_000  # of DATA without a byte, likewise
FORGIVEN = 1  # refusals and stream errors in a second of a connection that lives long
FORGIVEN_FRAMES = 100  # and frames that move nothing


class Guards:
    """Counts for one connection.  Methods raise ConnectionBroken (ENHANCE_YOUR_CALM)."""

    __slots__ = (
        "_after_goaway", "_empty", "_idle", "_provoked", "_quick", "_refusals", "_streams",
        "is_settled", "is_wary",
    )  # fmt: skip

    def __init__(self) -> None:
        self._refusals = self._provoked = self._after_goaway = 0
        self._idle = self._empty = 0
        self._quick = self._streams = 0
        self.is_settled = False
        """Whether our SETTINGS have been acknowledged."""
        self.is_wary = False
        """Whether ``moved`` would change anything."""

    def opened(self, stream: int) -> None:
        self._idle = self._empty = 0
        self._streams += 1
        if self._streams >= OF_STREAMS:
            self._streams //= 2
            self._quick //= 2
        if not self.is_settled and stream > UNACKNOWLEDGED_STREAMS:
            raise _enough("streams without end, SETTINGS not acknowledged")

    def refused(self) -> bool:
        """A stream above the limit; whether the client is to be asked to leave."""
        self._refusals += 1
        if self._refusals > 4 * REFUSALS:
            raise _enough("streams above the limit")
        return self._refusals > REFUSALS

    def reset_by_client(self, was_answered: bool) -> bool:
        """Whether it is to be asked to leave: more than half of its streams were for nothing."""
        if was_answered:
            return False
        self._quick += 1
        return self._quick > QUICK_RESETS

    def provoked(self) -> None:
        """A stream error."""
        self._provoked += 1
        if self._provoked > PROVOKED_RESETS:
            raise _enough("stream errors")

    def discarded(self) -> None:
        """A field block behind our GOAWAY."""
        self._after_goaway += 1
        if self._after_goaway > AFTER_GOAWAY:
            raise _enough("requests behind GOAWAY")

    def idle(self) -> None:
        """A frame that moves nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE and unknown ones."""
        self.is_wary = True
        self._idle += 1
        if self._idle > IDLE_FRAMES:
            raise _enough("frames that mean nothing")

    def empty_data(self) -> None:
        self.is_wary = True
        self._empty += 1
        if self._empty > EMPTY_FRAMES:
            raise _enough("empty DATA frames")

    def moved(self) -> None:
        """The connection is used for something."""
        self._idle = self._empty = 0
        self.is_wary = False

    def forgive(self) -> None:
        """A second has passed: to live long, and to be asked now and then, is no attack."""
        self._refusals = max(0, self._refusals - FORGIVEN)
        self._provoked = max(0, self._provoked - FORGIVEN)
        self._idle = max(0, self._idle - FORGIVEN_FRAMES)
        self._empty = max(0, self._empty - FORGIVEN_FRAMES)


def _enough(what: str) -> ConnectionBroken:
    return ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, f"too many: {what}")
