"""A client of HTTP/2 on the ``h2`` library: requests and WebSocket tunnels on one connection.

Credit is given for what arrives, on the connection always and on a stream unless it is stalled.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from client_frames import BINARY, CLOSE, frame, server_frames

FRAME = 16384
GOAWAY = 7


@dataclass(eq=False)
class Stream:
    """What has come on one stream."""

    client: H2Client
    id: int
    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None
    stalled: bool = False
    """No credit is given."""
    withheld: int = 0
    """What would have been."""

    @property
    def is_over(self) -> bool:
        return self.ended or self.reset is not None

    def send(self, data: bytes, *, end: bool = False) -> None:
        """All of *data*, as the windows open."""
        client, view = self.client, memoryview(data)
        while view:
            client.run_until(lambda: self.is_over or client.h2.local_flow_control_window(self.id))
            room = min(FRAME, client.h2.local_flow_control_window(self.id))
            client.h2.send_data(self.id, bytes(view[:room]), end_stream=end and room >= len(view))
            client.flush()
            view = view[room:]
        if end and not data:
            client.h2.end_stream(self.id)
            client.flush()

    def go_on(self) -> None:
        """No longer stalled."""
        self.stalled = False
        credit, self.withheld = self.withheld, 0
        self.client.h2.increment_flow_control_window(credit, self.id)
        self.client.flush()

    def say(self, payload: bytes) -> None:
        """A binary message."""
        self.send(frame(BINARY, payload))

    def hear(self, size: int) -> bytes:
        """The payloads of the next frames: *size* bytes, taken away."""
        payload = b""
        while len(payload) < size:
            self.client.run_until(lambda: self._whole() or self.is_over)
            assert self._whole(), f"ended {self.ended}, reset {self.reset}, {bytes(self.data)!r}"
            payload += self._take().payload
        assert len(payload) == size
        return payload

    def hear_close(self) -> int:
        """The code of the Close frame that comes next."""
        self.client.run_until(lambda: self._whole() or self.is_over)
        last = self._take()
        assert last.opcode == CLOSE, last
        return int.from_bytes(last.payload[:2], "big")

    def _whole(self) -> int:
        """The size of the first frame, 0 while it is not whole."""
        data = self.data
        if len(data) < 2:
            return 0
        extra = {126: 2, 127: 8}.get(data[1], 0)
        size = 2 + extra
        size += int.from_bytes(data[2:size], "big") if extra else data[1]
        return size if len(data) >= size else 0

    def _take(self) -> Any:
        size = self._whole()
        (found,) = server_frames(bytes(self.data[:size]))
        del self.data[:size]
        return found


class H2Client:
    """One connection."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.streams: dict[int, Stream] = {}
        self.goaways: list[tuple[int, int]] = []
        """(last stream, code) of each."""
        self.at_eof = False
        self._rest = b""
        self.flush()

    def request(
        self, path: str, method: str = "GET", fields: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> Stream:  # fmt: skip
        head = [(":method", method), (":scheme", "http"), (":authority", "h"), (":path", path)]
        return self.open([*head, *fields], body)

    def connect(self, path: str, fields: Iterable[tuple[str, str]] = ()) -> Stream:
        """A tunnel for a WebSocket; its answer has not come yet."""
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
                (":authority", "h"), (":path", path), ("sec-websocket-version", "13")]  # fmt: skip
        return self.open([*head, *fields], b"")

    def tunnel(self, path: str) -> Stream:
        stream = self.connect(path)
        self.answered(stream)
        assert stream.status == 200, (stream.status, bytes(stream.data))
        return stream

    def open(self, head: list[tuple[str, str]], body: bytes | None) -> Stream:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, head, end_stream=body is None)
        stream = self.streams[number] = Stream(self, number)
        self.flush()
        if body:
            stream.send(body, end=True)
        return stream

    def answered(self, stream: Stream) -> Stream:
        self.run_until(lambda: stream.status or stream.is_over)
        return stream

    def finished(self, stream: Stream) -> Stream:
        self.run_until(lambda: stream.is_over)
        return stream

    # -- the connection ---------------------------------------------------------------------------

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def run_until(self, condition: Callable[[], Any], deadline: float = 15.0) -> None:
        """Hear the server until *condition* holds; AssertionError when late or it has closed."""
        end = time.monotonic() + deadline
        while not condition():
            assert not self.at_eof, f"closed, {self.goaways}"
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.socket.recv(1 << 18)
            except TimeoutError:
                raise AssertionError(f"not within {deadline} s") from None
            self.at_eof = not data
            for event in self.h2.receive_data(self._without_goaway(data)):
                self._happened(event)
            with suppress(OSError):
                self.flush()

    def _without_goaway(self, data: bytes) -> bytes:
        """The whole frames of *data* but for GOAWAY: h2 would hear nothing more behind one."""
        self._rest += data
        out = b""
        while len(self._rest) >= 9:
            size = 9 + int.from_bytes(self._rest[:3], "big")
            if len(self._rest) < size:
                break
            whole, self._rest = self._rest[:size], self._rest[size:]
            if whole[3] == GOAWAY:
                last, code = struct.unpack(">LL", whole[9:17])
                self.goaways.append((last, code))
            else:
                out += whole
        return out

    def _happened(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.fields = dict(event.headers)  # type: ignore[arg-type]
            stream.status = int(stream.fields.pop(":status"))
        elif isinstance(event, h2.events.DataReceived):
            stream.data += event.data
            self._credit(stream, event.flow_controlled_length)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code)

    def _credit(self, stream: Stream, size: int) -> None:
        if size:
            self.h2.increment_flow_control_window(size)
            if stream.stalled:
                stream.withheld += size
            else:
                with suppress(h2.exceptions.StreamClosedError, KeyError):
                    self.h2.increment_flow_control_window(size, stream.id)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> H2Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
