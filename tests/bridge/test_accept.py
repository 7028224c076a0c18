"""forkd/bridge/accept.py: as many connections as there may be, and descriptor 0."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import gevent
import pytest

from forkd.bridge import accept
from forkd.bridge.accept import Acceptor


class Listener:
    """A listening socket with faults to come."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.fileno, self.setblocking = self.socket.fileno, self.socket.setblocking
        self.close = self.socket.close
        self.faults: list[int] = []

    def accept(self) -> tuple[socket.socket, object]:
        if self.faults:
            number = self.faults.pop(0)
            raise OSError(number, os.strerror(number))
        return self.socket.accept()


class Taken:
    """An acceptor, what it took, and the clients."""

    def __init__(self, limit: int) -> None:
        self.listener = Listener()
        self.socks: list[socket.socket] = []
        self.clients: list[socket.socket] = []
        self.acceptor = Acceptor(
            self.listener,  # type: ignore[arg-type]  # what it uses of a socket
            limit,
            lambda: len(self.socks),
            self.socks.append,
        )
        self.acceptor.start()

    def connect(self, count: int) -> None:
        address = self.listener.socket.getsockname()
        self.clients += [socket.create_connection(address) for _ in range(count)]

    def has(self, count: int) -> bool:
        """Whether it comes to *count*, and no more."""
        with gevent.Timeout(5):
            while len(self.socks) < count:
                gevent.sleep(0.001)
        gevent.sleep(0.03)
        return len(self.socks) == count

    def close(self) -> None:
        self.acceptor.close()
        for sock in (*self.socks, *self.clients, self.listener.socket):
            sock.close()


@pytest.fixture
def taken() -> Iterator[Taken]:
    made = Taken(limit=2)
    yield made
    made.close()


def test_a_limit(taken: Taken) -> None:
    taken.connect(4)
    assert taken.has(2)
    assert not any(sock.getblocking() for sock in taken.socks)
    taken.socks.pop().close()
    taken.acceptor.room()
    assert taken.has(2)
    taken.acceptor.room()
    assert taken.has(2)


def test_closed_it_takes_no_more(taken: Taken) -> None:
    taken.connect(1)
    assert taken.has(1)
    taken.acceptor.close()
    assert taken.acceptor.is_closed
    taken.acceptor.close()
    taken.acceptor.room()
    gevent.sleep(0.03)


def test_without_descriptors_the_limit_is_halved_and_time_passes(
    taken: Taken, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accept, "OUT_OF_FDS_PAUSE", 0.2)
    taken.acceptor.limit = 8
    taken.connect(4)
    assert taken.has(4)
    taken.listener.faults = [errno.EMFILE]
    taken.connect(1)
    with gevent.Timeout(5):
        while not caplog.messages:
            gevent.sleep(0.001)
    assert caplog.messages == ["accept: Too many open files; from now on at most 2 connections"]
    gevent.sleep(0.3)
    assert taken.has(4)
    del taken.socks[1:]
    taken.acceptor.room()
    assert taken.has(2)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ECONNABORTED])
def test_what_passes_is_not_spoken_of(
    taken: Taken, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    taken.listener.faults = [number]
    taken.connect(1)
    assert taken.has(1)
    assert caplog.messages == []


TAKE = """
import os
from forkd.bridge.accept import take_listener
from forkd.errors import StartError
try:
    listener = take_listener()
    print(listener.getsockname()[1], os.readlink("/proc/self/fd/0"))
except StartError as error:
    print(error)
"""


def test_descriptor_0() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert said(listener) == f"{port} /dev/null\n"
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull) as null:
        for stdin in (ours, null):
            assert said(stdin).startswith("descriptor 0 is no listening socket")


def said(stdin: object) -> str:
    command = [sys.executable, "-c", TAKE]
    found = subprocess.run(command, stdin=stdin, capture_output=True, text=True)  # type: ignore[call-overload]
    assert not found.stderr
    return str(found.stdout)
