"""A backend whose every word is a test's: it listens in threads of the test itself."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from e2e.harness import DEADLINE, wait_for

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n"


class Peer:
    """One connection, as a script sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.unread = b""

    def head(self) -> str:
        """A request head, "" at the end of input."""
        return self.read_until(b"\r\n\r\n").decode("latin-1")

    def read_until(self, end: bytes) -> bytes:
        while end not in self.unread:
            if not self._fill():
                return b""
        found, _, self.unread = self.unread.partition(end)
        return found + end

    def read(self, size: int) -> bytes:
        """Exactly *size* bytes, fewer at the end of input."""
        while len(self.unread) < size and self._fill():
            pass
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def read_all(self) -> bytes:
        while self._fill():
            pass
        data, self.unread = self.unread, b""
        return data

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_eof(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _fill(self) -> bool:
        data = self.socket.recv(1 << 16)
        self.unread += data
        return bool(data)


Script = Callable[[Peer], None]


def answer_each(peer: Peer) -> None:
    """Request after request, none with a body, each answered with what was asked."""
    while head := peer.head():
        body = head.encode("latin-1")
        start = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        peer.send(start if head.startswith("HEAD ") else start + body)
        if "\r\nConnection: close" in head:
            return


class HttpBackend:
    """Runs ``script`` for each connection, and closes it behind that.  A context manager."""

    def __init__(self, path: str = "", host: str = "127.0.0.1") -> None:
        """On a unix socket at *path*, or on a free TCP port."""
        if path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen(128)
        else:
            self._listener = socket.create_server((host, 0), backlog=128)
        self.script: Script = answer_each
        self.connections = 0
        self.failures: list[BaseException] = []
        self.open = 0
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def host(self) -> str:
        """As it stands in a configuration."""
        return f'"host" => "127.0.0.1", "port" => {self.port}'

    def __enter__(self) -> HttpBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def wait_idle(self) -> None:
        """Until every script has come to its end."""
        wait_for(lambda: not self.open, what="scripts at their end")
        assert not self.failures, self.failures

    def hang_up(self) -> None:
        """End every connection, whatever its script is about to do."""
        with self._lock:
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                sock, _ = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    self.open += 1
                    self._sockets.add(sock)
                threading.Thread(target=self._serve, args=(sock, self.script), daemon=True).start()

    def _serve(self, sock: socket.socket, script: Script) -> None:
        sock.settimeout(DEADLINE)
        try:
            script(Peer(sock))
        except ConnectionError:
            pass  # that they see is what most scripts are about
        except BaseException as error:
            self.failures.append(error)
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self.open -= 1
            sock.close()
