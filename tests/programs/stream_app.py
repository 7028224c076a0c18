"""echo_app on connections that carry one request each: what scgi_echo and http_echo share."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from typing import NoReturn

from echo_app import Gone, handle


class Connection:
    """One connection is one request; its head is read by ``head``."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._input = sock.makefile("rb", buffering=0)
        self.environ = self.head()

    def head(self) -> dict[str, str]:
        raise NotImplementedError

    def exactly(self, count: int) -> bytes:
        """The next bytes of the head."""
        data = b""
        while len(data) < count:
            piece = self._input.read(count - len(data))
            if not piece:
                raise Gone("closed in the head")
            data += piece
        return data

    def read(self) -> bytes:
        return self._input.read(65536) or b""

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def complain(self, text: bytes) -> None:
        sys.stderr.buffer.write(text)
        sys.stderr.flush()

    def end_output(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        self._input.close()  # it shares the descriptor
        raise Gone("reset by itself")


def serve_for_ever(kind: type[Connection]) -> NoReturn:
    """On descriptor 0, a thread for each connection."""

    def serve(sock: socket.socket) -> None:
        with sock:
            try:
                handle(kind(sock))
                sock.shutdown(socket.SHUT_WR)
            except (Gone, OSError):
                return

    listener = socket.socket(fileno=0)
    while True:
        accepted, _ = listener.accept()
        threading.Thread(target=serve, args=(accepted,), daemon=True).start()
