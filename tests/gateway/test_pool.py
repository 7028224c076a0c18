from __future__ import annotations

import socket
from collections.abc import Callable

import gevent
import pytest
from memory_port import MemoryPort

from forkd.address import Address
from forkd.config.backend import BackendSpec, Proc
from forkd.gateway.pool import Pool
from forkd.net.port import FdPort, Peer

SPEC = BackendSpec("proxy", "", "", Address("127.0.0.1", 80))
PROC = Proc(SPEC, 0, SPEC.address, 0)
OTHER = Proc(SPEC, 1, Address("127.0.0.1", 81), 1)


def test_last_one_kept_is_taken_first() -> None:
    pool = Pool()
    first, second = MemoryPort(), MemoryPort()
    pool.keep(PROC, first, 2)
    pool.keep(PROC, second, 2)
    assert len(pool) == 2
    assert pool.take(OTHER) is None
    assert [pool.take(PROC), pool.take(PROC), pool.take(PROC)] == [second, first, None]
    assert len(pool) == 0
    assert first.closed is second.closed is None
    assert first.paused and second.paused  # what comes is for whoever attaches


@pytest.mark.parametrize("limit", [0, 1])
def test_no_more_are_kept_than_the_limit(limit: int) -> None:
    pool = Pool()
    ports = [MemoryPort() for _ in range(limit + 1)]
    for port in ports:
        pool.keep(PROC, port, limit)
    assert [port.closing for port in ports] == [False] * limit + [True]
    assert len(pool) == limit
    pool.keep(OTHER, MemoryPort(), 1)
    assert len(pool) == limit + 1


@pytest.mark.parametrize(
    "end",
    [
        lambda port: port.receive(b"HTTP/1.1 408 Timeout\r\n\r\n"),
        lambda port: port.receive_eof(),
        lambda port: port.abort("reset"),
    ],
)
def test_readable_one_is_dead(end: Callable[[MemoryPort], None]) -> None:
    pool = Pool()
    port = MemoryPort()
    pool.keep(PROC, port, 1)
    end(port)
    assert pool.take(PROC) is None
    assert len(pool) == 0
    assert port.closing or port.closed is not None
    port.finish()


@pytest.mark.parametrize(
    "end",
    [
        lambda peer: peer.send(b"HTTP/1.1 200 OK\r\n\r\n"),
        lambda peer: peer.shutdown(socket.SHUT_WR),
        lambda peer: peer.close(),
    ],
)
def test_what_came_before_the_loop_looked_is_nobodys_response(
    end: Callable[[socket.socket], None],
) -> None:
    pool = Pool()
    peers, ports = [], []
    for _ in range(2):
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        peers.append(peer)
        ports.append(FdPort(ours))
        pool.keep(PROC, ports[-1], 2)
    end(peers[1])
    assert pool.take(PROC) is ports[0]
    assert pool.take(PROC) is None
    assert len(pool) == 0
    peers[1].close()
    with gevent.Timeout(5):
        while ports[1].peer is not Peer.LOST:
            gevent.sleep(0.005)
    ports[0].abort("")
    peers[0].close()


def test_unused_one_is_closed_after_a_while() -> None:
    pool = Pool(max_idle=0.01)
    port, taken = MemoryPort(), MemoryPort()
    pool.keep(PROC, taken, 2)
    assert pool.take(PROC) is taken
    pool.keep(PROC, port, 2)
    with gevent.Timeout(5):
        while not port.closing:
            gevent.sleep(0.005)
    assert len(pool) == 0
    assert not taken.closing


def test_a_shorter_time_counts() -> None:
    pool = Pool()
    port = MemoryPort()
    pool.keep(PROC, port, 1, 0.01)
    with gevent.Timeout(5):
        while not port.closing:
            gevent.sleep(0.005)


def test_an_idle_one_is_spared_for_another_connection() -> None:
    pool = Pool()
    ports = [MemoryPort() for _ in range(2)]
    for port in ports:
        pool.keep(PROC, port, 2)
    pool.spare(OTHER)
    assert len(pool) == 2
    pool.spare(PROC)
    assert [port.closing for port in ports] == [True, False] and len(pool) == 1
    pool.spare(PROC)
    pool.spare(PROC)
    assert len(pool) == 0


def test_closed_pool_keeps_nothing() -> None:
    pool = Pool()
    ports = [MemoryPort() for _ in range(3)]
    for port, proc in zip(ports[:2], (PROC, OTHER), strict=True):
        pool.keep(proc, port, 2)
    pool.close()
    pool.keep(PROC, ports[2], 2)
    assert all(port.closing for port in ports)
    assert len(pool) == 0
    for port in ports:
        port.finish()


def test_taken_one_may_come_back() -> None:
    pool = Pool()
    port = MemoryPort()
    for _ in range(3):
        pool.keep(PROC, port, 1)
        assert pool.take(PROC) is port
