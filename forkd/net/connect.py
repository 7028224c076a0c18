"""Connecting to a backend, from a greenlet."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any

from gevent import get_hub, sleep
from gevent.hub import Waiter

from ..address import Address
from .port import FdPort

_WRITE = 2  # libev's EV_WRITE
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2  # between tries while a backlog is full


def connect(address: Address, timeout: float) -> FdPort:
    """A connected port; *timeout* in seconds, 0 for none.

    Raises TimeoutError, or the OSError of the connect.  A unix socket whose backlog is full says
    EAGAIN and can only be asked again: that is done until the time is over (decisions 6).
    """
    family = _family(address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _connect(sock, address, timeout)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return FdPort(sock)


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
