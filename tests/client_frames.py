"""A WebSocket client for codec tests: frames as RFC 6455 section 5.2 draws them, byte by byte.

Written apart from forkd's own encoder and decoder, so that both are compared with the RFC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from operator import xor
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = bytes.fromhex("37fa213d")  # of the RFC's examples


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    return bytes(map(xor, payload, cycle(key)))


def frame(
    opcode: int, payload: bytes = b"", fin: bool = True, key: bytes = KEY, rsv: int = 0
) -> bytes:
    """A client's frame, its length in the fewest bytes."""
    size = len(payload)
    if size <= 125:
        length = bytes([0x80 | size])
    elif size <= 0xFFFF:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    first = fin << 7 | rsv << 4 | opcode
    return bytes([first]) + length + key + masked(payload, key)


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


class ServerFrame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True


def server_frames(data: bytes) -> list[ServerFrame]:
    """The frames of a server; AssertionError when they are not what section 5.1 and 5.2 demand."""
    return list(_server_frames(bytes(data)))


def _server_frames(data: bytes) -> Iterator[ServerFrame]:
    while data:
        first, size, data = data[0], data[1], data[2:]
        assert not first & 0x70, "RSV bit"
        assert size < 0x80, "a server masks nothing"
        if size == 126:
            size, data = int.from_bytes(data[:2], "big"), data[2:]
            assert size > 125, "length not minimal"
        elif size == 127:
            size, data = int.from_bytes(data[:8], "big"), data[8:]
            assert size > 0xFFFF, "length not minimal"
        assert len(data) >= size, "unfinished frame"
        yield ServerFrame(first & 0x0F, data[:size], first >= 0x80)
        data = data[size:]


def cut(data: bytes, places: Iterable[int]) -> Sequence[bytes]:
    """*data* in pieces, cut at *places*."""
    edges = [0, *sorted(place for place in places if 0 < place < len(data)), len(data)]
    return [data[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]


def single_bytes(data: bytes) -> Sequence[bytes]:
    return cut(data, range(len(data)))
