"""forkd/protocol/mask.py against the definition in RFC 6455 section 5.3."""

from __future__ import annotations

import random

import pytest
from client_frames import BINARY, frame, masked
from hypothesis import given
from hypothesis import strategies as st

from forkd.protocol.mask import LANES_FROM, rotate, unmask, unmask_run

keys = st.integers(0, 0xFFFFFFFF)


def test_example_of_the_rfc() -> None:
    """Section 5.7: "Hello", masked."""
    assert unmask(bytes.fromhex("7f9f4d5158"), 0x37FA213D) == b"Hello"


@pytest.mark.parametrize(
    "size", [*range(140), *range(LANES_FROM - 5, LANES_FROM + 6), 4096, 65535, 65536]
)
def test_every_size(size: int) -> None:
    data, key = random.Random(size).randbytes(size), random.Random(size).randbytes(4)
    assert unmask(data, int.from_bytes(key, "big")) == masked(data, key)


@pytest.mark.parametrize("size", [16, 2000])
@pytest.mark.parametrize("key", [0, 1, 0xFF, 0xFF000000, 0xFFFFFFFF])
def test_keys_at_the_edges(key: int, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert unmask(data, key) == masked(data, key.to_bytes(4, "big"))


@pytest.mark.parametrize("size", [20, 2000])
def test_takes_any_buffer_and_keeps_nothing_of_it(size: int) -> None:
    buffer = bytearray(random.Random(size).randbytes(size))
    data = bytes(buffer)
    plain = unmask(memoryview(buffer), 0x01020304)
    buffer[:] = bytes(size)
    assert unmask(plain, 0x01020304) == data


@given(data=st.binary(max_size=50), key=keys, cut=st.integers(0, 50))
def test_a_payload_may_be_cut_anywhere(data: bytes, key: int, cut: int) -> None:
    head, tail = data[:cut], data[cut:]
    assert unmask(head, key) + unmask(tail, rotate(key, len(head))) == unmask(data, key)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("size", range(126))
def test_a_run_of_frames(size: int, count: int) -> None:
    source = random.Random(size * 10 + count)
    payloads = [source.randbytes(size) for _ in range(count)]
    frames = b"".join(frame(BINARY, payload, key=source.randbytes(4)) for payload in payloads)
    assert unmask_run(frames, size) == b"".join(payloads)
