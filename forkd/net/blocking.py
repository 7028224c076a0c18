"""A port as greenlets see it: receive, send, wait.  For what happens once per request."""

from __future__ import annotations

import os
from math import inf
from typing import Any

from gevent import get_hub, getcurrent, sleep
from gevent.event import Event
from gevent.hub import Waiter

from ..errors import ClientGone
from ..protocol.tunnel import Buffer
from .port import HIGH_WATER, Peer, Port

LOOK = 1.0  # seconds between two looks at a peer that is not being read
FILE_PIECE = 1 << 20  # bytes given to one sendfile: others have their turn in between
COPY_PIECE = 64 * 1024
_ONE_TURN = 1e-6  # seconds, for a timer: sleep(0) would come back before the loop looks at sockets


class _Bell:
    """What one greenlet waits for."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: Any = None

    def wait(self, timeout: float) -> bool:
        """Until ``ring``, at most *timeout* seconds; False when it ran out."""
        self._waiter = waiter = Waiter()
        try:
            if timeout == inf:
                return bool(waiter.get())
            with get_hub().loop.timer(timeout) as timer:
                # The loop's clock may be older than this greenlet's long way here.
                timer.start(waiter.switch, False, update=True)
                return bool(waiter.get())
        finally:
            self._waiter = None

    def ring(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            hub = get_hub()
            if getcurrent() is hub:
                waiter.switch(True)
            else:  # another greenlet has closed the port
                hub.loop.run_callback(waiter.switch, True)


class BlockingPort:
    """Blocking calls over *port*: one greenlet may receive while another one sends.

    Reads ahead up to HIGH_WATER bytes, so that the other side's leaving is noticed (``gone``)
    while the greenlet is busy with something else.  A timeout may be ``math.inf``.

    *looks*: it is noticed even when more has come than is read ahead, and the port is closed then
    when the connection was lost.  For a client, whose bytes are worth nothing without it.
    """

    def __init__(self, port: Port, looks: bool = False) -> None:
        self.port = port
        self.gone = Event()
        self.at_eof = False
        self.closed_why: str | None = None
        self.error: Exception | None = None
        """What ``interrupt`` was told."""
        self._buffer = bytearray()
        self._input = _Bell()
        self._room = _Bell()
        self._looks = looks and hasattr(port, "peer")
        self._look: Any = None
        port.attach(self)

    @property
    def bytes_in(self) -> int:
        return self.port.bytes_in

    @property
    def bytes_out(self) -> int:
        return self.port.bytes_out

    @property
    def pending(self) -> int:
        """Bytes that have come and were not received yet."""
        return len(self._buffer)

    # -- callbacks, in the hub -------------------------------------------------------------------

    def on_data(self, data: Buffer) -> None:
        self._buffer += data
        if len(self._buffer) >= HIGH_WATER:
            self.port.pause()
            self._begin_looking()
        self._input.ring()

    def on_eof(self) -> None:
        self.at_eof = True
        self.gone.set()
        self._input.ring()

    def on_drain(self) -> None:
        self._room.ring()

    def on_close(self, why: str) -> None:
        self.closed_why = why or "closed"
        self._end_looking()
        self.gone.set()
        self._input.ring()
        self._room.ring()

    # -- while nothing is read, nothing is heard --------------------------------------------------

    def _begin_looking(self) -> None:
        if self._looks and self._look is None:
            self._look = get_hub().loop.timer(LOOK, LOOK)
            self._look.start(self._look_at_peer)

    def _end_looking(self) -> None:
        if self._look is not None:
            self._look.close()
            self._look = None

    def _look_at_peer(self) -> None:
        peer = self.port.peer  # type: ignore[attr-defined]  # or nobody looks
        if peer is Peer.LOST:
            self.port.abort("connection lost")
        elif peer is Peer.ENDED:
            self.gone.set()

    # -- calls of greenlets ----------------------------------------------------------------------

    def interrupt(self, error: Exception) -> None:
        """Whoever waits, or ever will, gets *error*; bytes that have come are received first."""
        if self.error is None:
            self.error = error
            self._input.ring()
            self._room.ring()

    def recv(self, timeout: float) -> bytes:
        """What has come, at least one byte; b"" at the end of input.

        Raises TimeoutError after *timeout* seconds of silence, ClientGone after a reset.
        """
        while not self._buffer:
            if self.error is not None:
                raise self.error
            if self.closed_why is not None:
                raise ClientGone(self.closed_why)
            if self.at_eof:
                return b""
            if not self._input.wait(timeout):
                raise TimeoutError(f"nothing received for {timeout:g} s")
        data = bytes(self._buffer)
        self._buffer.clear()
        self._end_looking()
        if not self.at_eof:
            self.port.resume()
        return data

    def unread(self, data: bytes) -> None:
        """Put *data* back in front of what ``recv`` gives next."""
        self._buffer[:0] = data

    def send(self, data: Buffer, timeout: float) -> None:
        """Send or queue *data*; waits only while more than HIGH_WATER bytes are queued.

        Raises TimeoutError when the other side takes nothing for *timeout* seconds, ClientGone
        when it has left.
        """
        self._check_open()
        if not self.port.write(data):
            self._await_queue(HIGH_WATER, timeout)

    def drain(self, timeout: float) -> None:
        """Wait until everything queued is with the system; raises as ``send``."""
        self._await_queue(0, timeout)

    def _await_queue(self, mark: int, timeout: float) -> None:
        while self.port.queued > mark:
            self._check_open()
            before = self.port.bytes_out
            if not self._room.wait(timeout) and self.port.bytes_out == before:
                raise TimeoutError(f"nothing taken for {timeout:g} s")
        self._check_open()

    def _check_open(self) -> None:
        if self.error is not None:
            raise self.error
        if self.closed_why is not None:
            raise ClientGone(self.closed_why)

    def send_file(self, fd: int, offset: int, length: int, timeout: float) -> None:
        """Send *length* bytes of a regular file without holding them in memory.

        Raises as ``send``; EOFError when the file ends early.
        """
        self.drain(timeout)
        send = getattr(self.port, "send_file", None)
        if send is None:
            self._copy_file(fd, offset, length, timeout)
            return
        while length:
            try:
                sent = send(fd, offset, min(length, FILE_PIECE))
            except BlockingIOError:
                self._await_writable(timeout)
                continue
            except OSError as error:
                raise ClientGone(os.strerror(error.errno or 0)) from error
            if not sent:
                raise EOFError("file is shorter than it was")
            offset += sent
            length -= sent

    def _await_writable(self, timeout: float) -> None:
        self.port.watch_writable()  # type: ignore[attr-defined]  # whoever has send_file has this
        if not self._room.wait(timeout):
            raise TimeoutError(f"nothing taken for {timeout:g} s")
        self._check_open()

    def _copy_file(self, fd: int, offset: int, length: int, timeout: float) -> None:
        while length:
            copied = self._copy_piece(fd, offset, min(length, COPY_PIECE), timeout)
            offset += copied
            length -= copied
            self.drain(timeout)  # only then the next: a client that takes nothing holds one

    def _copy_piece(self, fd: int, offset: int, length: int, timeout: float) -> int:
        piece = os.pread(fd, length, offset)
        if not piece:
            raise EOFError("file is shorter than it was")
        self.send(piece, timeout)
        return len(piece)

    def give_way(self) -> None:
        """Let the others have their turn: what is here already can be a long time's work."""
        sleep(_ONE_TURN)

    # -- the end ---------------------------------------------------------------------------------

    def detach(self) -> tuple[Port, bytes]:
        """The port and what came in but was not received; this object is done with."""
        unread = bytes(self._buffer)
        self._buffer.clear()
        self._end_looking()
        return self.port, unread

    def close(self, linger: float = 5.0) -> None:
        self.port.close(linger)

    def abort(self, why: str) -> None:
        self.port.abort(why)
