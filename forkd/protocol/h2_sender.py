"""What a server says on an HTTP/2 connection, and the streams that it says it on; pure.

Everything is collected for ``take``: heads as ``h2`` encodes them, DATA within the client's
windows, credit, resets, GOAWAY.  What the client's frames do is ``protocol.http2``'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..message import Pair
from .h2_frames import (
    MAX_FRAME,
    PING,
    ErrorCode,
    data_head,
    frame,
    goaway,
    window_update,
)
from .h2_quiet import MAX_STREAM, QuietH2
from .h2_stream import Stream
from .tunnel import Buffer

CREDIT = 16384  # bytes that are worth a WINDOW_UPDATE of a stream
INITIAL_WINDOW = 65535  # bytes (section 6.9.2)
_REMEMBERED = 512  # streams that are over, of which it is known how


class Sender:
    """Half of ``http2.Http2``.

    A stream is answered by ``respond``, ``send``, ``end``, or else ``reset``; none of these may be
    called once it is over.
    """

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.room = INITIAL_WINDOW
        """Bytes that may be sent, on all streams together."""
        self._h2 = QuietH2()
        self.out = bytearray()
        """What is to be written, until ``take``."""
        self._over: dict[int, bool] = {}  # stream to whether we have reset it
        self._last: int | None = None  # of our GOAWAY

    def take(self) -> bytearray:
        """What is to be written; all of it, and only once."""
        out, self.out = self.out, bytearray()
        return out

    # -- responses ----------------------------------------------------------------------------

    def respond(
        self, stream: Stream, status: int, fields: Iterable[Pair], ended: bool = False
    ) -> int:
        """A head, interim or final; names in lower case.  Its size in bytes."""
        head = self._h2.send_fields(stream.id, [(":status", str(status)), *fields], ended)
        self.out += head
        stream.is_answered = stream.is_answered or status >= 200
        if ended:
            self._sent_end(stream)
        return len(head)

    def send(self, stream: Stream, data: Buffer) -> bool:
        """*data* in frames, all of it or, where there is no ``room`` for that, nothing."""
        size = len(data)
        own, whole = stream.room - size, self.room - size
        if own < 0 or whole < 0:
            return False
        stream.room, self.room = own, whole
        out, number = self.out, stream.id
        if size <= MAX_FRAME:
            out += data_head(size, number)
            out += data
        else:
            view = memoryview(data)
            for at in range(0, size, MAX_FRAME):
                piece = view[at : at + MAX_FRAME]
                out += data_head(len(piece), number)
                out += piece
        return True

    def end(self, stream: Stream, trailers: Iterable[Pair] = ()) -> None:
        """END_STREAM, behind *trailers*; their names are in lower case."""
        pairs = list(trailers)
        if pairs:
            self.out += self._h2.send_fields(stream.id, pairs, ended=True)
        else:
            self.out += self._h2.end(stream.id)
        self._sent_end(stream)

    def _sent_end(self, stream: Stream) -> None:
        stream.sends = False
        self._forget_if_over(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """RST_STREAM; what still comes for it is dropped in silence."""
        self.out += self._h2.reset(stream.id, code)
        self._forget(stream, by_us=True)

    # -- credit, and the connection -----------------------------------------------------------

    def credit(self, stream: Stream, count: int) -> None:
        """*count* more bytes of *stream* have been taken: the client may send as many again."""
        owed = stream.owed = stream.owed + count
        if owed >= CREDIT and not stream.has_ended and stream.id in self.streams:
            self.out += window_update(stream.id, owed)
            stream.window += owed
            stream.owed = 0

    def go_away(self, last: int, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """GOAWAY: no stream above *last* will be served; those below go on."""
        self.out += goaway(last, code)
        if last < MAX_STREAM:
            self._last = last

    def ping(self, data: bytes) -> None:
        self.out += frame(PING, 0, 0, data)

    # -- streams that are over ----------------------------------------------------------------

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.has_ended and not stream.sends:
            self._forget(stream, by_us=False)

    def _forget(self, stream: Stream, by_us: bool) -> None:
        if self.streams.pop(stream.id, None) is not None:
            self._remember(stream.id, by_us)

    def _remember(self, number: int, by_us: bool) -> None:
        self._over[number] = by_us
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]
