"""FastCGI records (FastCGI 1.0 sections 3 to 5, 8): bytes to records and back.

No I/O and no state but an unfinished record.  What a web server makes of them, a request, a
response, a tunnel, is ``protocol.fastcgi_request``'s.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from ..errors import BackendBroken
from .tunnel import Buffer

VERSION = 1
MAX_CONTENT = 65535  # bytes in one record (section 3.3)
KEEP_CONN = 1  # flag of BEGIN_REQUEST (section 5.1)


class RecordType(IntEnum):
    """Section 8."""

    BEGIN_REQUEST = 1
    ABORT_REQUEST = 2
    END_REQUEST = 3
    PARAMS = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7
    DATA = 8
    GET_VALUES = 9
    GET_VALUES_RESULT = 10
    UNKNOWN_TYPE = 11


class Role(IntEnum):
    """Section 6."""

    RESPONDER = 1
    AUTHORIZER = 2
    FILTER = 3


class ProtocolStatus(IntEnum):
    """How a request ended (section 5.5)."""

    REQUEST_COMPLETE = 0
    CANT_MPX_CONN = 1
    OVERLOADED = 2
    UNKNOWN_ROLE = 3


class Record(NamedTuple):
    """One record; *content* is valid as long as what was fed."""

    type: int
    request_id: int
    content: Buffer


HEADER = struct.Struct(">BBHHBx")  # version, type, request id, content length, padding length
_BEGIN = struct.Struct(">HB5x")  # role, flags
_END = struct.Struct(">IB3x")  # application status, protocol status


# -- encoding ---------------------------------------------------------------------------------


def encode_record(kind: int, request_id: int, content: Buffer = b"") -> bytes:
    """One record, without padding, of at most MAX_CONTENT bytes."""
    return b"".join((HEADER.pack(VERSION, kind, request_id, len(content), 0), content))


def encode_stream(kind: RecordType, request_id: int, data: Buffer) -> bytes:
    """*data* in as many records of a stream as it needs; none for none, since an empty record
    ends the stream (section 3.3)."""
    if 0 < len(data) <= MAX_CONTENT:
        return encode_record(kind, request_id, data)
    view = memoryview(data)
    return b"".join(
        encode_record(kind, request_id, view[start : start + MAX_CONTENT])
        for start in range(0, len(view), MAX_CONTENT)
    )


def encode_begin(request_id: int, role: Role, keep_conn: bool) -> bytes:
    content = _BEGIN.pack(role, KEEP_CONN if keep_conn else 0)
    return encode_record(RecordType.BEGIN_REQUEST, request_id, content)


def encode_end(request_id: int, app_status: int, protocol_status: ProtocolStatus) -> bytes:
    content = _END.pack(app_status, protocol_status)
    return encode_record(RecordType.END_REQUEST, request_id, content)


def encode_pairs(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Name-value pairs (section 3.4)."""
    return b"".join(
        _size(len(name)) + _size(len(value)) + name + value for name, value in pairs
    )


def _size(size: int) -> bytes:
    return bytes((size,)) if size < 0x80 else (size | 1 << 31).to_bytes(4, "big")


# -- decoding ---------------------------------------------------------------------------------


class BeginOfRequest(NamedTuple):
    """The content of BEGIN_REQUEST."""

    role: int
    flags: int


def decode_begin(content: Buffer) -> BeginOfRequest:
    """Raises BackendBroken when *content* is too short."""
    if len(content) < _BEGIN.size:
        raise BackendBroken("FastCGI: BEGIN_REQUEST too short")
    return BeginOfRequest(*_BEGIN.unpack_from(content))


class EndOfRequest(NamedTuple):
    """The content of END_REQUEST."""

    app_status: int
    protocol_status: int


def decode_end(content: Buffer) -> EndOfRequest:
    """Raises BackendBroken when *content* is too short."""
    if len(content) < _END.size:
        raise BackendBroken("FastCGI: END_REQUEST too short")
    return EndOfRequest(*_END.unpack_from(content))


def decode_pairs(content: Buffer) -> list[tuple[bytes, bytes]]:
    """The pairs of a complete stream or management record.  Raises ValueError."""
    data = bytes(content)
    pairs = []
    position = 0
    while position < len(data):
        name_size, position = _take_size(data, position)
        value_size, position = _take_size(data, position)
        value_at = position + name_size
        end = value_at + value_size
        if end > len(data):
            raise ValueError("name-value pair ends too early")
        pairs.append((data[position:value_at], data[value_at:end]))
        position = end
    return pairs


def _take_size(data: bytes, position: int) -> tuple[int, int]:
    """(size, where it ends)."""
    long = position < len(data) and data[position] & 0x80
    end = position + (4 if long else 1)
    if end > len(data):
        raise ValueError("name-value pair ends inside a length")
    return int.from_bytes(data[position:end], "big") & 0x7FFFFFFF, end


class RecordDecoder:
    """Bytes to records.  Each is handed on when it is complete, its padding left out."""

    __slots__ = ("_needed", "_unfinished")

    def __init__(self) -> None:
        self._unfinished = bytearray()
        self._needed = HEADER.size  # bytes of it that tell more than there is now

    def feed(self, data: Buffer) -> list[Record]:
        """The records that *data* completes.

        Raises BackendBroken at a version that is not 1: where the next record begins is then
        anybody's guess.
        """
        if self._unfinished:
            self._unfinished += data
            if len(self._unfinished) < self._needed:
                return []
            data = self._unfinished
        view = memoryview(data)
        records: list[Record] = []
        position = 0
        self._needed = HEADER.size
        while len(view) - position >= HEADER.size:
            version, kind, request_id, size, padding = HEADER.unpack_from(view, position)
            if version != VERSION:
                raise BackendBroken(f"FastCGI: version {version}")
            start = position + HEADER.size
            end = start + size + padding
            if end > len(view):
                self._needed = end - position
                break
            records.append(Record(kind, request_id, view[start : start + size]))
            position = end
        self._unfinished = bytearray(view[position:])
        return records

    @property
    def is_empty(self) -> bool:
        """Whether no record has begun to come."""
        return not self._unfinished
