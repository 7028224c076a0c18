"""The sample CGI program speaks WebSocket to the letter: run by itself, with pipes for a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from client_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ServerFrame,
    close,
    frame,
    server_frames,
)

PROGRAM = Path(__file__).parents[1] / "conf" / "samples" / "bin" / "ws_echo.py"

HANDSHAKE = {
    "REQUEST_METHOD": "GET",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


def run(data: bytes, **changes: str) -> tuple[str, bytes]:
    """(the head of the answer, what follows it) when *data* is all the client sends."""
    environment = {name: value for name, value in (HANDSHAKE | changes).items() if value}
    command = [sys.executable, str(PROGRAM)]
    done = subprocess.run(command, input=data, env=environment, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    head, separator, rest = done.stdout.partition(b"\r\n\r\n")
    assert separator
    return head.decode(), rest


def echoed(*frames: bytes) -> list[ServerFrame]:
    head, rest = run(b"".join(frames))
    assert head.startswith("Status: 101 ")
    return server_frames(rest)


def test_the_example_of_the_rfc_is_accepted() -> None:
    head, _ = run(b"")
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head.split("\r\n")
    assert "Upgrade: websocket" in head.split("\r\n")


@pytest.mark.parametrize(
    "changes, status",
    [
        ({"HTTP_UPGRADE": ""}, "426"),
        ({"HTTP_UPGRADE": "h2c"}, "426"),
        ({"HTTP_UPGRADE": "h2c, WebSocket"}, "101"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": ""}, "426"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, "426"),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, "400"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, "400"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "gr\xfc\xdfe"}, "400"),
        ({"REQUEST_METHOD": "POST"}, "400"),
    ],
)
def test_handshakes(changes: dict[str, str], status: str) -> None:
    head, body = run(b"", **changes)
    assert head.startswith(f"Status: {status} ")
    assert ("Sec-WebSocket-Version: 13" in head) == (status == "426")
    assert bool(body) == (status != "101"), "words for a person who opens it in a browser"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 2048, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_comes_back_in_one_frame(opcode: int, size: int) -> None:
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    assert echoed(frame(opcode, payload)) == [ServerFrame(opcode, payload)]


def test_a_long_frame_comes_back_in_pieces_of_the_same_message() -> None:
    payload = bytes(range(256)) * 1000
    first, *others = echoed(frame(BINARY, payload))
    assert first.opcode == BINARY and {other.opcode for other in others} == {CONTINUATION}
    assert [piece.fin for piece in (first, *others)] == [False] * len(others) + [True]
    assert b"".join(piece.payload for piece in (first, *others)) == payload


def test_fragments_come_back_as_fragments_with_a_ping_between() -> None:
    euro = "€".encode()
    assert echoed(
        frame(TEXT, euro[:1], fin=False),
        frame(PING, b"there?"),
        frame(CONTINUATION, b"", fin=False),
        frame(PONG, b"not asked for"),
        frame(CONTINUATION, euro[1:]),
        frame(TEXT, b"next"),
    ) == [
        ServerFrame(TEXT, euro[:1], fin=False),
        ServerFrame(PONG, b"there?"),
        ServerFrame(CONTINUATION, b"", fin=False),
        ServerFrame(CONTINUATION, euro[1:]),
        ServerFrame(TEXT, b"next"),
    ]


def closing(code: int) -> bytes:
    return code.to_bytes(2, "big")


@pytest.mark.parametrize(
    "sent, answer",
    [
        (frame(CLOSE), b""),
        (close(1000), closing(1000)),
        (close(4321, "grüße".encode()), closing(4321)),
        (frame(CLOSE, b"\x03"), closing(1002)),
        (close(999), closing(1002)),
        (close(1005), closing(1002)),
        (close(1015), closing(1002)),
        (close(2999), closing(1002)),
        (close(1000, b"\xff"), closing(1007)),
        (frame(TEXT, b"\xff"), closing(1007)),
        (frame(TEXT, b"\xe2\x82"), closing(1007)),
        (frame(TEXT, b"\xed\xa0\x80"), closing(1007)),
        (frame(CONTINUATION, b"x"), closing(1002)),
        (frame(3, b"x"), closing(1002)),
        (frame(11, b"x"), closing(1002)),
        (frame(TEXT, b"x", rsv=4), closing(1002)),
        (frame(PING, b"x", fin=False), closing(1002)),
        (frame(PING, b"x" * 126), closing(1002)),
        (b"\x81\x01x", closing(1002)),
        (b"\x81\xfe\x00\x01\x00\x00\x00\x00x", closing(1002)),
        (b"\x82\xff" + b"\xff" * 12, closing(1002)),
    ],
)
def test_closes(sent: bytes, answer: bytes) -> None:
    """The last frame is a Close with that code, and what is behind the cause is not read."""
    *_, last = echoed(sent, frame(TEXT, b"too late"))
    assert (last.opcode, last.payload[:2]) == (CLOSE, answer)


def test_a_message_inside_another_is_an_error() -> None:
    *_, last = echoed(frame(TEXT, b"a", fin=False), frame(TEXT, b"b"))
    assert (last.opcode, last.payload[:2]) == (CLOSE, closing(1002))


def test_an_end_inside_a_frame_is_the_end() -> None:
    assert echoed(frame(TEXT, b"whole"), frame(TEXT, b"cut off")[:-1]) == [
        ServerFrame(TEXT, b"whole")
    ]
