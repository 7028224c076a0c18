#!/usr/bin/env python3
"""Every message comes as LENGTH:BYTES, and goes back as such.  The first netstring is no message:
the CGI variables of the handshake, NUL behind each name and value ("metadata" => "cgi")."""

import socket
import threading


def read(stream):
    """The next netstring; None at the end."""
    digits = b""
    while (byte := stream.read(1)) not in (b":", b""):
        digits += byte
    return stream.read(int(digits) + 1)[:-1] if byte else None


def serve(client):
    with client, client.makefile("rwb") as stream:
        words = read(stream).decode().split("\0")
        of = dict(zip(words[::2], words[1::2], strict=False))  # nothing follows the last NUL
        message = f"You are {of['REMOTE_ADDR']}, and this is {of['HTTP_HOST']}".encode()
        while message is not None:
            stream.write(b"%d:%b," % (len(message), message))
            stream.flush()
            message = read(stream)


listener = socket.socket(fileno=0)
while True:
    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()
