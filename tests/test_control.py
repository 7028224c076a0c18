"""The control protocol: lines in and out, and a client that never waits longer than it should."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forkd.control import (
    ControlError,
    NotAllowed,
    NotListening,
    ask,
    decode,
    encode,
)

DEADLINE = 10.0


@contextmanager
def served(path: Path, answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server for one client: *answer* gets the connection and the request line."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(DEADLINE)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection, connection.makefile("rb").readline())

        thread = threading.Thread(target=serve)
        thread.start()
        yield str(path)
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "message", [{"do": "status"}, {}, {"ok": False, "error": "ü\n\udcff", "list": [1, None, 2.5]}]
)
def test_a_message_is_one_ascii_line_and_comes_back(message: dict) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode(line) == message


@pytest.mark.parametrize("line", [b"", b"\n", b"[]\n", b"3\n", b'"x"\n', b"{\n", b"\xff\n", b"{}x"])
def test_what_is_not_a_message(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode(line)


def test_a_question_and_its_answer(tmp_path: Path) -> None:
    seen = []

    def answer(connection: socket.socket, line: bytes) -> None:
        seen.append(decode(line))
        for piece in (b'{"ok":', b"true,", b'"generation":2}\n'):
            connection.sendall(piece)

    with served(tmp_path / "s", answer) as path:
        assert ask(path, "reload", DEADLINE, quick=True) == {"ok": True, "generation": 2}
    assert seen == [{"do": "reload", "quick": True}]


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    refusal = {"ok": False, "error": "x.conf:3: what", "code": 6}
    with served(tmp_path / "s", lambda to, _: to.sendall(encode(refusal))) as path:
        assert ask(path, "reload", DEADLINE) == refusal


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NotListening):
        ask(str(tmp_path / "missing"), "status", DEADLINE)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "left"))
    with pytest.raises(NotListening):
        ask(str(tmp_path / "left"), "status", DEADLINE)


def test_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def connect(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(NotAllowed, match="permission denied"):
        ask("/x", "status", DEADLINE)


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "before it answered"), (b'{"ok"', "before it answered"), (b"what\n", "not understood"),
     (b"[]\n", "not understood")],
)  # fmt: skip
def test_a_bad_answer(tmp_path: Path, data: bytes, why: str) -> None:
    with (
        served(tmp_path / "s", lambda to, _: to.sendall(data)) as path,
        pytest.raises(ControlError, match=why),
    ):
        ask(path, "status", DEADLINE)


def test_the_deadline_is_for_the_whole_answer(tmp_path: Path) -> None:
    """A server that sends a byte now and then does not hold its client."""
    over = threading.Event()

    def drip(connection: socket.socket, _: bytes) -> None:
        while not over.wait(0.02):
            connection.sendall(b" ")

    start = time.monotonic()
    with served(tmp_path / "s", drip) as path:
        with pytest.raises(ControlError, match=r"within 0\.2 s"):
            ask(path, "status", 0.2)
        over.set()
    assert 0.2 <= time.monotonic() - start < 5
