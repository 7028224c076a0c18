"""A Port of lists: what was written can be looked at, what is received is said by hand."""

from __future__ import annotations

from typing import Any

from gevent import get_hub

HIGH_WATER = 64 * 1024


class MemoryPort:
    """One end of a byte path in memory.

    While ``blocked`` nothing that is written gets through: it stays queued, as in front of a peer
    that does not read.  ``receive`` and ``receive_eof`` act as the other side; what comes while
    the port is paused is kept until ``resume``.
    """

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.queued = 0
        self.written = bytearray()
        self.blocked = False
        self.paused = True
        self.wrote_eof = False
        self.closing = False
        self.closed: str | None = None
        self.linger = -1.0
        self._queue = bytearray()
        self._arriving: list[bytes | None] = []
        self._has_ended = False
        self._listener: Any = None

    # -- the Port ---------------------------------------------------------------------------------

    def attach(self, listener: Any) -> None:
        self._listener = listener
        self.bytes_in = self.bytes_out = 0
        if self.closed is not None:
            get_hub().loop.run_callback(listener.on_close, self.closed)
        elif self._has_ended:
            get_hub().loop.run_callback(listener.on_eof)
        else:
            self.resume()

    def write(self, data: Any) -> bool:
        if self.closed is not None:
            return True
        assert not self.wrote_eof, "written after write_eof"
        self._queue += data
        if not self.blocked:
            self._flush()
        self.queued = len(self._queue)
        return self.queued <= HIGH_WATER

    def write_eof(self) -> None:
        self.wrote_eof = True

    @property
    def is_readable(self) -> bool:
        return bool(self._arriving) or self._has_ended or self.closed is not None

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        while self._arriving and not self.paused and self.closed is None:
            self._deliver(self._arriving.pop(0))

    def close(self, linger: float = 5.0) -> None:
        if self.closed is None and not self.closing:
            self.closing = True
            self.linger = linger
            self.wrote_eof = True
            self.paused = False

    def abort(self, why: str) -> None:
        self._close("" if self.closing else why)

    # -- the other side ---------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """The other side sends *data*."""
        if self.paused:
            self._arriving.append(data)
        else:
            self._deliver(data)

    def receive_eof(self) -> None:
        """The other side will send nothing more."""
        if self.paused:
            self._arriving.append(None)
        else:
            self._deliver(None)

    def unblock(self) -> None:
        """The other side reads again."""
        self.blocked = False
        self.let_through()

    def let_through(self) -> None:
        """The other side reads what is queued, and perhaps no more."""
        self._flush()
        self.queued = 0
        if self._listener and not self.closing:
            self._listener.on_drain()

    def finish(self) -> None:
        """The other side has closed, or lingering is over."""
        self._close("")

    def take(self) -> bytes:
        """What was written since the last call."""
        out = bytes(self.written)
        self.written.clear()
        return out

    def _flush(self) -> None:
        self.written += self._queue
        self.bytes_out += len(self._queue)
        self._queue.clear()

    def _deliver(self, data: bytes | None) -> None:
        if self.closed is not None:
            return
        if self.closing:
            if data is None:
                self._close("")
        elif data is None:
            self._has_ended = True
            self._listener.on_eof()
        else:
            self.bytes_in += len(data)
            # What is handed on is valid during the call only: a view that is kept would show it.
            view = memoryview(bytearray(data))
            self._listener.on_data(view)
            view.release()

    def _close(self, why: str) -> None:
        if self.closed is None:
            self.closed = why
            if self._listener:
                self._listener.on_close(why)
