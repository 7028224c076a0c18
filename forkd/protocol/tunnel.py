"""What a tunnel does to bytes on their way: the interface, and the codec that does nothing.

A codec is fed what one end sent and answers with what each end is to be given.  It never blocks,
keeps only an unfinished piece, and sets ``end`` when the tunnel is to finish.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

Buffer = bytes | bytearray | memoryview


class Packets(tuple[bytes, ...]):
    """What a codec returns in place of bytes for a backend that takes packets: one to a message,
    empty ones included.  Its port writes each by itself (``net.packet_port``)."""

    __slots__ = ()


class End(NamedTuple):
    """Why a codec wants the tunnel over."""

    reason: str
    """For the log: ``client_close:1000``, ``backend_eof``, ``protocol_error:…``, ``idle``."""
    code: int = 0
    """WebSocket close code sent, 0 where there is none."""
    await_peer: bool = False
    """Whether the client still owes its Close frame (RFC 6455 section 7.1.1)."""
    one_way: bool = False
    """Only what comes from the backend is over; the codec goes on."""
    after_backend: bool = False
    """Only what comes from the client is over.  The backend's input ends, what it then still says
    goes to the client, and ``close`` is called behind that, or when it takes too long."""


MORE = End("more")
"""No end: the codec holds input back, since little input makes much output.  It is to be given b""
as if from the client when the backend can take more, and nothing else from there until then."""


class TunnelCodec(Protocol):
    """Re-frames the bytes of one tunnel.  A memoryview that is fed is valid during the call only;
    one that is returned may be a view of it, so it is to be written or copied at once."""

    end: End | None
    """Set by whichever call found the reason, and for good, but for those that leave a direction
    open: they are taken away by who has seen them."""
    peer_closed: bool
    """Whether the client has said its last word (a Close frame): nothing more need be awaited."""
    pongs: int
    """Pong frames seen."""

    passes_reset: bool
    """Whether a reset of one end is a reset of the other: no end has another way to hear of it."""

    @property
    def end_of_input(self) -> bytes | None:
        """What tells the backend that nothing more will come; None: only the end of its stream."""

    @property
    def loss(self) -> bytes:
        """What tells the backend that nobody wants its output; b"" where the protocol has none."""

    @property
    def messages(self) -> tuple[int, int]:
        """Whole messages (from client, from backend); (0, 0) where there are none."""

    def from_client(self, data: Buffer) -> tuple[Buffer, Buffer]:
        """(to_client, to_backend) for bytes that the client sent."""

    def from_backend(self, data: Buffer) -> tuple[Buffer, Buffer]:
        """(to_client, to_backend) for bytes that the backend sent."""

    def client_eof(self) -> tuple[Buffer, Buffer]:
        """The client will send nothing more."""

    def backend_eof(self) -> tuple[Buffer, Buffer]:
        """The backend will send nothing more."""

    def ping(self) -> bytes:
        """A keep-alive for the client; b"" where the protocol has none."""

    def close(self, code: int, reason: str) -> bytes:
        """What tells the client that the tunnel ends with *code*; sets ``end``."""


class BlindCodec:
    """Passes everything on untouched: the program behind speaks for itself."""

    passes_reset = True
    end_of_input = None
    loss = b""

    def __init__(self) -> None:
        self.end: End | None = None
        self.peer_closed = False
        self.messages = (0, 0)
        self.pongs = 0

    def from_client(self, data: Buffer) -> tuple[Buffer, Buffer]:
        return b"", data

    def from_backend(self, data: Buffer) -> tuple[Buffer, Buffer]:
        return data, b""

    def client_eof(self) -> tuple[Buffer, Buffer]:
        return b"", b""

    def backend_eof(self) -> tuple[Buffer, Buffer]:
        return b"", b""

    def ping(self) -> bytes:
        return b""

    def close(self, code: int, reason: str) -> bytes:
        self.end = End(reason, code)
        return b""
