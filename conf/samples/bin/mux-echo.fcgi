#!/usr/bin/env python3
"""A FastCGI program that serves any number of requests at a time on one connection.

What is posted comes back while it is still being sent; a WebSocket has its messages back, and what
else is upgraded to its bytes; any other request is told its variables.  Every answer says on which
connection it came and under which number: with "multiplex" => "auto" they share one.

Descriptor 0 is the listening socket.  Nothing but the standard library is needed.
"""

import asyncio
import base64
import hashlib
import itertools
import socket
import struct

# FastCGI 1.0 section 8
BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT = range(1, 7)
GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = 9, 10, 11
KEEP_CONN = 1
HEADER = struct.Struct(">BBHHBx")  # version, type, request id, content length, padding length

ABILITIES = {"FCGI_MAX_CONNS": "100", "FCGI_MAX_REQS": "10000", "FCGI_MPXS_CONNS": "1"}


class Connection:
    """Takes records apart, and puts answers into records."""

    numbers = itertools.count(1)

    def __init__(self, reader, writer):
        self.number = next(self.numbers)
        self.reader, self.writer = reader, writer
        self.requests = {}
        self.keeps = True

    async def serve(self):
        try:
            while self.keeps or self.requests:
                head = await self.reader.readexactly(HEADER.size)
                _, kind, number, size, padding = HEADER.unpack(head)
                content = await self.reader.readexactly(size + padding)
                self.take(kind, number, content[:size])
                await self.writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the server has left
        finally:
            self.writer.close()

    def take(self, kind, number, content):
        if kind == GET_VALUES:
            self.answer_values(content)
        elif kind > UNKNOWN_TYPE:
            self.write(UNKNOWN_TYPE, 0, struct.pack(">B7x", kind))
        elif kind == BEGIN_REQUEST:
            self.begin(number, keeps=bool(content[2] & KEEP_CONN))
        elif number in self.requests:
            self.requests[number].take(kind, content)

    def answer_values(self, content):
        known = [(name, ABILITIES[name]) for name, _ in pairs(content) if name in ABILITIES]
        data = b"".join(struct.pack("BB", len(name), len(value)) + (name + value).encode()
                        for name, value in known)
        self.write(GET_VALUES_RESULT, 0, data)

    def begin(self, number, keeps):
        self.keeps = keeps
        self.requests[number] = Request(self, number)

    def write(self, kind, number, content):
        self.writer.write(HEADER.pack(1, kind, number, len(content), 0) + content)


class Request:
    """One request, from BEGIN_REQUEST to END_REQUEST."""

    def __init__(self, connection, number):
        self.connection, self.number = connection, number
        self.params = b""
        self.heard = bytes  # what comes is said again as it is

    def take(self, kind, content):
        if kind == PARAMS and content:
            self.params += content
        elif kind == PARAMS:
            self.start(dict(pairs(self.params)))
        elif kind == STDIN and content:
            self.say(self.heard(content))
        elif kind in (STDIN, ABORT_REQUEST):
            self.end()

    def start(self, variables):
        fields = [f"X-Connection: {self.connection.number}", f"X-Request: {self.number}"]
        upgrade = variables.get("HTTP_UPGRADE", "")
        if upgrade.lower() == "websocket":
            self.heard = Echo(self).heard
            proof = accept(variables["HTTP_SEC_WEBSOCKET_KEY"])
            fields += [f"Sec-WebSocket-Accept: {proof}"]
        if upgrade:
            fields += ["Status: 101", f"Upgrade: {upgrade}", "Connection: Upgrade"]
        else:
            fields += ["Content-Type: text/plain; charset=latin-1"]
        self.say("".join(f"{field}\r\n" for field in fields).encode() + b"\r\n")
        if not upgrade and variables.get("CONTENT_LENGTH", "0") in ("", "0"):
            text = "".join(f"{name}={value}\n" for name, value in sorted(variables.items()))
            self.say(text.encode("latin-1"))

    def say(self, data):
        for start in range(0, len(data), 32768):
            self.connection.write(STDOUT, self.number, data[start : start + 32768])

    def end(self):
        if self.connection.requests.pop(self.number, None):
            self.connection.write(STDOUT, self.number, b"")
            self.connection.write(END_REQUEST, self.number, bytes(8))


def pairs(data):
    """Names and values (section 3.4)."""
    found = []
    while data:
        sizes = []
        for _ in range(2):
            length = 4 if data[0] & 0x80 else 1
            sizes.append(int.from_bytes(data[:length], "big") & 0x7FFFFFFF)
            data = data[length:]
        name, value, data = data[: sizes[0]], data[sizes[0] : sum(sizes)], data[sum(sizes) :]
        found.append((name.decode("latin-1"), value.decode("latin-1")))
    return found


# --- WebSocket (RFC 6455): no more of it than an echo for well-behaved browsers needs

CLOSE, PING, PONG = 0x8, 0x9, 0xA


def accept(key):
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode()


class Echo:
    """Frames from a browser to the same frames for it."""

    def __init__(self, request):
        self.request = request
        self.data = b""

    def heard(self, data):
        self.data += data
        answer = b""
        while (frame := self.frame()) is not None:
            first, payload = frame
            if first & 0xF == PING:
                first += PONG - PING
            answer += encode_frame(first, payload)
            if first & 0xF == CLOSE:
                self.request.say(answer)
                self.request.end()
                return b""
        return answer

    def frame(self):
        """(first byte, payload) of the next frame, taken away; None while it is not complete."""
        data = self.data
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        end = at + 4 + size
        if len(data) < end:
            return None
        self.data = data[end:]
        mask = (data[at : at + 4] * (size // 4 + 1))[:size]
        number = int.from_bytes(data[at + 4 : end], "big") ^ int.from_bytes(mask, "big")
        return data[0], number.to_bytes(size, "big")


def encode_frame(first, payload):
    size = len(payload)
    if size < 126:
        return struct.pack(">BB", first, size) + payload
    if size < 65536:
        return struct.pack(">BBH", first, 126, size) + payload
    return struct.pack(">BBQ", first, 127, size) + payload


# --- The listening socket


async def main():
    async def connected(reader, writer):
        await Connection(reader, writer).serve()

    listener = socket.socket(fileno=0)
    start = asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
    async with await start(connected, sock=listener) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
