"""The control socket, served in the master's loop: a line of JSON in, a line out, goodbye."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from .. import control
from ..unix import listen
from .loop import WRITE, Loop, Timer
from .state import ClientRecord, ConsoleRecord

PATIENCE = 5.0  # seconds in which a client has to send its line, and to take the answer
PAUSE = 1.0  # seconds until the next try to accept a client
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

    def __init__(self, place: listen.UnixSocket, loop: Loop, handle: Handle) -> None:
        """Serve the socket of *place*, which closes with the console."""
        self._loop = loop
        self._handle = handle
        self._clients: set[_Client] = set()
        self._inherited: set[_Client] = set()
        self._place = place
        place.socket.setblocking(False)
        self._listen()

    @classmethod
    def open(cls, path: str, loop: Loop, handle: Handle) -> Console:
        """Listen at *path*, in place of a dead server's socket.  Raises OSError, EADDRINUSE when
        somebody listens there: the lock of a pid file that was removed keeps nobody out."""
        place = listen.bind_unix(path, BACKLOG, MODE)
        place.publish()
        return cls(place, loop, handle)

    @classmethod
    def restore(cls, record: ConsoleRecord, loop: Loop, handle: Handle) -> Console:
        """The console of the program before this one.  See ``answer_inherited``."""
        place = listen.UnixSocket.restore(record.place, socket.socket(fileno=record.fd))
        self = cls(place, loop, handle)
        for one in record.clients:
            client = self._add(socket.socket(fileno=one.fd))
            client.resume(one)
            if client.waits:
                self._inherited.add(client)
        return self

    def snapshot(self) -> ConsoleRecord:
        clients = (client.snapshot() for client in self._clients)
        return ConsoleRecord(
            self._place.socket.fileno(),
            self._place.snapshot(),
            tuple(one for one in clients if one),
        )

    def answer_inherited(self, message: Message) -> None:
        """Answer those that wait for what they have asked of the program before this one."""
        inherited, self._inherited = self._inherited, set()
        for client in inherited:
            client.answer(message)

    def _listen(self) -> None:
        if self._place.socket.fileno() >= 0:  # not closed meanwhile
            self._loop.watch(self._place.socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._place.socket.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors
            log.error("control socket: %s; next try in %g s", error.strerror, PAUSE)
            self._loop.unwatch(self._place.socket.fileno())
            self._loop.call_later(PAUSE, self._listen)
            return
        if len(self._clients) >= MAX_CLIENTS:
            sock.close()
            return
        self._add(sock)

    def _add(self, sock: socket.socket) -> _Client:
        client = _Client(sock, self._loop, self._handle, self._clients.discard)
        self._clients.add(client)
        return client

    def close(self) -> None:
        """Unlink the socket; clients that wait for an answer see that the server has ended."""
        self._loop.unwatch(self._place.socket.fileno())
        self._place.close()
        for client in list(self._clients):
            client.close()


class _Stage(Enum):
    ASKING = auto()
    WAITING = auto()
    ANSWERING = auto()


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
        self._stage = _Stage.ASKING
        self._timer = self._start_clock()
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._read)

    @property
    def waits(self) -> bool:
        return self._stage is _Stage.WAITING

    def resume(self, record: ClientRecord) -> None:
        """Go on where the program before this one had got to."""
        self._data += record.line.encode("latin-1")
        if record.waits:
            self._wait()

    def snapshot(self) -> ClientRecord | None:
        """None when its answer is on its way: what is left of that is lost."""
        if self._stage is _Stage.ANSWERING:
            return None
        return ClientRecord(self._socket.fileno(), self._data.decode("latin-1"), self.waits)

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
        line = bytes(self._data.split(b"\n", 1)[0])
        self._data.clear()
        self._wait()
        try:
            self._handle(control.decode(line), self.answer)
        except ValueError as error:
            self.answer({"ok": False, "error": f"the request is not understood: {error}"})
        except Exception:
            self.answer({"ok": False, "error": "a defect; the error log has it"})
            raise

    def _wait(self) -> None:
        self._stage = _Stage.WAITING
        self._timer.cancel()  # an answer may take its time
        self._loop.unwatch(self._socket.fileno())

    def answer(self, message: Message) -> None:
        """Once; later ones are dropped, as is one for a client that has gone."""
        if self._socket.fileno() < 0 or not self.waits:
            return
        self._stage = _Stage.ANSWERING
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
