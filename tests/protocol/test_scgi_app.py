"""forkd/protocol/scgi_app.py: SCGI requests as an application reads them."""

from __future__ import annotations

import pytest

from forkd.errors import BadRequest
from forkd.protocol.scgi import encode_environment
from forkd.protocol.scgi_app import (
    MAX_ENVIRONMENT,
    MAX_VALUE,
    RequestDecoder,
    ScgiRequest,
)

# The example of the protocol's own page.
EXAMPLE = (
    b"70:CONTENT_LENGTH\x0027\x00SCGI\x001\x00REQUEST_METHOD\x00POST\x00"
    b"REQUEST_URI\x00/deepthought\x00,"
)
BODY = b"What is the answer to life?"


def fed(data: bytes, step: int) -> tuple[ScgiRequest | None, bytes]:
    """The request, and what was not fed after it."""
    decoder = RequestDecoder()
    for at in range(0, len(data), step):
        found = decoder.feed(memoryview(data)[at : at + step])
        if found is not None:
            return found, data[at + step :]
    return None, b""


def netstring(*pairs: tuple[str, str]) -> bytes:
    text = b"".join(f"{name}\0{value}\0".encode("latin-1") for name, value in pairs)
    return b"%d:%b," % (len(text), text)


@pytest.mark.parametrize("tail", [b"", BODY, BODY + b"\x81\x05hello"])
def test_whole_byte_by_byte_and_with_a_tail(tail: bytes) -> None:
    for step in (1, 3, 1000):
        found, left = fed(EXAMPLE + tail, step)
        assert found is not None
        assert found.environment == {
            b"CONTENT_LENGTH": b"27",
            b"SCGI": b"1",
            b"REQUEST_METHOD": b"POST",
            b"REQUEST_URI": b"/deepthought",
        }
        assert found.content_length == 27
        assert found.rest + left == tail
    for size in range(len(EXAMPLE)):
        assert fed(EXAMPLE[:size], 1000) == (None, b"")


def test_what_the_encoder_says_is_understood() -> None:
    pairs = [("CONTENT_LENGTH", "0"), ("QUERY_STRING", ""), ("X", "\xff="), ("SCGI", "1")]
    found, _ = fed(encode_environment(pairs), 7)
    assert found is not None
    assert [(name.decode("latin-1"), value.decode("latin-1"))
            for name, value in found.environment.items()] == pairs  # fmt: skip


def test_is_fresh_until_the_first_byte() -> None:
    decoder = RequestDecoder()
    assert decoder.is_fresh
    decoder.feed(b"7")
    assert not decoder.is_fresh


LENGTH, SCGI = ("CONTENT_LENGTH", "0"), ("SCGI", "1")

BAD = {
    "not a number": b"GET / HTTP/1.1\r\n",
    "no digits": b":",
    "empty": b"0:,",
    "zero in front": b"024:CONTENT_LENGTH\x000\x00SCGI\x001\x00,",
    "signed": b"+24:CONTENT_LENGTH\x000\x00SCGI\x001\x00,",
    "blank": b" 24:CONTENT_LENGTH\x000\x00SCGI\x001\x00,",
    "too long a number": b"11111111",
    "too large": b"%d:" % (MAX_ENVIRONMENT + 1),
    "no comma": b"24:CONTENT_LENGTH\x000\x00SCGI\x001\x00;",
    "ends without NUL": b"23:CONTENT_LENGTH\x000\x00SCGI\x001,",
    "name without value": b"27:CONTENT_LENGTH\x000\x00SCGI\x001\x00AB\x00,",
    "not SCGI": netstring(LENGTH),
    "SCGI of another version": netstring(LENGTH, ("SCGI", "2")),
    "length not first": netstring(SCGI, LENGTH),
    "no length": netstring(SCGI),
    "empty length": netstring(("CONTENT_LENGTH", ""), SCGI),
    "negative length": netstring(("CONTENT_LENGTH", "-1"), SCGI),
    "length in disguise": netstring(("CONTENT_LENGTH", "\xb2"), SCGI),
    "huge length": netstring(("CONTENT_LENGTH", "9" * 19), SCGI),
    "name with =": netstring(LENGTH, ("A=B", "c"), SCGI),
    "empty name": netstring(LENGTH, ("", "c"), SCGI),
    "twice": netstring(LENGTH, ("A", "1"), ("A", "2"), SCGI),
    "long value": netstring(LENGTH, ("A", "x" * (MAX_VALUE + 1)), SCGI),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_refused(data: bytes) -> None:
    for step in (1, 1 << 21):
        with pytest.raises(BadRequest):
            fed(data, step)


def test_the_longest_value_is_taken() -> None:
    found, _ = fed(netstring(LENGTH, ("A", "x" * MAX_VALUE), SCGI), 4096)
    assert found is not None
