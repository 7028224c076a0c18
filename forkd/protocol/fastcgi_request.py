"""What a web server says to a FastCGI application, and what it is told (FastCGI 1.0 sections 5, 6):
one request, its response, and the tunnel that may become of it.

The application's complaints (STDERR) go to a callback and not among the events: they are told even
when the next record is the one that breaks the response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import BackendBroken, Refused, Truncated
from ..message import Pair
from .cgi import CgiParser
from .conversation import Complete, Event
from .environment import encoded
from .fastcgi import (
    EndOfRequest,
    ProtocolStatus,
    Record,
    RecordDecoder,
    RecordType,
    Role,
    decode_end,
    encode_begin,
    encode_pairs,
    encode_record,
    encode_stream,
)
from .tunnel import Buffer, End

OnStderr = Callable[[bytes], None]

REQUEST_ID = 1  # of a request that has its connection to itself

_BACKEND_EOF = End("backend_eof")
_STDOUT_EOF = End("backend_eof", one_way=True)
_STDOUT, _STDERR, _END_REQUEST = RecordType.STDOUT, RecordType.STDERR, RecordType.END_REQUEST


class FastCgiEncoder:
    """One request."""

    def __init__(
        self,
        environment: Iterable[Pair],
        role: Role = Role.RESPONDER,
        keep_conn: bool = False,
        request_id: int = REQUEST_ID,
    ) -> None:
        """Raises BadRequest for a variable that cannot be sent."""
        params = encode_pairs(encoded(environment))
        self.is_over = False
        """Whether the application has been told all of it."""
        self._id = request_id
        self._head = b"".join(
            (
                encode_begin(request_id, role, keep_conn),
                encode_stream(RecordType.PARAMS, request_id, params),
                encode_record(RecordType.PARAMS, request_id),
            )
        )

    def head(self) -> bytes:
        return self._head

    def body(self, piece: Buffer) -> Buffer:
        return encode_stream(RecordType.STDIN, self._id, piece)

    def end(self) -> bytes:
        """Not to be sent while an upgrade may come: what a client says after it is STDIN too."""
        self.is_over = True
        return encode_record(RecordType.STDIN, self._id)


class FastCgiParser:
    """One response: records of *request_id*; all others are somebody's whom we do not know.

    Complete comes with END_REQUEST, never before; *keep_conn* is what it says of the connection,
    unless more follows.
    Raises Refused when the application will not serve the request now, or on this connection,
    BackendBroken when it never will.
    """

    def __init__(
        self,
        on_stderr: OnStderr,
        *,
        head_only: bool = False,
        keep_conn: bool = False,
        request_id: int = REQUEST_ID,
    ) -> None:
        self._on_stderr = on_stderr
        self._keep_conn = keep_conn
        self._id = request_id
        self._decoder = RecordDecoder()
        self._stdout = CgiParser(head_only=head_only)
        self._stdout_over = False
        self._end: EndOfRequest | None = None
        self._is_last = True  # nothing has come behind the record at hand

    def feed(self, data: Buffer) -> list[Event]:
        events: list[Event] = []
        records = self._decoder.feed(data)
        for record in records:
            if record.request_id == self._id and self._end is None:
                self._is_last = record is records[-1] and self._decoder.is_empty
                events += self._take(record)
        return events

    def eof(self) -> list[Event]:
        """The connection has ended, and no END_REQUEST has come."""
        if self._stdout.is_switched:
            return []
        self._stdout.eof()
        if self._stdout.is_open_ended and not self._stdout_over:
            raise Truncated("FastCGI: closed without END_REQUEST")
        return [Complete(False)]

    def after_switch(self) -> bytes:
        return self._stdout.after_switch()

    def tunnel_codec(self) -> FastCgiCodec:
        """For what follows the 101, from the record on that has not fully come."""
        end = _STDOUT_EOF if self._stdout_over else None
        if self._end is not None:
            end = _end_of(self._end)
        return FastCgiCodec(self._on_stderr, self._decoder, self._id, end)

    @property
    def is_overloaded(self) -> bool:
        """Whether the application has said so."""
        return self._end is not None and self._end.protocol_status == ProtocolStatus.OVERLOADED

    def _take(self, record: Record) -> list[Event]:
        if record.type == _STDOUT:
            self._stdout_over = self._stdout_over or not record.content
            return _without_end(self._stdout.feed(record.content))
        if record.type == _STDERR:
            if record.content:
                self._on_stderr(bytes(record.content))
        elif record.type == _END_REQUEST:
            self._end = decode_end(record.content)
            return self._end_request(self._end)
        return []

    def _end_request(self, end: EndOfRequest) -> list[Event]:
        _check_accepted(end)
        if self._stdout.is_switched:
            return []
        try:
            self._stdout.eof()
        except BackendBroken as error:
            if not end.app_status:
                raise
            raise type(error)(f"{error}, application status {end.app_status}") from None
        # What came behind it, be it half a record, must not be taken for the next response.
        return [Complete(self._keep_conn and self._is_last)]


class FastCgiCodec:
    """A tunnel in records: STDIN from the client, STDOUT to it.

    The application may end its direction alone (an empty STDOUT), and both (END_REQUEST).
    """

    passes_reset = True

    __slots__ = (
        "_client_over",
        "_decoder",
        "_id",
        "_on_stderr",
        "_stdout_over",
        "end",
        "end_of_input",
        "loss",
        "messages",
        "peer_closed",
        "pongs",
    )

    def __init__(
        self,
        on_stderr: OnStderr,
        decoder: RecordDecoder | None = None,
        request_id: int = REQUEST_ID,
        end: End | None = None,
    ) -> None:
        """*decoder* may hold half a record; *end*: it is over already."""
        self._on_stderr = on_stderr
        self._decoder = decoder or RecordDecoder()
        self._id = request_id
        self._stdout_over = end is not None
        self._client_over = False
        self.end = end
        self.peer_closed = False
        self.pongs = 0
        self.messages = (0, 0)
        self.end_of_input: bytes | None = encode_record(RecordType.STDIN, request_id)
        self.loss = encode_record(RecordType.ABORT_REQUEST, request_id)

    def from_client(self, data: Buffer) -> tuple[Buffer, Buffer]:
        return b"", encode_stream(RecordType.STDIN, self._id, data)

    def from_backend(self, data: Buffer) -> tuple[Buffer, Buffer]:
        pieces: list[Buffer] = []
        try:
            for record in self._decoder.feed(data):
                if record.request_id == self._id and not self._is_over:
                    self._take(record, pieces)
        except BackendBroken as error:
            self.end = End(f"protocol_error:{error}")
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), b""

    @property
    def _is_over(self) -> bool:
        return self.end is not None and not self.end.one_way

    def _take(self, record: Record, pieces: list[Buffer]) -> None:
        kind, _, content = record
        if kind == _STDOUT:
            if not content:
                self._end_stdout()
            elif not self._stdout_over:
                pieces.append(content)
        elif kind == _STDERR:
            if content:
                self._on_stderr(bytes(content))
        elif kind == _END_REQUEST:
            end = _end_of(decode_end(content))
            self.end = End("client_eof") if end == _BACKEND_EOF and self._client_over else end

    def _end_stdout(self) -> None:
        if not self._stdout_over:
            self._stdout_over = True
            self.end = _STDOUT_EOF

    def client_eof(self) -> tuple[Buffer, Buffer]:
        self._client_over = True
        return b"", b""

    def backend_eof(self) -> tuple[Buffer, Buffer]:
        # Without END_REQUEST nobody is left who could read: both directions are over.
        self.end = End("backend_lost:closed without END_REQUEST")
        return b"", b""

    def ping(self) -> bytes:
        return b""

    def close(self, code: int, reason: str) -> bytes:
        self.end = End(reason, code)
        return b""


_REFUSALS: dict[int, str] = {
    ProtocolStatus.CANT_MPX_CONN: "application takes one request at a time",
    ProtocolStatus.OVERLOADED: "application is overloaded",
}


def _check_accepted(end: EndOfRequest) -> None:
    if end.protocol_status in _REFUSALS:
        raise Refused(f"FastCGI: {_REFUSALS[end.protocol_status]}")
    if end.protocol_status != ProtocolStatus.REQUEST_COMPLETE:
        names = {status.value: status.name for status in ProtocolStatus}
        name = names.get(end.protocol_status, end.protocol_status)
        raise BackendBroken(f"FastCGI: request refused, {name}")


def _end_of(end: EndOfRequest) -> End:
    """What END_REQUEST means for a tunnel."""
    return End(f"backend_exit:{end.app_status}") if end.app_status else _BACKEND_EOF


def _without_end(events: list[Event]) -> list[Event]:
    """STDOUT may be complete by its own count; the request is so with END_REQUEST only."""
    return [event for event in events if not isinstance(event, Complete)]
