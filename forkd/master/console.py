"""The control socket, served in the master's loop: a line of JSON in, a line out, goodbye."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from .. import control
from ..unix import listen
from .loop import WRITE, Loop, Timer

PATIENCE = 5.0  # seconds in which a client has to send its line, and to take the answer
MAX_REQUEST = 64 * 1024  # bytes of a line
MAX_CLIENTS = 64
BACKLOG = 16
MODE = 0o600

Message = dict[str, Any]
Answer = Callable[[Message], None]
Handle = Callable[[Message, Answer], None]

log = logging.getLogger(__name__)


class Console:
    """Hands each request to *handle*, which answers then or later."""

    def __init__(self, path: str, loop: Loop, handle: Handle) -> None:
        """Listen at *path*, in place of whatever socket is there.  Raises OSError.

        The caller holds the lock of the pid file: a socket there is a dead server's.
        """
        self._loop = loop
        self._handle = handle
        self._clients: set[_Client] = set()
        self._place = listen.UnixSocket(path, BACKLOG, MODE)
        self._place.publish()
        self._place.socket.setblocking(False)
        loop.watch(self._place.socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._place.socket.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS:
            sock.close()
            return
        self._clients.add(_Client(sock, self._loop, self._handle, self._clients.discard))

    def close(self) -> None:
        """Unlink the socket; clients that wait for an answer see that the server has ended."""
        self._loop.unwatch(self._place.socket.fileno())
        self._place.close()
        for client in list(self._clients):
            client.close()


class _Client:
    """One connection: reads a line, then writes one."""

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        handle: Handle,
        on_close: Callable[[_Client], None],
    ) -> None:
        self._socket = sock
        self._loop = loop
        self._handle = handle
        self._on_close = on_close
        self._data = bytearray()
        self._timer = self._start_clock()
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._read)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._timer.cancel()
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._on_close(self)

    def _start_clock(self) -> Timer:
        return self._loop.call_later(PATIENCE, self.close)

    def _read(self) -> None:
        try:
            data = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._data += data
        if b"\n" in data:
            self._ask()
        elif not data or len(self._data) > MAX_REQUEST:
            self.close()

    def _ask(self) -> None:
        self._timer.cancel()  # an answer may take its time
        self._loop.unwatch(self._socket.fileno())
        line = bytes(self._data.split(b"\n", 1)[0])
        self._data.clear()
        try:
            self._handle(control.decode(line), self._answer)
        except ValueError as error:
            self._answer({"ok": False, "error": f"the request is not understood: {error}"})
        except Exception:
            self._answer({"ok": False, "error": "a defect; the error log has it"})
            raise

    def _answer(self, message: Message) -> None:
        if self._socket.fileno() < 0 or self._data:
            return
        self._data += control.encode(message)
        self._timer = self._start_clock()
        self._write()

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._data[:sent]
        if self._data:
            self._loop.watch(self._socket.fileno(), self._write, WRITE)
        else:
            self.close()
