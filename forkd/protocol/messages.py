"""MessageCodec: RFC 6455 towards the client, whole messages towards the backend.

No I/O and no clock.  Frames are in ``protocol.frame``, what messages are on the backend's side in
``protocol.framings``, compression in ``protocol.deflate``, what becomes of compressed messages in
``protocol.inflation``, the end in ``protocol.closing``.

A small message is passed on when it is whole.  Of a big one the pieces are passed on as they come,
wherever the other side's framing allows: a client gets it in fragments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .closing import NOTHING, Closing
from .deflate import Deflater, Inflater
from .frame import (
    FIN,
    RSV1,
    CloseCode,
    DeflateFrameDecoder,
    Event,
    FrameDecoder,
    FrameError,
    Opcode,
    each_message,
    encode_control,
    encode_header,
    lone_message,
)
from .framings import ByteEncoder, Decoder, Encoder, FramingError, Piece
from .inflation import AGAIN, Inflation
from .tunnel import MORE, Buffer, End
from .utf8 import is_utf8, whole_characters

TURN = 256 * 1024  # bytes that are inflated before others have their turn; as a port reads
STEP = 256  # bytes that each piece counts beside its own: empty ones cost time, too

_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)
_PING, _PONG = int(Opcode.PING), int(Opcode.PONG)


class MessageCodec(Closing):
    """One WebSocket whose messages reach the backend as messages."""

    __slots__ = (
        "_decoder",
        "_events",
        "_from_backend",
        "_inflation",
        "_is_limited",
        "_limits",
        "_to_backend",
        "_to_client",
    )

    def __init__(
        self,
        to_backend: Encoder,
        from_backend: Decoder,
        to_client: Encoder,
        limits: tuple[int, int] = (0, 0),
        inflater: Inflater | None = None,
    ) -> None:
        """*limits*: bytes of a message and of a frame from the client, 0 for none.  With an
        *inflater* messages from the client may be compressed."""
        super().__init__()
        self._to_backend = _Direction(to_backend)
        self._to_client = _Direction(to_client)
        self._from_backend = from_backend
        self._inflation = Inflation(inflater, to_backend.needs_size) if inflater else None
        self._limits = limits
        # The short cut for small messages knows no limits: a decoder that stays keeps it closed.
        self._is_limited = any(0 < limit < 1 << 16 for limit in limits)
        self._decoder = self._new_decoder() if self._is_limited else None
        self._events: Iterator[Event] | None = None

    @property
    def messages(self) -> tuple[int, int]:
        """Whole messages (from client, from backend)."""
        return self._to_backend.count, self._to_client.count

    def from_client(self, data: Buffer) -> tuple[Buffer, Buffer]:
        if self._decoder is None:
            lone = lone_message(data)
            if lone is not None and (lone[0] < RSV1 or self._inflation):
                try:
                    to_backend = self._take_lone(*lone)
                except FrameError as error:
                    self._take_error(error)
                    return NOTHING
                if to_backend is not None:
                    return b"", to_backend
                data = b""
            self._decoder = self._new_decoder()
        if self._is_deaf:
            self._await_close(self._decoder, data)
            return NOTHING
        return self._decode(self._decoder, data)

    def _take_lone(self, opcode: int, payload: bytes | bytearray) -> Buffer | None:
        """What the backend gets for a message, between two others; None: it comes in pieces."""
        if opcode < RSV1:
            return self._to_backend.whole(opcode, payload)
        inflation = self._inflation
        assert inflation is not None
        opcode ^= RSV1
        inflation.inflater.feed(payload, True)
        piece, more = inflation.inflater.take()
        if not more:
            return self._to_backend.whole(opcode, piece)
        self._events = inflation.rest(opcode, piece)
        return None

    def from_backend(self, data: Buffer) -> tuple[Buffer, Buffer]:
        if self.end is not None:
            return NOTHING
        lone = self._from_backend.lone(data)
        if lone is not None:
            try:
                return self._to_client.whole(*lone), b""
            except FrameError as error:
                return self._refuse_backend(error), b""
        return self._relay(self._from_backend.feed, data), b""

    def backend_eof(self) -> tuple[Buffer, Buffer]:
        if self.end is not None:
            return NOTHING
        last = self._relay(self._from_backend.eof)
        close = self._close(End("backend_eof", CloseCode.NORMAL, await_peer=True))
        return self._to_client.encoder.join([last, close]), b""

    def _new_decoder(self) -> FrameDecoder:
        return (DeflateFrameDecoder if self._inflation else FrameDecoder)(*self._limits)

    def _finish(self, end: End) -> None:
        super()._finish(end)
        self._stop_listening()

    def _hang_up(self, reason: str, code: int) -> None:
        super()._hang_up(reason, code)
        self._stop_listening()

    def _stop_listening(self) -> None:
        """The client is only searched for its Close, which the short cut would not do."""
        if self._events is not None:  # it may be in there, but nobody will look
            self._events = None
            self.peer_closed = True
        if self._decoder is None:
            self._decoder = self._new_decoder()
        self._inflation = None
        self._to_backend.forget()

    def _decode(self, decoder: FrameDecoder, data: Buffer) -> tuple[Buffer, Buffer]:
        """What is not one small message between two others; b"" is for what was held back."""
        events, self._events = self._events or self._plain(decoder, data), None
        pongs: list[bytes] = []
        messages: list[Buffer] = []
        size = 0
        try:
            for opcode, payload, ends in events:
                if opcode <= _BINARY or opcode & AGAIN:
                    self._to_backend.take(opcode, payload, ends, messages, decoder.announced)
                    size += len(payload) + STEP
                    if size > TURN and self._inflation:
                        self._events, self.end = events, MORE
                        break
                elif opcode == _PING:
                    pongs.append(encode_control(_PONG, payload))
                elif opcode == _PONG:
                    self.pongs += 1
                else:
                    self._take_close(payload)
                    break
        except FrameError as error:
            self._take_error(error)
        if decoder.is_idle and not (self._is_deaf or self._is_limited):
            self._decoder = None
        return b"".join(pongs), self._to_backend.encoder.join(messages)

    def _plain(self, decoder: FrameDecoder, data: Buffer) -> Iterator[Event]:
        """The events of *data*, the payload of compressed messages inflated."""
        if self._inflation is None:
            return decoder.feed(data)
        # They may be asked for when the buffer of *data* has long been used again.
        return self._inflation.events(decoder.feed(bytes(data)))

    def _relay(self, read: Callable[..., Iterable[Piece]], *data: Buffer) -> Buffer:
        """What the client gets for what the backend said."""
        out: list[Buffer] = []
        try:
            for opcode, piece, ends in read(*data):
                self._to_client.take(opcode, piece, ends, out)
        except (FramingError, FrameError) as error:
            out.append(self._refuse_backend(error))
        return self._to_client.encoder.join(out)

    def _refuse_backend(self, error: FramingError | FrameError) -> bytes:
        is_text = isinstance(error, FrameError)
        reason = "backend_invalid_utf8" if is_text else f"backend_framing:{error}"
        return self._close(End(reason, CloseCode.INTERNAL_ERROR))


class _Direction:
    """Messages on their way to one end, in what *encoder* makes of them.

    Text is checked as it comes: FrameError INVALID_DATA at the first byte that is wrong, before
    anything of its piece goes out.
    """

    __slots__ = ("_begun", "_half", "_kept", "_size", "count", "encoder")

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.count = 0
        """Whole messages."""
        self._kept: bytearray | None = None  # of the open message; None between messages
        self._begun = False  # whether some of it has gone out
        self._half = b""  # at most 3 bytes of a character, not in _kept
        self._size = 0  # of the open message so far, once pieces of it are to come again

    def whole(self, opcode: int, payload: bytes | bytearray) -> Buffer:
        """What goes out for one message, between two others."""
        if opcode == _TEXT and not (payload.isascii() or is_utf8(payload)):
            raise FrameError(CloseCode.INVALID_DATA, "invalid UTF-8")
        out = self.encoder.whole(opcode, payload)
        self.count += 1
        return out

    def take(
        self,
        opcode: int,
        piece: bytes | bytearray,
        ends: int,
        out: list[Buffer],
        size: int = 0,
    ) -> None:
        """Append what goes out for the next *piece*; *size* of the whole message, 0: unknown."""
        kept = self._kept
        if kept is None:
            if ends:
                for payload in each_message(piece, ends):
                    out.append(self.whole(opcode, payload))
                return
            kept = self._kept = bytearray()
        if opcode & AGAIN:
            self._measure(kept, opcode ^ AGAIN, piece, ends, out)
            return
        kept += self._checked(piece, ends) if opcode == _TEXT else piece
        encoder = self.encoder
        if not ends and len(kept) <= encoder.kept:
            return
        if not (ends or size or self._begun) and encoder.needs_size:
            return
        if ends and not self._begun:
            out.append(encoder.whole(opcode, kept))
        else:
            out.append(encoder.part(opcode, kept, not self._begun, bool(ends), size))
        self._begun = not ends
        self._kept = None if ends else bytearray()
        self.count += ends

    def _measure(
        self,
        kept: bytearray,
        opcode: int,
        piece: bytes | bytearray,
        ends: int,
        out: list[Buffer],
    ) -> None:
        """Check and count a *piece* that is to come again, behind what is *kept*; with the last the
        message begins to go out."""
        if not self._size:
            kept += self._half  # only what is behind it comes again
            self._size = len(kept)
        if opcode == _TEXT:
            self._checked(piece, ends)
        self._size += len(piece)
        if ends:
            out.append(self.encoder.part(opcode, kept, True, False, self._size))
            self._kept = bytearray()
            self._begun = True
            self._size = 0

    def forget(self) -> None:
        """The open message will not be finished."""
        self._kept = None
        self._half = b""

    def _checked(self, piece: bytes | bytearray, ends: int) -> bytes | bytearray:
        """The whole characters that *piece* completes."""
        text = self._half + piece
        size, hope = whole_characters(text)
        if not hope or ends and size < len(text):
            raise FrameError(CloseCode.INVALID_DATA, "invalid UTF-8")
        self._half = bytes(text[size:])
        return text[:size] if self._half else text


# -- messages to frames -----------------------------------------------------------------------

_HEADERS = {
    opcode: tuple(encode_header(FIN | opcode, size) for size in range(126))
    for opcode in (_TEXT, _BINARY, RSV1 | _TEXT, RSV1 | _BINARY)
}


class FrameEncoder(ByteEncoder):
    """A message is a frame, or fragments (RFC 6455 section 5.4)."""

    __slots__ = ()

    def whole(self, opcode: int, payload: Buffer) -> Buffer:
        size = len(payload)
        if size < 126:
            return _HEADERS[opcode][size] + payload
        return encode_header(FIN | opcode, size) + payload

    def part(self, opcode: int, payload: Buffer, first: bool, last: bool, size: int) -> Buffer:
        kind = (opcode if first else 0) | (FIN if last else 0)
        return encode_header(kind, len(payload)) + payload


class DeflateFrameEncoder(FrameEncoder):
    """The same, compressed (RFC 7692 section 7.2.1) where that pays."""

    __slots__ = ("_deflater", "_min_size")

    def __init__(self, deflater: Deflater, min_size: int) -> None:
        """A message of less than *min_size* bytes is sent as it is, and so is an empty one."""
        self._deflater = deflater
        self._min_size = max(min_size, 1)

    def whole(self, opcode: int, payload: Buffer) -> Buffer:
        if len(payload) >= self._min_size:
            compressed = self._deflater.message(payload)
            if len(compressed) < len(payload):
                return super().whole(RSV1 | opcode, compressed)
            self._deflater.give_back()  # its window has what the client does not get to see
        return super().whole(opcode, payload)

    def part(self, opcode: int, payload: Buffer, first: bool, last: bool, size: int) -> Buffer:
        compressed = self._deflater.part(payload)
        if last:
            compressed += self._deflater.finish()
        elif not (first or compressed):
            return b""
        return super().part(RSV1 | opcode, compressed, first, last, size)
