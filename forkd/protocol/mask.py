"""Masking (RFC 6455 section 5.3): a client's payload is XORed with a four-byte key, repeated.

Python has two ways to XOR many bytes at once: as one integer, and, for each of the four key bytes,
a translation of every fourth byte.  The second costs more to begin with and less per byte.
Keys are numbers here, the first byte of the key the highest.
"""

from __future__ import annotations

from .tunnel import Buffer

LANES_FROM = 832  # bytes; measured: there both ways cost the same

_WORDS = LANES_FROM // 4 + 1

REPEAT: tuple[int, ...] = tuple(((1 << 32 * words) - 1) // 0xFFFFFFFF for words in range(_WORDS))
"""By number of words: what a key is multiplied with to be repeated that often."""

_LANE_0, _LANE_1, _LANE_2, _LANE_3 = (slice(lane, None, 4) for lane in range(4))
_XOR = tuple(bytes(byte ^ key for byte in range(256)) for key in range(256))


def unmask(data: Buffer, key: int) -> bytes | bytearray:
    """*data* XORed with *key*, in memory of its own."""
    size = len(data)
    if size < LANES_FROM:
        words = size + 3 >> 2
        mask = key * REPEAT[words] >> 8 * (4 * words - size)
        return (int.from_bytes(data) ^ mask).to_bytes(size)
    first, second, third, fourth = key.to_bytes(4)
    plain = bytearray(data)
    plain[_LANE_0] = plain[_LANE_0].translate(_XOR[first])
    plain[_LANE_1] = plain[_LANE_1].translate(_XOR[second])
    plain[_LANE_2] = plain[_LANE_2].translate(_XOR[third])
    plain[_LANE_3] = plain[_LANE_3].translate(_XOR[fourth])
    return plain


def rotate(key: int, used: int) -> int:
    """The key for what follows *used* bytes of a payload."""
    shift = 8 * (used & 3)
    return (key << shift | key >> 32 - shift) & 0xFFFFFFFF
