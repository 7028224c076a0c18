"""What a gateway may do to a client: one request and its response, whatever the HTTP version.

``Exchange`` is the interface; ``ExchangeBase`` holds what the versions share: how a handler is run,
which fields go out, and what the access log is told.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple, Protocol

from gevent.event import Event

from ..accesslog import Ended, Entry, begin_line
from ..config.model import AccessLogSettings, RequestConfig
from ..errors import ClientGone
from ..message import Fields, Head, Pair, Request
from ..net.port import Port
from .errorpage import error_response

log = logging.getLogger(__name__)

NO_FIELDS = Fields()


class Exchange(Protocol):
    """One request.  All methods but ``abort`` are for the exchange's own greenlet; another one may
    ``read`` while that one answers.

    Every method that waits for the client raises ``ClientGone`` when it has left or was too slow
    (``max_read_idle``, ``max_write_idle``).
    """

    request: Request
    settings: RequestConfig
    """The global values until ``configure``."""
    gone: Event
    """Set when the client has left, or will at least send nothing more."""

    @property
    def is_lost(self) -> bool:
        """Whether the client has left for good, by a reset: an answer would reach nobody."""

    started: bool
    """Whether the final head has been sent."""
    on_head: Callable[[Head], Head]
    """Applied to the final head before it is sent: response hooks. ``handle`` sets it."""
    file_name: str
    """Physical path, for the access log; "" when none."""
    environment: tuple[Pair, ...]
    """What a gateway told its backend, for the access log."""

    def configure(self, settings: RequestConfig) -> None:
        """Called by ``handle`` as soon as it has selected *settings*.

        It may change ``request``: with ``server.protocol-http11`` off it becomes one of HTTP/1.0.
        """

    def read(self) -> bytes:
        """The next piece of the body, b"" at its end; asks for it with 100 Continue when needed.

        Raises BadRequest for bad framing, PayloadTooLarge as soon as it is known.
        """

    def inform(self, head: Head) -> None:
        """An interim response, 1xx; dropped for HTTP/1.0."""

    def respond(self, head: Head) -> None:
        """The final head.  Date, Server, Connection and the framing are added here."""

    def write(self, data: bytes) -> None:
        """A piece of the body; waits while the client is slow.  Ignored for HEAD, 204, 304."""

    def send_file(self, fd: int, offset: int, length: int) -> None:
        """A piece of the body from a regular file: sendfile on a plain socket."""

    def finish(self, trailers: Fields = NO_FIELDS) -> None:
        """The body is complete; *trailers* go behind it where the client's protocol has a place
        for them.  A body shorter than ``Head.length`` is an ``abort``."""

    def upgrade(self, head: Head) -> Upgraded:
        """Send 101 (or 200 for HTTP/2); the client's end is the caller's from here."""

    def abort(self, why: str) -> None:
        """What was promised cannot be kept: close or reset."""


class Upgraded(NamedTuple):
    """What an exchange leaves behind when it has become a tunnel."""

    port: Port
    early: bytes
    """What the client has sent behind its request."""
    log: Callable[[int, int], None]
    """To be called with the tunnel's bytes, in and out, when it has ended: the access line."""


Handler = Callable[[Exchange], None]
Log = Callable[[AccessLogSettings, Entry | Ended], None]

# RFC 9110 section 7.6.1 and RFC 9112 section 6: the connection's own, added where they are due.
_OF_THE_CONNECTION = frozenset(
    {"connection", "content-length", "keep-alive", "proxy-connection", "transfer-encoding"}
)
_LINE_ENDS = str.maketrans("\r\n\0", "   ")
_BODILESS = frozenset({204, 304})  # RFC 9110 section 6.4.1


class ExchangeBase(Exchange):
    """State and decisions that all versions share; a version adds the wire."""

    __slots__ = (
        "_body_bytes",
        "_clock",
        "_fields",
        "_is_aborted",
        "_left",
        "_log",
        "_sends_body",
        "_status",
        "environment",
        "file_name",
        "gone",
        "is_over",
        "is_upgraded",
        "keeps",
        "on_head",
        "request",
        "settings",
        "started",
    )

    def __init__(self, request: Request, settings: RequestConfig, gone: Event, log: Log) -> None:
        self.request = request
        self.gone = gone
        self.started = False
        self.on_head: Callable[[Head], Head] = unchanged
        self.file_name = ""
        self.environment: tuple[Pair, ...] = ()
        self.configure(settings)
        self.is_over = False
        """Nothing more will be written."""
        self.is_upgraded = False
        self.keeps = False
        """Whether the response has promised another one."""
        self._is_aborted = False
        self._sends_body = False
        self._left: int | None = None  # bytes of the body that the head has promised
        self._log = log
        self._clock = time.monotonic()
        self._status = 0
        self._fields: list[Pair] = []
        self._body_bytes = 0

    def configure(self, settings: RequestConfig) -> None:
        self.settings = settings
        request = self.request
        if not settings.limits.protocol_http11 and request.version == "HTTP/1.1":
            fields = request.fields.without("upgrade")
            self.request = request._replace(version="HTTP/1.0", keep_alive=False, fields=fields)

    # -- from its beginning to its end ------------------------------------------------------------

    def run(self, handle: Handler) -> None:
        """Let *handle* answer; whatever it does, the exchange is over and logged after it.

        Raises ClientGone.
        """
        mark = "X"
        try:
            handle(self)
            if not self.is_upgraded:
                self._complete()
                mark = "X" if self._is_aborted else "+" if self.keeps else "-"
        except ClientGone as gone:
            if self.started and not self.is_over:
                self.abort(str(gone))  # a half of a response must not look whole
            raise
        except Exception:
            log.exception("%s: %s failed", self.request.remote, self.request.path)
            self._fail()
        finally:
            if not self.is_upgraded:
                self._write_log(mark)
            self.on_head = unchanged  # it knows the exchange: a circle that only the collector ends

    def _complete(self) -> None:
        """What a handler has left open."""
        if self.is_over:
            return
        if self.started:
            self.finish()
        else:
            self._respond_error(500)

    def _fail(self) -> None:
        if self.started:
            self.abort("internal error")
        else:
            self.on_head = unchanged
            self._respond_error(500)

    def _respond_error(self, status: int) -> None:
        head, body = error_response(status, self.settings.errors)
        self.respond(head)
        self.write(body)
        self.finish()

    # -- the head ---------------------------------------------------------------------------------

    def _start(self, head: Head) -> Head:
        """The final head after its hooks; from here on the response is under way."""
        if self.started:
            raise RuntimeError("a second final head")
        head = self.on_head(head)
        self.started = True
        self._status = head.status
        return head

    def _may_have_body(self, status: int) -> bool:
        return status not in _BODILESS and self.request.method != "HEAD"

    def _own_fields(self, head: Head) -> list[Pair]:
        """The fields of *head* as they may go out, with Date and Server."""
        fields = [
            (one_line(name), one_line(value))
            for name, value in head.fields
            if name.lower() not in _OF_THE_CONNECTION
        ]
        if "date" not in head.fields:
            fields.append(("Date", http_date_now()))
        tag = self.settings.server_tag
        if tag and "server" not in head.fields:
            fields.append(("Server", tag))
        self._fields = fields
        return fields

    # -- the body ---------------------------------------------------------------------------------

    def _due(self, length: int) -> int:
        """How many of *length* bytes more the head has room for; they are counted as sent."""
        if self._left is not None:
            length = min(length, self._left)
            self._left -= length
        return length

    def _check_whole(self) -> None:
        """Raises ClientGone, aborted, when the head has promised more than there is."""
        if self._sends_body and self._left:
            self.abort(f"response ends {self._left} bytes short")
            raise ClientGone("response cut short")

    # -- the access log ---------------------------------------------------------------------------

    @abstractmethod
    def _bytes(self) -> tuple[int, int]:
        """(received, sent) for this exchange so far."""

    def _entry(self, mark: str, body_bytes: int) -> Entry:
        request = self.request
        bytes_in, bytes_out = self._bytes()
        return Entry(
            request=request,
            connection=request.connection,
            status=self._status,
            body_bytes=body_bytes,
            started=request.started,
            duration=time.monotonic() - self._clock,
            mark=mark,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            response_fields=Fields(self._fields),
            file_name=self.file_name,
            server_name=self.settings.server_name,
            environment=self.environment,
            number=request.number,
        )

    def _write_log(self, mark: str) -> None:
        self._log(self.settings.access_log, self._entry(mark, self._body_bytes))

    def _tunnel_log(self) -> TunnelLog:
        """For an upgrade that has been answered."""
        settings = self.settings.access_log
        entry = self._entry("-", 0)
        begun = begin_line(settings, entry)
        known = (self._log, settings, entry.status, entry.bytes_in, entry.bytes_out)
        return TunnelLog(*known, begun, self._clock) if begun else _unwritten(*known)


@dataclass(frozen=True, slots=True)
class TunnelLog:
    """Ends the access line of an upgraded exchange.  Small: it lives as long as its tunnel."""

    log: Log
    settings: AccessLogSettings
    status: int
    bytes_in: int
    bytes_out: int
    begun: str = ""
    clock: float = 0.0

    def __call__(self, bytes_in: int, bytes_out: int) -> None:
        ended = Ended(
            begun=self.begun,
            status=self.status,
            body_bytes=bytes_out,
            bytes_in=self.bytes_in + bytes_in,
            bytes_out=self.bytes_out + bytes_out,
            duration=time.monotonic() - self.clock,
            ended=time.time(),
        )
        self.log(self.settings, ended)


_unwritten = lru_cache(maxsize=64)(TunnelLog)
"""For the counters alone; tunnels that are alike share it."""


def unchanged(head: Head) -> Head:
    """No hook."""
    return head


def one_line(text: str) -> str:
    """*text* with a blank for each CR, LF and NUL: it is to stay in its own field."""
    return text if text.isprintable() else text.translate(_LINE_ENDS)


_date: tuple[int, str] = (-1, "")


def http_date_now() -> str:
    """The time as an HTTP date (RFC 9110 section 5.6.7), made once a second."""
    global _date
    now = int(time.time())
    second, text = _date
    if now != second:
        text = formatdate(now, usegmt=True)
        _date = (now, text)
    return text
