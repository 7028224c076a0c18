"""A port over the two pipes of a program: its standard input and its standard output.

The directions end apart, as a socket's do: to half-close is to close the pipe to its input.  A
program may close its input, or never read it, and still have something to say; so what it does not
want is dropped in silence, and only its output tells how it goes on.  When that has ended too, the
port fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from gevent import get_hub

from ..protocol.tunnel import Buffer
from .port import _CLOSED, _WRITE, FdPort, Peer

CLOSED = -1


class PipePort(FdPort):
    """Writes to *stdin*, reads from *stdout*: non-blocking, ours, the program's being the other
    ends.  Without *stdin* (CLOSED) nothing can be written.

    *on_leave* is called once, when nobody waits for the program any more: at the first of ``close``
    and ``abort``, or when the port fails.
    """

    __slots__ = ("_on_leave", "_pipes")

    def __init__(self, stdin: int, stdout: int, on_leave: Callable[[], None]) -> None:
        self._pipes = _Pipes(stdin, stdout)
        self._on_leave = on_leave
        super().__init__(self._pipes)

    def watch_writable(self) -> None:
        if self._socket is _CLOSED:
            return
        if self._pipes.stdin == CLOSED:
            get_hub().loop.run_callback(self._drained)
            return
        if self._writer is None:
            self._writer = get_hub().loop.io(self._pipes.stdin, _WRITE)
        self._writer.start(self._writable)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        if self._pipes.stdin == CLOSED:
            return count
        try:
            sent = os.sendfile(self._pipes.stdin, fd, offset, count)
        except BrokenPipeError:
            self._shut_write()
            return count
        self.bytes_out += sent
        return sent

    @property
    def peer(self) -> Peer:
        # Nobody writes into the pipe any more: that is the end of its stream, and no loss.
        found = super().peer
        return Peer.ENDED if found is Peer.LOST and self._socket is not _CLOSED else found

    def _received_eof(self) -> None:
        self._pipes.has_ended = True
        super()._received_eof()

    def _shut_write(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._pipes.close_stdin()

    def close(self, linger: float = 5.0) -> None:
        if self._pipes.has_ended and not self.queued:
            self._shut("", reset=False)
        else:
            super().close(linger)
            self._leave()

    def _shut(self, why: str, reset: bool) -> None:
        super()._shut(why, reset)
        self._leave()

    def _leave(self) -> None:
        on_leave, self._on_leave = self._on_leave, _nothing
        on_leave()


class _Pipes:
    """Two pipes in the form of a socket."""

    __slots__ = ("_stdout", "has_ended", "stdin")

    def __init__(self, stdin: int, stdout: int) -> None:
        self.stdin = stdin
        self.has_ended = False
        """Whether the output has."""
        self._stdout = stdout

    def fileno(self) -> int:
        return self._stdout

    def recv_into(self, buffer: memoryview, /) -> int:
        return os.readv(self._stdout, (buffer,))

    def send(self, data: Buffer, /) -> int:
        if self.stdin == CLOSED:
            return len(data)
        try:
            return os.write(self.stdin, data)
        except BrokenPipeError:
            if self.has_ended:
                raise
            return len(data)

    def shutdown(self, how: int, /) -> None:
        self.close_stdin()

    def close_stdin(self) -> None:
        stdin, self.stdin = self.stdin, CLOSED
        if stdin != CLOSED:
            with suppress(OSError):
                os.close(stdin)

    def setsockopt(self, *option: object) -> None: ...

    def close(self) -> None:
        self.close_stdin()
        os.close(self._stdout)


def _nothing() -> None:
    """Stands where ``on_leave`` was."""
