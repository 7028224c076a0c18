"""forkd/protocol/scgi.py and the check that all gateways make of their variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.errors import BadRequest
from forkd.protocol.scgi import RawEncoder, encode_environment

TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\0"))


def decoded(head: bytes) -> list[tuple[str, str]]:
    """What a server makes of it, by the letter of the protocol."""
    size, colon, rest = head.partition(b":")
    assert colon and size.isdigit() and (size == b"0" or not size.startswith(b"0"))
    assert rest[int(size) :] == b","
    *parts, last = rest[: int(size)].decode("latin-1").split("\0")
    assert last == ""
    return list(zip(parts[::2], parts[1::2], strict=True))


def test_the_example_of_the_protocol() -> None:
    environment = [
        ("CONTENT_LENGTH", "27"),
        ("SCGI", "1"),
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/deepthought"),
    ]
    assert encode_environment(environment) == (
        b"70:CONTENT_LENGTH\x0027\x00SCGI\x001\x00REQUEST_METHOD\x00POST\x00"
        b"REQUEST_URI\x00/deepthought\x00,"
    )


@given(st.lists(st.tuples(TEXT, TEXT)))
def test_round_trip(environment: list[tuple[str, str]]) -> None:
    assert decoded(encode_environment(environment)) == environment


def test_an_empty_value_is_sent() -> None:
    assert encode_environment([("QUERY_STRING", "")]) == b"14:QUERY_STRING\0\0,"


@pytest.mark.parametrize("pair", [("A", "b\0SCRIPT_NAME"), ("A\0B", "c")])
def test_a_value_cannot_become_another_variable(pair: tuple[str, str]) -> None:
    with pytest.raises(BadRequest):
        encode_environment([pair])


def test_the_body_is_sent_as_it_is() -> None:
    encoder = RawEncoder(b"head")
    piece = memoryview(b"piece")
    assert encoder.head() == b"head"
    assert encoder.body(piece) is piece
    assert encoder.end() == b""
