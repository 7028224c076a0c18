"""A WebSocket client that sends what it is told to, byte for byte, and is strict about answers.

What it demands is what the Autobahn test-suite demands: everything that was right before the end is
answered before the Close, the code is the expected one, and the server closes the connection.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from client_frames import CLOSE, close, cut
from codec_driver import assembled
from e2e.harness import DEADLINE, Server

Message = tuple[int, bytes]

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)


@dataclass(frozen=True)
class Case:
    """What is sent, and what must come back."""

    name: str
    raw: bytes
    expected: Sequence[Message] = ()
    """Before the Close, in this order; control frames between messages may come earlier."""
    code: int | None = None
    """Of the server's Close, None where it must have none; 0: of a Close that the client sends
    behind *raw*."""
    chop: int = 0
    """Bytes of each write; 0: all at once."""


class Connection:
    """An open WebSocket."""

    def __init__(self, server: Server, path: str = "/", offer: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), DEADLINE * 2)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        more = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
        self.socket.sendall(HANDSHAKE.format(path=path, more=more).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        fields = head.decode().lower().split("\r\n")
        self.agreed = next(
            (line.partition(": ")[2] for line in fields if line.startswith("sec-websocket-ext")), ""
        )
        """Sec-WebSocket-Extensions of the answer."""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def bits(self) -> int:
        """The server's window."""
        _, found, value = self.agreed.partition("server_max_window_bits=")
        return int(value.split(";")[0]) if found else 15

    def exchange(self, raw: bytes, chop: int = 0) -> list[Message]:
        """Send *raw* while reading; all that came until the server closed the connection."""
        pieces = cut(raw, range(0, len(raw), chop)) if chop else [raw]
        waiting = list(reversed(pieces))
        got = bytearray()
        self.socket.setblocking(False)
        while True:
            readable, writable, _ = select.select(
                [self.socket], [self.socket] if waiting else [], [], DEADLINE * 2
            )
            assert readable or writable, f"neither closed nor answered: {bytes(got[-50:])!r}"
            if readable:
                data = self.socket.recv(1 << 20)
                if not data:
                    takes_over = "server_no_context_takeover" not in self.agreed
                    return assembled(got, self.bits, takes_over)
                got += data
            elif waiting:
                piece = waiting.pop()
                with suppress(BrokenPipeError, ConnectionResetError):
                    sent = self.socket.send(piece)
                    if sent < len(piece):
                        waiting.append(piece[sent:])


def check(server: Server, case: Case, offer: str = "") -> None:
    """AssertionError, with the name of *case*, if the server does anything else than it should."""
    raw = case.raw + (close(1000) if case.code == 0 else b"")
    with Connection(server, offer=offer) as connection:
        messages = connection.exchange(raw, case.chop)
    assert messages, f"{case.name}: nothing came"
    *answers, (kind, payload) = messages
    assert kind == CLOSE, f"{case.name}: no Close"
    code = 1000 if case.code == 0 else case.code
    assert payload[:2] == (b"" if code is None else code.to_bytes(2, "big")), (case.name, payload)
    data = [message for message in answers if message[0] < CLOSE]
    control = [message for message in answers if message[0] >= CLOSE]
    assert data == [each for each in case.expected if each[0] < CLOSE], case.name
    assert control == [each for each in case.expected if each[0] >= CLOSE], case.name
