"""fcgi-cgi: requests as FastCGI records, one after another on a connection that is kept."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from ..errors import ForkdError
from ..protocol.fastcgi import ProtocolStatus, RecordType, encode_end, encode_record, encode_stream
from ..protocol.fastcgi_app import (
    MAX_REQUESTS,
    Abort,
    ApplicationDecoder,
    Begin,
    Event,
    GetValues,
    Input,
    Params,
    Refused,
    Unknown,
    encode_unknown_type,
    encode_values,
)
from ..protocol.tunnel import Buffer
from .connection import Connection, Service, status_reply
from .launch import command_of
from .run import Run

SIGNALLED = 128  # and the number of the signal: the status of a program that died, as in sh(1)

_MANAGEMENT = 0  # the request id of records that belong to no request

log = logging.getLogger(__name__)


class FcgiConnection(Connection):
    """Records in, records out, and the requests that are active."""

    def __init__(
        self,
        sock: socket.socket,
        service: Service,
        on_end: Callable[[Connection], None],
    ) -> None:
        self._decoder = ApplicationDecoder()
        self._requests: dict[int, FcgiRequest] = {}
        self._full: set[int] = set()
        """Request ids whose programs are slow to read, for which the client is paused."""
        self._is_draining = False
        self._values = {
            b"FCGI_MAX_CONNS": service.limit,
            b"FCGI_MAX_REQS": service.limit * MAX_REQUESTS,
            b"FCGI_MPXS_CONNS": int(MAX_REQUESTS > 1),
        }
        super().__init__(sock, service, on_end)

    # -- from the client --------------------------------------------------------------------------

    def received(self, data: Buffer) -> None:
        for event in self._decoder.feed(data):
            if self.is_ending:
                break
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, GetValues):
            self._answer(encode_values(event.names, self._values))
        elif isinstance(event, Unknown):
            self._answer(encode_unknown_type(event.type))
        elif isinstance(event, Begin):
            request = FcgiRequest(self, event.request_id, event.keep_conn)
            self._requests[event.request_id] = request
        elif isinstance(event, Refused):
            self._answer(encode_end(event.request_id, 0, event.status))
            self._next(event.keep_conn)
        elif (known := self._requests.get(event.request_id)) is not None:
            known.take(event)

    def _answer(self, record: bytes) -> None:
        """What the client may ask for without end: who does not read is not read."""
        if not self.client.write(record):
            self.hold(_MANAGEMENT)

    def hold(self, request_id: int) -> None:
        """Read nothing until ``release``."""
        self._full.add(request_id)
        self.client.pause()

    def release(self, request_id: int) -> None:
        self._full.discard(request_id)
        if not self._full:
            self.client.resume()

    def input_ended(self) -> None:
        for request in list(self._requests.values()):
            request.input_ended()
        self._next(keep_conn=False)

    # -- to the client ----------------------------------------------------------------------------

    def finish(self, request: FcgiRequest, records: bytes) -> None:
        """*records*, the last of which ends *request*; then what the client wanted after it."""
        self.client.write(records)
        self._decoder.finish(request.number)
        del self._requests[request.number]
        self.release(request.number)
        self._next(request.keep_conn)
        self.end_if_idle()

    def _next(self, keep_conn: bool) -> None:
        """Wait for another request, or close when there is none to come."""
        may_stay = keep_conn and not self._is_draining and not self.is_at_eof
        if not self._requests and not may_stay:
            self.end()

    def has_room(self) -> None:
        self.release(_MANAGEMENT)
        for request in self._requests.values():
            request.resume()

    # -- the connection ---------------------------------------------------------------------------

    def lost(self) -> None:
        for request in list(self._requests.values()):
            request.lose()

    @property
    def is_busy(self) -> bool:
        return bool(self._requests)

    @property
    def has_said_all(self) -> bool:
        return not self._requests and not self.client.queued

    def drain(self) -> None:
        self._is_draining = True
        if not self._requests:
            self.client.close(0)


class FcgiRequest:
    """One request from BEGIN_REQUEST to END_REQUEST."""

    def __init__(self, connection: FcgiConnection, number: int, keep_conn: bool) -> None:
        self.number = number
        self.keep_conn = keep_conn
        self._connection = connection
        self._run: Run | None = None
        self._input_over = self._output_over = False

    # -- from the client --------------------------------------------------------------------------

    def take(self, event: Params | Input | Abort) -> None:
        if isinstance(event, Params):
            self._start(event.environment)
        elif isinstance(event, Abort):
            self._end_input()
            self.lose()
        elif not event.data:
            self._end_input()
        elif self._run is not None and not self._run.write(event.data):
            self._connection.hold(self.number)

    def _start(self, environment: dict[bytes, bytes]) -> None:
        service = self._connection.service
        try:
            command = command_of(environment, service.binary)
            self._run = Run(command, environment, self, service.runs, hears_stderr=True)
        except ForkdError as error:
            log.warning("%s", error)
            self.on_output(status_reply(error))
            self._finish(0)

    def _end_input(self) -> None:
        self._input_over = True
        if self._run is not None:
            self._run.write_eof()

    def input_ended(self) -> None:
        """The connection brings nothing more; without STDIN's own end the request is cut."""
        if not self._input_over:
            self._end_input()
            self.lose()

    def lose(self) -> None:
        """Nobody wants the response; its end is told all the same."""
        if self._run is None:
            self._finish(0)
        else:
            self._run.lose()

    def resume(self) -> None:
        if self._run is not None:
            self._run.resume()

    # -- from the program -------------------------------------------------------------------------

    def on_output(self, data: Buffer) -> None:
        self._say(RecordType.STDOUT, data)

    def on_stderr(self, data: Buffer) -> None:
        self._say(RecordType.STDERR, data)

    def _say(self, kind: RecordType, data: Buffer) -> None:
        records = encode_stream(kind, self.number, data)
        if not self._connection.client.write(records) and self._run is not None:
            self._run.pause()

    def on_output_end(self) -> None:
        self._output_over = True
        self._connection.client.write(encode_record(RecordType.STDOUT, self.number))

    def on_room(self) -> None:
        self._connection.release(self.number)

    def on_over(self, status: int) -> None:
        self._run = None
        self._finish(status if status >= 0 else SIGNALLED - status)

    def _finish(self, status: int) -> None:
        last = b"" if self._output_over else encode_record(RecordType.STDOUT, self.number)
        end = encode_end(self.number, status, ProtocolStatus.REQUEST_COMPLETE)
        self._connection.finish(self, last + end)
