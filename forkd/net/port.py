"""One end of a byte path: the interface, and a port over plain file descriptors.

A port can be heard and written to; who hears it can be changed at any time, and that change *is*
the hand-over from a greenlet to a tunnel: no descriptor moves, no byte falls between.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from gevent import get_hub

from ..protocol.tunnel import Buffer

log = logging.getLogger(__name__)

READ_SIZE = 256 * 1024  # bytes taken by one read: a large message in few system calls
HIGH_WATER = 64 * 1024  # bytes queued for one port before its peer is paused; as lighttpd

_READ, _WRITE = 1, 2  # libev's EV_READ, EV_WRITE
_RESET = struct.pack("ii", 1, 0)  # struct linger: close sends RST
_VIEW = memoryview(bytearray(READ_SIZE))

OnData = Callable[[Buffer], None]
OnEvent = Callable[[], None]
OnClose = Callable[[str], None]


class Port(Protocol):
    """One end.  Callbacks run in the hub: they never block and never let an exception out."""

    bytes_in: int
    """Bytes received so far."""
    bytes_out: int
    """Bytes handed to the system so far."""
    queued: int
    """Bytes that wait to be sent."""

    def attach(
        self, on_data: OnData, on_eof: OnEvent, on_drain: OnEvent, on_close: OnClose
    ) -> None:
        """From now on these four are called, and reading is on.

        *on_data* gets a buffer that is valid during the call only; *on_eof* once, when the other
        side will send nothing more; *on_drain* when the queue has run empty after a ``write`` that
        returned False; *on_close* once, with "" after ``close`` or the reason of an abort.
        """

    def write(self, data: Buffer) -> bool:
        """Send or queue *data*.  False: over HIGH_WATER; ``on_drain`` will follow."""

    def write_eof(self) -> None:
        """Nothing more will be written: half-close after what is queued."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again."""

    def close(self, linger: float = 5.0) -> None:
        """Flush, half-close, discard input until EOF or *linger* seconds, then close."""

    def abort(self, why: str) -> None:
        """Close now; what is queued is lost.  The other side sees a reset where there is one."""


class FdPort:
    """A port over a connected, non-blocking stream socket.

    Every read goes into one buffer that all ports of the process share, so an idle port holds no
    memory but its own few fields; a listener that wants to keep bytes copies them.
    """

    open_ports: ClassVar[int] = 0
    """How many there are in this process, those that linger included."""

    __slots__ = (
        "_broken",
        "_closing",
        "_eof_wanted",
        "_linger_timer",
        "_on_close",
        "_on_data",
        "_on_drain",
        "_on_eof",
        "_out",
        "_reader",
        "_reading",
        "_recv_into",
        "_send",
        "_socket",
        "_writer",
        "bytes_in",
        "bytes_out",
        "queued",
    )

    def __init__(self, sock: socket.socket) -> None:
        """Take over *sock*; nothing is read before ``attach``."""
        FdPort.open_ports += 1
        self._socket: socket.socket | None = sock
        self._recv_into: Callable[[Any], int] = sock.recv_into
        self._send: Callable[[Any], int] = sock.send
        self._reader = get_hub().loop.io(sock.fileno(), _READ)
        self._writer: Any = None
        self._reading = False
        self._out: bytearray | None = None
        self._eof_wanted = False
        self._closing = False
        self._broken = ""
        self._linger_timer: Any = None
        self._on_data: OnData = _nothing
        self._on_eof: OnEvent = _nothing
        self._on_drain: OnEvent = _nothing
        self._on_close: OnClose = _nothing
        self.bytes_in = 0
        self.bytes_out = 0
        self.queued = 0

    def attach(
        self, on_data: OnData, on_eof: OnEvent, on_drain: OnEvent, on_close: OnClose
    ) -> None:
        self._on_data = on_data
        self._on_eof = on_eof
        self._on_drain = on_drain
        self._on_close = on_close
        self.resume()

    # -- reading ---------------------------------------------------------------------------------

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._reader.stop()

    def resume(self) -> None:
        if not self._reading and self._reader is not None and not self._closing:
            self._reading = True
            self._reader.start(self._readable)

    def _readable(self) -> None:
        try:
            count = self._recv_into(_VIEW)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.abort(_reason(error))
            return
        try:
            if count:
                self.bytes_in += count
                self._on_data(_VIEW[:count])
            elif self._broken:
                self.abort(self._broken)
            else:
                self._received_eof()
        except Exception:  # a callback's bug ends this port, never the loop's interest in others
            log.exception("port: callback failed")
            self.abort("internal error")

    def _received_eof(self) -> None:
        # The watcher of a socket at EOF would fire for ever.
        self.pause()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._on_eof()

    # -- writing ---------------------------------------------------------------------------------

    def write(self, data: Buffer) -> bool:
        out = self._out
        if out is not None:
            out += data
            self.queued = len(out)
            return self.queued <= HIGH_WATER
        size = len(data)
        try:
            sent = self._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._write_failed(error)
            return True
        self.bytes_out += sent
        if sent == size:
            return True
        self._out = bytearray(memoryview(data)[sent:])
        self.queued = size - sent
        self.watch_writable()
        return self.queued <= HIGH_WATER

    def watch_writable(self) -> None:
        """Call ``on_drain`` as soon as the socket takes bytes and the queue is empty."""
        if self._socket is not None:
            if self._writer is None:
                self._writer = get_hub().loop.io(self._socket.fileno(), _WRITE)
            self._writer.start(self._writable)

    def _writable(self) -> None:
        out = self._out
        if out is not None:
            try:
                sent = self._send(out)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._write_failed(error)
                return
            self.bytes_out += sent
            del out[:sent]
            self.queued = len(out)
            if out:
                return
            self._out = None
        # A closed watcher gives its memory back: a tunnel is rarely full twice.
        self._writer.close()
        self._writer = None
        self._drained()

    def _drained(self) -> None:
        if self._eof_wanted:
            self._shut_write()
        try:
            self._on_drain()
        except Exception:
            log.exception("port: callback failed")
            self.abort("internal error")

    def _write_failed(self, error: OSError) -> None:
        # What the peer sent before it went is still to be read; then the port is aborted.
        self._broken = _reason(error)
        self._send = _discard
        self._out = None
        self.queued = 0
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        # Whoever called write() is in the middle of something: it hears of it from the loop.
        get_hub().loop.run_callback(self._write_over)

    def _write_over(self) -> None:
        if self._socket is None:
            return
        if self._reader is None:
            self.abort(self._broken)
            return
        self._drained()
        self.resume()

    def write_eof(self) -> None:
        self._eof_wanted = True
        if self._out is None:
            self._shut_write()

    def _shut_write(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Bytes of the file that the socket took now; nothing may be queued.

        Raises BlockingIOError when it takes none, other OSErrors as ``os.sendfile`` does.
        """
        if self._socket is None:
            raise BrokenPipeError("closed")
        sent = os.sendfile(self._socket.fileno(), fd, offset, count)
        self.bytes_out += sent
        return sent

    # -- the end ---------------------------------------------------------------------------------

    def close(self, linger: float = 5.0) -> None:
        if self._closing or self._socket is None:
            return
        self._on_data, self._on_drain = _nothing, _nothing
        self._on_eof = self._closed_by_peer
        self.resume()
        self._closing = True
        self.write_eof()
        if self._reader is None:
            self._closed_by_peer()
        if self._socket is not None:
            self._linger_timer = get_hub().loop.timer(linger)
            self._linger_timer.start(self._linger_over, linger, self.bytes_out)

    def _linger_over(self, linger: float, sent_before: int) -> None:
        # The time counts from the last byte that was taken: a slow reader is not a dead one.
        if self._out is None or self.bytes_out == sent_before:
            self._finish_close()
            return
        self._linger_timer.close()
        self._linger_timer = get_hub().loop.timer(linger)
        self._linger_timer.start(self._linger_over, linger, self.bytes_out)

    def _closed_by_peer(self) -> None:
        if self._out is None:
            self._finish_close()
        else:
            self._on_drain = self._finish_close

    def _finish_close(self) -> None:
        self._shut("", reset=False)

    def abort(self, why: str) -> None:
        self._shut("" if self._closing else why, reset=not self._closing)

    def _shut(self, why: str, reset: bool) -> None:
        sock = self._socket
        if sock is None:
            return
        FdPort.open_ports -= 1
        self._socket = None
        self._closing = True
        self._reading = False
        for watcher in (self._reader, self._writer, self._linger_timer):
            if watcher is not None:
                watcher.close()
        self._reader = self._writer = self._linger_timer = self._out = None
        self.queued = 0
        self._recv_into = self._send = _discard
        if reset:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()
        on_close = self._on_close
        self._on_data = self._on_eof = self._on_drain = self._on_close = _nothing
        try:
            on_close(why)
        except Exception:
            log.exception("port: callback failed")


def _nothing(*_: object) -> None:
    """Stands where a listener was."""


def _discard(data: Buffer) -> int:
    return len(data)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
