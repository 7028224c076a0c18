#!/usr/bin/env python3
"""A WebSocket echo as a CGI program: every message goes back as it came (RFC 6455).

The server passes the bytes of the connection on and does nothing else, so all of WebSocket is in
here: the handshake is read from the environment, frames come on standard input and leave on
standard output.  Nothing but the standard library is needed, and no more than 64 kB are held,
however long a message is: a frame longer than that goes back in several.
"""

import base64
import binascii
import codecs
import hashlib
import os
import struct
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
PIECE = 64 * 1024  # bytes; a multiple of 4, so that a mask begins anew with every piece

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA
FIN, RESERVED, CONTROL, MASKED = 0x80, 0x70, 0x08, 0x80


class Fail(Exception):
    """The client broke the protocol: what to say in the Close frame."""

    def __init__(self, code, reason):
        super().__init__(code, reason)
        self.code, self.reason = code, reason


def main():
    """Answer the request that the environment describes."""
    try:
        refused = refusal(os.environ)
        if refused:
            respond(*refused)
        else:
            accept(os.environ["HTTP_SEC_WEBSOCKET_KEY"])
            serve()
    except (EOFError, BrokenPipeError):
        pass  # the client has left


# --- The handshake (section 4.2)


def refusal(environ):
    """Status, text and fields of the answer to what is no handshake; None for one."""
    if "websocket" not in tokens(environ.get("HTTP_UPGRADE", "")):
        return "426 Upgrade Required", "This program speaks WebSocket only.", AS_WEBSOCKET
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        return "426 Upgrade Required", "Version 13 of WebSocket is needed.", AS_WEBSOCKET
    if environ.get("REQUEST_METHOD") != "GET":
        return "400 Bad Request", "A WebSocket begins with GET.", []
    if not is_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")):
        return "400 Bad Request", "Sec-WebSocket-Key is not 16 bytes in base64.", []
    return None


AS_WEBSOCKET = ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]


def tokens(field):
    return [token.strip().lower() for token in field.split(",")]


def is_key(key):
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def respond(status, text, fields):
    fields = [f"Status: {status}", "Content-Type: text/plain", *fields]
    send("".join(f"{field}\r\n" for field in fields).encode() + f"\r\n{text}\n".encode())


def accept(key):
    proof = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
    fields = ["Status: 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    fields += [f"Sec-WebSocket-Accept: {proof}"]
    send("".join(f"{field}\r\n" for field in fields).encode() + b"\r\n")


# --- Messages (sections 5 and 7)


def serve():
    """Echo until one side closes."""
    echo = Echo()
    try:
        while True:
            opcode, fin, length, key = read_frame_head()
            if not opcode & CONTROL:
                echo.frame(opcode, fin, length, key)
            elif not control(opcode, unmask(read(length), key)):
                return
    except Fail as fail:
        send_frame(CLOSE, struct.pack("!H", fail.code) + fail.reason.encode())


def control(opcode, payload):
    """Answer a control frame; False when it was the last."""
    if opcode == PING:
        send_frame(PONG, payload)
    elif opcode == CLOSE:
        check_close(payload)
        send_frame(CLOSE, payload[:2])
    return opcode != CLOSE


def check_close(payload):
    if len(payload) == 1:
        raise Fail(1002, "half a close code")
    if payload:
        (code,) = struct.unpack("!H", payload[:2])
        if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
            raise Fail(1002, "no such close code")
        try:
            payload[2:].decode()
        except UnicodeDecodeError:
            raise Fail(1007, "the reason is not UTF-8") from None


class Echo:
    """Sends messages back, frame by frame; control frames may come in between."""

    def __init__(self):
        self.opcode = None  # of the message that is under way
        self.characters = codecs.getincrementaldecoder("utf-8")()

    def frame(self, opcode, fin, length, key):
        if (opcode == CONTINUATION) != (self.opcode is not None):
            raise Fail(1002, "a message inside another, or a continuation of none")
        self.opcode = opcode or self.opcode
        while True:
            piece = unmask(read(min(length, PIECE)), key)
            length -= len(piece)
            last = fin and not length
            self.check(piece, last)
            send_frame(opcode, piece, last)
            opcode = CONTINUATION
            if not length:
                break
        if fin:
            self.opcode = None

    def check(self, piece, last):
        if self.opcode == TEXT:
            try:
                self.characters.decode(piece, final=last)
            except UnicodeDecodeError:
                raise Fail(1007, "text is not UTF-8") from None


# --- Frames (section 5.2)


def read_frame_head():
    """(opcode, whether it ends its message, length of the payload, mask)"""
    first, second = read(2)
    opcode, fin, length = first & 0x0F, bool(first & FIN), second & 0x7F
    if first & RESERVED or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise Fail(1002, "reserved bits or opcode")
    if not second & MASKED:
        raise Fail(1002, "a frame without a mask")
    if opcode & CONTROL and (length > 125 or not fin):
        raise Fail(1002, "a control frame too long or in pieces")
    if length >= 126:
        shorter, form = (126, "!H") if length == 126 else (65536, "!Q")
        (length,) = struct.unpack(form, read(struct.calcsize(form)))
        if length < shorter or length >> 63:
            raise Fail(1002, "a length in the wrong form")
    return opcode, fin, length, read(4)


def unmask(data, key):
    """*data* XOR *key*, over and over: as one long number, which is fast."""
    keys = (key * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")
    return number.to_bytes(len(data), "big")


def send_frame(opcode, payload, fin=True):
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", opcode | FIN * fin, length)
    elif length < 65536:
        head = struct.pack("!BBH", opcode | FIN * fin, 126, length)
    else:
        head = struct.pack("!BBQ", opcode | FIN * fin, 127, length)
    send(head + payload)


# --- Bytes


def read(count):
    """Exactly *count* bytes from the client."""
    data = sys.stdin.buffer.read(count)
    if len(data) < count:
        raise EOFError
    return data


def send(data):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]


if __name__ == "__main__":
    main()
