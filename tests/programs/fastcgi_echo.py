"""echo_app over FastCGI; its listener is descriptor 0.  It keeps connections when asked to, and
adds CONNECTION_NUMBER and REQUEST_NUMBER (on that connection) to the variables."""

from __future__ import annotations

import itertools
import socket
import struct
import threading

from echo_app import Gone, handle, note

HEADER = struct.Struct(">BBHHBx")
BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR = range(1, 8)
PADDING = 5


class Connection:
    """Records of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._input = sock.makefile("rb")
        if sock.family == socket.AF_INET:  # records are small, and none waits for the next
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self) -> tuple[int, int, bytes]:
        head = self._input.read(HEADER.size)
        if len(head) < HEADER.size:
            raise Gone("connection closed")
        version, kind, request_id, size, padding = HEADER.unpack(head)
        assert version == 1
        return kind, request_id, self._input.read(size + padding)[:size]

    def write(self, kind: int, request_id: int, content: bytes) -> None:
        head = HEADER.pack(1, kind, request_id, len(content), PADDING)
        self._socket.sendall(head + content + b"\xff" * PADDING)

    def end(self) -> None:
        """Without a reset, which a close would be while there is unread input."""
        self._socket.shutdown(socket.SHUT_WR)
        while self._input.read(65536):
            pass

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        self._input.close()  # it shares the descriptor


class Request:
    """One request of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        kind, self._id, content = connection.read()
        assert kind == BEGIN, kind
        self.role, flags = struct.unpack(">HB", content[:3])
        self.keeps = bool(flags & 1)
        self._input_is_over = self._output_is_over = False
        self.environ = self._params()

    def _params(self) -> dict[str, str]:
        data = b""
        while True:
            kind, _, content = self._connection.read()
            assert kind == PARAMS, kind
            if not content:
                return dict(pairs(data))
            data += content

    def read(self) -> bytes:
        if self._input_is_over:
            return b""
        kind, request_id, content = self._connection.read()
        if kind == ABORT:
            note("abort")
            raise Gone("aborted")
        assert (kind, request_id) == (STDIN, self._id), (kind, request_id)
        self._input_is_over = not content
        return content

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), 65535):
            self._connection.write(STDOUT, self._id, data[start : start + 65535])

    def complain(self, text: bytes) -> None:
        self._connection.write(STDERR, self._id, text)

    def end_output(self) -> None:
        self._output_is_over = True
        self._connection.write(STDOUT, self._id, b"")

    def reset(self) -> None:
        self._connection.reset()
        raise Gone("reset by itself")

    def end(self) -> None:
        if not self._output_is_over:
            self.end_output()
        self._connection.write(END, self._id, bytes(8))
        while self.keeps and self.read():
            pass  # what is left of its body is not the next request


def pairs(data: bytes) -> list[tuple[str, str]]:
    found = []
    position = 0
    while position < len(data):
        sizes = []
        for _ in range(2):
            long = data[position] & 0x80
            end = position + (4 if long else 1)
            sizes.append(int.from_bytes(data[position:end], "big") & 0x7FFFFFFF)
            position = end
        name = data[position : position + sizes[0]].decode("latin-1")
        position += sizes[0]
        found.append((name, data[position : position + sizes[1]].decode("latin-1")))
        position += sizes[1]
    return found


def serve(sock: socket.socket, number: int) -> None:
    with sock:
        connection = Connection(sock)
        try:
            for count in itertools.count(1):
                request = Request(connection)
                request.environ["ROLE"] = str(request.role)
                request.environ["CONNECTION_NUMBER"] = str(number)
                request.environ["REQUEST_NUMBER"] = str(count)
                handle(request)
                request.end()
                if not request.keeps:
                    connection.end()
                    return
        except (Gone, OSError):
            return


listener = socket.socket(fileno=0)
for number in itertools.count(1):
    accepted, _ = listener.accept()
    threading.Thread(target=serve, args=(accepted, number), daemon=True).start()
