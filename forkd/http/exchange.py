"""What a gateway may do to a client: one request and its response, whatever the HTTP version.

``Exchange`` is the interface; ``ExchangeBase`` holds what the versions share: which fields go out,
and what the access log is told.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import NamedTuple, Protocol

from gevent.event import Event

from ..accesslog import Entry
from ..address import Address
from ..config.model import AccessLogSettings, RequestConfig
from ..message import ConnInfo, Fields, Head, Pair, Request
from ..net.port import Port

NO_FIELDS = Fields()


class Exchange(Protocol):
    """One request.  All methods but ``abort`` are for the exchange's own greenlet; another one may
    ``read`` while that one answers.

    Every method that waits for the client raises ``ClientGone`` when it has left or was too slow
    (``max_read_idle``, ``max_write_idle``).
    """

    request: Request
    settings: RequestConfig
    """Set by ``handle`` as soon as it has selected; until then the global values.  Setting it may
    change ``request``: with ``server.protocol-http11`` off it becomes one of HTTP/1.0."""
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
Log = Callable[[AccessLogSettings, Entry], None]

# RFC 9110 section 7.6.1 and RFC 9112 section 6: the connection's own, added where they are due.
_OF_THE_CONNECTION = frozenset(
    {"connection", "content-length", "keep-alive", "proxy-connection", "transfer-encoding"}
)
_LINE_ENDS = str.maketrans("\r\n\0", "   ")
_BODILESS = frozenset({204, 304})  # RFC 9110 section 6.4.1
_LOGGED_FIELD = re.compile(r"%\{([^}]+)\}([iC])")


class ExchangeBase:
    """State and decisions that all versions share; a version adds the wire."""

    __slots__ = (
        "_body_bytes",
        "_clock",
        "_fields",
        "_log",
        "_settings",
        "_status",
        "environment",
        "file_name",
        "gone",
        "on_head",
        "request",
        "started",
    )

    def __init__(self, request: Request, settings: RequestConfig, gone: Event, log: Log) -> None:
        self.request = request
        self.gone = gone
        self.started = False
        self.on_head: Callable[[Head], Head] = unchanged
        self.file_name = ""
        self.environment: tuple[Pair, ...] = ()
        self.settings = settings
        self._log = log
        self._clock = time.monotonic()
        self._status = 0
        self._fields: list[Pair] = []
        self._body_bytes = 0

    @property
    def settings(self) -> RequestConfig:
        return self._settings

    @settings.setter
    def settings(self, settings: RequestConfig) -> None:
        self._settings = settings
        request = self.request
        if not settings.limits.protocol_http11 and request.version == "HTTP/1.1":
            fields = request.fields.without("upgrade")
            self.request = replace(request, version="HTTP/1.0", keep_alive=False, fields=fields)

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
        tag = self._settings.server_tag
        if tag and "server" not in head.fields:
            fields.append(("Server", tag))
        self._fields = fields
        return fields

    # -- the access log ---------------------------------------------------------------------------

    def _entry(self, mark: str, bytes_in: int, bytes_out: int, body_bytes: int) -> Entry:
        request = self.request
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
            server_name=self._settings.server_name,
            environment=self.environment,
            number=request.number,
        )

    def _write_log(self, mark: str, bytes_in: int, bytes_out: int, body_bytes: int) -> None:
        entry = self._entry(mark, bytes_in, bytes_out, body_bytes)
        self._log(self._settings.access_log, entry)

    def _tunnel_log(self, bytes_in: int, bytes_out: int) -> TunnelLog:
        """For an upgrade whose head and answer took so many bytes."""
        settings = self._settings.access_log
        entry = self._entry("-", bytes_in, bytes_out, 0)
        return TunnelLog(self._log, settings, shrunk(entry, settings), self._clock)


class TunnelLog:
    """Writes the access line of an upgraded exchange.  Small: it lives as long as its tunnel."""

    __slots__ = ("_clock", "_entry", "_log", "_settings")

    def __init__(self, log: Log, settings: AccessLogSettings, entry: Entry, clock: float) -> None:
        self._log = log
        self._settings = settings
        self._entry = entry
        self._clock = clock

    def __call__(self, bytes_in: int, bytes_out: int) -> None:
        entry = self._entry
        entry = replace(
            entry,
            body_bytes=bytes_out,
            bytes_in=entry.bytes_in + bytes_in,
            bytes_out=entry.bytes_out + bytes_out,
            duration=time.monotonic() - self._clock,
        )
        self._log(self._settings, entry)


def shrunk(entry: Entry, settings: AccessLogSettings) -> Entry:
    """*entry* without what no line of *settings* can want."""
    if not settings.filename and not settings.use_syslog or entry.request is None:
        return replace(
            entry,
            request=None,
            connection=_UNKNOWN,
            response_fields=NO_FIELDS,
            file_name="",
            environment=(),
        )
    names = _LOGGED_FIELD.findall(settings.format)
    wanted = {"cookie" if code == "C" else name.lower() for name, code in names}
    fields = Fields(pair for pair in entry.request.fields if pair[0].lower() in wanted)
    text = settings.format
    return replace(
        entry,
        request=entry.request.with_fields(fields),
        response_fields=entry.response_fields if "}o" in text else NO_FIELDS,
        file_name=entry.file_name if "%f" in text else "",
        environment=entry.environment if "}e" in text or "}n" in text else (),
    )


_UNKNOWN = ConnInfo(Address(""), Address(""), Address(""))


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
