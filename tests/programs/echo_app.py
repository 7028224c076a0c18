"""What the echo programs behind cgi, scgi, uwsgi, fastcgi and proxy do with a request: the last
part of its path says.  Plain Python, nothing of forkd, as if somebody else had written it.

/env       its variables                     /ws     a WebSocket echo; to "bye" it says Close 1000
/upload    size and SHA-1 of its body        /raw    a tunnel that echoes bytes
/download  ?N bytes                          /talk   a tunnel that says "hello" with the 101,
/stderr    three lines to the admin                  ends its output and hears on
/die       ?WHERE, without a proper end      /tell   a tunnel that says its variables and ends
/stay      ?N bytes, then nothing for long   /reset  a tunnel that is reset by the first input
/proofless a 101 for somebody else's key     /flood  a tunnel: ?N bytes from the first input on

As an authorizer it grants what has the query ``yes``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from typing import Protocol

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PIECE = bytes(range(256)) * 256
CLOSE, PING, PONG = 8, 9, 10


class Gone(Exception):
    """The server has ended the request, or the connection."""


class Request(Protocol):
    """One request, whatever the protocol."""

    environ: dict[str, str]

    def read(self) -> bytes:
        """The next piece of input, b"" at its end.  Raises Gone."""

    def write(self, data: bytes) -> None: ...
    def complain(self, text: bytes) -> None: ...
    def end_output(self) -> None: ...
    def reset(self) -> None:
        """End it as rudely as the transport can."""


def note(text: str) -> None:
    """Tell the test."""
    if "EVENTS" in os.environ:
        with open(os.environ["EVENTS"], "a") as file:
            file.write(text + "\n")


def handle(request: Request) -> None:
    path = request.environ.get("SCRIPT_NAME", "") + request.environ.get("PATH_INFO", "")
    is_authorizer = request.environ.get("ROLE") == "2"
    action = _authorize if is_authorizer else ACTIONS.get(path.rpartition("/")[2], _missing)
    try:
        action(request)
    except (Gone, OSError) as gone:
        note(f"gone: {gone}")


def _number(request: Request) -> int:
    return int(request.environ["QUERY_STRING"] or 0)


def _head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def _body(request: Request) -> bytes:
    """The request's body, and not what may follow it in a tunnel."""
    left = int(request.environ["CONTENT_LENGTH"])
    data = bytearray()
    while len(data) < left:
        piece = request.read()
        if not piece:
            break
        data += piece
    return bytes(data)


# -- responses --------------------------------------------------------------------------------


def _missing(request: Request) -> None:
    request.write(_head("Status: 404", "Content-Type: text/plain") + b"no such action")


def _env(request: Request) -> None:
    request.write(_head("Content-Type: text/plain") + _variables(request))


def _variables(request: Request) -> bytes:
    lines = (f"{name}={value}\n" for name, value in request.environ.items())
    return "".join(lines).encode("latin-1")


def _authorize(request: Request) -> None:
    note("asked: " + " ".join(request.environ))
    if request.environ["QUERY_STRING"] == "yes":
        request.write(_head("Variable-GRANTED: by me", "X-Other: dropped") + b"dropped too")
    else:
        request.write(_head("Status: 403") + b"not granted")


def _upload(request: Request) -> None:
    body = _body(request)
    answer = f"{len(body)} {hashlib.sha1(body).hexdigest()}".encode()
    request.write(_head(f"Content-Length: {len(answer)}") + answer)


def _download(request: Request) -> None:
    request.write(_head("Content-Type: application/octet-stream"))
    _much(request)


def _much(request: Request) -> None:
    left = _number(request)
    while left:
        piece = PIECE[:left]
        request.write(piece)
        left -= len(piece)


def _stderr(request: Request) -> None:
    request.complain(b"first complaint\nsecond complaint\n")
    request.write(_head("Content-Type: text/plain") + b"complained")
    request.complain(b"without a line end")


def _stay(request: Request) -> None:
    request.write(_head("Content-Length: 1000000"))
    request.write(PIECE[: _number(request)])
    while request.read():
        pass
    time.sleep(60)


def _die(request: Request) -> None:
    where = request.environ["QUERY_STRING"]
    if where == "in-head":
        request.write(b"Content-Type: text/plain\r\nX-Cut")
    elif where == "in-body":
        request.write(_head("Content-Length: 10") + b"hello")
    elif where == "after-101":
        request.write(_switch(request))
    elif where == "in-tunnel":
        request.write(_switch(request))
        request.write(b"got " + request.read())
    note("dies")
    os._exit(3)


# -- tunnels ----------------------------------------------------------------------------------


def _switch(request: Request) -> bytes:
    """The head of a 101, with the proof that WebSocket wants (RFC 6455 section 4.2.2)."""
    lines = ["Status: 101", f"Upgrade: {request.environ.get('HTTP_UPGRADE', 'raw')}"]
    key = request.environ.get("HTTP_SEC_WEBSOCKET_KEY", "").encode()
    if key:
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        lines.append(f"Sec-WebSocket-Accept: {accept}")
    return _head(*lines)


def _raw(request: Request) -> None:
    request.write(_switch(request))
    while data := request.read():
        request.write(data)
    note("end of input")
    request.write(b"and that was all")


def _talk(request: Request) -> None:
    request.write(_switch(request) + b"hello")
    request.end_output()
    heard = b""
    while data := request.read():
        heard += data
    note(f"heard {heard.decode()}")


def _flood(request: Request) -> None:
    request.write(_switch(request))
    request.read()
    _much(request)


def _tell(request: Request) -> None:
    request.write(_switch(request) + _variables(request))


def _proofless(request: Request) -> None:
    request.write(_head("Status: 101", "Upgrade: websocket", "Sec-WebSocket-Accept: x"))


def _reset(request: Request) -> None:
    request.write(_switch(request))
    request.read()
    request.reset()


def _ws(request: Request) -> None:
    if not request.environ.get("HTTP_UPGRADE"):
        request.write(_head("Status: 426") + b"no upgrade asked for")
        return
    request.write(_switch(request))
    frames = _Frames(request)
    opcode = 0
    while opcode != CLOSE:
        opcode, payload = frames.next()
        if payload == b"bye":
            request.write(_frame(CLOSE, (1000).to_bytes(2, "big")))
            opcode, _ = frames.next()
        elif opcode == PING:
            request.write(_frame(PONG, payload))
        else:
            request.write(_frame(opcode, payload))


class _Frames:
    """Client frames, whole."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._unread = bytearray()

    def next(self) -> tuple[int, bytes]:
        first, second = self._take(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        mask = self._take(4)
        payload = self._take(size)
        key = int.from_bytes(mask * (size // 4 + 1), "big") >> 8 * (4 - size % 4)
        plain = int.from_bytes(payload, "big") ^ key
        return first & 0x0F, plain.to_bytes(size, "big")

    def _take(self, count: int) -> bytes:
        while len(self._unread) < count:
            data = self._request.read()
            if not data:
                raise Gone("end of input in a frame")
            self._unread += data
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
    return head + payload


ACTIONS = {
    "env": _env,
    "upload": _upload,
    "download": _download,
    "stderr": _stderr,
    "stay": _stay,
    "die": _die,
    "raw": _raw,
    "talk": _talk,
    "flood": _flood,
    "tell": _tell,
    "reset": _reset,
    "proofless": _proofless,
    "ws": _ws,
}
