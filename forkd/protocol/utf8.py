"""UTF-8 that arrives in pieces (RFC 3629; RFC 6455 section 8.1): where its whole characters end."""

from __future__ import annotations

from codecs import utf_8_decode


def whole_characters(text: bytes | bytearray) -> int:
    """How many bytes of *text* are whole characters; the rest, at most 3, may still become one.

    Raises UnicodeDecodeError as soon as nothing that could follow would make *text* valid; its
    ``start`` is the length of the valid part.
    """
    if text.isascii():
        return len(text)
    return utf_8_decode(text, "strict", False)[1]
