#!/usr/bin/env python3
"""Echoes bytes on every connection that it accepts on descriptor 0, many at a time."""

from __future__ import annotations

import contextlib
import selectors
import socket

PIECE = 65536
MOST_HELD = 1 << 20


def main() -> None:
    listener = socket.socket(fileno=0)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    held: dict[socket.socket, bytearray] = {}
    ended: set[socket.socket] = set()
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                try:
                    client, _ = listener.accept()
                except BlockingIOError:
                    continue
                client.setblocking(False)
                held[client] = bytearray()
                selector.register(client, selectors.EVENT_READ)
                continue
            try:
                turn(sock, held[sock], ended)
            except OSError:
                ended.add(sock)
                held[sock].clear()
            if sock in ended and not held[sock]:
                selector.unregister(sock)
                sock.close()
                ended.discard(sock)
                del held[sock]
                continue
            events = selectors.EVENT_WRITE if held[sock] else 0
            if sock not in ended and len(held[sock]) < MOST_HELD:
                events |= selectors.EVENT_READ
            selector.modify(sock, events)


def turn(sock: socket.socket, out: bytearray, ended: set[socket.socket]) -> None:
    if sock not in ended and len(out) < MOST_HELD:
        try:
            data = sock.recv(PIECE)
            if data:
                out += data
            else:
                ended.add(sock)
        except BlockingIOError:
            pass
    if out:
        with contextlib.suppress(BlockingIOError):
            del out[: sock.send(out)]


if __name__ == "__main__":
    main()
