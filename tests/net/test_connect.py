"""Connecting: success, refusal, a full backlog, silence."""

from __future__ import annotations

import socket
import time

import gevent
import pytest

from forkd.address import Address
from forkd.net.blocking import BlockingPort
from forkd.net.connect import HEAD_START, _Race, connect, connect_first
from forkd.net.packet_port import PacketPort
from forkd.net.port import FdPort


def test_unix_and_tcp(tmp_path):
    path = str(tmp_path / "s")
    for server in (socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)):
        if server.family == socket.AF_UNIX:
            server.bind(path)
            server.listen()
            address = Address(path)
        else:
            address = Address(*server.getsockname())
        port = connect(address, 5)
        accepted, _ = server.accept()
        accepted.sendall(b"hi")
        assert BlockingPort(port).recv(5) == b"hi"
        port.abort("done")
        accepted.close()
        server.close()


def test_packets(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(path)
        server.listen()
        port = connect(Address(path), 5, packets=True)
        assert isinstance(port, PacketPort)
        port.abort("done")
        with pytest.raises(OSError, match="wrong type"):
            connect(Address(path), 5)


def test_refused_names_the_address(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.sock"):
        connect(Address(str(tmp_path / "gone.sock")), 5)
    closed = socket.create_server(("127.0.0.1", 0))
    address = Address(*closed.getsockname())
    closed.close()
    with pytest.raises(ConnectionRefusedError, match=str(address.port)):
        connect(address, 5)


@pytest.fixture
def full_backlog(tmp_path):
    """A unix listener whose backlog holds nothing more, and who fills it."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "full"))
    server.listen(0)
    waiting = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        waiting.append(client)
        if client.connect_ex(server.getsockname()):
            break
    yield server
    for sock in (*waiting, server):
        sock.close()


def test_a_full_backlog_is_asked_again_until_there_is_room(full_backlog):
    attempt = gevent.spawn(connect, Address(full_backlog.getsockname()), 5)
    gevent.sleep(0.03)
    assert not attempt.ready()
    full_backlog.accept()[0].close()
    attempt.get(timeout=5).abort("done")


def test_a_full_backlog_is_a_timeout_in_the_end(full_backlog):
    with pytest.raises(TimeoutError, match="backlog full"):
        connect(Address(full_backlog.getsockname()), 0.05)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def dead():
    """An address that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return Address(*sock.getsockname())


@pytest.fixture
def silent():
    """An address that never answers: its backlog is full."""
    with socket.socket() as sock, socket.socket() as first:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        first.connect(sock.getsockname())
        yield Address(*sock.getsockname())


def test_first_of_several_that_can_be_had(listener, dead):
    address = Address(*listener.getsockname())
    for addresses in ([address], [dead, address], [dead, dead, address, dead]):
        port = connect_first(addresses, 5)
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"hi")
            assert BlockingPort(port).recv(5) == b"hi"
        port.abort("done")


def test_address_that_is_silent_does_not_stop_the_next(listener, silent):
    before = FdPort.open_ports
    started = time.monotonic()
    port = connect_first([silent, Address(*listener.getsockname())], 10)
    assert HEAD_START <= time.monotonic() - started < 5
    assert FdPort.open_ports == before + 1
    port.abort("done")


def test_none_of_several_can_be_had(dead, silent):
    with pytest.raises(ConnectionRefusedError):
        connect_first([dead, dead], 5)
    with pytest.raises(TimeoutError):
        connect_first([silent, dead], 0.4)


def test_slower_ones_leave_nothing_behind(listener):
    before = FdPort.open_ports
    address = Address(*listener.getsockname())
    race = _Race(5)
    port = race.run([address, address])
    race._connect(address)  # came second
    race.end()
    assert FdPort.open_ports == before + 1
    port.abort("done")
