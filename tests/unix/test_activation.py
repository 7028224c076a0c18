"""Sockets of a service manager: whose they are, and what is none."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forkd.address import Address
from forkd.errors import StartError
from forkd.unix import activation


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def listener(stack: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(socket.socket(family))
    sock.bind((host, 0))
    sock.listen()
    return sock


def test_only_what_is_meant_for_this_process_is_taken() -> None:
    own = str(os.getpid())
    for pid, count in (("1", "1"), (own, "x"), (own, "\N{SUPERSCRIPT TWO}"), ("", "2"), (own, "")):
        environment = {"LISTEN_PID": pid, "LISTEN_FDS": count, "LISTEN_FDNAMES": "a", "HOME": "/"}
        assert activation.take(environment) == ()
        assert environment == {"HOME": "/"}, "nobody else takes it for his own"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_socket_of_tcp(stack: ExitStack, host: str) -> None:
    sock = listener(stack, host)
    os.set_inheritable(sock.fileno(), True)
    found = activation.adopt(os.dup(sock.fileno()), "web")
    stack.callback(found.socket.close)
    assert (found.name, found.address) == ("web", Address(host, sock.getsockname()[1]))
    assert not os.get_inheritable(found.socket.fileno())


def test_a_unix_socket(stack: ExitStack, tmp_path: Path) -> None:
    for place, expected in ((f"{tmp_path}/s", f"{tmp_path}/s"), (f"\0{tmp_path}", f"@{tmp_path}")):
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.bind(place)
        sock.listen()
        found = activation.adopt(os.dup(sock.fileno()), "")
        stack.callback(found.socket.close)
        assert found.address == Address(expected)


def test_what_is_no_listener_is_refused(stack: ExitStack) -> None:
    one, other = socket.socketpair()
    datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    reader, writer = os.pipe()
    for fd in (one.fileno(), datagrams.fileno(), reader):
        with pytest.raises(StartError, match=f"inherited descriptor {fd}"):
            activation.adopt(fd, "x")
        os.fstat(fd)  # still open
    for fd in (reader, writer):
        os.close(fd)
    one.close()
    other.close()
    with pytest.raises(StartError, match="inherited descriptor 987"):
        activation.adopt(987, "x")


def test_a_listener_of_another_family(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of a virtual machine's (vsock(7)), which has no address that a client could show."""
    monkeypatch.setattr(activation, "_FAMILIES", ())
    fd = listener(stack).fileno()
    with pytest.raises(StartError, match=f"{fd}, x: not a listening TCP or unix socket"):
        activation.adopt(fd, "x")
    os.fstat(fd)  # still open
