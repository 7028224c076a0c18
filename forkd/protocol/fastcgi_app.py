"""FastCGI as an application hears it (FastCGI 1.0 sections 3 to 6): records to what they ask for.

No I/O.  Records as such are ``protocol.fastcgi``'s; what a web server says and hears is
``protocol.fastcgi_request``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..errors import BadRequest
from .fastcgi import (
    KEEP_CONN,
    ProtocolStatus,
    Record,
    RecordDecoder,
    RecordType,
    Role,
    decode_begin,
    decode_pairs,
    encode_pairs,
    encode_record,
)
from .tunnel import Buffer

MAX_PARAMS = 1 << 20  # bytes of one request's variables: posix_spawn takes 2 MiB with its own

ROLES = (Role.RESPONDER, Role.AUTHORIZER)
"""Those that a program can play: a filter needs a second input."""


class Begin(NamedTuple):
    """A request; nothing is known of it yet."""

    request_id: int
    keep_conn: bool


class Refused(NamedTuple):
    """A request that is not to be: END_REQUEST with *status* is the answer."""

    request_id: int
    keep_conn: bool
    status: ProtocolStatus


class Params(NamedTuple):
    """All variables of a request; of those sent twice the last counts."""

    request_id: int
    environment: dict[bytes, bytes]


class Input(NamedTuple):
    """A piece of STDIN, valid as long as what was fed; none is its end."""

    request_id: int
    data: Buffer


class Abort(NamedTuple):
    """Nobody wants the response."""

    request_id: int


class GetValues(NamedTuple):
    """What the application can do is asked for, by name."""

    names: tuple[bytes, ...]


class Unknown(NamedTuple):
    """A record of a type that there is not; UNKNOWN_TYPE is the answer."""

    type: int


Event = Begin | Refused | Params | Input | Abort | GetValues | Unknown


def encode_values(names: Iterable[bytes], values: Mapping[bytes, int]) -> bytes:
    """The answer to GetValues: those of *values* that were asked for, once each (section 4.1)."""
    known = [(name, b"%d" % values[name]) for name in dict.fromkeys(names) if name in values]
    return encode_record(RecordType.GET_VALUES_RESULT, 0, encode_pairs(known))


def encode_unknown_type(kind: int) -> bytes:
    """The answer to Unknown (section 4.2)."""
    return encode_record(RecordType.UNKNOWN_TYPE, 0, bytes((kind, 0, 0, 0, 0, 0, 0, 0)))


class _Request:
    """What has come of one request."""

    __slots__ = ("has_input", "params", "role")

    def __init__(self, role: int) -> None:
        self.role = role
        self.params: bytearray | None = bytearray()
        """None when they are complete."""
        self.has_input = role != Role.AUTHORIZER
        """Whether more of STDIN is to come; an authorizer has none (section 6.3)."""


class ApplicationDecoder:
    """Bytes of one connection to events.

    A request lives from its Begin to ``finish``; records of others are ignored, as section 3.3
    has it.
    """

    def __init__(self, max_requests: int = 1) -> None:
        """More than *max_requests* at a time are refused."""
        self._max_requests = max_requests
        self._too_many = (
            ProtocolStatus.CANT_MPX_CONN if max_requests == 1 else ProtocolStatus.OVERLOADED
        )
        self._decoder = RecordDecoder()
        self._requests: dict[int, _Request] = {}

    def feed(self, data: Buffer) -> list[Event]:
        """What *data* completes.  Raises BackendBroken and BadRequest: nothing after it counts."""
        events: list[Event] = []
        for record in self._decoder.feed(data):
            take = _TAKES.get(record.type)
            if take is None:
                events.append(Unknown(record.type))
            else:
                events += take(self, record)
        return events

    def finish(self, request_id: int) -> None:
        """Its END_REQUEST is sent: the number may be used again."""
        self._requests.pop(request_id, None)

    def _begin(self, record: Record) -> list[Event]:
        number = record.request_id
        if number == 0 or number in self._requests:
            raise BadRequest(f"FastCGI: BEGIN_REQUEST for request {number}")
        role, flags = decode_begin(record.content)
        keep_conn = bool(flags & KEEP_CONN)
        if len(self._requests) >= self._max_requests:
            return [Refused(number, keep_conn, self._too_many)]
        if role not in ROLES:
            return [Refused(number, keep_conn, ProtocolStatus.UNKNOWN_ROLE)]
        self._requests[number] = _Request(role)
        return [Begin(number, keep_conn)]

    def _params(self, record: Record) -> list[Event]:
        request = self._requests.get(record.request_id)
        if request is None or request.params is None:
            return []
        if record.content:
            request.params += record.content
            if len(request.params) > MAX_PARAMS:
                raise BadRequest(f"FastCGI: more than {MAX_PARAMS} bytes of PARAMS")
            return []
        params, request.params = request.params, None
        try:
            environment = dict(decode_pairs(params))
        except ValueError as error:
            raise BadRequest(f"FastCGI: PARAMS: {error}") from None
        events: list[Event] = [Params(record.request_id, environment)]
        if not request.has_input:
            events.append(Input(record.request_id, b""))
        return events

    def _stdin(self, record: Record) -> list[Event]:
        request = self._requests.get(record.request_id)
        if request is None or not request.has_input:
            return []
        if request.params is not None:
            raise BadRequest("FastCGI: STDIN before the end of PARAMS")
        request.has_input = bool(record.content)
        return [Input(record.request_id, record.content)]

    def _abort(self, record: Record) -> list[Event]:
        return [Abort(record.request_id)] if record.request_id in self._requests else []

    def _get_values(self, record: Record) -> list[Event]:
        try:
            return [GetValues(tuple(name for name, _ in decode_pairs(record.content)))]
        except ValueError as error:
            raise BadRequest(f"FastCGI: GET_VALUES: {error}") from None

    def _ignore(self, record: Record) -> list[Event]:
        return []


_TAKES: dict[int, Callable[[ApplicationDecoder, Record], list[Event]]] = {
    RecordType.BEGIN_REQUEST: ApplicationDecoder._begin,
    RecordType.ABORT_REQUEST: ApplicationDecoder._abort,
    RecordType.PARAMS: ApplicationDecoder._params,
    RecordType.STDIN: ApplicationDecoder._stdin,
    RecordType.DATA: ApplicationDecoder._ignore,
    RecordType.GET_VALUES: ApplicationDecoder._get_values,
    # What only applications say.
    RecordType.END_REQUEST: ApplicationDecoder._ignore,
    RecordType.STDOUT: ApplicationDecoder._ignore,
    RecordType.STDERR: ApplicationDecoder._ignore,
    RecordType.GET_VALUES_RESULT: ApplicationDecoder._ignore,
    RecordType.UNKNOWN_TYPE: ApplicationDecoder._ignore,
}
