"""The body of an HTTP/1.1 request, on h11's server role behind the chunk gate.

No I/O: fed what came behind the head, asked for pieces.  Heads never come here: the strict gate
has read them, and h11 is told only what it found out about the framing.
"""

from __future__ import annotations

import h11

from ..message import Fields, Request
from ..protocol.strict_chunks import ChunkGate


class H1Body:
    """One body that is not empty.  ``feed`` and ``take`` raise BadRequest for bad framing."""

    def __init__(self, request: Request) -> None:
        length = request.content_length
        self.taken = 0
        """Bytes of body given out."""
        self.is_over = False
        self.trailers = Fields()
        self.length = length
        """Bytes of body in all; None for a chunked one."""
        self._fed = 0
        self._gate: ChunkGate | None = None
        if length is None:
            fields = request.fields
            self._gate = ChunkGate(fields.get("trailer") if "trailer" in fields else None)
        self._h11 = h11.Connection(h11.SERVER)
        self._h11.receive_data(
            b"POST / HTTP/1.1\r\nhost: -\r\n%s\r\n\r\n"
            % (b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length)
        )
        self._h11.next_event()

    @property
    def size(self) -> int:
        """Bytes of body as far as the framing has announced them."""
        return self._gate.size if self._gate is not None else self.length or 0

    @property
    def left(self) -> int | None:
        """Bytes still to be taken; None where only the end of a chunked body will tell."""
        return None if self.length is None else self.length - self.taken

    def feed(self, data: bytes) -> bytes:
        """Take *data* up to the body's end; what is behind it is given back."""
        if self._gate is None:
            missing = (self.length or 0) - self._fed
            data, rest = data[:missing], data[missing:]
            self._fed += len(data)
        else:
            data, rest = self._gate.feed(data)
        if data:
            self._h11.receive_data(data)
        return rest

    def take(self) -> bytes | None:
        """The next piece; b"" at the end, which sets ``is_over``; None when more is to be fed."""
        event = self._h11.next_event()
        if isinstance(event, h11.Data):
            self.taken += len(event.data)
            return bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            return None
        self.is_over = True
        if self._gate is not None:
            self.trailers = self._gate.trailers
        return b""
