#!/usr/bin/env python3
"""One connection at a time on descriptor 0, each treated as the first line received says.

flood N    write N bytes, as fast as they are taken
half FILE  say "half", half-close, and write what still comes into FILE
hold       say "held", read until the end, then say "bye" and close
exit N     exit with status N
bytes HEX  write these bytes, then close
mute       never say anything
deaf       neither, not even at the end of input
"""

from __future__ import annotations

import os
import socket
import threading


def serve(sock: socket.socket) -> None:
    with sock, sock.makefile("rb", buffering=0) as file:
        words = file.readline().decode().split()
        command, argument = words[0], (words[1] if len(words) > 1 else "")
        if command == "flood":
            piece = bytes(range(256)) * 256
            left = int(argument)
            while left:
                left -= sock.send(piece[:left])
        elif command == "half":
            sock.sendall(b"half")
            sock.shutdown(socket.SHUT_WR)
            with open(argument, "wb") as out:
                while data := sock.recv(65536):
                    out.write(data)
        elif command == "hold":
            sock.sendall(b"held")
            while sock.recv(65536):
                pass
            sock.sendall(b"bye")
        elif command == "exit":
            os._exit(int(argument))
        elif command == "bytes":
            sock.sendall(bytes.fromhex(argument))
        elif command == "deaf":
            threading.Event().wait(60)
        elif command == "mute":
            while sock.recv(65536):
                pass


def main() -> None:
    listener = socket.socket(fileno=0)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
