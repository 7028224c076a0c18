"""Masking (RFC 6455 section 5.3): a client's payload is XORed with a four-byte key, repeated.

Python has two ways to XOR many bytes at once: as one integer, and, for each of the four key bytes,
a translation of every fourth byte.  The second costs more to begin with and less per byte.
Keys are numbers here; the first byte of the key is the highest.
"""

from __future__ import annotations

from .tunnel import Buffer

LANES_FROM = 832  # bytes; measured: there both ways cost the same

REPEAT = tuple(((1 << 32 * words) - 1) // 0xFFFFFFFF for words in range(LANES_FROM // 4 + 1))
"""By number of words: what a key is multiplied with to be repeated that often."""

_LANE_0, _LANE_1, _LANE_2, _LANE_3 = (slice(lane, None, 4) for lane in range(4))
_XOR = tuple(bytes(byte ^ key for byte in range(256)) for key in range(256))

_ONLY_KEY = tuple(b"\0\0\xff\xff\xff\xff" + bytes(size) for size in range(126))


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


def unmask_run(frames: bytes, size: int) -> bytearray:
    """The payloads, joined, of whole frames with *size* < 126 bytes of payload each.

    Each has its own key, but all are unmasked by one XOR: every key is copied over the payload
    behind it, by shifts of the whole that double the number of copies.  What the last copy leaves
    in the next frame's header is dropped with the headers.
    """
    masked = int.from_bytes(frames)
    mask = (masked & int.from_bytes(_ONLY_KEY[size] * (len(frames) // (6 + size)))) >> 32
    words, copies = size + 3 >> 2, 1
    while copies < words:
        step = min(copies, words - copies)
        mask |= mask >> 32 * step
        copies += step
    plain = bytearray((masked ^ mask).to_bytes(len(frames)))
    for stride in range(size + 6, size, -1):
        del plain[::stride]  # the next byte of each header
    return plain
