"""One HTTP/1.x request and its response: what ``h1`` runs a handler on.

The framing of the response is decided here (RFC 9112 section 6), and whether the connection may
carry another request (section 9.3).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ..errors import ForkdError, PayloadTooLarge
from ..message import Fields, Head, Pair, Request
from ..net.blocking import BlockingPort
from ..net.port import Port
from .errorpage import reason
from .exchange import NO_FIELDS, ExchangeBase, Upgraded, one_line
from .h1_body import H1Body

if TYPE_CHECKING:
    from .h1 import H1Connection

log = logging.getLogger(__name__)

CHUNKED_PIECE = 16 * 1024  # bytes decoded in one turn: they may be thousands of tiny chunks
FILE_PIECE = 16 * 1024  # bytes of a file that are cheaper copied behind the head than sent alone
MAX_DISCARD = 256 * 1024  # bytes of a body nobody wants that are read to keep the connection


class H1Exchange(ExchangeBase):
    """One request of a connection and its response."""

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_is_sound",
        "_port",
        "_read_before",
        "_sent_before",
        "_wants_continue",
    )

    def __init__(self, connection: H1Connection, request: Request, head_size: int) -> None:
        service = connection.service
        super().__init__(request, service.config.base, connection.port.gone, service.log)
        self._connection: H1Connection = connection
        self._body = H1Body(request) if request.content_length != 0 else None
        self._wants_continue = (
            self._body is not None
            and request.version == "HTTP/1.1"
            and request.fields.get("expect").lower() == "100-continue"
        )
        self._is_sound = True  # where the next request begins is known
        self._chunked = False
        self._port: BlockingPort | Port = connection.port
        self._sent_before = connection.sent
        self._read_before = connection.used - head_size

    @property
    def is_lost(self) -> bool:
        return self._connection.port.closed_why is not None

    # -- the request's body -----------------------------------------------------------------------

    def read(self) -> bytes:
        body = self._body
        if body is None or body.is_over:
            return b""
        while True:
            self._check_size(body)
            piece = body.take()
            if piece is not None:
                if not piece:
                    self._merge_trailers(body)
                return piece
            self._feed(body)

    def _check_size(self, body: H1Body) -> None:
        limit = self.settings.limits.max_request_size
        if limit and body.size > limit:
            raise PayloadTooLarge(f"body of at least {body.size} bytes, limit {limit}")

    def _feed(self, body: H1Body) -> None:
        connection = self._connection
        if not connection.received:
            if self._wants_continue and not connection.port.pending:
                self.inform(Head(100))
            connection.receive(self.settings.limits)
        elif body.length is None:
            connection.port.give_way()
        self._wants_continue = False
        size = CHUNKED_PIECE if body.length is None else len(connection.received)
        data, rest = connection.received[:size], connection.received[size:]
        connection.received = b""
        try:
            connection.received = body.feed(data) + rest
        except ForkdError:
            self._is_sound = False
            raise

    def _merge_trailers(self, body: H1Body) -> None:
        allowed = self._connection.service.config.server.features.trailer_whitelist
        pairs = [pair for pair in body.trailers if pair[0].lower() in allowed] if allowed else []
        if pairs:
            self.request = self.request._replace(fields=self.request.fields.plus(*pairs))

    def discard_body(self) -> bool:
        """Read what the handler has left of the body; False when the connection must end.

        Raises ClientGone.
        """
        allowance = MAX_DISCARD
        try:
            while allowance >= 0 and self._is_sound:
                piece = self.read()
                if not piece:
                    return True
                allowance -= len(piece)
        except ForkdError as error:
            log.debug("%s: unread body, %s", self.request.remote, error)
        return False

    # -- the response -----------------------------------------------------------------------------

    def inform(self, head: Head) -> None:
        if self.request.version == "HTTP/1.0" or self.started:
            return
        fields = [(one_line(name), one_line(value)) for name, value in head.fields]
        self._connection.write(head_bytes("HTTP/1.1", head.status, fields))
        self._connection.flush(self.settings.limits)

    def respond(self, head: Head) -> None:
        head = self._start(head)
        self._sends_body = self._may_have_body(head.status)
        fields = self._own_fields(head)
        self.keeps = self._may_keep()
        self._frame(head, fields)
        self._connection_field(head, fields)
        self._connection.write(head_bytes(self.request.version, head.status, fields))

    def _may_keep(self) -> bool:
        request, limits = self.request, self.settings.limits
        return (
            request.keep_alive
            and request.number < limits.max_keep_alive_requests
            and limits.max_keep_alive_idle > 0
            and not self._connection.service.draining
            and self._is_sound
            and self._body_may_be_discarded()
        )

    def _body_may_be_discarded(self) -> bool:
        body = self._body
        if body is None or body.is_over:
            return True
        limit = self.settings.limits.max_request_size
        if (limit and body.size > limit) or (body.left or 0) > MAX_DISCARD:
            return False
        # A client that waits for 100 Continue may send its body now or never.
        connection = self._connection
        return not self._wants_continue or bool(connection.received or connection.port.pending)

    def _frame(self, head: Head, fields: list[Pair]) -> None:
        """RFC 9112 section 6: how the client knows where the body ends."""
        if head.status in (204, 304):
            return
        if head.length is not None:
            fields.append(("Content-Length", str(head.length)))
            self._left = head.length
        elif self.request.version == "HTTP/1.1":
            if self._sends_body:
                fields.append(("Transfer-Encoding", "chunked"))
                self._chunked = True
        else:
            self.keeps = False

    def _connection_field(self, head: Head, fields: list[Pair]) -> None:
        options = []
        if not self.keeps:
            options.append("close")
        elif self.request.version == "HTTP/1.0":
            options.append("keep-alive")
        if "upgrade" in head.fields:  # RFC 9110 section 7.8
            options.append("upgrade")
        if options:
            fields.append(("Connection", ", ".join(options)))

    def write(self, data: bytes) -> None:
        if not self._sends_body or not data:
            return
        data = data[: self._due(len(data))]
        self._body_bytes += len(data)
        self._connection.write(_chunk(data) if self._chunked else data)
        if self._connection.is_worth_a_call:
            self._connection.flush(self.settings.limits)

    def send_file(self, fd: int, offset: int, length: int) -> None:
        if not self._sends_body or not length:
            return
        if self._chunked or length <= FILE_PIECE:
            self._copy_file(fd, offset, length)
            return
        length = self._due(length)
        self._connection.send_file(fd, offset, length, self.settings.limits)
        self._body_bytes += length

    def _copy_file(self, fd: int, offset: int, length: int) -> None:
        while length:
            piece = os.pread(fd, min(length, FILE_PIECE), offset)
            if not piece:
                raise EOFError("file is shorter than it was")
            self.write(piece)
            offset += len(piece)
            length -= len(piece)

    def finish(self, trailers: Fields = NO_FIELDS) -> None:
        if self.is_over:
            return
        self._check_whole()
        if self._chunked:
            self._connection.write(_last_chunk(trailers))
        self.is_over = True
        self._connection.flush(self.settings.limits)

    def abort(self, why: str) -> None:
        self.is_over = self._is_aborted = True
        self.keeps = False
        self._port.abort(why)

    # -- the upgrade ------------------------------------------------------------------------------

    def upgrade(self, head: Head) -> Upgraded:
        connection = self._connection
        head = self._start(head)
        fields = self._own_fields(head)
        if head.status == 101:  # not the 200 of a CONNECT
            fields.append(("Connection", "upgrade"))
        connection.write(head_bytes("HTTP/1.1", head.status, fields))
        connection.flush(self.settings.limits)
        self.is_upgraded = self.is_over = True
        log_end = self._tunnel_log()
        port, early = connection.detach()
        return Upgraded(port, early, log_end)

    def _bytes(self) -> tuple[int, int]:
        connection = self._connection
        return connection.used - self._read_before, connection.sent - self._sent_before


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _last_chunk(trailers: Fields) -> bytes:
    lines = [f"{one_line(name)}: {one_line(value)}" for name, value in trailers]
    return "\r\n".join(["0", *lines, "\r\n"]).encode("latin-1")


def head_bytes(version: str, status: int, fields: list[Pair]) -> bytes:
    lines = [f"{version} {status} {reason(status)}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1", "replace")
