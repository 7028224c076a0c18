"""forkd/protocol/utf8.py: where characters end, and when there is no hope (RFC 3629 section 4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.protocol.utf8 import is_utf8, whole_characters

TABLE = [
    (b"", 0, True),
    (b"plain", 5, True),
    ("κόσμε".encode(), 10, True),
    ("😀".encode(), 4, True),
    # What may still become a character waits.
    (b"a\xc2", 1, True),
    (b"a\xe2\x82", 1, True),
    (b"a\xf0\x9f\x98", 1, True),
    (b"\xed\x9f", 0, True),
    (b"\xf4\x8f\xbf", 0, True),
    # What cannot is known at its first wrong byte.
    (b"a\x80", 1, False),
    (b"a\xff", 1, False),
    (b"a\xc0", 1, False),  # overlong
    (b"a\xc1", 1, False),
    (b"\xe0\x80", 0, False),
    (b"\xf0\x80", 0, False),
    (b"\xed\xa0", 0, False),  # surrogates
    (b"\xf4\x90", 0, False),  # over U+10FFFF
    (b"\xf5", 0, False),
    (b"\xe2\x82a", 0, False),
    ("é".encode() + b"\xe2\x28", 2, False),
]


@pytest.mark.parametrize(("text", "size", "hope"), TABLE)
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_whole_characters(kind: type[bytes], text: bytes, size: int, hope: bool) -> None:
    assert whole_characters(kind(text)) == (size, hope)
    assert is_utf8(kind(text)) is (hope and size == len(text))


@given(st.text(), st.integers(0, 100))
def test_text_cut_anywhere_is_whole_up_to_the_cut(text: str, cut: int) -> None:
    piece = text.encode()[:cut]
    size, hope = whole_characters(piece)
    assert hope and len(piece) - size <= 3
    assert text.startswith(piece[:size].decode())


@given(st.binary())
def test_hope_means_that_something_could_follow(data: bytes) -> None:
    size, hope = whole_characters(data)
    data[:size].decode()
    rest = data[size:]
    endings = [b"\x80" * more for more in range(4)] + [b"\xbf" * more for more in range(4)]
    possible = any(_decodes(rest + ending) for ending in endings)
    # Of the two extremes one completes every character that has been begun.
    assert hope is possible


def _decodes(data: bytes) -> bool:
    try:
        return len(data.decode()) <= 1
    except UnicodeDecodeError:
        return False
