"""forkd/protocol/response_body.py: where a body ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.errors import BackendBroken, Truncated
from forkd.protocol.response_body import MAX_LINE, Chunked, Counted, Discarded, Framing, UntilEof

TAIL = b"HTTP/1.1 200 OK\r\n"


def fed(framing: Framing, data: bytes, step: int) -> bytes:
    out = b""
    for at in range(0, len(data), step):
        # What is fed is valid during the call only.
        piece = bytearray(data[at : at + step])
        out += b"".join(framing.feed(memoryview(piece)))
        piece[:] = b"?" * len(piece)
    return out


# (bytes on the wire, body)
CHUNKED = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\nhello\n0\n\n", b"hello"),
    (b"A;ext=\"1\"\r\n0123456789\r\n00\r\nX: y\r\nZ: z\r\n\r\n", b"0123456789"),
    (b"2 \r\n\r\n\r\n0001\r\n0\r\n0;x\r\n\r\n", b"\r\n0"),
]


@pytest.mark.parametrize(("wire", "body"), CHUNKED)
def test_chunked_whole_byte_by_byte_and_with_a_tail(wire: bytes, body: bytes) -> None:
    for tail in (b"", TAIL):
        for step in (1, 3, len(wire + tail)):
            framing = Chunked()
            assert fed(framing, wire + tail, step) == body
            assert framing.is_over
            framing.eof()
    for size in range(len(wire)):
        framing = Chunked()
        fed(framing, wire[:size], size or 1)
        assert not framing.is_over
        with pytest.raises(Truncated):
            framing.eof()


@given(st.lists(st.binary(min_size=1, max_size=300)), st.integers(1, 50))
def test_chunks_round_trip(pieces: list[bytes], step: int) -> None:
    wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    framing = Chunked()
    assert fed(framing, wire, step) == b"".join(pieces)
    assert framing.is_over


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1 2\r\n", b" 1\r\n",
        b"1\r\nab\r\n", b"1\r\na\r\r\n", b"1000000000000000\r\n", b"1" * MAX_LINE,
        b"1;" + b"x" * MAX_LINE, b"0\r\n" + b"X: y\r\n" * MAX_LINE,
    ],
)  # fmt: skip
def test_bad_chunks(wire: bytes) -> None:
    for step in (1, len(wire)):
        with pytest.raises(BackendBroken):
            fed(Chunked(), wire, step)


@pytest.mark.parametrize("step", [1, 2, 100])
def test_counted(step: int) -> None:
    framing = Counted(5)
    assert fed(framing, b"hello" + TAIL, step) == b"hello"
    assert framing.is_over
    framing.eof()


def test_counted_and_short() -> None:
    framing = Counted(5)
    assert fed(framing, b"hell", 4) == b"hell"
    assert not framing.is_over
    with pytest.raises(Truncated, match="1 bytes short"):
        framing.eof()


def test_nothing_to_count() -> None:
    assert Counted(0).is_over


def test_until_eof() -> None:
    framing = UntilEof()
    assert fed(framing, b"hello", 2) == b"hello"
    assert not framing.is_over
    framing.eof()
    assert framing.is_over


def test_discarded() -> None:
    framing = Discarded()
    assert fed(framing, b"hello", 2) == b""
    assert not framing.is_over
    framing.eof()
    assert framing.is_over
