"""UTF-8 that arrives in pieces (RFC 3629; RFC 6455 section 8.1): where its whole characters end."""

from __future__ import annotations

from codecs import utf_8_decode


def whole_characters(text: bytes | bytearray) -> tuple[int, bool]:
    """(size, hope): the first *size* bytes of *text* are whole characters.

    *hope* is whether the rest, then at most 3 bytes, may still become one: it is False from the
    first byte on after which nothing could make *text* valid.
    """
    if text.isascii():
        return len(text), True
    try:
        size = utf_8_decode(text, "strict", False)[1]
    except UnicodeDecodeError as error:
        return error.start, False
    # The decoder waits for the third byte of a surrogate, for handlers that would let it pass.
    return size, not b"\xed\xa0" <= text[size:] < b"\xee"


def is_utf8(text: bytes | bytearray) -> bool:
    """Whether *text* is valid and ends with a whole character."""
    return whole_characters(text) == (len(text), True)
