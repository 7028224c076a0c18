"""Connecting to a backend, from a greenlet."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from gevent import get_hub, killall, sleep, spawn
from gevent.hub import Waiter
from gevent.queue import Empty, SimpleQueue

from ..address import Address
from .packet_port import PacketPort
from .port import FdPort

_WRITE = 2  # libev's EV_WRITE
HEAD_START = 0.25  # RFC 8305 section 8: seconds that one address has before the next is tried too
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2  # between tries while a backlog is full


def connect(address: Address, timeout: float, packets: bool = False) -> FdPort:
    """A connected port; *timeout* in seconds, 0 for none.  *packets*: to a unix socket of
    SOCK_SEQPACKET.

    Raises TimeoutError, or the OSError of the connect.  A unix socket whose backlog is full says
    EAGAIN and can only be asked again: that is done until the time is over (decisions 6).
    """
    family = _family(address)
    kind = socket.SOCK_SEQPACKET if packets else socket.SOCK_STREAM
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _connect(sock, address, timeout)
        if packets:
            return PacketPort(sock)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return FdPort(sock)


def connect_first(addresses: Sequence[Address], timeout: float) -> FdPort:
    """A port connected to the first of *addresses* that can be had (RFC 8305 section 5).

    They are tried in their order, each before the one in front of it has been given up.  Raises as
    ``connect`` does for the last that failed.
    """
    if len(addresses) == 1:
        return connect(addresses[0], timeout)
    race = _Race(timeout)
    try:
        return race.run(addresses)
    finally:
        race.end()


class _Race:
    """Several connects at once, of which one is to win."""

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout if timeout else 0.0
        self._runners: list[Any] = []
        self._results: Any = SimpleQueue()  # of FdPort and OSError

    def run(self, addresses: Sequence[Address]) -> FdPort:
        waiting = list(addresses)
        running = 0
        error: OSError | None = None
        while waiting or running:
            if waiting:
                self._runners.append(spawn(self._connect, waiting.pop(0)))
                running += 1
            try:
                result = self._results.get(timeout=HEAD_START if waiting else None)
            except Empty:
                continue
            if isinstance(result, FdPort):
                return result
            running -= 1
            error = result
        assert error is not None
        raise error

    def _connect(self, address: Address) -> None:
        left = max(self._deadline - time.monotonic(), 0.001) if self._deadline else 0.0
        try:
            self._results.put(connect(address, left))
        except OSError as error:
            self._results.put(error)

    def end(self) -> None:
        """Those that have not won leave nothing behind."""
        killall(self._runners)
        while not self._results.empty():
            result = self._results.get()
            if isinstance(result, FdPort):
                result.abort("another address was faster")


def _family(address: Address) -> socket.AddressFamily:
    if address.is_unix:
        return socket.AF_UNIX
    return socket.AF_INET6 if address.is_inet6 else socket.AF_INET


def _connect(sock: socket.socket, address: Address, timeout: float) -> None:
    target: Any = address.host if address.is_unix else (address.host, address.port)
    deadline = time.monotonic() + timeout if timeout else float("inf")
    pause = _FIRST_PAUSE
    while True:
        code = sock.connect_ex(target)
        if code == errno.EAGAIN:
            if time.monotonic() + pause > deadline:
                raise TimeoutError(f"connect to {address}: backlog full for {timeout:g} s")
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            continue
        if code == errno.EINPROGRESS:
            _await_connected(sock, address, timeout)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, f"connect to {address}: {os.strerror(code)}")
        return


def _await_connected(sock: socket.socket, address: Address, timeout: float) -> None:
    loop = get_hub().loop
    waiter = Waiter()
    with loop.io(sock.fileno(), _WRITE) as writable, loop.timer(timeout or 0) as timer:
        writable.start(waiter.switch, True)
        if timeout:
            timer.start(waiter.switch, False, update=True)
        if not waiter.get():
            raise TimeoutError(f"connect to {address} after {timeout:g} s")
