"""One end of a byte path: the interface, and a port over plain file descriptors.

A port can be heard and written to; who hears it can be changed at any time, and that change *is*
the hand-over from a greenlet to a tunnel: no descriptor moves, no byte falls between.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
from enum import Enum
from typing import Any, ClassVar, Protocol

from gevent import get_hub

from ..protocol.tunnel import Buffer

log = logging.getLogger(__name__)

READ_SIZE = 256 * 1024  # bytes taken by one read: a large message in few system calls
HIGH_WATER = 64 * 1024  # bytes queued for one port before its peer is paused; as lighttpd

_READ, _WRITE = 1, 2  # libev's EV_READ, EV_WRITE
_RESET = struct.pack("ii", 1, 0)  # struct linger: close sends RST
_VIEW = memoryview(bytearray(READ_SIZE))


class Listener(Protocol):
    """Who hears a port.  Called in the hub: never blocks, never lets an exception out."""

    def on_data(self, data: Buffer) -> None:
        """*data* has come; the buffer is valid during the call only."""

    def on_eof(self) -> None:
        """The other side will send nothing more.  Called once."""

    def on_drain(self) -> None:
        """The queue has run empty."""

    def on_close(self, why: str) -> None:
        """The port is closed: "" after ``close``, or the reason of an abort.  Called once."""


class Port(Protocol):
    """One end of a byte path."""

    @property
    def bytes_in(self) -> int:
        """Bytes received since ``attach``."""

    @property
    def bytes_out(self) -> int:
        """Bytes handed to the system since ``attach``."""

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""

    def attach(self, listener: Listener) -> None:
        """From now on *listener* hears, and reading is on.  An end that came before is told
        again, from the loop."""

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


class Stream(Protocol):
    """What a port needs of a socket."""

    def fileno(self) -> int: ...
    def recv_into(self, buffer: memoryview, /) -> int: ...
    def send(self, data: Buffer, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...
    def close(self) -> None: ...


class Peer(Enum):
    """What is known of the other side without reading."""

    OPEN = "open"
    ENDED = "ended"
    """It has half-closed: what it has sent may still be read."""
    LOST = "lost"
    """It has reset the connection."""


class FdPort:
    """A port over a connected, non-blocking stream socket.

    Every read goes into one buffer that all ports of the process share, so an idle port holds no
    memory but its own few fields; a listener that wants to keep bytes copies them.
    """

    open_ports: ClassVar[int] = 0
    """How many there are in this process, those that linger included."""

    __slots__ = (
        "_broken",
        "_closed_why",
        "_eof_wanted",
        "_linger_timer",
        "_listener",
        "_out",
        "_reader",
        "_reading",
        "_socket",
        "_writer",
        "bytes_in",
        "bytes_out",
        "queued",
    )

    def __init__(self, sock: Stream) -> None:
        """Take over *sock*; nothing is read before ``attach``."""
        FdPort.open_ports += 1
        self._socket: Stream = sock
        self._listener: Listener = _NOBODY
        self._reader = get_hub().loop.io(sock.fileno(), _READ)
        self._writer: Any = None
        self._reading = False
        self._out: bytearray | None = None
        self._eof_wanted = False
        self._broken = ""
        self._closed_why = ""
        self._linger_timer: Any = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.queued = 0

    def attach(self, listener: Listener) -> None:
        self._listener = listener
        self.bytes_in = self.bytes_out = 0
        if self._socket is _CLOSED:
            get_hub().loop.run_callback(listener.on_close, self._closed_why)
        elif self._reader is None:
            get_hub().loop.run_callback(self._repeat_eof, listener)
        else:
            self.resume()

    def _repeat_eof(self, listener: Listener) -> None:
        if listener is self._listener:
            listener.on_eof()

    # -- reading ---------------------------------------------------------------------------------

    def pause(self) -> None:
        # One that is being closed waits for its end, and its owner has no more say.
        if self._reading and not self._lingers:
            self._reading = False
            self._reader.stop()

    def resume(self) -> None:
        if not self._reading and self._reader is not None:
            self._reading = True
            self._reader.start(self._readable)

    def _readable(self) -> None:
        try:
            count = self._socket.recv_into(_VIEW)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.abort(_reason(error))
            return
        try:
            if count:
                self.bytes_in += count
                self._listener.on_data(_VIEW[:count])
            elif self._broken:
                self.abort(self._broken)
            else:
                self._received_eof()
        except Exception:  # a listener's bug ends this port, never the loop's interest in others
            log.exception("port: listener failed")
            self.abort("internal error")

    def _received_eof(self) -> None:
        # The watcher of a socket at EOF would fire for ever.
        self.pause()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._listener.on_eof()

    @property
    def is_readable(self) -> bool:
        """Whether bytes or an end have come that nobody has heard of; also after a loss."""
        if self._socket is _CLOSED or self._reader is None:
            return True
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))

    @property
    def peer(self) -> Peer:
        """How the other side is; for a port that is paused, and so hears nothing."""
        if self._socket is _CLOSED:
            return Peer.LOST
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLRDHUP)
        seen = poll.poll(0)
        if not seen:
            return Peer.OPEN
        return Peer.LOST if seen[0][1] & (select.POLLERR | select.POLLHUP) else Peer.ENDED

    # -- writing ---------------------------------------------------------------------------------

    def write(self, data: Buffer) -> bool:
        out = self._out
        if out is not None:
            out += data
            self.queued = len(out)
            return self.queued <= HIGH_WATER
        size = len(data)
        try:
            sent = self._socket.send(data)
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
        if self._socket is not _CLOSED:
            if self._writer is None:
                self._writer = get_hub().loop.io(self._socket.fileno(), _WRITE)
            self._writer.start(self._writable)

    def _writable(self) -> None:
        out = self._out
        if out is not None:
            try:
                sent = self._socket.send(out)
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
            self._listener.on_drain()
        except Exception:
            log.exception("port: listener failed")
            self.abort("internal error")

    def _write_failed(self, error: OSError) -> None:
        # What the peer sent before it went is still to be read; then the port is aborted.
        if self._broken or self._socket is _CLOSED:
            return
        self._broken = _reason(error)
        self._out = None
        self.queued = 0
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        # Whoever called write() is in the middle of something: it hears of it from the loop.
        get_hub().loop.run_callback(self._write_over)

    def _write_over(self) -> None:
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
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Bytes of the file that the socket took now; nothing may be queued.

        Raises BlockingIOError when it takes none, other OSErrors as ``os.sendfile`` does.
        """
        sent = os.sendfile(self._socket.fileno(), fd, offset, count)
        self.bytes_out += sent
        return sent

    # -- the end ---------------------------------------------------------------------------------

    @property
    def _lingers(self) -> bool:
        return isinstance(self._listener, _Lingering)

    def close(self, linger: float = 5.0) -> None:
        if self._lingers or self._socket is _CLOSED:
            return
        self._listener = _Lingering(self, self._listener)
        self.resume()
        self.write_eof()
        if self._reader is None:
            self._listener.on_eof()
        if self._socket is not _CLOSED:
            self._set_timer(linger)

    def _set_timer(self, linger: float) -> None:
        self._linger_timer = get_hub().loop.timer(linger)
        self._linger_timer.start(self._linger_over, linger, self.bytes_out)

    def _linger_over(self, linger: float, sent_before: int) -> None:
        # The time counts from the last byte that was taken: a slow reader is not a dead one.
        self._linger_timer.close()
        if self._out is None or self.bytes_out == sent_before:
            self._shut("", reset=False)
        else:
            self._set_timer(linger)

    def abort(self, why: str) -> None:
        self._shut("" if self._lingers else why, reset=not self._lingers)

    def _shut(self, why: str, reset: bool) -> None:
        sock = self._socket
        if sock is _CLOSED:
            return
        FdPort.open_ports -= 1
        self._socket = _CLOSED
        self._closed_why = why
        self._reading = False
        for watcher in (self._reader, self._writer, self._linger_timer):
            if watcher is not None:
                watcher.close()
        self._reader = self._writer = self._linger_timer = self._out = None
        self.queued = 0
        if reset:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()
        listener, self._listener = self._listener, _NOBODY
        try:
            listener.on_close(why)
        except Exception:
            log.exception("port: listener failed")


class Nobody:
    """Hears a port that nobody listens to."""

    def on_data(self, data: Buffer) -> None: ...
    def on_eof(self) -> None: ...
    def on_drain(self) -> None: ...
    def on_close(self, why: str) -> None: ...


class _Lingering(Nobody):
    """Hears a port that is being closed: input is dropped, its end is the end once all is sent."""

    __slots__ = ("_listener", "_port")

    def __init__(self, port: FdPort, listener: Listener) -> None:
        self._port = port
        self._listener = listener

    def on_eof(self) -> None:
        if self._port._out is None:
            self._port._shut("", reset=False)

    def on_drain(self) -> None:
        if self._port._reader is None:
            self._port._shut("", reset=False)

    def on_close(self, why: str) -> None:
        self._listener.on_close(why)


class _Closed:
    """Stands where a socket was."""

    def send(self, data: Buffer) -> int:
        raise BrokenPipeError("closed")

    def recv_into(self, buffer: memoryview) -> int:
        raise BrokenPipeError("closed")

    def fileno(self) -> int:
        return -1

    def shutdown(self, how: int) -> None: ...
    def setsockopt(self, *option: object) -> None: ...
    def close(self) -> None: ...


_NOBODY = Nobody()
_CLOSED = _Closed()


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
