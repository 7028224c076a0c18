"""Frames of HTTP/2 (RFC 9113 sections 4 and 6): bytes in, whole and well-formed frames out.

The walker knows lengths, flags, padding and which frames belong to streams.  What a frame means
for a connection in its present state is ``protocol.http2``'s.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum

from .tunnel import Buffer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16384  # bytes of payload: section 4.2's least, and all we ask for
MAX_BLOCK = 65536  # bytes of one field block, over all its frames
MAX_CONTINUATIONS = 32

_HEAD = struct.Struct(">LBL")  # length and type, flags, stream
data_head = struct.Struct(">xHxxL").pack
"""What stands before so many bytes of DATA, at most MAX_FRAME, of a stream: the rest is 0."""
_UINT32 = struct.Struct(">L")
_STREAM = 0x7FFFFFFF  # without the reserved bit

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
PRIORITY_UPDATE = 0x10  # RFC 9218 section 7.1

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
_HAS_PRIORITY = 0x20

_ON_STREAMS = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION})
_ON_CONNECTION = frozenset({SETTINGS, PING, GOAWAY, PRIORITY_UPDATE})
_LENGTHS = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


class ErrorCode(IntEnum):
    """Section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionBroken(Exception):
    """A connection error (section 5.4.1): GOAWAY with *code*, and the end."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamBroken(Exception):
    """A stream error (section 5.4.2): RST_STREAM with *code*; the others go on."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


OnPiece = Callable[[int, Buffer], None]
"""Called with stream and payload of DATA without flags, which is most of what ever comes."""

OnFrame = Callable[[int, int, int, Buffer, int], None]
"""Called with type, flags, stream, payload and the size that counts for flow control.

The payload has no padding and, of HEADERS, no priority; HEADERS come with their CONTINUATIONs in
one.  It is valid during the call only.
"""


class FrameWalker:
    """Splits what a client sends.  ``feed`` raises ConnectionBroken, or what *on_frame* raises."""

    def __init__(
        self, on_piece: OnPiece, on_frame: OnFrame, on_self_dependence: Callable[[int], None]
    ) -> None:
        """*on_frame*: for all but pieces.  *on_self_dependence*: of the stream whose HEADERS, that
        come next, name it its own parent."""
        self._on_piece = on_piece
        self._on_frame = on_frame
        self._on_self_dependence = on_self_dependence
        self._rest = bytearray()
        self._block: bytearray | None = None
        self._block_flags = self._block_stream = self._continuations = 0

    def feed(self, data: Buffer) -> None:
        if self._rest:
            self._rest += data
            data = bytes(self._rest)
            self._rest.clear()
        view = memoryview(data)
        at, end = 0, len(view)
        while end - at >= 9:
            head, flags, stream = _HEAD.unpack_from(view, at)
            size = head >> 8
            if size > MAX_FRAME:
                raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, f"frame of {size} bytes")
            start = at + 9
            stop = start + size
            if stop > end:
                break
            at = stop
            stream &= _STREAM
            kind = head & 0xFF
            if kind == DATA and stream and not flags and self._block is None:
                self._on_piece(stream, view[start:stop])
            else:
                self._frame(kind, flags, stream, view[start:stop])
        if at < end:
            self._rest += view[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: memoryview) -> None:
        size = len(payload)
        if self._block is not None or kind == CONTINUATION:
            self._continue(kind, flags, stream, payload)
            return
        _check_stream(kind, stream)
        if size != _LENGTHS.get(kind, size):
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, f"type {kind} of {size} bytes")
        if kind in (DATA, HEADERS) and flags & PADDED:
            payload = _without_padding(payload)
        if kind == HEADERS:
            self._begin_block(flags, stream, self._without_priority(flags, stream, payload))
        else:
            self._on_frame(kind, flags, stream, payload, size)

    # -- field blocks (section 4.3) -----------------------------------------------------------

    def _without_priority(self, flags: int, stream: int, payload: memoryview) -> memoryview:
        if not flags & _HAS_PRIORITY:
            return payload
        if len(payload) < 5:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "no room for the priority")
        if uint32(payload) & _STREAM == stream:
            self._on_self_dependence(stream)
        return payload[5:]

    def _begin_block(self, flags: int, stream: int, payload: memoryview) -> None:
        if flags & END_HEADERS:
            self._on_frame(HEADERS, flags, stream, payload, 0)
            return
        self._block = bytearray(payload)
        self._block_flags, self._block_stream, self._continuations = flags, stream, 0

    def _continue(self, kind: int, flags: int, stream: int, payload: memoryview) -> None:
        block = self._block
        if block is None or kind != CONTINUATION or stream != self._block_stream:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "CONTINUATION where none is due")
        self._continuations += 1
        block += payload
        if len(block) > MAX_BLOCK or self._continuations > MAX_CONTINUATIONS:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "field block without an end")
        if flags & END_HEADERS:
            self._block = None
            self._on_frame(HEADERS, self._block_flags, stream, block, 0)


def _check_stream(kind: int, stream: int) -> None:
    if kind == PUSH_PROMISE or (kind in _ON_STREAMS and not stream):
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"type {kind} on stream {stream}")
    if kind in _ON_CONNECTION and stream:
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"type {kind} on stream {stream}")


def _without_padding(payload: memoryview) -> memoryview:
    """Section 6.1: the first byte says how many at the end do not count."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def uint32(data: Buffer, at: int = 0) -> int:
    """The four bytes at *at*."""
    value: int = _UINT32.unpack_from(data, at)[0]
    return value


def stream_id(data: Buffer) -> int:
    """The stream that a payload begins with, without the reserved bit."""
    return uint32(data) & _STREAM


# -- frames of ours ---------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame; *payload* is at most MAX_FRAME bytes."""
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _UINT32.pack(increment))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _UINT32.pack(code))


def goaway(last: int, code: int) -> bytes:
    return frame(GOAWAY, 0, 0, _UINT32.pack(last) + _UINT32.pack(code))


def settings(values: dict[int, int]) -> bytes:
    pairs = (struct.pack(">HL", *pair) for pair in values.items())
    return frame(SETTINGS, 0, 0, b"".join(pairs))
