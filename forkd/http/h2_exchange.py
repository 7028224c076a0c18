"""One HTTP/2 request and its response: what ``h2`` runs a handler on, in a greenlet of its own."""

from __future__ import annotations

import logging

from ..errors import ClientGone, PayloadTooLarge
from ..message import Fields, Head, Pair, Request
from ..net.blocking import BlockingPort
from ..protocol.h2_frames import ErrorCode
from ..protocol.h2_priority import DEFAULT
from ..protocol.handshake import connect_head
from .connection import Service
from .exchange import NO_FIELDS, ExchangeBase, Upgraded, one_line
from .stream_port import StreamPort

log = logging.getLogger(__name__)

_OF_HTTP1 = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
_SHARING = DEFAULT._replace(incremental=True)


class _Stream(BlockingPort):
    """A stream as greenlets see it: a request that has ended is no client that has gone."""

    def on_eof(self) -> None:
        self.at_eof = True
        self._input.ring()


class H2Exchange(ExchangeBase):
    """One request of a connection and its response."""

    __slots__ = (
        "_head_size", "_port", "_received", "_sent", "_service", "_stream", "_wants_continue",
    )  # fmt: skip

    def __init__(
        self, port: StreamPort, request: Request, service: Service, head_size: int
    ) -> None:
        self._stream = _Stream(port)
        super().__init__(request, service.config.base, self._stream.gone, service.log)
        self.keeps = True
        self._port = port
        self._service = service
        self._head_size = head_size
        self._received = 0
        self._sent = 0
        self._wants_continue = (
            request.content_length != 0
            and request.fields.get("expect").lower() == "100-continue"
        )

    @property
    def is_lost(self) -> bool:
        return self._port.closed_why is not None

    # -- the request's body -----------------------------------------------------------------------

    def read(self) -> bytes:
        if self.request.content_length == 0:
            return b""
        if self._wants_continue and not self._stream.pending and not self._stream.at_eof:
            self.inform(Head(100))
        self._wants_continue = False
        try:
            data = self._stream.recv(self.settings.limits.max_read_idle)
        except TimeoutError as error:
            self._too_slow(error)
            raise ClientGone("request body did not arrive") from error
        self._received += len(data)
        limit = self.settings.limits.max_request_size
        if limit and self._received > limit:
            raise PayloadTooLarge(f"body of at least {self._received} bytes, limit {limit}")
        if not data:
            self._merge_trailers()
        return data

    def _merge_trailers(self) -> None:
        allowed = self._service.config.server.features.trailer_whitelist
        pairs = [pair for pair in self._port.stream.trailers if pair[0] in allowed]
        if pairs:
            self.request = self.request._replace(fields=self.request.fields.plus(*pairs))

    # -- the response -----------------------------------------------------------------------------

    def inform(self, head: Head) -> None:
        if not self.started:
            self._send_head(head.status, _plain(head.fields))

    def respond(self, head: Head) -> None:
        head = self._start(head)
        self._sends_body = self._may_have_body(head.status)
        fields = _plain(self._own_fields(head))
        if head.length is not None and (self._sends_body or self.request.method == "HEAD"):
            fields.append(("content-length", str(head.length)))
        self._left = head.length
        self._send_head(head.status, fields, ended=not self._sends_body)

    def _send_head(self, status: int, fields: list[Pair], ended: bool = False) -> None:
        """Raises ClientGone."""
        why = self._port.closed_why
        if why is not None:
            raise ClientGone(why or "closed")
        self._sent += self._port.send_head(status, fields, ended)

    def write(self, data: bytes) -> None:
        if not self._sends_body or not data:
            return
        data = data[: self._due(len(data))]
        self._body_bytes += len(data)
        try:
            self._stream.send(data, self.settings.limits.max_write_idle)
        except TimeoutError as error:
            self._too_slow(error)

    def send_file(self, fd: int, offset: int, length: int) -> None:
        if not self._sends_body:
            return
        length = self._due(length)
        try:
            self._stream.send_file(fd, offset, length, self.settings.limits.max_write_idle)
        except TimeoutError as error:
            self._too_slow(error)
        self._body_bytes += length

    def finish(self, trailers: Fields = NO_FIELDS) -> None:
        if self.is_over:
            return
        self._check_whole()
        self._port.write_eof(_plain(trailers))
        try:
            if self._port.queued:
                self._stream.drain(self.settings.limits.max_write_idle)
        except TimeoutError as error:
            self._too_slow(error)
        self.is_over = True
        # A request whose body nobody wants any more is cut off behind its answer.
        self._port.close(0)

    def _too_slow(self, error: TimeoutError) -> None:
        if self._service.config.base.debug.timeouts:
            log.info("%s: stream reset, %s", self.request.remote, error)
        self._port.abort_code = ErrorCode.CANCEL
        self._port.abort("timeout")
        raise ClientGone(str(error)) from error

    def abort(self, why: str) -> None:
        self.is_over = self._is_aborted = True
        self._port.abort(why)

    # -- the tunnel -------------------------------------------------------------------------------

    def upgrade(self, head: Head) -> Upgraded:
        head = self._start(connect_head(head))
        self._send_head(head.status, _plain(self._own_fields(head)))
        self.is_upgraded = self.is_over = True
        log_end = self._tunnel_log()
        port = self._port
        port.become_tunnel()
        if port.stream.priority == DEFAULT:  # or one tunnel would have to be silent for the next
            port.stream.priority = _SHARING
        _, early = self._stream.detach()
        return Upgraded(port, early, log_end)

    def _bytes(self) -> tuple[int, int]:
        # Without what frames a body.
        return self._head_size + self._received, self._sent + self._port.bytes_out


def _plain(fields: Fields | list[Pair]) -> list[Pair]:
    """*fields* as HTTP/2 writes them (RFC 9113 section 8.2)."""
    return [
        (one_line(name).lower(), one_line(value).strip(" \t"))
        for name, value in fields
        if name.lower() not in _OF_HTTP1
    ]
