"""WebSocketCodec: RFC 6455 towards the client, a bare stream of bytes towards the backend.

No I/O and no clock.  The opening handshake is in ``protocol.handshake``, the closing one in
``protocol.closing``, frames are in ``protocol.frame``.  Messages are never assembled: borders and
types vanish on the way to the backend, and each piece it sends becomes one frame.

``from_client`` and ``from_backend`` run once per message of every tunnel: what is inlined there was
measured.
"""

from __future__ import annotations

from .closing import NOTHING, Closing
from .frame import (
    FIN,
    LONE_SMALL,
    MASKED,
    CloseCode,
    FrameDecoder,
    FrameError,
    Opcode,
    encode_control,
    encode_header,
    medium_header,
)
from .mask import unmask
from .tunnel import Buffer, End
from .utf8 import is_utf8, whole_characters

# Plain numbers: an enum's own cost more than all else that is done for a frame.
_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)
_PING, _PONG = int(Opcode.PING), int(Opcode.PONG)

_TEXT_HEADERS = tuple(encode_header(FIN | _TEXT, size) for size in range(126))
_BINARY_HEADERS = tuple(encode_header(FIN | _BINARY, size) for size in range(126))

# The first two bytes of a frame as a number, less the size where it is there.
_SMALL_TEXT = (FIN | _TEXT) << 8 | MASKED
_SMALL_BINARY = (FIN | _BINARY) << 8 | MASKED
_MEDIUM_BINARY = _SMALL_BINARY | 126
_MEDIUM_HEADS = (_MEDIUM_BINARY, _SMALL_TEXT | 126)
_MEDIUM_END = 8 + (1 << 16)

_from_bytes = int.from_bytes


class WebSocketCodec(Closing):
    """One WebSocket connection, between messages as small as it can be.

    Text from the client is checked as it arrives, and only whole characters are passed on; text
    from the backend is cut between characters.
    """

    __slots__ = (
        "_decoder",
        "_from_backend_kept",
        "_from_client_kept",
        "_headers",
        "_is_limited",
        "_limits",
        "_received",
        "_sent",
    )

    def __init__(
        self, binary: bool = False, max_message_size: int = 0, max_frame_size: int = 0
    ) -> None:
        """*binary*: the type of the frames sent.  Limits on received ones: bytes, 0 for none."""
        super().__init__()
        self._received = 0
        self._sent = 0
        self._headers = _BINARY_HEADERS if binary else _TEXT_HEADERS
        self._from_client_kept = b""  # at most 3 bytes of a character
        self._from_backend_kept = b""
        self._limits = (max_message_size, max_frame_size)
        # The short cuts of from_client know no limits: a decoder that stays keeps them closed.
        self._is_limited = any(0 < limit < 1 << 16 for limit in self._limits)
        self._decoder = FrameDecoder(*self._limits) if self._is_limited else None

    @property
    def messages(self) -> tuple[int, int]:
        """Whole messages from the client, frames to the client."""
        return self._received, self._sent

    def from_client(self, data: Buffer) -> tuple[Buffer, Buffer]:
        if self._decoder is None:
            size = len(data)
            if 5 < size < 132:
                unpack, repeat, shift, size = LONE_SMALL[size - 6]
                head, key, payload = unpack(data)
                payload = (_from_bytes(payload) ^ key * repeat >> shift).to_bytes(size)
                head -= size
                if head == _SMALL_BINARY or head == _SMALL_TEXT and (
                    payload.isascii() or is_utf8(payload)
                ):
                    self._received += 1
                    return b"", payload
            elif 133 < size < _MEDIUM_END:
                head, size, key = medium_header(data)
                if size == len(data) - 8 and head in _MEDIUM_HEADS:
                    payload = unmask(data[8:], key)
                    if head == _MEDIUM_BINARY or is_utf8(payload):
                        self._received += 1
                        return b"", payload
        return self._decode(data)

    def from_backend(self, data: Buffer) -> tuple[Buffer, Buffer]:
        if self.end is not None:
            return NOTHING
        headers = self._headers
        if headers is _TEXT_HEADERS:
            data = self._from_backend_kept + data
            if not data.isascii():
                return self._cut(data), b""
        size = len(data)
        if 0 < size < 126:
            self._sent += 1
            return headers[size] + data, b""
        return self._frame(data), b""

    def backend_eof(self) -> tuple[Buffer, Buffer]:
        if self._from_backend_kept:
            return self._refuse_backend(), b""
        return self._close(End("backend_eof", CloseCode.NORMAL, await_peer=True)), b""

    def _finish(self, end: End) -> None:
        super()._finish(end)
        self._from_client_kept = self._from_backend_kept = b""
        # What still comes is only searched for a Close, and the short cuts would not.
        if self._decoder is None:
            self._decoder = FrameDecoder(*self._limits)

    def _decode(self, data: Buffer) -> tuple[Buffer, Buffer]:
        """Whatever is not one small or medium message between two others."""
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = FrameDecoder(*self._limits)
        if self._is_deaf:
            self._await_close(decoder, data)
            return NOTHING
        to_client: list[Buffer] = []
        to_backend: list[Buffer] = []
        try:
            for opcode, payload, ends in decoder.feed(data):
                if opcode == _BINARY:
                    to_backend.append(payload)
                    self._received += ends
                elif opcode == _TEXT:
                    self._take_text(payload, ends, to_backend)
                elif opcode == _PING:
                    to_client.append(encode_control(_PONG, payload))
                elif opcode == _PONG:
                    self.pongs += 1
                else:
                    self._take_close(payload)
                    break
        except FrameError as error:
            self._take_error(error)
        if self.end is None and decoder.is_idle and not self._is_limited:
            self._decoder = None
        return _joined(to_client), _joined(to_backend)

    def _take_text(
        self, piece: bytes | bytearray, ends: int, to_backend: list[Buffer]
    ) -> None:
        """Append the whole characters of *piece*.  Raises FrameError behind the last valid one."""
        if ends > 1 and not piece.isascii():
            size = len(piece) // ends
            for start in range(0, len(piece), size):  # each message is valid by itself or not
                self._take_text(piece[start : start + size], 1, to_backend)
            return
        text = self._from_client_kept + piece
        size, hope = whole_characters(text)
        to_backend.append(text[:size])
        if not hope or ends and size < len(text):
            raise FrameError(CloseCode.INVALID_DATA, "invalid UTF-8")
        self._from_client_kept = text[size:]
        self._received += ends

    def _frame(self, payload: Buffer) -> bytes:
        """One message to the client; nothing for nothing."""
        if not payload:
            return b""
        self._sent += 1
        return encode_header(self._headers[0][0], len(payload)) + payload

    def _cut(self, text: bytes) -> bytes:
        """A frame of the whole characters of *text*; the rest is kept."""
        size, hope = whole_characters(text)
        self._from_backend_kept = text[size:]
        frame = self._frame(text[:size])
        return frame if hope else frame + self._refuse_backend()

    def _refuse_backend(self) -> bytes:
        return self._close(End("backend_invalid_utf8", CloseCode.INTERNAL_ERROR))


def _joined(parts: list[Buffer]) -> Buffer:
    return parts[0] if len(parts) == 1 else b"".join(parts)
