"""forkd/protocol/strict_chunks.py: chunked bodies as they must look (core.md 7)."""

from __future__ import annotations

import h11
import pytest

from forkd.errors import BadRequest, ForkdError, HeadTooLarge
from forkd.message import Fields
from forkd.protocol.strict_chunks import MAX_SIZE_LINE, ChunkGate

TAIL = b"GET / HTTP/1.1\r\n"

# (what a client sends, what is passed on)
GOOD = [
    (b"0\r\n\r\n", b"0\r\n\r\n"),
    (b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"A\r\n0123456789\r\n000\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n"),
    (b"005 \t;a=\"b\"\xff\r\n\r\n\r\n0\r\n0\r\n\r\n", b"5\r\n\r\n\r\n0\r\n0\r\n\r\n"),
    (b"1;x\r\na\r\n2\r\nbc\r\n0;y\r\nT: v\r\n\r\n", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"),
]

BAD = [
    b"\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"g\r\n", b"1 x\r\n", b"\xb2\r\n",
    b"1\na\r\n", b"1\r\na\n", b"1\r\nab\r\n", b"1\r\na\r\r\n", b"1;\rx\r\n", b"1;\0\r\n",
    b"ffffffffffffffff\r\n", b"800000000000000\r\n", b"0" * MAX_SIZE_LINE + b"\r\n",
    b"0\r\nfoo\r\n\r\n", b"0\r\nX: \r\n\r\n", b"0\r\n: x\r\n\r\n", b"0\r\nX : y\r\n\r\n",
    b"0\r\nX: y\n\r\n", b"0\r\nX: a\x01\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX: a\rb\r\n\r\n",
    b"0\r\nContent-Length: 1\r\n\r\n", b"0\r\nHost: h\r\n\r\n", b"0\r\nAuthorization: x\r\n\r\n",
]  # fmt: skip


def passed(data: bytes, step: int) -> tuple[bytes, bytes, ChunkGate]:
    gate = ChunkGate()
    out = rest = b""
    for at in range(0, len(data), step):
        plain, behind = gate.feed(data[at : at + step])
        out += plain
        rest += behind
    return out, rest, gate


@pytest.mark.parametrize(("sent", "plain"), GOOD)
def test_whole_byte_by_byte_and_with_a_tail(sent: bytes, plain: bytes) -> None:
    for tail in (b"", TAIL):
        for step in (1, 3, len(sent + tail)):
            out, rest, gate = passed(sent + tail, step)
            assert (out, rest, gate.is_over) == (plain, tail, True)
    for size in range(len(sent)):
        assert not passed(sent[:size], max(size, 1))[2].is_over


@pytest.mark.parametrize(("sent", "plain"), GOOD)
def test_h11_reads_what_is_passed_on(sent: bytes, plain: bytes) -> None:
    out, _, gate = passed(sent, len(sent))
    connection = h11.Connection(h11.SERVER)
    head = b"PUT / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.receive_data(head + out)
    connection.next_event()
    size = 0
    while isinstance(event := connection.next_event(), h11.Data):
        size += len(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert size == gate.size


@pytest.mark.parametrize("data", BAD)
def test_refused(data: bytes) -> None:
    for step in (1, len(data)):
        with pytest.raises(BadRequest):
            passed(data, step)


def test_a_chunk_that_is_too_long_is_noticed_before_its_line_ends() -> None:
    gate = ChunkGate()
    with pytest.raises(BadRequest):
        gate.feed(b"1\r\nab")


def test_the_size_is_known_before_the_data() -> None:
    gate = ChunkGate()
    gate.feed(b"5\r\nhello\r\nff\r\n")
    assert gate.size == 5 + 255


def test_the_longest_size_line() -> None:
    line = b"0;" + b"x" * (MAX_SIZE_LINE - 4) + b"\r\n"
    assert passed(line + b"\r\n", 100)[2].is_over


def test_trailers() -> None:
    gate = passed(b"0\r\nX-A: 1\r\nx-b:2 \r\n\r\n", 4)[2]
    assert gate.trailers == Fields([("X-A", "1"), ("x-b", "2")])


@pytest.mark.parametrize(
    ("announced", "name", "is_right"),
    [
        ("x-sum", "X-Sum", True),
        ("a, X-Sum ,b", "x-sum", True),
        ("x-other", "x-sum", False),
        ("", "x-sum", False),
    ],
)
def test_announced_trailers(announced: str, name: str, is_right: bool) -> None:
    gate = ChunkGate(announced)
    data = f"0\r\n{name}: 1\r\n\r\n".encode()
    if is_right:
        gate.feed(data)
        assert len(gate.trailers) == 1
    else:
        with pytest.raises(ForkdError):
            gate.feed(data)


def test_trailers_have_a_limit() -> None:
    gate = ChunkGate()
    gate.feed(b"0\r\n")
    with pytest.raises(HeadTooLarge):
        for _ in range(10000):
            gate.feed(b"X: y\r\n")
