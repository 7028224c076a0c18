"""forkd/bridge/hangup.py: who is gone, and who has only stopped sending."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import gevent
import pytest

from forkd.bridge.hangup import Hangups


@pytest.fixture
def hangups() -> Iterator[Hangups]:
    made = Hangups()
    yield made
    made.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


def test_a_half_close_is_no_hang_up_a_close_is(hangups: Hangups) -> None:
    ours, theirs = socket.socketpair()
    calls: list[int] = []
    hangups.watch(ours, lambda: calls.append(1))
    theirs.send(b"unread")
    theirs.shutdown(socket.SHUT_WR)
    gevent.sleep(0.05)
    assert calls == []
    theirs.close()
    with gevent.Timeout(5):
        while not calls:
            gevent.sleep(0.001)
    gevent.sleep(0.05)
    assert calls == [1]
    ours.close()


def test_a_reset_is_one_and_idle_connections_are_probed(hangups: Hangups) -> None:
    ours, theirs = tcp_pair()
    calls: list[int] = []
    hangups.watch(ours, lambda: calls.append(1))
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    with gevent.Timeout(5):
        while not calls:
            gevent.sleep(0.001)
    ours.close()


def test_forgotten_and_closed(hangups: Hangups) -> None:
    calls: list[int] = []
    for closes_first in (False, True):
        ours, theirs = socket.socketpair()
        fd = ours.fileno()
        hangups.watch(ours, lambda: calls.append(1))
        if closes_first:
            ours.close()
        hangups.forget(fd)
        hangups.forget(fd)
        theirs.close()
        ours.close()
    gevent.sleep(0.05)
    assert calls == []


def test_a_callback_that_fails_is_not_the_others_business(
    hangups: Hangups, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    pairs = [socket.socketpair() for _ in range(2)]
    hangups.watch(pairs[0][0], lambda: calls.append(1 // 0))
    hangups.watch(pairs[1][0], lambda: calls.append(1))
    for _, theirs in pairs:
        theirs.close()
    with gevent.Timeout(5):
        while not calls:
            gevent.sleep(0.001)
    assert calls == [1]
    assert "ZeroDivisionError" in caplog.text
    for ours, _ in pairs:
        ours.close()
