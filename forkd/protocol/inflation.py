"""Compressed messages of a client (RFC 7692 section 6.2) to the events that plain ones would be.

No I/O.  Little input makes much output, so nothing is inflated before it is asked for.  Where the
size of a message goes before it, a big one is inflated twice: first to be checked and counted, then
to be passed on.  In between it is held as it came, and so takes no more than its sender has paid.
"""

from __future__ import annotations

from collections.abc import Iterator

from .deflate import PIECE, Inflater
from .frame import RSV1, Event, Opcode, each_message
from .tunnel import Buffer

HELD = 256 * 1024  # bytes: no more of a message is kept inflated; a smaller one is inflated once
AGAIN = 0x20  # beside an opcode: this piece is to come again, as one of CONTINUATION

_CONTINUATION = int(Opcode.CONTINUATION)


class Inflation:
    """One client's messages, compressed or not."""

    __slots__ = ("_again", "_needs_size", "_wire", "inflater")

    def __init__(self, inflater: Inflater, needs_size: bool) -> None:
        """*needs_size*: whether of a message nothing can be passed on before its size is known."""
        self.inflater = inflater
        self._needs_size = needs_size
        self._again: Inflater | None = None  # at the first byte of the open message not kept
        self._wire: list[bytearray] = []  # what it has not been fed yet

    def rest(self, opcode: int, piece: bytes) -> Iterator[Event]:
        """The events of a message that ``inflater`` was fed whole, outside of ``events``: *piece*,
        which has been taken of it, and what is behind that."""
        yield opcode, piece, 0
        yield from self._taken(opcode, 1)

    def events(self, events: Iterator[Event]) -> Iterator[Event]:
        """The same, inflated.

        Where a size is needed, what follows the first HELD bytes of a message comes with AGAIN, up
        to its end, and then again.  Raises FrameError, but not in what comes again.
        """
        for event in events:
            opcode, payload, ends = event
            if opcode < RSV1:
                yield event
                continue
            for message in each_message(payload, ends):
                self.inflater.feed(message, ends > 0)
                if self._again is not None:
                    self._hold(message)
                yield from self._taken(opcode ^ RSV1, min(ends, 1))

    def _hold(self, data: Buffer) -> None:
        # Frames may have a single byte, which a bytes object of its own would make fifty; and in
        # one piece, all would be copied as it shrinks.
        if not self._wire or len(self._wire[-1]) > PIECE:
            self._wire.append(bytearray())
        self._wire[-1] += data

    def _taken(self, opcode: int, ends: int) -> Iterator[Event]:
        """What was fed; its last piece *ends* a message, or not."""
        for piece, last in _pieces(self.inflater, ends):
            if self._again is not None:
                yield opcode | AGAIN, piece, last
                continue
            yield opcode, piece, last
            if self._needs_size and not last and self.inflater.size > HELD:
                self._again = self.inflater.copy()
        if ends and self._again is not None:
            again, self._again = self._again, None
            wire, self._wire = self._wire, []
            wire.reverse()
            yield from _replayed(again, wire)


def _pieces(inflater: Inflater, ends: int) -> Iterator[tuple[bytes, int]]:
    more = True
    while more:
        piece, more = inflater.take()
        yield piece, 0 if more else ends


def _replayed(again: Inflater, wire: list[bytearray]) -> Iterator[Event]:
    """What *again* was fed, and then the rest of its message, from the end of *wire*: what has come
    again is no longer held."""
    for piece, last in _pieces(again, 0 if again.is_inside else 1):
        yield _CONTINUATION, piece, last
    while again.is_inside:
        data = wire.pop()
        again.feed(data, not wire)
        for piece, last in _pieces(again, 0 if wire else 1):
            yield _CONTINUATION, piece, last
