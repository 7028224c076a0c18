"""Listening sockets: taken over where nobody listens, never from somebody who does."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.address import Address
from forkd.unix import listen
from forkd.unix.listen import Occupant, UnixSocket
from forkd.unix.user import Identity


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.sock"


@pytest.fixture
def live(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        yield one


def greets(path: Path, listener: socket.socket) -> bool:
    """Whether a connection to *path* arrives at *listener*."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.settimeout(5)
        listener.accept()[0].close()
    return True


def test_nothing_is_at_the_path_before_publish(path: Path) -> None:
    one = UnixSocket(str(path), 8, 0o600)
    assert not path.exists()
    one.publish()
    one.publish()
    assert greets(path, one.socket)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    one.close()
    assert list(path.parent.iterdir()) == []


def test_unpublished_socket_leaves_nothing(path: Path) -> None:
    UnixSocket(str(path), 8, 0o600).close()
    assert list(path.parent.iterdir()) == []


def test_renamed_over_without_a_gap_and_unlinked_by_its_owner_only(path: Path) -> None:
    first = UnixSocket(str(path), 8)
    first.publish()
    second = UnixSocket(str(path), 8)
    assert greets(path, first.socket)
    second.publish()
    assert greets(path, second.socket)
    first.close()
    assert greets(path, second.socket)
    second.close()
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o660])
def test_mode(path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        one = UnixSocket(str(path), 8, mode)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    one.publish()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    one.close()


def test_owner(path: Path) -> None:
    ids = (65534, 65534) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    one = UnixSocket(str(path), 8, 0o600, Identity(*ids, ()))
    one.publish()
    assert (path.stat().st_uid, path.stat().st_gid) == ids
    one.close()


def test_path_longer_than_a_socket_name(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    path = folder / ("s" * 60)
    one = UnixSocket(str(path), 8)
    one.publish()
    assert listen.occupant(str(path)) == Occupant(os.getpid(), os.geteuid())
    one.close()


def test_missing_folder_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        UnixSocket(str(tmp_path / "none" / "x"), 8)
    assert len(os.listdir("/proc/self/fd")) == before


def test_occupant(path: Path, tmp_path: Path) -> None:
    assert listen.occupant(str(path)) is None
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        assert listen.occupant(str(path)) == Occupant(os.getpid(), os.geteuid())
    assert listen.occupant(str(path)) is None
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        listen.occupant(str(tmp_path / "file"))


def test_occupant_whose_maker_is_dead_but_whose_child_listens(path: Path) -> None:
    reader, writer = os.pipe()
    maker = os.fork()
    if maker == 0:
        one = socket.socket(socket.AF_UNIX)
        one.bind(str(path))
        one.listen()
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(maker, 0)
    assert listen.occupant(str(path)) == Occupant(maker, os.geteuid())
    os.close(writer)
    os.close(reader)


def test_occupant_with_a_full_backlog(path: Path, live: socket.socket) -> None:
    live.listen(0)
    waiting = []
    while True:
        one = socket.socket(socket.AF_UNIX)
        waiting.append(one)
        one.setblocking(False)
        try:
            one.connect(str(path))
        except BlockingIOError:
            break
    assert listen.occupant(str(path)) == Occupant(0, os.geteuid())
    for one in waiting:
        one.close()


def test_bind_unix_replaces_the_stale_and_respects_the_living(path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    one = listen.bind_unix(str(path), 8)
    one.publish()
    with pytest.raises(OSError, match="somebody listens there"):
        listen.bind_unix(str(path), 8)
    assert greets(path, one.socket)
    one.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_bind_tcp(host: str) -> None:
    with listen.bind_tcp(Address(host, 0), 8) as one:
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert one.getblocking()
        with socket.create_connection(one.getsockname()[:2], timeout=5):
            one.accept()[0].close()
        with pytest.raises(OSError):
            listen.bind_tcp(Address(host, one.getsockname()[1]), 8)


@pytest.mark.parametrize("v6only", [True, False])
def test_v6only(v6only: bool) -> None:
    with listen.bind_tcp(Address("::", 0), 8, v6only) as one:
        assert one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == v6only


def test_refuse_waiting(path: Path, live: socket.socket) -> None:
    live.setblocking(False)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in clients:
        client.connect(str(path))
    assert listen.refuse_waiting(live, limit=2) == 2
    assert listen.refuse_waiting(live) == 1
    assert listen.refuse_waiting(live) == 0
    for client in clients:
        assert client.recv(1) == b""
        client.close()


def test_a_socket_that_takes_packets(path: Path) -> None:
    made = UnixSocket(str(path), 5, kind=socket.SOCK_SEQPACKET)
    assert made.socket.type == socket.SOCK_SEQPACKET
    made.publish()
    found = listen.occupant(str(path))
    assert found == Occupant(os.getpid(), os.getuid(), socket.SOCK_SEQPACKET)
    made.close()
    assert listen.occupant(str(path)) is None


def test_a_socket_that_takes_no_connections_is_somebodys(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(path))
        assert listen.occupant(str(path)) == Occupant(0, os.getuid())
