"""HTTP/2 towards clients (RFC 9113): many requests at one time on one connection.

The connection lives in callbacks of its port: bytes go to ``protocol.http2``, each request gets a
greenlet, a tunnel keeps none.  Whatever all streams have to say in one turn of the loop leaves in
one write, and when that is more than the client takes, in the order of their priorities.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import gevent
from gevent import get_hub
from gevent.event import Event

from ..accesslog import Entry
from ..errors import ClientGone, ForkdError
from ..message import ConnInfo, Fields, Pair, Request
from ..net.blocking import BlockingPort
from ..net.port import HIGH_WATER, Port
from ..protocol.h2_fields import H2Head
from ..protocol.h2_frames import ErrorCode
from ..protocol.h2_quiet import MAX_STREAM
from ..protocol.h2_stream import Stream, StreamListener
from ..protocol.http2 import Http2
from ..protocol.request import make_request
from ..protocol.tunnel import Buffer
from .connection import Service
from .errorpage import error_response
from .exchange import Handler, http_date_now
from .h2_exchange import H2Exchange
from .stream_port import StreamPort

log = logging.getLogger(__name__)

LINGER = 5.0  # seconds for the client to read the last frames
LOOK = 1.0  # seconds between two looks at an idle connection
FAREWELL = 1.0  # seconds that a PING of a drain may take (decisions 13)
STUFFED = 2 * HIGH_WATER  # bytes of output that nobody takes: no more is read that asks for some
TURN = 8 * 1024  # bytes of an incremental response before the next one's turn; as lighttpd
_FAREWELL_PING = b"farewell"


class H2Connection:
    """One connection.  ``serve`` is its greenlet, which only waits."""

    def __init__(self, port: BlockingPort, info: ConnInfo, service: Service) -> None:
        self.service = service
        server = service.config.server
        self.http2 = Http2(self, server.http2_max_streams, server.max_request_field_size)
        self._blocking = port
        self._port: Port = port.port
        self._info = info
        self._handle: Handler | None = None
        self._number = 0
        self._ports: dict[int, StreamPort] = {}
        self._queued: dict[StreamPort, None] = {}  # in the order of their turns
        self.wakes = False
        """What there is to write will be written soon."""
        self.is_full = False
        """The client takes no more for now."""
        self._has_more = False  # queues that had to leave some for the next turn
        self._is_stuffed = False
        self._is_leaving = False  # closed when the last stream is over
        self._at_eof = False
        self._is_draining = False
        self._is_closed = False
        self._idle_since = time.monotonic()
        self._timer: Any = None
        self._over = Event()

    # -- from its beginning to its end ------------------------------------------------------------

    def upgrade(self, theirs: bytes, head: H2Head, handle: Handler) -> None:
        """Serve a connection that was one of HTTP/1.1; as ``Http2.upgrade``."""
        self._handle = handle
        self.http2.upgrade(theirs, head)
        self.serve(handle)

    def serve(self, handle: Handler) -> None:
        """Until the connection is over."""
        self._handle = handle
        self.service.connections.add(self)
        try:
            self._begin()
            while not self._over.wait(LOOK):
                self.http2.forgive()
                self._look_for_idleness()
        except ClientGone:  # a stop
            self._cut()
        except BaseException:
            self._port.abort("internal error")
            raise
        finally:
            self.service.connections.discard(self)

    def _begin(self) -> None:
        port, early = self._blocking.detach()
        port.attach(self)
        if early:
            self.on_data(early)
        self.wake()
        if self.service.draining:
            self.drain()

    def _look_for_idleness(self) -> None:
        limits = self.service.config.base.limits
        patience = limits.max_keep_alive_idle if self._number else limits.max_read_idle
        if not self._ports and time.monotonic() - self._idle_since > patience:
            self._leave()

    def close_if_idle(self) -> None:
        if not self._ports:
            self._leave()

    def drain(self) -> None:
        """No more requests than those that are already on their way (RFC 9113 section 6.8)."""
        if self._is_draining or self._is_leaving or self._is_closed:
            return
        self._is_draining = True
        self.http2.go_away(MAX_STREAM)
        self.http2.ping(_FAREWELL_PING)
        self.wake()
        self._timer = get_hub().loop.timer(FAREWELL)
        self._timer.start(self._leave, update=True)

    def _leave(self) -> None:
        """Take no more streams; close when those that there are have ended."""
        self._stop_timer()
        if not self._is_leaving and not self._is_closed:
            self._is_leaving = True
            self.http2.go_away(self.http2.highest)
            self.wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _cut(self) -> None:
        """Requests are over; tunnels have been told, and have a moment left to say so."""
        self._leave()
        for port in list(self._ports.values()):
            if not port.is_tunnel:
                port.abort("stop")
        self.wake()

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._stop_timer()
            self._end_streams("connection closed")
            self._port.close(LINGER)
            self._over.set()

    def _end_streams(self, why: str) -> None:
        for port in list(self._ports.values()):
            port.on_reset(why)

    # -- the port ---------------------------------------------------------------------------------

    def on_data(self, data: Buffer) -> None:
        if not self._is_closed:
            self.wakes = True  # it comes when all has been heard
            self.http2.receive(data)
            self.wakes = False
            self._flush()

    def on_eof(self) -> None:
        """Nothing more can come: what needs the client is over, answers may still reach it."""
        self._is_leaving = self._at_eof = True
        for port in list(self._ports.values()):
            if port.is_tunnel or not port.stream.has_ended:
                port.abort("connection closed")
        self.wake()

    def on_drain(self) -> None:
        self.is_full = False
        if self._is_stuffed:
            self._is_stuffed = False
            self._port.resume()
        self._flush()

    def on_close(self, why: str) -> None:
        self._is_closed = True
        self._stop_timer()
        self._end_streams(why or "connection closed")
        self._over.set()

    # -- what the client says ---------------------------------------------------------------------

    def on_request(self, stream: Stream, head: H2Head) -> StreamListener:
        port = self._ports[stream.id] = StreamPort(self, stream)
        if len(self._ports) > 1 and not self.service.has_room():
            port.abort_code = ErrorCode.REFUSED_STREAM  # it may try again (RFC 9113 section 8.7)
            port.abort("connection limit")
            return port
        number = self._number
        self._number += 1
        now = time.time()
        try:
            if head.refusal is not None:
                raise head.refusal
            request = self._request(stream, head, number, now)
        except ForkdError as error:
            self._refuse(port, head, error, number, now)
            return port
        self.service.streams += 1
        gevent.spawn(self._run, port, request)
        if self._number > self.service.config.base.limits.max_keep_alive_requests:
            self.drain()
        return port

    def _request(self, stream: Stream, head: H2Head, number: int, now: float) -> Request:
        options = self.service.config.server.parse_options
        return make_request(
            head.head,
            self._info,
            options,
            number=number,
            started=now,
            has_ended=stream.has_ended,
            protocol=head.protocol,
        )

    def _run(self, port: StreamPort, request: Request) -> None:
        assert self._handle is not None
        try:
            if port.closed_why is not None:  # reset before its turn came
                return
            size = sum(len(name) + len(value) for name, value in request.fields)
            H2Exchange(port, request, self.service, size).run(self._handle)
        except ClientGone as gone:
            log.debug("%s: %s", request.remote, gone)
            port.abort(str(gone))
        finally:
            self.service.streams -= 1

    def _refuse(
        self, port: StreamPort, asked: H2Head, error: ForkdError, number: int, now: float
    ) -> None:
        """Answer a request that cannot be understood, or not be served by anybody."""
        settings = self.service.config.base
        head, body = error_response(error.status, settings.errors, error.fields)
        if asked.head.method == "HEAD":
            body = b""
        fields: list[Pair] = [(name.lower(), value) for name, value in head.fields]
        fields += [("content-length", str(len(body))), ("date", http_date_now())]
        if settings.server_tag:
            fields.append(("server", settings.server_tag))
        log.debug("%s: refused, %s", self._info.peer, error)
        size = port.send_head(error.status, fields, ended=not body)
        port.write(body)
        port.close(0)
        entry = Entry(
            request=None,
            connection=self._info,
            status=error.status,
            body_bytes=len(body),
            started=now,
            duration=0.0,
            bytes_in=0,
            bytes_out=size + len(body),
            response_fields=Fields(fields),
            server_name=settings.server_name,
            number=number,
            line=(asked.head.method, asked.head.target, "HTTP/2.0"),
        )
        self.service.log(settings.access_log, entry)

    def on_window(self) -> None:
        self.wake()

    def on_ping(self, data: bytes) -> None:
        if data == _FAREWELL_PING and self._is_draining:
            self._leave()

    def on_goaway(self) -> None:
        self._is_leaving = True

    # -- what the streams say ---------------------------------------------------------------------

    def wake(self) -> None:
        if not self.wakes:
            self.wakes = True
            get_hub().loop.run_callback(self._woken)

    def _woken(self) -> None:
        self.wakes = False
        self._flush()

    def queue(self, port: StreamPort) -> None:
        self._queued[port] = None
        self.wake()

    def left(self, port: StreamPort) -> None:
        self._queued.pop(port, None)
        if self._ports.pop(port.stream.id, None) is not None and not self._ports:
            self._idle_since = time.monotonic()
            if self._is_leaving:
                self.wake()

    # -- writing ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write what there is to say, and nothing else this turn."""
        if self._is_closed:
            return
        drained = self._fill() if self._queued and not self.is_full else ()
        if self.http2.out and not self._port.write(self.http2.take()):
            self.is_full = True
            if self._port.queued > STUFFED and not self._is_stuffed:
                self._is_stuffed = True
                self._port.pause()
        for port in drained:
            port.drained()
        if self._at_eof:
            self._end_stuck()
        if self._has_more:
            self._has_more = False
            if not self._port.queued:  # else ``on_drain`` comes
                self.wake()
        if self.http2.error is not None:
            log.debug("%s: %s", self._info.peer, self.http2.error)
            self._close()
        elif self._is_leaving and not self._ports and not self.http2.out:
            self._close()  # else whoever was drained has ended by now, and its end goes out first

    def _end_stuck(self) -> None:
        """Answers that wait for credit: none can come any more."""
        for port in list(self._queued):
            if min(port.stream.room, self.http2.room) <= 0:
                port.abort("connection closed")

    def _fill(self) -> list[StreamPort]:
        """Give the queues their turns; those that have run empty."""
        room = HIGH_WATER - self._port.queued - len(self.http2.out)
        for rivals in _rounds(self._queued):
            if room <= 0:
                break
            room -= self._share(rivals, room)
        self._has_more = room <= 0
        empty = [port for port in self._queued if not port.queued]
        for port in empty:
            self._queued.pop(port, None)
        return empty

    def _share(self, rivals: list[StreamPort], room: int) -> int:
        """*rivals* take turns until all are empty or stuck, or *room* is used up."""
        used = 0
        while rivals and used < room:
            for port in tuple(rivals):
                sent = port.fill(min(TURN, room - used))
                used += sent
                if port in self._queued:  # it has had its turn
                    self._queued[port] = self._queued.pop(port)
                if not sent or not port.queued:
                    rivals.remove(port)
                if used >= room:
                    break
        return used


def _rounds(ports: Iterable[StreamPort]) -> Iterator[list[StreamPort]]:
    """Who is to share at a time: urgent ones before the rest; of one urgency whole responses in the
    order of the requests, the first together with all that share, or a tunnel would be silent until
    the last of them.  Those keep the order of their turns (sorting is stable)."""
    for _, group in groupby(sorted(ports, key=_urgency), key=_urgency):
        sharing: list[StreamPort] = []
        whole: list[StreamPort] = []
        for port in group:
            (sharing if port.stream.priority.incremental else whole).append(port)
        whole.sort(key=lambda port: port.stream.id)
        yield [*whole[:1], *sharing]
        for port in whole[1:]:
            yield [port]


def _urgency(port: StreamPort) -> int:
    return port.stream.priority.urgency



