"""echo_app over SCGI, or over uwsgi with the argument ``uwsgi``; its listener is descriptor 0."""

from __future__ import annotations

import socket
import sys
import threading

from echo_app import Gone, handle


class Connection:
    """One connection is one request."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._input = sock.makefile("rb", buffering=0)
        self.environ = self._uwsgi() if sys.argv[1:] == ["uwsgi"] else self._scgi()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._input.read(count - len(data))
            if not piece:
                raise Gone("closed in the head")
            data += piece
        return data

    def _scgi(self) -> dict[str, str]:
        size = b""
        while not size.endswith(b":"):
            size += self._exactly(1)
        *parts, end = self._exactly(int(size[:-1])).decode("latin-1").split("\0")
        assert end == "" and self._exactly(1) == b","
        assert parts[0] == "CONTENT_LENGTH" and len(set(parts[::2])) == len(parts) / 2
        return dict(zip(parts[::2], parts[1::2], strict=True))

    def _uwsgi(self) -> dict[str, str]:
        head = self._exactly(4)
        assert head[0] == head[3] == 0
        data = self._exactly(int.from_bytes(head[1:3], "little"))
        parts = []
        while data:
            end = 2 + int.from_bytes(data[:2], "little")
            parts.append(data[2:end].decode("latin-1"))
            data = data[end:]
        return dict(zip(parts[::2], parts[1::2], strict=True))

    def read(self) -> bytes:
        return self._input.read(65536) or b""

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def complain(self, text: bytes) -> None:
        sys.stderr.buffer.write(text)
        sys.stderr.flush()

    def end_output(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)


def serve(sock: socket.socket) -> None:
    with sock:
        try:
            handle(Connection(sock))
            sock.shutdown(socket.SHUT_WR)
        except (Gone, OSError):
            return


listener = socket.socket(fileno=0)
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
