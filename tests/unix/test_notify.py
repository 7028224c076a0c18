"""What a service manager hears."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from forkd.unix.notify import Notifier


@pytest.mark.parametrize("is_abstract", [False, True])
def test_messages(tmp_path: Path, is_abstract: bool) -> None:
    address = f"@{tmp_path}" if is_abstract else f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.settimeout(5)
        notifier = Notifier(address)
        before = time.monotonic_ns() // 1000
        notifier.ready("fine")
        notifier.reloading()
        notifier.status("so so")
        notifier.alive()
        notifier.stopping()
        said = [manager.recv(4096).decode().split("\n") for _ in range(5)]
    assert said[0] == ["READY=1", f"MAINPID={os.getpid()}", "STATUS=fine"]
    assert said[1][0] == "RELOADING=1"
    name, _, value = said[1][1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000
    assert said[2:] == [["STATUS=so so"], ["WATCHDOG=1"], ["STOPPING=1", "STATUS=stopping"]]


def test_nobody_listens(tmp_path: Path) -> None:
    Notifier().ready("x")
    Notifier(f"{tmp_path}/none").ready("x")


def test_variables_are_taken_and_given_on() -> None:
    given = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    environment = {**given, "HOME": "/"}
    notifier = Notifier.take(environment)
    assert environment == {"HOME": "/"}
    assert notifier.variables == given
    assert Notifier.take(dict(notifier.variables)) == notifier
    assert Notifier.take({}).variables == {}


@pytest.mark.parametrize(
    ("address", "usec", "pid", "interval"),
    [
        ("/run/n", "3000000", "", 1.5),
        ("/run/n", "3000000", "own", 1.5),
        ("/run/n", "3000000", "1", 0.0),
        ("/run/n", "", "", 0.0),
        ("/run/n", "soon", "", 0.0),
        ("relative", "3000000", "", 0.0),
        ("", "3000000", "", 0.0),
    ],
)
def test_watchdog(address: str, usec: str, pid: str, interval: float) -> None:
    pid = pid.replace("own", str(os.getpid()))
    values = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert Notifier.take(values).interval == interval
