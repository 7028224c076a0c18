"""How messages travel on the backend's side of a WebSocket (wstunnel.md 10.1): five framings.

Each is an encoder, for messages to the backend, and a decoder, for what comes from it.  Both deal
in messages or in pieces of them; whether text is text is not their business.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Protocol, cast

from .frame import NO_LIMIT, CloseCode, FrameError, Opcode
from .tunnel import Buffer, Packets
from .utf8 import whole_characters

Piece = tuple[int, bytes, int]
"""(opcode, piece, ends): the next bytes of a message, its last when *ends* is 1."""

KEPT = 64 * 1024  # bytes: a message is kept until it is whole, or has more than these

_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)


class FramingError(Exception):
    """The backend has sent what its framing does not allow."""


class Encoder(Protocol):
    """Messages to what goes out for them; the same towards a backend and towards a client."""

    @property
    def kept(self) -> int:
        """Bytes of a message that are kept together while more is to come."""

    @property
    def needs_size(self) -> bool:
        """Whether a message cannot begin to go out before its size is known."""

    def whole(self, opcode: int, payload: Buffer) -> Buffer:
        """One message."""

    def part(self, opcode: int, payload: Buffer, first: bool, last: bool, size: int) -> Buffer:
        """Part of one; *size* of all of it where that is known, else 0."""

    def join(self, parts: list[Buffer]) -> Buffer:
        """Several of what ``whole`` and ``part`` gave."""


class Decoder(Protocol):
    """What the backend sends to pieces of messages.  After an error it is not to be fed again."""

    def lone(self, data: Buffer) -> tuple[int, bytes] | None:
        """(opcode, payload) when *data* is one message, between two others, and nothing else: the
        short cut for what most programs do.  What is wrong is not a message either."""

    def feed(self, data: Buffer) -> Iterable[Piece]:
        """Raises FramingError, behind the pieces before the error."""

    def eof(self) -> Iterable[Piece]:
        """The backend has ended: what that completes.  Raises FramingError inside a message."""


class ByteEncoder:
    """What encoders to byte streams have in common."""

    kept = KEPT
    needs_size = False

    __slots__ = ()

    def join(self, parts: list[Buffer]) -> Buffer:
        return parts[0] if len(parts) == 1 else b"".join(parts)


# -- stream: nothing but payload ------------------------------------------------------------------


class StreamEncoder(ByteEncoder):
    """Payload as it comes: borders, types and empty messages vanish."""

    kept = 0

    __slots__ = ()

    def whole(self, opcode: int, payload: Buffer) -> Buffer:
        return payload

    def part(self, opcode: int, payload: Buffer, first: bool, last: bool, size: int) -> Buffer:
        return payload


class StreamDecoder:
    """Whatever comes at once is a message; text is cut between characters."""

    __slots__ = ("_begun", "_opcode")

    def __init__(self, opcode: int) -> None:
        self._opcode = opcode
        self._begun = b""  # at most 3 bytes of a character

    def lone(self, data: Buffer) -> None:
        return None

    def feed(self, data: Buffer) -> Iterator[Piece]:
        data = self._begun + data
        size, hope = len(data), True
        if self._opcode == _TEXT:
            size, hope = whole_characters(data)
            self._begun = data[size:]
        if size:
            yield self._opcode, data[:size], 1
        if not hope:
            raise FramingError("invalid UTF-8")

    def eof(self) -> tuple[Piece, ...]:
        if self._begun:
            raise FramingError("invalid UTF-8")
        return ()


# -- line: a message is a line --------------------------------------------------------------------


class LineEncoder(ByteEncoder):
    """A message and LF.  An LF inside becomes a space or is refused."""

    __slots__ = ("_makes_spaces",)

    def __init__(self, makes_spaces: bool) -> None:
        self._makes_spaces = makes_spaces

    def whole(self, opcode: int, payload: Buffer) -> Buffer:
        return self._line(payload) + b"\n"

    def part(self, opcode: int, payload: Buffer, first: bool, last: bool, size: int) -> Buffer:
        return self._line(payload) + b"\n" if last else self._line(payload)

    def _line(self, payload: Buffer) -> bytes:
        line = bytes(payload)
        if b"\n" in line:
            if not self._makes_spaces:
                raise FrameError(CloseCode.INVALID_DATA, "line feed in a message")
            line = line.replace(b"\n", b" ")
        return line


class LineDecoder:
    """Lines, ended by LF or CR LF, to messages; also a last one that is not ended."""

    __slots__ = ("_held", "_max_size", "_opcode", "_size")

    def __init__(self, opcode: int, max_size: int) -> None:
        """*max_size* of a line in bytes, 0: no limit."""
        self._opcode = opcode
        self._max_size = max_size or NO_LIMIT
        self._size = 0  # of the unfinished line so far
        self._held = b""  # its last byte if that is CR

    def lone(self, data: Buffer) -> tuple[int, bytes] | None:
        if self._size or self._held or len(data) > self._max_size:
            return None
        line = bytes(data)
        if line.find(b"\n") != len(line) - 1 or not line:
            return None
        return self._opcode, line[:-2] if line.endswith(b"\r\n") else line[:-1]

    def feed(self, data: Buffer) -> Iterator[Piece]:
        *lines, rest = (self._held + data).split(b"\n")
        for line in lines:
            yield self._piece(line.removesuffix(b"\r"), 1)
        self._held = b"\r" if rest.endswith(b"\r") else b""
        rest = rest.removesuffix(b"\r")
        if rest:
            yield self._piece(rest, 0)

    def _piece(self, piece: bytes, ends: int) -> Piece:
        self._size += len(piece)
        if self._size > self._max_size:
            raise FramingError("line too long")
        if ends:
            self._size = 0
        return self._opcode, piece, ends

    def eof(self) -> tuple[Piece, ...]:
        return (self._piece(b"", 1),) if self._size else ()


# -- netstring: length:payload, -------------------------------------------------------------------


class NetstringEncoder(ByteEncoder):
    """The length in decimal, a colon, a message, a comma."""

    needs_size = True

    __slots__ = ()

    def whole(self, opcode: int, payload: Buffer) -> Buffer:
        return b"%d:" % len(payload) + payload + b","

    def part(self, opcode: int, payload: Buffer, first: bool, last: bool, size: int) -> Buffer:
        length = b"%d:" % size if first else b""
        return length + payload + (b"," if last else b"")


class NetstringDecoder:
    """The same to messages."""

    __slots__ = ("_left", "_length", "_max_size", "_opcode")

    def __init__(self, opcode: int, max_size: int) -> None:
        """*max_size* of a message in bytes, 0: no limit."""
        self._opcode = opcode
        self._max_size = max_size or NO_LIMIT
        self._length = b""  # digits so far
        self._left = -1  # bytes that the message still owes; -1 between messages

    def lone(self, data: Buffer) -> tuple[int, bytes] | None:
        if self._left >= 0 or self._length or data[-1:] != b",":
            return None
        length, colon, rest = bytes(data).partition(b":")
        size = len(rest) - 1
        if not colon or length != b"%d" % size or size > self._max_size:
            return None
        return self._opcode, rest[:-1]

    def feed(self, data: Buffer) -> Iterator[Piece]:
        data = bytes(data)
        at, end = 0, len(data)
        while at < end:
            if self._left < 0:
                at = self._read_length(data, at)
                continue
            stop = at + self._left
            if stop >= end:
                self._left = stop - end
                yield self._opcode, data[at:], 0
                return
            if data[stop] != ord(","):
                raise FramingError("netstring without its comma")
            self._left = -1
            yield self._opcode, data[at:stop], 1
            at = stop + 1

    def _read_length(self, data: bytes, at: int) -> int:
        """Where the payload begins, or the end of *data*."""
        colon = data.find(b":", at, at + 21)  # no number of 64 bits is longer
        digits = self._length + (data[at : at + 21] if colon < 0 else data[at:colon])
        if digits and not digits.isdigit() or len(digits) > 20:
            raise FramingError("netstring without a length")
        if colon < 0:
            self._length = digits
            return len(data)
        if not digits or len(digits) > 1 and digits.startswith(b"0"):
            raise FramingError("netstring without a length")
        self._left = int(digits)
        if self._left > self._max_size:
            raise FramingError(f"message of {self._left} bytes")
        self._length = b""
        return colon + 1

    def eof(self) -> tuple[Piece, ...]:
        if self._left >= 0 or self._length:
            raise FramingError("end inside a message")
        return ()


# -- typed: opcode, four bytes of length, payload -------------------------------------------------

_typed_header = struct.Struct(">BI")
_pack_typed = _typed_header.pack
_unpack_typed = _typed_header.unpack_from
_TYPED_HEADER = _typed_header.size
_TYPED_MAX = (1 << 32) - 1
_TYPES = (_TEXT, _BINARY)


class TypedEncoder(ByteEncoder):
    """One byte opcode, four bytes length, a message: types and empty messages survive."""

    needs_size = True

    __slots__ = ()

    def whole(self, opcode: int, payload: Buffer) -> Buffer:
        size = len(payload)
        if size > _TYPED_MAX:
            raise FrameError(CloseCode.TOO_BIG, "message of 4 GiB")
        return _pack_typed(opcode, size) + payload

    def part(self, opcode: int, payload: Buffer, first: bool, last: bool, size: int) -> Buffer:
        if not first:
            return payload
        if size > _TYPED_MAX:
            raise FrameError(CloseCode.TOO_BIG, "message of 4 GiB")
        return _pack_typed(opcode, size) + payload


class TypedDecoder:
    """The same to messages."""

    __slots__ = ("_begun", "_left", "_max_size", "_opcode")

    def __init__(self, max_size: int) -> None:
        """*max_size* of a message in bytes, 0: no limit."""
        self._max_size = max_size or NO_LIMIT
        self._begun = b""  # an unfinished header
        self._opcode = 0  # of the open message, 0 between messages
        self._left = 0  # bytes that it still owes

    def lone(self, data: Buffer) -> tuple[int, bytes] | None:
        size = len(data) - _TYPED_HEADER
        if size < 0 or self._opcode or self._begun:
            return None
        opcode, announced = _unpack_typed(data)
        if announced != size or size > self._max_size or opcode not in _TYPES:
            return None
        return opcode, bytes(data[_TYPED_HEADER:])

    def feed(self, data: Buffer) -> Iterator[Piece]:
        data, self._begun = self._begun + data, b""
        at, end = 0, len(data)
        while at < end:
            if not self._opcode:
                if data[at] not in _TYPES:
                    raise FramingError(f"message of type {data[at]}")
                if end < at + _TYPED_HEADER:
                    self._begun = data[at:]
                    return
                self._opcode, self._left = _unpack_typed(data, at)
                if self._left > self._max_size:
                    raise FramingError(f"message of {self._left} bytes")
                at += _TYPED_HEADER
            opcode, stop = self._opcode, min(at + self._left, end)
            self._left -= stop - at
            if not self._left:
                self._opcode = 0
            yield opcode, data[at:stop], 0 if self._left else 1
            at = stop

    def eof(self) -> tuple[Piece, ...]:
        if self._opcode or self._begun:
            raise FramingError("end inside a message")
        return ()


# -- seqpacket: a message is a packet -------------------------------------------------------------


class PacketEncoder:
    """A message is a packet, so it is kept until it is whole, however big."""

    kept = NO_LIMIT
    needs_size = False

    __slots__ = ()

    def whole(self, opcode: int, payload: Buffer) -> Buffer:
        return cast(Buffer, Packets((bytes(payload),)))  # what the ports of such backends take

    def part(self, opcode: int, payload: Buffer, first: bool, last: bool, size: int) -> Buffer:
        return self.whole(opcode, payload)

    def join(self, parts: list[Buffer]) -> Buffer:
        return cast(Buffer, Packets(chain.from_iterable(cast(list[Packets], parts))))


class PacketDecoder:
    """Fed one packet a call; an empty one is an empty message."""

    __slots__ = ("_opcode",)

    def __init__(self, opcode: int) -> None:
        self._opcode = opcode

    def lone(self, data: Buffer) -> tuple[int, bytes]:
        return self._opcode, bytes(data)

    def feed(self, data: Buffer) -> tuple[Piece, ...]:
        return ((self._opcode, bytes(data), 1),)

    def eof(self) -> tuple[Piece, ...]:
        return ()
