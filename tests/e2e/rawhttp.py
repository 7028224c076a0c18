"""HTTP/1.1 responses read off a socket, byte for byte: what a test looks at, with no client library
in between that mends or hides what the server said (RFC 9112 sections 6 and 7)."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

DEADLINE = 10.0


@dataclass(frozen=True)
class Response:
    """One response as it stood on the wire; the body with its chunks joined."""

    status: int
    reason: str
    version: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def field(self, name: str) -> str | None:
        """The value of *name*, repeated ones joined with ``, ``; None when it is missing."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")


class Incomplete(Exception):
    """The bytes end inside a response."""


def parse_response(
    data: bytes, *, head_only: bool = False, at_eof: bool = True
) -> tuple[Response, bytes]:
    """The first response in *data* and the bytes behind it.

    *head_only*: the answer to HEAD.  *at_eof*: a body without a length ends where the bytes end.
    Raises Incomplete where more bytes are needed, ValueError where it is not HTTP/1.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        raise Incomplete(repr(data[:200]))
    start, *lines = head.decode("latin-1").split("\r\n")
    version, status, reason = (start + " ").split(" ", 2)
    if not version.startswith("HTTP/1.") or len(status) != 3:
        raise ValueError(f"no status line: {start!r}")
    found = Response(int(status), reason.strip(), version, _fields(lines))
    return _with_body(found, rest, head_only, at_eof)


def parse_responses(data: bytes, heads: tuple[int, ...] = ()) -> list[Response]:
    """All responses of a connection that has ended; *heads* are the indexes of answers to HEAD.

    Interim responses (1xx) are responses of their own and count.
    """
    found: list[Response] = []
    while data:
        response, data = parse_response(data, head_only=len(found) in heads)
        found.append(response)
    return found


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    pairs = [line.partition(":") for line in lines]
    if any(not colon for _, colon, _ in pairs):
        raise ValueError(f"a field line without a colon in {lines!r}")
    return [(name, value.strip()) for name, _, value in pairs]


def _with_body(
    head: Response, rest: bytes, head_only: bool, at_eof: bool
) -> tuple[Response, bytes]:
    if head_only or head.status < 200 or head.status in (204, 304):
        return head, rest
    if (head.field("Transfer-Encoding") or "").lower() == "chunked":
        body, trailers, rest = _chunks(rest)
        return _replaced(head, body, trailers), rest
    length = head.field("Content-Length")
    if length is None:
        if not at_eof:
            raise Incomplete("the body ends with the connection")
        return _replaced(head, rest, []), b""
    if len(rest) < int(length):
        raise Incomplete(f"{len(rest)} of {length} bytes")
    return _replaced(head, rest[: int(length)], []), rest[int(length) :]


def _replaced(head: Response, body: bytes, trailers: list[tuple[str, str]]) -> Response:
    return Response(head.status, head.reason, head.version, head.fields, body, trailers)


def _chunks(data: bytes) -> tuple[bytes, list[tuple[str, str]], bytes]:
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise Incomplete("inside a chunk size")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        if len(data) < size + 2:
            raise Incomplete("inside a chunk")
        if data[size : size + 2] != b"\r\n":
            raise ValueError(f"no CR LF behind a chunk: {data[size : size + 2]!r}")
        body, data = body + data[:size], data[size + 2 :]
    if data.startswith(b"\r\n"):
        return body, [], data[2:]
    block, end, data = data.partition(b"\r\n\r\n")
    if not end:
        raise Incomplete("inside the trailers")
    return body, _fields(block.decode("latin-1").split("\r\n")), data


class Client:
    """A connection to the server that sends what it is given and reads response by response."""

    def __init__(self, address: tuple[str, int], timeout: float = DEADLINE) -> None:
        self.socket = socket.create_connection(address, timeout)
        self.timeout = timeout
        self.unread = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def response(self, head_only: bool = False) -> Response:
        """The next response; Incomplete when the server ends the connection before or inside it."""
        at_eof = False
        while True:
            try:
                found, self.unread = parse_response(self.unread, head_only=head_only, at_eof=at_eof)
                return found
            except Incomplete:
                if at_eof:
                    raise
            at_eof = not self._fill()

    def request(self, text: str, head_only: bool = False) -> Response:
        """Send *text*, its line ends made CR LF, and read the answer."""
        self.send(text.replace("\r\n", "\n").replace("\n", "\r\n").encode("latin-1"))
        return self.response(head_only or text.startswith("HEAD "))

    def read(self, count: int) -> bytes:
        """Exactly *count* bytes; Incomplete at an earlier end."""
        while len(self.unread) < count:
            if not self._fill():
                raise Incomplete(f"{len(self.unread)} of {count} bytes: {self.unread[:200]!r}")
        data, self.unread = self.unread[:count], self.unread[count:]
        return data

    def read_all(self) -> bytes:
        """Everything up to the end of the connection."""
        while self._fill():
            pass
        data, self.unread = self.unread, b""
        return data

    def is_open(self, wait: float = 0.0) -> bool:
        """Whether the server still holds the connection, looked at for *wait* seconds."""
        self.socket.settimeout(max(wait, 0.001))
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            self.socket.settimeout(self.timeout)
        self.unread += data
        return bool(data)

    def send_eof(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def _fill(self) -> bool:
        """Read once more; False at the end of the connection, a reset included."""
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise TimeoutError(f"silence; so far {self.unread[:200]!r}") from None
        except ConnectionError:
            return False
        self.unread += data
        return bool(data)
