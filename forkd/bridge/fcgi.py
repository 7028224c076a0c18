"""fcgi-cgi: requests as FastCGI records, any number of them at a time on a connection."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from ..errors import ForkdError
from ..protocol.fastcgi import ProtocolStatus, RecordType, encode_end, encode_record, encode_stream
from ..protocol.fastcgi_app import (
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
from .backlog import LIMIT, Backlog
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
        self._decoder = ApplicationDecoder(service.limit)
        self._requests: dict[int, FcgiRequest] = {}
        self._full: set[int] = set()
        """Request ids whose programs are slow to read, for which the client is paused."""
        self.is_draining = False
        self._may_stay = True
        self._values = {
            b"FCGI_MAX_CONNS": service.limit,
            b"FCGI_MAX_REQS": service.limit,
            b"FCGI_MPXS_CONNS": int(service.limit > 1),
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
            self._may_stay &= event.keep_conn
        elif isinstance(event, Refused):
            self._answer(encode_end(event.request_id, 0, event.status))
            self._may_stay &= event.keep_conn
            self._next()
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
        self._may_stay = False
        for request in list(self._requests.values()):
            request.input_ended()
        self._next()

    # -- to the client ----------------------------------------------------------------------------

    def finish(self, request: FcgiRequest, records: bytes) -> None:
        """*records*, the last of which ends *request*; then what the client wanted after it."""
        self.client.write(records)
        self._decoder.finish(request.number)
        del self._requests[request.number]
        self.release(request.number)
        self._next()
        self.end_if_idle()

    def _next(self) -> None:
        """Wait for another request, or close when there is none to come."""
        if not self._requests and not self._may_stay:
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
        self.is_draining, self._may_stay = True, False
        if not self._requests:
            self.client.close(0)


class FcgiRequest:
    """One request from BEGIN_REQUEST to END_REQUEST."""

    def __init__(self, connection: FcgiConnection, number: int, keep_conn: bool) -> None:
        self.number = number
        self._keep_conn = keep_conn
        self._connection = connection
        self._run: Run | None = None
        self._backlog: Backlog | None = None
        """None where the client may be kept waiting: without KEEP_CONN it has no other request."""
        self._input_over = self._output_over = False

    # -- from the client --------------------------------------------------------------------------

    def take(self, event: Params | Input | Abort) -> None:
        if isinstance(event, Params):
            self._start(event.environment)
        elif isinstance(event, Abort):
            self._end_input()
            self.lose()
        elif event.data:
            self._input(event.data)
        else:
            self._end_input()

    def _start(self, environment: dict[bytes, bytes]) -> None:
        service = self._connection.service
        if self._connection.is_draining or service.runs.count >= service.limit:
            self._finish(0, ProtocolStatus.OVERLOADED)
            return
        try:
            command = command_of(environment, service.binary)
            self._run = Run(command, environment, self, service.runs, hears_stderr=True)
        except ForkdError as error:
            log.warning("%s", error)
            self.on_output(status_reply(error))
            self._finish(0)
            return
        if self._keep_conn:
            length = environment.get(b"CONTENT_LENGTH", b"")
            announced = int(length) if length.isdigit() and len(length) < 20 else 0
            self._backlog = Backlog(self._run, max(announced, LIMIT))

    def _input(self, data: Buffer) -> None:
        if self._input_over:
            return
        if self._backlog is not None:
            try:
                self._backlog.write(data)
            except ForkdError as error:
                log.warning("%s", error)
                self._end_input()
                self.lose()
        elif self._run is not None and not self._run.write(data):
            self._connection.hold(self.number)

    def _end_input(self) -> None:
        self._input_over = True
        if self._backlog is not None:
            self._backlog.write_eof()
        elif self._run is not None:
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
        if self._backlog is not None:
            self._backlog.refill()
        else:
            self._connection.release(self.number)

    def on_over(self, status: int) -> None:
        self._run = None
        if self._backlog is not None:
            self._backlog.close()
            self._backlog = None
        self._finish(status if status >= 0 else SIGNALLED - status)

    def _finish(
        self, status: int, how: ProtocolStatus = ProtocolStatus.REQUEST_COMPLETE
    ) -> None:
        last = b"" if self._output_over else encode_record(RecordType.STDOUT, self.number)
        end = encode_end(self.number, status, how)
        self._connection.finish(self, last + end)
