"""HTTP/1.1 and 1.0 towards clients (RFC 9112): one request after another on one connection.

Heads are read by the strict gate, bodies by h11 behind the chunk gate (``h1_body``); what goes out
is written here.  Output is held back until it is worth a system call or until the greenlet gives
way, so a head and a small body leave in one piece.
"""

from __future__ import annotations

import logging
import time

from gevent import get_hub

from ..accesslog import Entry
from ..config.model import Limits
from ..errors import BadRequest, ClientGone, ForkdError, HeadTooLarge
from ..message import ConnInfo, Fields, Pair, Request
from ..net.blocking import BlockingPort
from ..net.port import Port
from ..protocol.request import make_request
from ..protocol.strict_head import find_end, parse_head, request_line
from . import h2c
from .connection import Service
from .errorpage import error_response
from .exchange import Handler, http_date_now
from .h1_exchange import H1Exchange, head_bytes
from .h2 import H2Connection

log = logging.getLogger(__name__)

HOLD = 16 * 1024  # bytes of output that may wait for more
LINGER = 5.0  # seconds for the client to read an answer that it did not wait for (core.md 3)
SHORT_LINGER = 1.0  # where nothing is on its way to the client
PLAIN_HTTP = "A plain HTTP request came to a port that speaks HTTPS: use https:// in the URL."


class H1Connection:
    """One connection.  ``serve`` is its greenlet; the exchange of the moment uses the rest."""

    def __init__(self, port: BlockingPort, info: ConnInfo, service: Service) -> None:
        self.port = port
        self.service = service
        self.received = b""
        """Bytes that came and that nobody has used yet."""
        self.sent = 0
        """Bytes written so far, held ones included."""
        self.limits = service.config.base.limits
        """Of the latest request."""
        self._info = info
        self._number = 0
        self._waits = False
        self._came = 0
        self._held: list[bytes] = []
        self._held_size = 0
        self._flush_is_due = False
        features = service.config.server.features
        self._may_offer = features.h2c and features.h2proto and not info.tls
        self._offer: h2c.Offer | None = None

    @property
    def used(self) -> int:
        """Bytes received and used so far."""
        return self._came - len(self.received)

    # -- one request after another ----------------------------------------------------------------

    def serve(self, handle: Handler) -> None:
        """Until the connection is over, or its port belongs to a tunnel."""
        self.service.connections.add(self)
        try:
            while self._serve_one(handle):
                self._number += 1
        except ClientGone as gone:
            log.debug("%s: %s", self._info.peer, gone)
            self.port.close(SHORT_LINGER)
        except BaseException:
            self.port.abort("internal error")
            raise
        finally:
            self.service.connections.discard(self)

    def _serve_one(self, handle: Handler) -> bool:
        """Whether another request may follow.  Raises ClientGone."""
        try:
            raw = self._read_head()
        except ForkdError as error:
            raw, self.received = self.received, b""
            self._refuse(raw, error)
            return False
        if not raw:
            self.port.close(SHORT_LINGER)
            return False
        try:
            request = self._request(raw)
        except ForkdError as error:
            self._refuse(raw, error)
            return False
        if self._offer is not None:
            self._go_on_in_http2(self._offer, handle)
            return False
        exchange = H1Exchange(self, request, len(raw))
        exchange.run(handle)
        self.limits = exchange.settings.limits
        if exchange.is_upgraded:
            return False
        if exchange.keeps and exchange.discard_body():
            self._await_taken()
            if self.received or self.port.pending:
                self.port.give_way()
            return True
        self.port.close(LINGER)
        return False

    def refuse_plain(self) -> None:
        """The client has begun a request where a TLS handshake was due."""
        try:
            raw = self._read_head()
            if raw:
                self._refuse(raw, BadRequest("HTTP on a TLS port"), PLAIN_HTTP)
            else:
                self.port.close(SHORT_LINGER)
        except ForkdError as error:
            self._refuse(self.received, error, PLAIN_HTTP)
        except ClientGone:
            self.port.close(SHORT_LINGER)

    def _request(self, raw: bytes) -> Request:
        options = self.service.config.server.parse_options
        head = parse_head(raw, options.header_strict)
        now = time.time()
        request = make_request(head, self._info, options, number=self._number, started=now)
        if self._may_offer and len(head.fields) > 2:
            self._offer = h2c.offer(head, request)
        return request

    def _go_on_in_http2(self, offer: h2c.Offer, handle: Handler) -> None:
        self.write(h2c.SWITCHING)
        self.flush(self.limits)
        self.service.connections.discard(self)
        self.port.unread(self.received)
        H2Connection(self.port, self._info, self.service).upgrade(*offer, handle)

    def drain(self) -> None:
        """The next response says that it is the last one."""

    def close_if_idle(self) -> None:
        if self._waits:
            self.port.close(SHORT_LINGER)

    # -- the request head -------------------------------------------------------------------------

    def _read_head(self) -> bytes:
        """The next complete head; b"" when none comes.  Raises BadRequest, HeadTooLarge."""
        limit = self.service.config.server.max_request_field_size
        timeout = self.limits.max_keep_alive_idle if self._number else self.limits.max_read_idle
        may_skip = self._number > 0  # one blank line behind a request before (core.md 4)
        searched = 0
        while True:
            if searched == len(self.received):
                if not self._receive_head(timeout):
                    return b""
                timeout = self.limits.max_read_idle
            data = self.received
            if may_skip and data[:2] == b"\r\n":
                self.received, searched, may_skip = data[2:], 0, False
                continue
            if data[0] < 0x20 and not (may_skip and data == b"\r"):
                raise BadRequest("head begins with a control character")
            end = find_end(data, searched)
            if (end if end >= 0 else len(data)) > limit:
                raise HeadTooLarge(f"head of more than {limit} bytes")
            if end >= 0:
                self.received = data[end:]
                return data[:end]
            searched = len(data)

    def _receive_head(self, timeout: float) -> bool:
        self._waits = not self.received
        try:
            return self._receive_more(timeout)
        finally:
            self._waits = False

    def _receive_more(self, timeout: float) -> bool:
        """Whether bytes came within *timeout* seconds.  Raises ClientGone."""
        try:
            data = self.port.recv(timeout)
        except TimeoutError as error:
            self._trace_timeout(error)
            return False
        self._came += len(data)
        self.received += data
        return bool(data)

    def _refuse(self, raw: bytes, error: ForkdError, why: str = "") -> None:
        """Answer a head that makes no request, and close: what follows cannot be understood.

        *why* is told to the client.
        """
        settings = self.service.config.base
        line = request_line(raw)
        head, body = error_response(error.status, settings.errors, error.fields, why)
        version = line[2] if line[2] and not isinstance(error, HeadTooLarge) else "HTTP/1.0"
        fields: list[Pair] = [*head.fields, ("Content-Length", str(len(body)))]
        fields += [("Connection", "close"), ("Date", http_date_now())]
        if settings.server_tag:
            fields.append(("Server", settings.server_tag))
        body = b"" if line[0] == "HEAD" else body
        before = self.sent
        self.write(head_bytes(version, error.status, fields) + body)
        debug = settings.debug
        if debug.request_header or debug.request_header_on_error:
            log.info("%s: refused, %s: %r", self._info.peer, error, raw)
        else:
            log.debug("%s: refused, %s", self._info.peer, error)
        entry = Entry(
            request=None,
            connection=self._info,
            status=error.status,
            body_bytes=len(body),
            started=time.time(),
            duration=0.0,
            bytes_in=len(raw),
            bytes_out=self.sent - before,
            response_fields=Fields(fields),
            server_name=settings.server_name,
            number=self._number,
            line=line,
        )
        self.service.log(settings.access_log, entry)
        self.flush(self.limits)
        self.port.close(LINGER)

    # -- bytes, for the exchange ------------------------------------------------------------------

    def receive(self, limits: Limits) -> None:
        """Wait for more of a body.  Raises ClientGone at its end, or when it takes too long."""
        if not self._receive_more(limits.max_read_idle):
            raise ClientGone("request body did not arrive")

    def write(self, data: bytes) -> None:
        """Hold *data* until ``flush``, or until the greenlet waits for something."""
        self.sent += len(data)
        self._held.append(data)
        self._held_size += len(data)
        if not self._flush_is_due:
            self._flush_is_due = True
            get_hub().loop.run_callback(self._flush_now)

    @property
    def is_worth_a_call(self) -> bool:
        return self._held_size >= HOLD

    def flush(self, limits: Limits) -> None:
        """Send what is held; waits while the client is slow.  Raises ClientGone."""
        if self._held:
            data = self._take_held()
            try:
                self.port.send(data, limits.max_write_idle)
            except TimeoutError as error:
                self._too_slow(error)

    def _flush_now(self) -> None:
        """In the hub: the greenlet waits for somebody else, the client need not."""
        self._flush_is_due = False
        if self._held and self.port.closed_why is None:
            self.port.port.write(self._take_held())

    def _take_held(self) -> bytes:
        data = b"".join(self._held) if len(self._held) > 1 else self._held[0]
        self._held.clear()
        self._held_size = 0
        return data

    def send_file(self, fd: int, offset: int, length: int, limits: Limits) -> None:
        """Behind what is held.  Raises ClientGone; EOFError when the file ends early."""
        self.flush(limits)
        try:
            self.port.send_file(fd, offset, length, limits.max_write_idle)
        except TimeoutError as error:
            self._too_slow(error)
        self.sent += length

    def _await_taken(self) -> None:
        """The time between requests begins when the client has the answer."""
        if self.port.port.queued:
            try:
                self.port.drain(self.limits.max_write_idle)
            except TimeoutError as error:
                self._too_slow(error)

    def _too_slow(self, error: TimeoutError) -> None:
        self._trace_timeout(error)
        self.port.abort("write timeout")
        raise ClientGone(str(error)) from error

    def _trace_timeout(self, error: TimeoutError) -> None:
        if self.service.config.base.debug.timeouts:
            log.info("%s: closed, %s", self._info.peer, error)

    def detach(self) -> tuple[Port, bytes]:
        port, unread = self.port.detach()
        return port, self.received + unread
