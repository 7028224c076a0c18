"""Chunked request bodies: the gate before h11 (RFC 9112 section 7.1, core.md 7).

Bytes of a body in, the same body in its plainest form out, so that there is one way to read it:
sizes without leading zeros, no extensions, no trailers (they are kept here, checked).  Data is
passed on untouched.
"""

from __future__ import annotations

import re
from enum import IntEnum

from ..errors import BadRequest, HeadTooLarge
from ..message import Fields
from .strict_head import parse_fields

MAX_SIZE_LINE = 1023  # bytes with the line end; lighttpd's limit
MAX_CHUNK = (1 << 59) - 3  # bytes; lighttpd's limit: what its shifts do not overflow
MAX_TRAILERS = 8192  # bytes

# RFC 9110 section 6.5.1: framing, routing, authentication, and what changes the meaning of a body.
_FORBIDDEN_NAMES = """
    age authorization cache-control connection content-encoding content-length content-range
    content-type cookie date expect expires forwarded host http2-settings if-match
    if-modified-since if-none-match if-range if-unmodified-since keep-alive location max-forwards
    pragma proxy-authenticate proxy-authorization proxy-connection range retry-after set-cookie te
    trailer transfer-encoding upgrade vary warning www-authenticate x-forwarded-for
    x-forwarded-host x-forwarded-proto
"""
FORBIDDEN_TRAILERS = frozenset(_FORBIDDEN_NAMES.split())

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class _Expects(IntEnum):
    SIZE = 0
    DATA = 1
    DATA_END = 2
    TRAILER = 3
    NOTHING = 4


class ChunkGate:
    """One chunked body on its way.  Every call raises BadRequest at the first wrong byte's line."""

    def __init__(self, announced_trailers: str | None = None) -> None:
        """*announced_trailers*: the value of the request's Trailer field, None without one."""
        self.size = 0
        """Bytes of body, as far as chunk sizes have said."""
        self.trailers = Fields()
        """Set when the body has ended."""
        self._announced = announced_trailers
        self._expects = _Expects.SIZE
        self._left = 0  # bytes of the chunk that are still to come
        self._line = b""  # an unfinished line
        self._trailer_lines: list[str] = []
        self._trailer_size = 0

    @property
    def is_over(self) -> bool:
        return self._expects is _Expects.NOTHING

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(the body's bytes in plain form, what stands in *data* behind its end)."""
        out: list[bytes] = []
        position = 0
        while position < len(data) and not self.is_over:
            if self._expects is _Expects.DATA:
                piece = data[position : position + self._left]
                self._left -= len(piece)
                if not self._left:
                    self._expects = _Expects.DATA_END
                position += len(piece)
            else:
                piece, position = self._feed_line(data, position)
            out.append(piece)
        return b"".join(out), data[position:]

    def _feed_line(self, data: bytes, start: int) -> tuple[bytes, int]:
        end = data.find(b"\n", start) + 1 or len(data)
        line = self._line + data[start:end]
        self._check_unfinished(line)
        if not line.endswith(b"\n"):
            self._line = line
            return b"", end
        self._line = b""
        return _LINES[self._expects](self, line), end

    def _check_unfinished(self, line: bytes) -> None:
        """What must not wait for the end of its line."""
        if self._expects is _Expects.DATA_END:
            if not b"\r\n".startswith(line):
                raise BadRequest("chunk longer than its size")
        elif self._expects is _Expects.SIZE:
            if len(line) > MAX_SIZE_LINE:
                raise BadRequest("chunk size line too long")
        elif self._trailer_size + len(line) > MAX_TRAILERS:
            raise HeadTooLarge("trailers too long")

    def _size_line(self, line: bytes) -> bytes:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise BadRequest("bad chunk size line")
        size = int(found[1], 16)
        if size > MAX_CHUNK:
            raise BadRequest("chunk size out of range")
        self.size += size
        self._left = size
        self._expects = _Expects.DATA if size else _Expects.TRAILER
        return b"%x\r\n" % size

    def _data_end(self, line: bytes) -> bytes:
        self._expects = _Expects.SIZE
        return line

    def _trailer_line(self, line: bytes) -> bytes:
        self._trailer_size += len(line)
        if not line.endswith(b"\r\n"):
            raise BadRequest("bare line end in the trailers")
        if line != b"\r\n":
            self._trailer_lines.append(line[:-2].decode("latin-1"))
            return b""
        self.trailers = self._checked_trailers()
        self._expects = _Expects.NOTHING
        return line

    def _checked_trailers(self) -> Fields:
        pairs = parse_fields(self._trailer_lines)
        announced = _names(self._announced)
        for name, value in pairs:
            key = name.lower()
            if not value or _CONTROL.search(value):
                raise BadRequest(f"bad value of trailer {key}")
            if key in FORBIDDEN_TRAILERS:
                raise BadRequest(f"{key} in the trailers")
            if announced is not None and key not in announced:
                raise BadRequest(f"trailer {key} was not announced")
        return Fields(pairs)


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_LINES = {
    _Expects.SIZE: ChunkGate._size_line,
    _Expects.DATA_END: ChunkGate._data_end,
    _Expects.TRAILER: ChunkGate._trailer_line,
}


def _names(value: str | None) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset(item.strip(" \t").lower() for item in value.split(","))
