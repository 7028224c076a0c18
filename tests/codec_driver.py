"""Drives a codec as a tunnel does, between a client and a backend that are lists of bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from client_frames import ServerFrame, server_frames

from forkd.protocol.tunnel import MORE, Packets, TunnelCodec

TAIL = b"\0\0\xff\xff"


class Driver:
    """*codec* and all that came out of it.  Whatever is fed is overwritten after the call."""

    def __init__(self, codec: TunnelCodec, answer: Callable[[bytes], bytes] | None = None) -> None:
        """*answer*: what the backend says to what it gets, call by call."""
        self.codec = codec
        self.to_client = bytearray()
        self.to_backend: list[bytes] = []
        """What each call gave, or each packet."""
        self.turns = 0
        """How often the codec held something back."""
        self._answer = answer
        self._answers: list[bytes] = []
        self._is_closing = False

    def client(self, *pieces: bytes) -> Driver:
        for piece in pieces:
            self._feed(self.codec.from_client, piece)
            while self.codec.end is MORE:
                self.codec.end = None
                self.turns += 1
                self._feed(self.codec.from_client, b"")
            if self.codec.end is not None and self.codec.end.after_backend:
                self.codec.end = None
                self._is_closing = True
            answers, self._answers = self._answers, []
            self.backend(*answers)
        return self

    def backend(self, *pieces: bytes) -> Driver:
        for piece in pieces:
            self._feed(self.codec.from_backend, piece)
        return self

    def end(self) -> Driver:
        """The backend ends if its input has."""
        if self._is_closing:
            self._is_closing = False
            self.to_client += self.codec.backend_eof()[0]
        return self

    def _feed(self, codec: Callable[[bytearray], tuple[bytes, bytes]], data: bytes) -> None:
        shared = bytearray(data)
        view = memoryview(shared)
        to_client, to_backend = codec(view)
        self.to_client += to_client
        packets = to_backend if isinstance(to_backend, Packets) else (to_backend,)
        passed_on = [bytes(packet) for packet in packets]
        shared[:] = b"\xaa" * len(shared)
        if passed_on != [b""] or isinstance(to_backend, Packets):
            self.to_backend += passed_on
            if self._answer:
                self._answers += map(self._answer, passed_on)

    @property
    def data(self) -> bytes:
        """All that the backend got."""
        return b"".join(self.to_backend)

    def frames(self) -> list[ServerFrame]:
        return server_frames(bytes(self.to_client))

    def messages(self) -> list[tuple[int, bytes]]:
        """(opcode, payload) of what the client got, control frames included."""
        return assembled(self.to_client)


class Compressor:
    """The client's permessage-deflate (RFC 7692 section 7.2.1)."""

    def __init__(self, bits: int = 15, takes_over: bool = True, level: int = 6) -> None:
        self._new = lambda: zlib.compressobj(level, zlib.DEFLATED, -bits)
        self._takes_over = takes_over
        self._stream = self._new()

    def __call__(self, payload: bytes) -> bytes:
        if not payload:
            return b"\0"  # section 7.2.3.6
        stream = self._stream if self._takes_over else self._new()
        out = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
        assert out.endswith(TAIL)
        return out[: -len(TAIL)]


def assembled(
    data: bytes | bytearray, bits: int = 15, takes_over: bool = True
) -> list[tuple[int, bytes]]:
    """The messages of a server's frames, inflated; AssertionError for what a client would refuse
    (RFC 6455 section 5.4, RFC 7692 section 6)."""
    found: list[tuple[int, bytes]] = []
    stream = zlib.decompressobj(-bits)
    opcode, is_compressed, parts = 0, False, bytearray()
    for first, payload in _frames(bytes(data)):
        kind, rsv1 = first & 0x0F, bool(first & 0x40)
        assert not first & 0x30
        if kind >= 8:
            assert first & 0x80 and not rsv1 and len(payload) < 126
            found.append((kind, payload))
            continue
        assert (kind == 0) == bool(opcode) and not (opcode and rsv1)
        opcode, is_compressed = (opcode, is_compressed) if opcode else (kind, rsv1)
        parts += payload
        if first & 0x80:
            if is_compressed:
                stream = stream if takes_over else zlib.decompressobj(-bits)
                payload = stream.decompress(bytes(parts) + TAIL)
            else:
                payload = bytes(parts)
            if opcode == 1:
                payload.decode()
            found.append((opcode, payload))
            opcode, parts = 0, bytearray()
    return found


def _frames(data: bytes) -> Iterable[tuple[int, bytes]]:
    """(first byte, payload) of each."""
    at = 0
    while at < len(data):
        rsv1 = data[at] & 0x40
        size, extra = data[at + 1], {126: 2, 127: 8}.get(data[at + 1], 0)
        if extra:
            size = int.from_bytes(data[at + 2 : at + 2 + extra])
        end = at + 2 + extra + size
        (frame,) = server_frames(bytes((data[at] ^ rsv1,)) + data[at + 1 : end])
        yield data[at], frame.payload
        at = end
