"""What a WebSocket echo answers, asked with the client of the ``websockets`` library; and that
client by TLS."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from e2e.harness import Server
from websockets.asyncio.client import connect
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_sync
from websockets.typing import Subprotocol

Message = str | bytes | list[bytes]
"""A list is sent in so many fragments."""


def echoes(
    server: Server,
    path: str,
    messages: Sequence[Message],
    subprotocols: Sequence[str] = (),
    patience: float = 60,
) -> list[str | bytes]:
    """The answer to each message, read while it is sent, as long ones are echoed piece by piece.

    *subprotocols*: offered, and the first of them must be chosen.
    """
    return asyncio.run(_echoes(server, path, messages, subprotocols, patience))


async def _echoes(
    server: Server,
    path: str,
    messages: Sequence[Message],
    subprotocols: Sequence[str],
    patience: float,
) -> list[str | bytes]:
    offered = [Subprotocol(name) for name in subprotocols]
    options: dict[str, Any] = {"compression": None, "max_size": None, "proxy": None}
    url = f"ws://127.0.0.1:{server.port}{path}"
    async with connect(url, subprotocols=offered or None, **options) as client:
        assert client.subprotocol == next(iter(subprotocols), None)
        answers = []
        for message in messages:
            reader = asyncio.create_task(client.recv())
            await asyncio.wait_for(client.send(message), patience)
            answers.append(await asyncio.wait_for(reader, patience))
        return answers


def secure_websocket(port: int, context: ssl.SSLContext, path: str) -> ClientConnection:
    """A client by TLS and HTTP/1.1; a context manager.

    The library reads in one thread while it writes in another, and OpenSSL does not allow that on
    one connection: the first request was lost now and then.  So a thread of ours has the
    connection, and the library a socket in front of it.
    """
    connection = socket.create_connection(("127.0.0.1", port), 15)
    secure = context.wrap_socket(connection, server_hostname="localhost")
    ours, theirs = socket.socketpair()
    threading.Thread(target=_relay, args=(secure, ours), daemon=True).start()
    options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
    return connect_sync(f"ws://localhost:{port}{path}", sock=theirs, proxy=None, **options)


def _relay(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Until *plain* is closed at the other side, or either connection is lost."""
    secure.setblocking(False)
    sources: list[socket.socket] = [secure, plain]
    with secure, plain, suppress(OSError):
        while True:
            ready, _, _ = select.select(sources, [], [])
            if secure in ready and not _receive(secure, plain):
                sources.remove(secure)
                plain.shutdown(socket.SHUT_WR)
            if plain in ready:
                data = plain.recv(1 << 16)
                if not data:
                    return
                _send(secure, data)


def _receive(secure: ssl.SSLSocket, plain: socket.socket) -> bool:
    """Pass on what has come, all of it: select does not see what OpenSSL holds.  False: its end."""
    with suppress(ssl.SSLWantReadError):
        while data := secure.recv(1 << 16):
            plain.sendall(data)
        return False
    return True


def _send(secure: ssl.SSLSocket, data: bytes) -> None:
    while data:
        try:
            data = data[secure.send(data) :]
        except ssl.SSLWantWriteError:
            select.select([], [secure], [])
