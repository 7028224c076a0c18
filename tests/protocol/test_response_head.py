"""forkd/protocol/response_head.py: header blocks of backends (gateway.md 14, cgi.md 5)."""

from __future__ import annotations

import pytest

from forkd.errors import BackendBroken
from forkd.message import Fields, Head
from forkd.protocol.response_head import Block, parse_block


def head(status: int, *pairs: tuple[str, str], length: int | None = None) -> Head:
    return Head(status, Fields(pairs), length)


TEXT = ("Content-Type", "text/plain")

BLOCKS: list[tuple[bytes, Head]] = [
    (b"\n", head(200)),
    (b"\r\n", head(200)),
    (b"Content-Type: text/plain\n\n", head(200, TEXT)),
    (b"Content-Type: text/plain\r\n\r\n", head(200, TEXT)),
    (b"Content-Type:text/plain\t\r\n\n", head(200, TEXT)),
    # status
    (b"Status: 404\n\n", head(404)),
    (b"status: 299 Mine\n\n", head(299)),
    (b"Status: 999\n\n", head(999)),
    (b"Status: 200\nStatus: 404\n\n", head(404)),
    (b"Status: 404\nStatus: 500\n\n", head(404)),
    (b"Status:\n\n", head(200)),
    (b"HTTP/1.1 207 X\n\n", head(207)),
    (b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n", head(200, ("A", "b"))),
    (b"HTTP/1.1 204\n\n", head(204)),
    (b"HTTP/2.0 200\nA: b\n\n", head(200, ("A", "b"))),
    (b"HTTP/3.0 201 C\n\n", head(201)),
    (b"HTTP/1.0 200 OK\nStatus: 404\n\n", head(404)),
    (b"HTTP/1.0 404 No\nStatus: 200\n\n", head(404)),
    (b"Location: /x\n\n", head(302, ("Location", "/x"))),
    (b"Status: 201\nLocation: /x\n\n", head(201, ("Location", "/x"))),
    (b"HTTP/1.1 200 OK\nLocation: /x\n\n", head(200, ("Location", "/x"))),
    (b"Status: 100\n\n", head(100)),
    (b"Status: 101\nUpgrade: websocket\n\n", head(101, ("Upgrade", "websocket"))),
    # lines that are no fields, fields that may not be sent
    (b"A: b\nno colon\n: no name\nB: c\n\n", head(200, ("A", "b"), ("B", "c"))),
    (b"Bad Name: x\nA : x\nB: c\n\n", head(200, ("B", "c"))),
    (b"A: x\x01y\nB: c\rd\nC: \x7f\nD: \xe9\n\n", head(200, ("D", "\xe9"))),
    (b"A:\nB: \t\nC: d\n\n", head(200, ("C", "d"))),
    (b"A: b\n c\n\td\nE: f\n\n", head(200, ("A", "b c d"), ("E", "f"))),
    (b"Set-Cookie: a\nSet-Cookie: b\n\n", head(200, ("Set-Cookie", "a"), ("Set-Cookie", "b"))),
    # lengths
    (b"Content-Length: 5\n\n", head(200, length=5)),
    (b"Content-Length: +5\nContent-Length: 7\n\n", head(200, length=5)),
    (b"Content-Length: 5\nContent-Length: x\n\n", head(200, length=5)),
    (b"Content-Length: 0\nA: b\n\n", head(200, ("A", "b"), length=0)),
    (b"Status: 103\nContent-Length: 5\n\n", head(103)),
]


@pytest.mark.parametrize(("block", "expected"), BLOCKS)
def test_block(block: bytes, expected: Head) -> None:
    found = parse_block(block)
    assert found.head == expected
    assert not found.is_chunked


def test_chunked_takes_no_length() -> None:
    block = b"Content-Length: 5\nTransfer-Encoding: Chunked\n\n"
    assert parse_block(block) == Block(Head(200), is_chunked=True)


@pytest.mark.parametrize(
    "block",
    [
        b"Status: 99\n\n", b"Status: abc\n\n", b"Status: 1000\n\n", b"Status: 20x\n\n",
        b"Status: 099\n\n", b"Status: \xb2\xb2\xb2\n\n", b"Status: 404\nStatus: x\n\n",
        b"HTTP/2 200\n\n", b"HTTP/1.1\n\n", b"HTTP/1.1 99 X\n\n", b"HTTP/4.0 200 OK\n\n",
        b"HTTP/1.1 2000\n\n", b"HTTP/x\n\n",
        b"Content-Length: -1\n\n", b"Content-Length: 1x\n\n", b"Content-Length: 0x10\n\n",
        b"Content-Length: 9223372036854775808\n\n", b"Content-Length: \xb2\n\n",
        b"Content-Length: 1 2\n\n",
        b"Transfer-Encoding: gzip\n\n", b"Transfer-Encoding: gzip, chunked\n\n",
    ],
)  # fmt: skip
def test_broken(block: bytes) -> None:
    with pytest.raises(BackendBroken):
        parse_block(block)


@pytest.mark.parametrize(
    ("block", "target"),
    [
        (b"Location: /x?y\n\n", "/x?y"),
        (b"Location: http://h/\n\n", ""),
        (b"Location: x\n\n", ""),
        (b"Location: /x\nContent-Type: text/html\n\n", ""),
        (b"Location: /x\nContent-Length: 0\n\n", ""),
        (b"Location: /x\nTransfer-Encoding: chunked\n\n", ""),
        (b"Location: /x\nA:\n\n", "/x"),
        (b"Status: 302\nLocation: /x\n\n", ""),
        (b"HTTP/1.1 302 Found\nLocation: /x\n\n", ""),
        (b"Content-Type: text/html\n\n", ""),
    ],
)
def test_where_a_block_leads(block: bytes, target: str) -> None:
    assert parse_block(block).local_target == target
