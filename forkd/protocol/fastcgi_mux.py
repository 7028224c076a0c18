"""Several requests on one FastCGI connection (FastCGI 1.0 sections 3.3, 4.1): their numbers, whose
turn it is to send, and whose the records are that come.

No I/O.  What one request says and hears are records with its number, made and read by
``protocol.fastcgi_request`` as if it had the connection to itself.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import NamedTuple

from ..errors import BackendBroken
from .fastcgi import (
    HEADER,
    MAX_CONTENT,
    EndOfRequest,
    Record,
    RecordDecoder,
    RecordType,
    decode_end,
    decode_pairs,
    encode_pairs,
    encode_record,
)
from .tunnel import Buffer

QUANTUM = 8 * 1024  # bytes of content in one turn, while there are others whose turn will come
MAX_REQUESTS = 65535  # request ids are of 16 bits, and 0 is nobody's
NO_LIMIT = MAX_REQUESTS

_MANAGEMENT = 0  # request id of records that belong to no request


# -- what an application can do -----------------------------------------------------------------


class Capability(NamedTuple):
    """What an application says of itself; what it leaves out is NO_LIMIT."""

    multiplexes: bool
    max_connections: int = NO_LIMIT
    max_requests: int = NO_LIMIT


ONE_AT_A_TIME = Capability(False)

_MAX_CONNS, _MAX_REQS, _MPXS = b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS"


def encode_question() -> bytes:
    """GET_VALUES for all that ``Answer`` understands."""
    names = (_MAX_CONNS, _MAX_REQS, _MPXS)
    return encode_record(
        RecordType.GET_VALUES, _MANAGEMENT, encode_pairs((name, b"") for name in names)
    )


class Answer:
    """Waits for what an application answers to ``encode_question``."""

    def __init__(self) -> None:
        self._decoder = RecordDecoder()

    def feed(self, data: Buffer) -> Capability | None:
        """None while it is not complete.  Whatever makes no sense is ONE_AT_A_TIME."""
        try:
            records = self._decoder.feed(data)
            return _capability(records[0]) if records else None
        except (BackendBroken, ValueError):
            return ONE_AT_A_TIME


def _capability(record: Record) -> Capability:
    """Raises ValueError for what is no list of pairs."""
    if record.type != RecordType.GET_VALUES_RESULT or record.request_id != _MANAGEMENT:
        return ONE_AT_A_TIME
    values = dict(decode_pairs(record.content))
    if values.get(_MPXS) != b"1":
        return ONE_AT_A_TIME
    return Capability(True, _limit(values.get(_MAX_CONNS)), _limit(values.get(_MAX_REQS)))


def _limit(value: bytes | None) -> int:
    """A value that is missing, empty or no number is not known, and limits nothing."""
    if value is None or not value.isdigit():
        return NO_LIMIT
    return min(max(int(value), 1), NO_LIMIT)


# -- one connection -----------------------------------------------------------------------------


class Arrival(NamedTuple):
    """What came for one request."""

    request_id: int
    records: bytes
    """Whole ones."""
    end: EndOfRequest | None
    """The request is over, and its number may be another's."""


class _Request:
    """One that the application may know of."""

    __slots__ = ("has_begun", "is_wanted", "number", "out")

    def __init__(self, number: int) -> None:
        self.number = number
        self.out = bytearray()  # whole records
        self.has_begun = False  # some of them have gone out
        self.is_wanted = True


class Multiplexer:
    """The requests of one connection, from ``begin`` to the END_REQUEST that comes for each."""

    def __init__(self) -> None:
        self._decoder = RecordDecoder()
        self._requests: dict[int, _Request] = {}
        self._turns: deque[_Request] = deque()
        """Those that have something to send, and some that had."""
        self._free: list[int] = []  # a heap: applications expect small numbers
        self._highest = 0

    def __len__(self) -> int:
        """Requests that the application may still work at, wanted or not."""
        return len(self._requests)

    def __contains__(self, number: int) -> bool:
        """Whether the application may still work at request *number*."""
        return number in self._requests

    def begin(self) -> int:
        """The number of a new request: the lowest that is free."""
        if self._free:
            number = heappop(self._free)
        else:
            self._highest = number = self._highest + 1
        self._requests[number] = _Request(number)
        return number

    # -- to the application ---------------------------------------------------------------------

    def queue(self, number: int, records: Buffer) -> int:
        """Whole *records* wait for their turn; bytes that wait now.  Of a request that is over,
        or is not wanted, nothing waits."""
        request = self._requests.get(number)
        if request is None or not request.is_wanted:
            return 0
        if not request.out:
            self._turns.append(request)
        request.out += records
        return len(request.out)

    def next_turn(self) -> tuple[int, bytes] | None:
        """(number, records) to be sent now; None when nothing waits."""
        while self._turns:
            request = self._turns.popleft()
            if request.out:
                limit = QUANTUM if len(self._requests) > 1 else MAX_CONTENT
                records = _cut(request.out, limit)
                request.has_begun = True
                if request.out:
                    self._turns.append(request)
                return request.number, records
        return None

    def waiting(self, number: int) -> int:
        """Bytes of the request that wait for their turn."""
        request = self._requests.get(number)
        return len(request.out) if request is not None else 0

    def abandon(self, number: int) -> None:
        """Nobody wants the request any more.  Its number stays its own until END_REQUEST, unless
        the application has not heard of it."""
        request = self._requests.get(number)
        if request is None or not request.is_wanted:
            return
        request.is_wanted = False
        if not request.has_begun:
            self._forget(request)
            return
        if not request.out:
            self._turns.append(request)
        request.out[:] = encode_record(RecordType.ABORT_REQUEST, number)

    # -- from the application -------------------------------------------------------------------

    def feed(self, data: Buffer) -> list[Arrival]:
        """What *data* completes, together for each request that is wanted; all else is ignored
        (section 3.3).

        Raises BackendBroken at what is no record, or no end of a request.
        """
        records: dict[int, list[bytes]] = {}
        ends: dict[int, EndOfRequest] = {}
        for record in self._decoder.feed(data):
            request = self._requests.get(record.request_id)
            if request is None:
                continue
            kind, number, content = record
            if kind == RecordType.END_REQUEST:
                ends[number] = decode_end(content)
                self._forget(request)
            if request.is_wanted:
                records.setdefault(number, []).append(encode_record(kind, number, content))
        return [Arrival(n, b"".join(pieces), ends.get(n)) for n, pieces in records.items()]

    def _forget(self, request: _Request) -> None:
        request.out.clear()
        del self._requests[request.number]
        heappush(self._free, request.number)


def _cut(out: bytearray, limit: int) -> bytes:
    """Take from the front of *out* one record of at most *limit* bytes of content, and the whole
    ones behind it that this leaves room for."""
    version, kind, number, size, _ = HEADER.unpack_from(out)
    if size > limit:
        # It is a piece of a stream, which may be cut anywhere: nothing else is as long.
        piece = HEADER.pack(version, kind, number, limit, 0)
        piece += out[HEADER.size : HEADER.size + limit]
        del out[:limit]
        HEADER.pack_into(out, 0, version, kind, number, size - limit, 0)
        return piece
    end = _end_of_record(out, 0)
    while end < len(out) and (further := _end_of_record(out, end)) <= limit:
        end = further
    piece = bytes(out[:end])
    del out[:end]
    return piece


def _end_of_record(out: bytearray, start: int) -> int:
    size: int = HEADER.unpack_from(out, start)[3]  # ours have no padding
    return start + HEADER.size + size
