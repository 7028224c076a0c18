"""The end of a WebSocket as its server sees it (RFC 6455 sections 5.5.1 and 7).

What all codecs of WebSockets have in common, whatever they do with messages.  There are two ways to
end.  Either we speak first: then the peer's Close is awaited, and whatever else comes is dropped.
Or the client has said its last word, a Close or something that the protocol forbids: then what it
sent before is still answered by the backend before our Close goes out.
"""

from __future__ import annotations

from .frame import (
    CloseCode,
    FrameDecoder,
    FrameError,
    Opcode,
    decode_close,
    encode_close,
    encode_control,
)
from .tunnel import Buffer, End

NOTHING: tuple[Buffer, Buffer] = (b"", b"")
PING = encode_control(Opcode.PING, b"ping")  # wstunnel.md 7

_CLOSE = int(Opcode.CLOSE)


class Closing:
    """The half of a TunnelCodec that ends it."""

    passes_reset = False  # a client is told by a Close frame
    end_of_input = None
    loss = b""

    __slots__ = ("_last_word", "end", "peer_closed", "pongs")

    def __init__(self) -> None:
        self.end: End | None = None
        self.peer_closed = False
        self.pongs = 0
        self._last_word: End | None = None
        """What the client ended with, while our Close waits for the backend."""

    @property
    def _is_deaf(self) -> bool:
        """Whether nothing that the client sends means anything but, perhaps, its Close."""
        return self.end is not None or self._last_word is not None

    def client_eof(self) -> tuple[Buffer, Buffer]:
        self.peer_closed = True
        if not self._is_deaf:
            self._finish(End("client_eof"))
        return NOTHING

    def ping(self) -> bytes:
        return b"" if self._is_deaf else PING

    def close(self, code: int, reason: str) -> bytes:
        return self._close(End(reason, code))

    def _close(self, end: End) -> bytes:
        """Our Close frame, unless one has been sent: section 5.5.1, nothing follows it."""
        if self.end is not None:
            return b""
        end = self._last_word or end
        self._finish(end)
        return encode_close(end.code)

    def _finish(self, end: End) -> None:
        """Everything is over but, perhaps, the wait for the client's Close."""
        self.end = end

    def _hang_up(self, reason: str, code: int) -> None:
        """The client has said its last word."""
        self.peer_closed = True
        self._last_word = End(reason, code)
        self.end = End(reason, code, after_backend=True)

    def _take_close(self, payload: Buffer) -> None:
        """Section 5.5.1: answered with the same code.  Raises FrameError for an invalid Close."""
        code = decode_close(bytes(payload))
        self._hang_up(f"client_close:{code or CloseCode.NO_STATUS:d}", code)

    def _take_error(self, error: FrameError) -> None:
        """Section 7.1.7: the connection is failed."""
        self._hang_up(f"protocol_error:{error}", error.code)

    def _await_close(self, decoder: FrameDecoder, data: Buffer) -> None:
        """Of what the client still sends only its Close means anything."""
        if self.peer_closed:
            return
        try:
            self.peer_closed = any(opcode == _CLOSE for opcode, _, _ in decoder.feed(data))
        except FrameError:
            self.peer_closed = True  # it will not come any more
