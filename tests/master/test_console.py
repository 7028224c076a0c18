"""The control socket when there are no descriptors for its clients."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from forkd.master import console
from forkd.master.console import Console
from forkd.master.loop import Loop


def test_who_cannot_be_accepted_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: socket.socket) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    loop, path = Loop(), str(tmp_path / "x.sock")
    one = Console.open(path, loop, lambda request, answer: answer({"ok": True}))
    monkeypatch.setattr(console, "PAUSE", 0.05)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b'{"do": "status"}\n')
        with monkeypatch.context() as exhausted:
            exhausted.setattr(socket.socket, "accept", fail)
            loop.run_once()
        for _ in range(3):  # the end of the pause, the client, his request
            loop.run_once()
        assert json.loads(client.recv(99)) == {"ok": True}
    assert caplog.text.count("control socket: Too many open files") == 1
    one.close()
    loop.close()
