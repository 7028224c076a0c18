"""The body of a backend's response in its three framings (RFC 9112 section 6.3): counted, chunked,
or up to the end of the stream.

Bytes in, the body's own bytes out, as views where that saves a copy: they are valid as long as
what was fed.  What a backend sends behind the end of its body is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from ..errors import BackendBroken, Truncated
from .tunnel import Buffer

MAX_LINE = 8192  # bytes of a size line, and of all trailers

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class Framing(Protocol):
    """How one body ends."""

    is_over: bool
    """Whether it is known to be complete."""

    def feed(self, data: Buffer) -> list[Buffer]:
        """The pieces of the body in *data*."""

    def eof(self) -> None:
        """The stream is over; raises Truncated when the body is not."""


class UntilEof:
    """A body that ends with its stream: nobody can tell a short one."""

    is_over = False

    def feed(self, data: Buffer) -> list[Buffer]:
        return [data] if data else []

    def eof(self) -> None:
        self.is_over = True


class Discarded:
    """What is sent where no body may be: after HEAD, 204, 304."""

    is_over = False

    def feed(self, data: Buffer) -> list[Buffer]:
        return []

    def eof(self) -> None:
        self.is_over = True


class Counted:
    """A body of *length* bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_over = not length

    def feed(self, data: Buffer) -> list[Buffer]:
        piece: Buffer = data if len(data) <= self._left else memoryview(data)[: self._left]
        self._left -= len(piece)
        self.is_over = not self._left
        return [piece] if piece else []

    def eof(self) -> None:
        if self._left:
            raise Truncated(f"body ends {self._left} bytes short")


class Chunked:
    """The chunked coding (RFC 9112 section 7.1); trailers are dropped.

    Raises BackendBroken at the first line that is not as it must be.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._left = 0  # bytes of the chunk that are still to come
        self._line = b""  # an unfinished line
        self._trailer_size = 0
        self._take_line: Callable[[bytes], None] = self._size_line

    def feed(self, data: Buffer) -> list[Buffer]:
        pieces: list[Buffer] = []
        view = memoryview(data)
        position = 0
        while position < len(view) and not self.is_over:
            if self._left:
                piece = view[position : position + self._left]
                self._left -= len(piece)
                position += len(piece)
                pieces.append(piece)
            else:
                position = self._feed_line(view, position)
        return pieces

    def eof(self) -> None:
        if not self.is_over:
            raise Truncated("chunked body without its last chunk")

    def _feed_line(self, view: memoryview, start: int) -> int:
        part = bytes(view[start : start + MAX_LINE])
        part = part[: part.find(b"\n") + 1] or part
        line = self._line + part
        if len(line) >= MAX_LINE:
            raise BackendBroken("line of the chunked coding too long")
        if line.endswith(b"\n"):
            self._line = b""
            self._take_line(line)
        else:
            self._line = line
        return start + len(part)

    def _size_line(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise BackendBroken(f"bad chunk size {line[:80]!r}")
        self._left = int(found[1], 16)
        self._take_line = self._data_end if self._left else self._trailer_line

    def _data_end(self, line: bytes) -> None:
        if line not in (b"\r\n", b"\n"):
            raise BackendBroken("chunk longer than its size")
        self._take_line = self._size_line

    def _trailer_line(self, line: bytes) -> None:
        self._trailer_size += len(line)
        if self._trailer_size > MAX_LINE:
            raise BackendBroken("trailers too long")
        self.is_over = line in (b"\r\n", b"\n")
