"""forkd/protocol/strict_head.py: what a head may look like (core.md 4)."""

from __future__ import annotations

import time

import pytest

from forkd.errors import (
    BadRequest,
    ForkdError,
    HeadTooLarge,
    NotImplementedHere,
    VersionNotSupported,
)
from forkd.protocol.strict_head import MAX_LINE, find_end, parse_head, request_line

HEAD = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-Y:  1 \r\n\r\n"


def test_parts() -> None:
    head = parse_head(HEAD)
    assert (head.method, head.target, head.version) == ("GET", "/a?b", "HTTP/1.1")
    assert head.fields == [("Host", "h"), ("X-Y", "1")]


def test_end_is_found_whole_byte_by_byte_and_with_a_tail() -> None:
    assert find_end(HEAD) == len(HEAD)
    assert find_end(HEAD + b"GET / HTTP/1.1\r\n\r\n") == len(HEAD)
    for size in range(len(HEAD)):
        assert find_end(HEAD[:size]) == -1
        assert find_end(HEAD, searched=size) == len(HEAD)


@pytest.mark.parametrize("tail", [b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\r\n\r\n"])
def test_bare_line_ends_end_a_head_but_are_refused(tail: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: h" + tail
    assert find_end(raw) == len(raw)
    with pytest.raises(BadRequest):
        parse_head(raw)


LENIENT = [
    (b"GET / HTTP/1.1\nHost: h\n\n", [("Host", "h")]),
    (b"GET / HTTP/1.1\r\nHost \t: h\r\n\r\n", [("Host", "h")]),
    (b"GET / HTTP/1.1\r\nX: a\x01b\r\n\r\n", [("X", "a\x01b")]),
    (b"GET / HTTP/1.1\r\nX: a\rb\r\r\n\r\n", [("X", "a b")]),
    (b"GET / HTTP/1.1\nX: a\n b\n\n", [("X", "a  b")]),
]


@pytest.mark.parametrize(("raw", "fields"), LENIENT)
def test_header_strict_off(raw: bytes, fields: list[tuple[str, str]]) -> None:
    assert parse_head(raw, strict=False).fields == fields
    if b"\n b" not in raw:
        with pytest.raises(BadRequest):
            parse_head(raw)


REFUSED: list[tuple[bytes, type[ForkdError]]] = [
    (b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest),
    (b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", BadRequest),
    (b"GET / HTTP/1.1\r\n : a\r\n\r\n", BadRequest),
    (b"GET /a  HTTP/1.1\r\nHost: h\r\n\r\n", BadRequest),
    (b"GET / http/1.1\r\nHost: h\r\n\r\n", BadRequest),
    (b"PRI * HTTP/2.0\r\n\r\n", BadRequest),
    (b"get / HTTP/1.1\r\nHost: h\r\n\r\n", NotImplementedHere),
    (b"GET / HTTP/1.1\r\nX:" + b"a" * MAX_LINE + b"\r\n\r\n", HeadTooLarge),
    (b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * MAX_LINE + b"\r\n", HeadTooLarge),
]


@pytest.mark.parametrize(("raw", "error"), REFUSED)
def test_refused(raw: bytes, error: type[ForkdError]) -> None:
    with pytest.raises(error):
        parse_head(raw)


def test_nul_is_refused_always() -> None:
    with pytest.raises(BadRequest):
        parse_head(b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", strict=False)


@pytest.mark.parametrize("protocol", ["HTTP/2.0", "HTTP/1.2", "HTTP/1.11", "HTTP/0.9"])
def test_other_versions(protocol: str) -> None:
    raw = f"GET / {protocol}\r\nHost: h\r\n\r\n".encode()
    with pytest.raises(BadRequest):
        parse_head(raw)
    with pytest.raises(VersionNotSupported):
        parse_head(raw, strict=False)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"GET  /a HTTP/1.1\r\nX", ("GET", " /a", "HTTP/1.1")),
        (b"GET HTTP/1.1\r\n\r\n", ("GET", "", "HTTP/1.1")),
        (b"FOO /a b HTTP/1.0\r\n: x\r\n\r\n", ("FOO", "/a b", "HTTP/1.0")),
        (b"\x16\x03\x01", ("", "", "")),
        (b"GET / HTTP/2.0\r\n\r\n", ("", "", "")),
    ],
)
def test_what_is_known_of_a_refused_head(raw: bytes, line: tuple[str, str, str]) -> None:
    assert request_line(raw) == line


@pytest.mark.parametrize("raw", [b"A" * 50_000, b"A-" * 25_000 + b"\r\n\r\n", b" A" * 25_000])
def test_a_refused_head_takes_no_longer_than_it_is(raw: bytes) -> None:
    before = time.process_time()
    assert request_line(raw) == ("", "", "")
    assert time.process_time() - before < 1.0  # from each of its letters: half a minute
