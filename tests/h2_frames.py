"""Frames of HTTP/2 as a test client writes them, well-formed or not, and what a server answers."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hpack import Decoder, Encoder

from forkd.protocol.h2_frames import ErrorCode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FENCE = b"\0fence\0\0"  # a PING whose answer says that all before it has been read

DATA, HEADERS, PRIORITY, RST, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
PRIORITY_UPDATE = 16

GET = (
    (":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/a"),
)  # fmt: skip
POST = ((":method", "POST"), *GET[1:])
CONNECT = (
    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
    (":authority", "h"), (":path", "/ws/"), ("sec-websocket-version", "13"),
)  # fmt: skip


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int = -1) -> bytes:
    """A frame; *length* lies about the size of its payload."""
    size = len(payload) if length < 0 else length
    return struct.pack(">BHBBL", size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Fields that leave no trace in the decoder's table."""
    out = b""
    for name, value in fields:
        raw_name, raw_value = name.encode("latin-1"), value.encode("latin-1")
        out += b"\x10" + _number(len(raw_name)) + raw_name + _number(len(raw_value)) + raw_value
    return out


def _number(value: int) -> bytes:
    if value < 127:
        return bytes([value])
    out, value = b"\x7f", value - 127
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def headers(
    stream: int, fields: Iterable[tuple[str, str]] = GET, *, ended: bool = True, flags: int = 0
) -> bytes:
    return frame(HEADERS, 4 | ended | flags, stream, block(fields))


def settings(**values: int) -> bytes:
    names = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "fields": 6}
    return frame(
        SETTINGS, 0, 0, b"".join(struct.pack(">HL", names[n], v) for n, v in values.items())
    )


def window(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">L", increment))


def rst(stream: int, code: int = 8) -> bytes:
    return frame(RST, 0, stream, struct.pack(">L", code))


def ping(data: bytes = b"12345678") -> bytes:
    return frame(PING, 0, 0, data)


@dataclass
class Seen:
    """What a server has sent, as far as tests ask; ``feed`` takes its bytes."""

    status: dict[int, int] = field(default_factory=dict)
    fields: dict[int, dict[str, str]] = field(default_factory=dict)
    body: dict[int, bytes] = field(default_factory=dict)
    trailers: dict[int, dict[str, str]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    rst: dict[int, str] = field(default_factory=dict)
    goaway: list[str] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    ping_acks: int = 0
    fenced: bool = False
    windows: dict[int, int] = field(default_factory=dict)
    settings: dict[int, int] = field(default_factory=dict)
    settings_acks: int = 0
    order: list[int] = field(default_factory=list)
    """The streams of DATA frames, as they came."""
    rest: bytes = b""
    decoder: Any = field(default_factory=Decoder)

    def feed(self, data: bytes) -> Seen:
        data = self.rest + data
        while len(data) >= 9:
            high, low, kind, flags, stream = struct.unpack_from(">BHBBL", data)
            size = high << 16 | low
            if len(data) < 9 + size:
                break
            self._frame(kind, flags, stream, data[9 : 9 + size])
            data = data[9 + size :]
        self.rest = data
        return self

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            pairs = {str(name): str(value) for name, value in self.decoder.decode(payload)}
            if ":status" in pairs:
                self.status[stream] = int(pairs.pop(":status"))
                self.fields[stream] = pairs
            else:
                self.trailers[stream] = pairs
        elif kind == DATA:
            self.body[stream] = self.body.get(stream, b"") + payload
            if payload:
                self.order.append(stream)
        elif kind == RST:
            self.rst[stream] = ErrorCode(int.from_bytes(payload, "big")).name
        elif kind == GOAWAY:
            self.last.append(int.from_bytes(payload[:4], "big"))
            self.goaway.append(ErrorCode(int.from_bytes(payload[4:8], "big")).name)
        elif kind == WINDOW_UPDATE:
            increment = int.from_bytes(payload, "big")
            self.windows[stream] = self.windows.get(stream, 0) + increment
        elif kind == PING:
            self._ping(flags, payload)
        elif kind == SETTINGS:
            self.settings_acks += flags & 1
            self.settings |= dict(struct.iter_unpack(">HL", payload))
        if kind in (DATA, HEADERS) and flags & 1:
            self.ended.add(stream)

    def _ping(self, flags: int, payload: bytes) -> None:
        if not flags & 1:
            self.pings.append(payload)
        elif payload == FENCE:
            self.fenced = True
        else:
            self.ping_acks += 1

    @property
    def outcome(self) -> dict[str, Any]:
        """As the vectors say it; what there was not is left out."""
        found = {
            "status": {str(stream): status for stream, status in self.status.items()},
            "rst": {str(stream): code for stream, code in self.rst.items()},
            "goaway": self.goaway,
            "ping_acks": self.ping_acks,
        }
        return {name: value for name, value in found.items() if value}


class RawClient:
    """A connection over which a test says what it wants."""

    def __init__(self, port: int, preface: bytes = PREFACE) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self.seen = Seen()
        self.at_eof = False
        self.encoder = Encoder()
        if preface:
            self.socket.sendall(preface)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_until(self, condition: Callable[[Seen], Any], deadline: float = 15.0) -> Seen:
        """Read until *condition* holds or the server has closed; AssertionError when late."""
        end = time.monotonic() + deadline
        while not condition(self.seen) and not self.at_eof:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            except TimeoutError:
                raise AssertionError(f"not within {deadline} s: {self.seen.outcome}") from None
            self.at_eof = not data
            self.seen.feed(data)
        return self.seen

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
