"""The port of one HTTP/2 stream: what a request's greenlet reads and writes, later a tunnel.

Reading is held up by withholding credit: what a paused port gets is at most one stream window, and
the client may send as much again only when somebody has taken it.  Writing is held up by the
windows of the client and by the connection, whose turn it is to ask for more (``fill``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from gevent import get_hub

from ..message import Pair
from ..net.port import HIGH_WATER, Listener
from ..protocol.h2_frames import ErrorCode
from ..protocol.h2_sender import CREDIT
from ..protocol.h2_stream import Stream
from ..protocol.http2 import Http2
from ..protocol.tunnel import Buffer

log = logging.getLogger(__name__)

STUCK = 5.0  # seconds for which what is queued waits for credit where nobody else sees to it


class Carrier(Protocol):
    """The connection, as its streams see it."""

    http2: Http2
    is_full: bool
    """The client takes no more for now."""
    wakes: bool
    """What there is to write will be written soon."""

    def wake(self) -> None:
        """There is something to write."""

    def queue(self, port: StreamPort) -> None:
        """*port* has bytes that wait for their turn."""

    def left(self, port: StreamPort) -> None:
        """*port* is closed."""


class StreamPort:
    """One stream as a ``net.port.Port``, and as the ``StreamListener`` of its connection."""

    __slots__ = (
        "_carrier", "_end_told", "_is_closing", "_last", "_linger", "_listener", "_out",
        "_owed", "_paused", "_pending", "_timer", "_why", "abort_code", "bytes_in", "bytes_out",
        "is_tunnel", "queued", "stream",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, stream: Stream) -> None:
        self.stream = stream
        self.is_tunnel = False
        """Written bytes need not wait for the connection's next turn."""
        self.abort_code = ErrorCode.INTERNAL_ERROR
        self.bytes_in = 0
        self.bytes_out = 0
        self.queued = 0
        self._carrier = carrier
        self._listener: Listener | None = None
        self._paused = True
        self._pending: bytearray | None = None  # came while nobody read
        self._owed = 0  # taken by a listener that has then had enough
        self._end_told = False
        self._out: bytearray | None = None
        self._last: Sequence[Pair] | None = None  # trailers; END_STREAM is behind what is queued
        self._is_closing = False
        self._linger = 0.0
        self._timer: Any = None
        self._why: str | None = None  # why it is closed

    @property
    def closed_why(self) -> str | None:
        """Why the port is closed, "" after ``close``; None while it is open."""
        return self._why

    def attach(self, listener: Listener) -> None:
        self._listener = listener
        self.bytes_in = self.bytes_out = 0
        if self._why is not None:
            get_hub().loop.run_callback(listener.on_close, self._why)
            return
        self._end_told = False
        self._paused = True
        self.resume()

    # -- reading ------------------------------------------------------------------------------

    def on_data(self, data: Buffer) -> None:
        if self._paused or self._pending is not None or self._is_closing:
            self._put_by(data)
            return
        size = len(data)
        self.bytes_in += size
        try:
            self._listener.on_data(data)  # type: ignore[union-attr]  # or it would be paused
        except Exception:  # a listener's bug ends this stream, and no other
            log.exception("stream: listener failed")
            self.abort("internal error")
            return
        if self._paused:
            self._owed += size
            return
        stream = self.stream
        stream.owed += size
        if stream.owed >= CREDIT:
            self._carrier.http2.credit(stream, 0)

    def _put_by(self, data: Buffer) -> None:
        if self._is_closing:
            self._carrier.http2.credit(self.stream, len(data))
            return
        if self._pending is None:
            self._pending = bytearray()
        self._pending += data

    def on_end(self) -> None:
        if self._is_closing:
            self._close_if_over()
        elif not self._paused and self._pending is None:
            self._tell_end()

    def _tell_end(self) -> None:
        if not self._end_told and self._listener is not None:
            self._end_told = True
            self._listener.on_eof()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if not self._paused or self._why is not None:
            return
        self._paused = False
        if self._owed:
            self._credit_owed()
        if self._pending is not None or self.stream.has_ended:
            get_hub().loop.run_callback(self._deliver)

    def _credit_owed(self) -> None:
        owed, self._owed = self._owed, 0
        self._carrier.http2.credit(self.stream, owed)
        self._carrier.wake()

    def _deliver(self) -> None:
        """What came while nobody read, and the end if it came too."""
        if self._paused or self._is_closing or self._why is not None:
            return
        data, self._pending = self._pending, None
        if data:
            self.on_data(data)
            self._carrier.wake()
        if self.stream.has_ended and not self._paused and self._why is None:
            self._tell_end()

    # -- writing ------------------------------------------------------------------------------

    def become_tunnel(self) -> None:
        """From now on what is written goes out as soon as may be, and a failure is the other
        end's (RFC 9113 section 8.5)."""
        self.is_tunnel = True
        self.abort_code = ErrorCode.CONNECT_ERROR

    def send_head(self, status: int, fields: list[Pair], ended: bool = False) -> int:
        """A head, interim or final; its size in bytes.  The stream must be open."""
        size = self._carrier.http2.respond(self.stream, status, fields, ended)
        self._carrier.wake()
        return size

    def write(self, data: Buffer) -> bool:
        carrier = self._carrier
        http2 = carrier.http2
        if (
            self.is_tunnel
            and self._out is None
            and not carrier.is_full
            and len(http2.out) < HIGH_WATER
            and self._last is None
            and self._why is None
            and http2.send(self.stream, data)
        ):
            self.bytes_out += len(data)
            if not carrier.wakes:
                carrier.wake()
            return True
        return self._queue(data)

    def _queue(self, data: Buffer) -> bool:
        if self._why is not None or self._last is not None:
            return True
        out = self._out
        if out is None:
            out = self._out = bytearray(data)
        else:
            out += data
        self.queued = len(out)
        self._carrier.queue(self)
        return self.queued <= HIGH_WATER

    def fill(self, limit: int) -> int:
        """Send at most *limit* bytes of the queue, as many as the windows let through."""
        out = self._out
        if out is None:
            return 0
        http2 = self._carrier.http2
        size = min(limit, self.stream.room, http2.room, len(out))
        if size <= 0:
            return 0
        with memoryview(out) as view:
            http2.send(self.stream, view[:size])
        del out[:size]
        self.bytes_out += size
        self.queued = len(out)
        if not out:
            self._out = None
            if self._last is not None:
                self._send_end()
        return size

    def drained(self) -> None:
        """The queue has run empty: from the connection, when it has written all."""
        if self._listener is not None and self._why is None and not self._is_closing:
            self._listener.on_drain()

    def write_eof(self, trailers: Sequence[Pair] = ()) -> None:
        """Names of *trailers* are in lower case."""
        if self._last is None and self._why is None:
            self._last = trailers
            if self._out is None:
                self._send_end()

    def _send_end(self) -> None:
        if self.stream.sends:
            self._carrier.http2.end(self.stream, self._last or ())
        self._carrier.wake()
        self._close_if_over()

    # -- the end ------------------------------------------------------------------------------

    def close(self, linger: float = 5.0) -> None:
        if self._is_closing or self._why is not None:
            return
        self._is_closing = True
        self._linger = linger
        self._drop_input()
        self.write_eof()
        self._close_if_over()
        if self._why is None:
            self._set_timer()

    def _drop_input(self) -> None:
        dropped = self._owed + len(self._pending or b"")
        self._owed, self._pending = 0, None
        if dropped and self._linger > 0:  # else a reset is next, and more is not wanted
            self._carrier.http2.credit(self.stream, dropped)
            self._carrier.wake()

    def _close_if_over(self) -> None:
        """Both sides have ended, or we have and are not to wait for the client."""
        if not self._is_closing or self._why is not None or self.stream.sends:
            return
        if self.stream.has_ended:
            self._shut("")
        elif self._linger <= 0:
            self._reset(ErrorCode.NO_ERROR)
            self._shut("")

    def _set_timer(self) -> None:
        self._timer = get_hub().loop.timer(self._linger or STUCK)
        self._timer.start(self._linger_over, self.bytes_out, update=True)

    def _linger_over(self, sent_before: int) -> None:
        # The time counts from the last byte that could go out: a slow reader is not a dead one.
        self._timer.close()
        if self._out is not None and self.bytes_out != sent_before:
            self._set_timer()
            return
        self._reset(ErrorCode.CANCEL if self._out is not None else ErrorCode.NO_ERROR)
        self._shut("")

    def abort(self, why: str) -> None:
        if self._why is None:
            self._reset(ErrorCode.NO_ERROR if self._is_closing else self.abort_code)
            self._shut("" if self._is_closing else why)

    def _reset(self, code: ErrorCode) -> None:
        http2 = self._carrier.http2
        if self.stream.id in http2.streams:
            http2.reset(self.stream, code)
            self._carrier.wake()

    def on_reset(self, why: str) -> None:
        self._shut("" if self._is_closing else why)

    def _shut(self, why: str) -> None:
        if self._why is not None:
            return
        self._why = why
        self._out = self._pending = None
        self.queued = self._owed = 0
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._carrier.left(self)
        listener, self._listener = self._listener, None
        if listener is not None:
            try:
                listener.on_close(why)
            except Exception:
                log.exception("stream: listener failed")
