"""What clients connect to, and which inherited socket serves which listener."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forkd.address import Address
from forkd.config.model import ListenerSpec
from forkd.errors import StartError
from forkd.master.listeners import Listeners, _assign
from forkd.unix.activation import Inherited


def inherited(host: str, port: int = 0, name: str = "") -> Inherited:
    return Inherited(name, None, Address(host, port))  # type: ignore[arg-type]


def spec(host: str, port: int = 0, is_implied: bool = False) -> ListenerSpec:
    return ListenerSpec(Address(host, port), is_implied=is_implied)


ANY4, ANY6 = inherited("0.0.0.0", 80), inherited("::", 80)
WEB, WEB_TOO = inherited("::", 8080, "web"), inherited("0.0.0.0", 8080, "web")
UNIX = inherited("/run/s")

ROWS = [
    # specs, sockets, by address, who gets what
    ([spec("0.0.0.0", 80)], [ANY4], True, [[ANY4]]),
    ([spec("0.0.0.0", 80)], [ANY6], True, [[ANY6]]),
    ([spec("0.0.0.0", 80)], [ANY4, ANY6], True, [[ANY4, ANY6]]),
    ([spec("0.0.0.0", 80), spec("::", 80)], [ANY6, ANY4], True, [[ANY4], [ANY6]]),
    ([spec("0.0.0.0", 80), spec("/run/s")], [UNIX, ANY4], True, [[ANY4], [UNIX]]),
    ([spec("fd:web")], [WEB], False, [[WEB]]),
    ([spec("fd:web")], [WEB, WEB_TOO], True, [[WEB, WEB_TOO]]),
    ([spec("fd:web"), spec("0.0.0.0", 80)], [WEB], True, [[WEB], []]),
    ([spec("0.0.0.0", 80)], [ANY4], False, [[]]),
    # A main listener that nobody asked for is not made where the manager has made others.
    ([spec("0.0.0.0", 81, True), spec("::", 80)], [ANY6], True, [[ANY6]]),
    ([spec("0.0.0.0", 80, True)], [ANY6], True, [[ANY6]]),
    ([spec("0.0.0.0", 81, True), spec("::", 80)], [], True, [[], []]),
    ([spec("0.0.0.0", 81, True), spec("fd:web")], [WEB], False, [[], [WEB]]),
]


@pytest.mark.parametrize(("specs", "sockets", "by_address", "expected"), ROWS)
def test_who_gets_what(
    specs: list[ListenerSpec],
    sockets: list[Inherited],
    by_address: bool,
    expected: list[list[Inherited]],
) -> None:
    assert list(_assign(specs, sockets, by_address).values()) == expected


@pytest.mark.parametrize(
    ("specs", "sockets", "by_address", "text"),
    [
        ([spec("0.0.0.0", 81)], [ANY4], True, "0.0.0.0:80: no listener of the config"),
        ([spec("127.0.0.1", 80)], [ANY4], True, "0.0.0.0:80: no listener of the config"),
        ([spec("fd:mail")], [WEB, ANY4], True, "fd:mail: no such socket .* named are: web"),
        ([spec("fd:web")], [], False, "fd:web: no such socket .* named are: none"),
    ],
)
def test_what_does_not_fit(
    specs: list[ListenerSpec], sockets: list[Inherited], by_address: bool, text: str
) -> None:
    with pytest.raises(StartError, match=text):
        _assign(specs, sockets, by_address)


@pytest.fixture
def live() -> Iterator[Inherited]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield Inherited("web", sock, Address("127.0.0.1", sock.getsockname()[1]))


def test_an_inherited_socket_outlives_a_configuration_without_it(live: Inherited) -> None:
    listeners = Listeners([live])
    named = spec("fd:web")
    for _ in range(2):
        ((_, sock),) = listeners.open([named])
        listeners.settle([named])
        with socket.create_connection(live.socket.getsockname(), 5):
            sock.setblocking(True)
            sock.accept()[0].close()
        listeners.settle([])
        assert sock.fileno() == -1
        assert live.socket.fileno() >= 0
    listeners.close()
    assert live.socket.fileno() == -1


def test_what_is_accepted_sends_at_once() -> None:
    listeners = Listeners()
    ((_, listener),) = listeners.open([spec("127.0.0.1")])
    with socket.create_connection(listener.getsockname()):
        listener.settimeout(15)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    listeners.close()


def test_file_that_somebody_has_removed_or_replaced(tmp_path: Path) -> None:
    """Its mode is not ours to change any more; the others settle all the same."""
    path = tmp_path / "s"
    specs = [
        replace(spec(str(path)), socket_mode=0o660),
        replace(spec(str(tmp_path / "t")), socket_mode=0o660),
    ]
    listeners = Listeners()
    listeners.open(specs)
    path.unlink()
    (tmp_path / "t").chmod(0o600)
    listeners.settle(specs)
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o660
    path.touch(0o640)
    listeners.settle(specs)
    assert path.stat().st_mode & 0o777 == 0o640
    listeners.close()
    assert list(tmp_path.iterdir()) == [path]
