"""A client that nobody had to accept: he came with the process (``-1``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..address import Address
from ..net.pipe_port import PipePort
from ..net.port import FdPort


@dataclass(frozen=True, slots=True)
class Visitor:
    """A client that nobody had to accept."""

    stream: socket.socket | tuple[int, int]
    """Or two pipes: what is written to him, what is read from him."""
    peer: Address
    local: Address

    @classmethod
    def on(cls, fds: Sequence[int]) -> Visitor:
        """The client of a connected socket, or of the pipes (from him, to him); theirs from now on.

        Raises OSError.
        """
        if len(fds) > 1:
            return cls((fds[1], fds[0]), Address("/"), Address("/"))
        sock = socket.socket(fileno=fds[0])
        return cls(sock, address_of(sock.getpeername()), address_of(sock.getsockname()))

    def open(self) -> FdPort:
        if isinstance(self.stream, socket.socket):
            return FdPort(self.stream)
        return PipePort(*self.stream, lambda: None)


def address_of(name: Any) -> Address:
    """An address as the socket module gives it."""
    if isinstance(name, tuple):
        return Address(name[0], name[1])
    path = name if isinstance(name, str) else os.fsdecode(name)
    return Address(path or "/")
