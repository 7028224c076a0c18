"""A backend that sends back what it gets, in threads of the test itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def echo_server(port: int) -> Iterator[socket.socket]:
    """Listens on *port* of 127.0.0.1 while the context lasts."""
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield listener
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)
