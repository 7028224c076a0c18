"""forkd/protocol/uwsgi.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.errors import BadRequest, HeadTooLarge
from forkd.protocol.uwsgi import MAX_SIZE, encode_environment

TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\0"), max_size=300)


def decoded(head: bytes) -> list[tuple[str, str]]:
    assert head[0] == head[3] == 0
    assert int.from_bytes(head[1:3], "little") == len(head) - 4
    parts = []
    position = 4
    while position < len(head):
        end = position + 2 + int.from_bytes(head[position : position + 2], "little")
        assert end <= len(head)
        parts.append(head[position + 2 : end].decode("latin-1"))
        position = end
    return list(zip(parts[::2], parts[1::2], strict=True))


def test_bytes() -> None:
    environment = [("QUERY_STRING", ""), ("A", "bc")]
    assert encode_environment(environment) == (
        b"\x00\x17\x00\x00\x0c\x00QUERY_STRING\x00\x00\x01\x00A\x02\x00bc"
    )


@given(st.lists(st.tuples(TEXT, TEXT), max_size=20))
def test_round_trip(environment: list[tuple[str, str]]) -> None:
    assert decoded(encode_environment(environment)) == environment


def test_what_does_not_fit() -> None:
    largest = [("A", "x" * (MAX_SIZE - 5))]
    assert len(encode_environment(largest)) == MAX_SIZE + 4
    with pytest.raises(HeadTooLarge):
        encode_environment([*largest, ("", "")])
    for pair in (("A", "x" * (MAX_SIZE + 1)), ("x" * (MAX_SIZE + 1), "")):
        with pytest.raises(BadRequest):
            encode_environment([pair])


def test_no_nul() -> None:
    with pytest.raises(BadRequest):
        encode_environment([("A", "b\0c")])
