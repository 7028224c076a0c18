"""Fair accept: the policy as a table, the acceptor over a real listener."""

from __future__ import annotations

import socket

import gevent
import pytest

from forkd.worker.accept import Acceptor, may_accept


@pytest.mark.parametrize(
    "mine, others, allowed",
    [
        (0, [], True),
        (10_000, [], True),  # alone
        (0, [0, 0, 0], True),
        (2, [0, 0, 0], True),
        (3, [0, 0, 0], False),
        (100, [98, 98, 98], True),
        (103, [98, 98, 98], False),
        (0, [500, 500], True),  # one that has just been replaced
    ],
)
def test_may_accept(mine, others, allowed):
    assert may_accept(mine, others) is allowed


@pytest.fixture
def listener():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    yield sock
    sock.close()


def clients(listener: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(count)]


def accepted_by(acceptor_args, listener, deadline=5.0, count=1):
    taken: list[socket.socket] = []
    acceptor = Acceptor(listener, lambda sock, peer: taken.append(sock), *acceptor_args)
    acceptor.start()
    with gevent.Timeout(deadline, False):
        while len(taken) < count:
            gevent.sleep(0.001)
    return acceptor, taken


def test_takes_what_waits(listener):
    waiting = clients(listener, 3)
    acceptor, taken = accepted_by((lambda: True, lambda: True), listener, count=3)
    assert len(taken) == 3 and not taken[0].getblocking()
    acceptor.close()
    for sock in (*waiting, *taken):
        sock.close()


def test_a_worker_over_its_share_still_takes_what_nobody_else_does(listener):
    waiting = clients(listener, 2)
    acceptor, taken = accepted_by((lambda: False, lambda: True), listener, count=2)
    assert len(taken) == 2
    acceptor.close()
    for sock in (*waiting, *taken):
        sock.close()


def test_no_room_means_no_accept_until_told(listener):
    waiting = clients(listener, 1)
    full = [True]
    acceptor, taken = accepted_by((lambda: True, lambda: not full[0]), listener, 0.05)
    assert taken == []
    full[0] = False
    acceptor.room()
    with gevent.Timeout(5):
        while not taken:
            gevent.sleep(0.001)
    acceptor.close()
    for sock in (*waiting, *taken):
        sock.close()


def test_out_of_descriptors_is_a_pause_not_a_loop(listener, monkeypatch, caplog):
    class Broken:
        tries = 0

        def fileno(self) -> int:
            return listener.fileno()

        def accept(self):
            self.tries += 1
            raise OSError(24, "Too many open files")

        def close(self) -> None: ...

    waiting = clients(listener, 1)
    broken = Broken()
    acceptor, _ = accepted_by((lambda: True, lambda: True), broken, 0.1)
    assert broken.tries == 1
    assert "Too many open files" in caplog.text
    acceptor.close()
    waiting[0].close()
