"""WebSocket frames (RFC 6455 section 5) and the payload of Close (section 5.5.1, 7.4).

Bytes to frames and back, for a server: what it reads is masked, what it writes is not.  A frame's
payload is handed on as it arrives; only an unfinished header or control frame is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from .mask import REPEAT, rotate, unmask, unmask_run
from .tunnel import Buffer
from .utf8 import is_utf8


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """RFC 6455 section 7.4.1 and IANA's registry: those that forkd sends."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005
    """Never on the wire: what a Close without a code means."""
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013


class FrameError(Exception):
    """The peer broke the protocol; ``code`` is the close code to send (section 7.4.1)."""

    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(text)
        self.code = code


Event = tuple[int, bytes | bytearray, int]
"""(opcode, payload, ends); a compressed message has RSV1 beside its opcode.

A control frame comes whole, with ends 0.  Data comes in pieces under the opcode of their message;
*ends* is how many messages end with the piece: 0 or 1, or more where the piece is as many whole
messages, all of one size.
"""

FIN = 0x80
RSV1 = 0x40  # on the first frame of a message: it is compressed (RFC 7692 section 6)
MASKED = 0x80
NO_LIMIT = 1 << 63

# Plain numbers: an enum's own cost more than all else that is done for a frame.
_CONTROL_BIT = 0x08  # of the opcode (RFC 6455 section 5.5)
_TEXT_FRAME = int(FIN | Opcode.TEXT)
_BINARY_FRAME = int(FIN | Opcode.BINARY)

_CONTROL = frozenset(FIN | opcode for opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG))
_WHOLE = _CONTROL | {_TEXT_FRAME, _BINARY_FRAME}
_STARTS = _WHOLE | {int(Opcode.TEXT), int(Opcode.BINARY)}
"""First bytes of frames while no message is open; RSV bits are refused with the rest."""
_CONTINUES = _CONTROL | {int(Opcode.CONTINUATION), int(FIN | Opcode.CONTINUATION)}
"""First bytes of frames inside a fragmented message."""

_LONE = frozenset((_TEXT_FRAME, _BINARY_FRAME, RSV1 | _TEXT_FRAME, RSV1 | _BINARY_FRAME))
"""First bytes of messages in one frame, compressed ones included."""

_OPCODES = frozenset(Opcode)
_OPCODE = RSV1 | 0x0F
medium_header = struct.Struct(">HHI").unpack_from
_SMALL_FRAMES = tuple(struct.Struct(f">2xI{size}s").unpack_from for size in range(126))
LONE_SMALL = tuple(
    (struct.Struct(f">HI{size}s").unpack, REPEAT[size + 3 >> 2], -size % 4 * 8, size)
    for size in range(126)
)
"""By size of the payload, for a frame that is fed alone and whole: what unpacks it into its first
two bytes, key and payload; what repeats the key; what shifts that; the size."""
_LEAST_RUN = 4  # frames: below, one by one is cheaper
_MOST_RUN = 128  # frames: bounds what is looked at in vain


def encode_header(first: int, size: int) -> bytes:
    """Header of an unmasked frame of *size* bytes; *first* is FIN and opcode (section 5.2)."""
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return (first << 24 | 126 << 16 | size).to_bytes(4)
    return (first << 72 | 127 << 64 | size).to_bytes(10)


def encode_control(opcode: int, payload: Buffer) -> bytes:
    """A control frame; *payload* is at most 125 bytes (section 5.5)."""
    return bytes((FIN | opcode, len(payload))) + payload


def encode_close(code: int) -> bytes:
    """A Close frame with *code*, without any for 0."""
    return encode_control(Opcode.CLOSE, code.to_bytes(2) if code else b"")


def decode_close(payload: bytes | bytearray) -> int:
    """The code of a Close frame, 0 where it has none; the reason is checked and dropped.

    Raises FrameError: PROTOCOL_ERROR for half a code or one that must not be sent (section 7.4),
    INVALID_DATA for a reason that is not UTF-8.
    """
    if not payload:
        return 0
    code = int.from_bytes(payload[:2])
    if len(payload) < 2 or not is_sendable(code):
        raise FrameError(CloseCode.PROTOCOL_ERROR, "invalid close code")
    if not is_utf8(payload[2:]):
        raise FrameError(CloseCode.INVALID_DATA, "close reason is not UTF-8")
    return code


def is_sendable(code: int) -> bool:
    """Whether *code* may stand in a Close frame: section 7.4.2, and what IANA has added since."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def each_message(payload: bytes | bytearray, ends: int) -> Iterator[bytes | bytearray]:
    """The messages of an event that has several, or the one piece that it is."""
    if ends < 2:
        yield payload
        return
    size = len(payload) // ends
    for index in range(ends):
        yield payload[index * size : (index + 1) * size]


def lone_message(data: Buffer) -> tuple[int, bytes | bytearray] | None:
    """(opcode, payload) when *data* is one message in one frame of less than 64 KiB, and nothing
    else; a compressed one has RSV1 beside its opcode.  What is wrong is not a message either."""
    size = len(data)
    if 5 < size < 132:
        unpack, repeat, shift, size = LONE_SMALL[size - 6]
        head, key, payload = unpack(data)
        if head & 0xFF == size | MASKED and head >> 8 in _LONE:
            return head >> 8 & _OPCODE, (
                int.from_bytes(payload) ^ key * repeat >> shift
            ).to_bytes(size)
    elif size > 133:
        head, size, key = medium_header(data)
        if size == len(data) - 8 and head & 0xFF == MASKED | 126 and head >> 8 in _LONE:
            return head >> 8 & _OPCODE, unmask(data[8:], key)
    return None


class FrameDecoder:
    """Client frames to events.  After a FrameError it is not to be fed again."""

    _starts = _STARTS
    _whole_frames = _WHOLE

    __slots__ = (
        "_fin",
        "_key",
        "_left",
        "_max_frame",
        "_max_message",
        "_message",
        "_rest",
        "_size",
    )

    def __init__(self, max_message_size: int = 0, max_frame_size: int = 0) -> None:
        """Sizes in bytes of payload; 0: no limit."""
        self._max_message = max_message_size or NO_LIMIT
        self._max_frame = min(max_frame_size or NO_LIMIT, self._max_message)
        self._rest = b""  # an unfinished header or control frame
        self._message = 0  # opcode of the open message
        self._size = 0  # its bytes so far, those announced included
        self._left = 0  # bytes that its current frame still owes
        self._key = 0  # for the next of them
        self._fin = False  # whether that frame is the last of the message

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open: a new decoder would do as well as this."""
        return not self._message and not self._rest

    @property
    def announced(self) -> int:
        """Bytes of the open message if its last frame has begun; 0 if not, or if they are
        compressed."""
        return self._size if self._left and self._fin and self._message < RSV1 else 0

    def feed(self, data: Buffer) -> Iterator[Event]:
        """The events that *data* completes, as they are asked for.

        Raises FrameError at the first byte that nothing could make right, after the events before
        it.  *data* must stay as it is until all events have been taken.
        """
        view = memoryview(self._rest + data if self._rest else data)
        self._rest = b""
        at, end = 0, len(view)
        while at < end:
            if self._left:
                start, at = at, min(at + self._left, end)
                yield self._piece(view[start:at])
                continue
            whole = self._whole(view, at)
            if whole is not None:
                at, event = whole
                yield event
                continue
            header = self._header(view, at)
            if header is None:
                self._rest = bytes(view[at:])
                return
            first, size, key, body = header
            if not first & _CONTROL_BIT:
                at = body
                self._begin(first, size, key)
                if not size:
                    yield self._piece(b"")
            elif body + size <= end:
                at = body + size
                yield first & _OPCODE, unmask(view[body:at], key), 0
            else:
                self._rest = bytes(view[at:])
                return

    def _header(self, view: memoryview, at: int) -> tuple[int, int, int, int] | None:
        """(first byte, payload size, key, where the payload starts); None while unfinished."""
        first = view[at]
        if first not in (_CONTINUES if self._message else self._starts):
            raise FrameError(CloseCode.PROTOCOL_ERROR, _complaint(first))
        end = len(view)
        if end < at + 2:
            return None
        size = view[at + 1] - MASKED
        if size < 0:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "unmasked frame")
        key_at = at + 2
        if size > 125:
            if first & _CONTROL_BIT:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "control frame over 125 bytes")
            key_at += 2 if size == 126 else 8
            if end < key_at:
                return None
            size = _extended_size(view[at + 2 : key_at])
        if not first & _CONTROL_BIT:
            self._check_size(first, size)
        body = key_at + 4
        if end < body:
            return None
        return first, size, int.from_bytes(view[key_at:body]), body

    def _check_size(self, first: int, size: int) -> None:
        """Raises FrameError for a data frame of *size* bytes that a limit forbids."""
        max_message, max_frame = self._limits_of(self._message or first)
        if size > max_frame:
            raise FrameError(CloseCode.TOO_BIG, "frame too big")
        if self._message and self._size + size > max_message:
            raise FrameError(CloseCode.TOO_BIG, "message too big")

    def _limits_of(self, first: int) -> tuple[int, int]:
        """Bytes of a message that begins with *first*, and of a frame of it."""
        return self._max_message, self._max_frame

    def _begin(self, first: int, size: int, key: int) -> None:
        """A data frame starts."""
        if not self._message:
            self._message = first & _OPCODE
            self._size = 0
        self._size += size
        self._left = size
        self._key = key
        self._fin = first >= FIN

    def _piece(self, masked: Buffer) -> Event:
        """The event for the next bytes of the current frame."""
        event_opcode = self._message
        payload = unmask(masked, self._key)
        self._left -= len(masked)
        if self._left:
            self._key = rotate(self._key, len(masked))
        elif self._fin:
            self._message = 0
            return event_opcode, payload, 1
        return event_opcode, payload, 0

    def _whole(self, view: memoryview, at: int) -> tuple[int, Event] | None:
        """(where it ends, its event): a frame that is all there and changes no state, if next.

        A control frame, a message in one frame, or a run of small ones.  Whatever is short of 8
        bytes, long, fragmented or wrong is left to ``_header``.
        """
        end = len(view)
        if end < at + 8:
            return None
        head, size, key = medium_header(view, at)
        first, short = head >> 8, head & 0x7F
        if not head & MASKED or first not in (
            _CONTROL if self._message else self._whole_frames
        ):
            return None
        if short < 126:
            stop = at + 6 + short
            if stop > end:
                return None
            key, payload = _SMALL_FRAMES[short](view, at)
            if first & _CONTROL_BIT:
                return stop, (first & _OPCODE, unmask(payload, key), 0)
            if short > self._max_frame:
                return None
            run = _run(view, at, first, short)
            return run or (stop, (first & _OPCODE, unmask(payload, key), 1))
        stop = at + 8 + size
        if short > 126 or first & _CONTROL_BIT or size < 126:
            return None
        if stop > end or size > self._max_frame:
            return None
        return stop, (first & _OPCODE, unmask(view[at + 8 : stop], key), 1)


class DeflateFrameDecoder(FrameDecoder):
    """The same where permessage-deflate was agreed on.  A compressed message is counted when it is
    inflated: here it may have what compression adds to what cannot be made smaller."""

    __slots__ = ()
    _starts = _STARTS | {RSV1 | first for first in _STARTS - _CONTROL}
    _whole_frames = _WHOLE | {RSV1 | first for first in _WHOLE - _CONTROL}

    def _limits_of(self, first: int) -> tuple[int, int]:
        most, frame = super()._limits_of(first)
        if not first & RSV1:
            return most, frame
        wire = most + most // 7 + 64  # more than zlib's deflateBound
        return wire, wire if frame == most else frame


def _run(view: memoryview, at: int, first: int, size: int) -> tuple[int, Event] | None:
    """The same for a run: messages of one type and *size*, too many to be taken one by one.

    Programs that send without waiting for answers often send such; unmasking all of them at once
    costs little more than unmasking one.
    """
    stride = size + 6
    fourth = at + (_LEAST_RUN - 1) * stride
    if fourth + stride > len(view) or view[fourth] != first or view[fourth + 1] != size + MASKED:
        return None
    frames = bytes(view[at : at + _MOST_RUN * stride])
    count = min(
        len(frames) // stride,
        _prefix(frames[0::stride], first),
        _prefix(frames[1::stride], size + MASKED),
    )
    if count < _LEAST_RUN:
        return None
    payloads = unmask_run(frames[: count * stride], size)
    return at + count * stride, (first & _OPCODE, payloads, count)


def _prefix(data: bytes, byte: int) -> int:
    """How often *byte* stands at the start of *data*."""
    return len(data) - len(data.lstrip(bytes((byte,))))


def _extended_size(field: memoryview) -> int:
    """Section 5.2: two or eight bytes, the highest bit 0, and no more bytes than needed."""
    size = int.from_bytes(field)
    if size < (126 if len(field) == 2 else 1 << 16):
        raise FrameError(CloseCode.PROTOCOL_ERROR, "length in more bytes than needed")
    if size >> 63:
        raise FrameError(CloseCode.PROTOCOL_ERROR, "length over 63 bits")
    return size


def _complaint(first: int) -> str:
    """What is wrong with a frame that starts so."""
    opcode = first & 0x0F
    if first & 0x70:
        return "reserved bit set"
    if opcode not in _OPCODES:
        return f"reserved opcode {opcode}"
    if opcode >= Opcode.CLOSE:
        return "fragmented control frame"
    if opcode == Opcode.CONTINUATION:
        return "continuation of no message"
    return "new message inside a fragmented one"
