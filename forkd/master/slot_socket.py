"""The listening socket of a slot: the master's, whichever process accepts on it."""

from __future__ import annotations

import socket

from ..address import Address
from ..config.backend import BackendSpec
from ..unix import listen
from .habitat import Habitat
from .loop import Callback, Loop

SOCKET_MODE = 0o600


class SlotSocket:
    """At most one at a time; a unix socket is not at its path before ``publish``."""

    def __init__(self, spec: BackendSpec, address: Address, habitat: Habitat, loop: Loop) -> None:
        self.listener: socket.socket | None = None
        self.unix: listen.UnixSocket | None = None
        self.path = habitat.chroot.rstrip("/") + address.host
        self.kind = socket.SOCK_SEQPACKET if spec.takes_packets else socket.SOCK_STREAM
        self._spec = spec
        self._address = address
        self._owner = habitat.identity
        self._loop = loop

    def open(self) -> socket.socket:
        """The socket, while there is one."""
        assert self.listener is not None
        return self.listener

    @property
    def fd(self) -> int:
        """-1: none."""
        return -1 if self.listener is None else self.listener.fileno()

    @property
    def place(self) -> listen.PlaceRecord | None:
        """What is ours of a unix socket's file."""
        return None if self.unix is None else self.unix.snapshot()

    def bind(self) -> None:
        """Raises OSError."""
        if self._address.is_unix:
            self.unix = self._beside_path()
            self.listener = self.unix.socket
        else:
            self.listener = listen.bind_tcp(self._address, self._spec.listen_backlog)
            # Many a program does not think of it, and closes while its last words are held back.
            listen.send_at_once(self.listener)

    def share(self, other: socket.socket) -> None:
        """Listen on the TCP socket that another slot has.  Raises OSError."""
        self.listener = other.dup()
        self.listener.listen(self._spec.listen_backlog)

    def revive(self, backlog: int) -> bool:
        """Listen again if a process has shut the socket down: it is so for all that have it.

        Raises OSError, and is to be called again then.
        """
        if not listen.is_shut(self.open()):
            return False
        if self.unix is None:
            self.open().listen(backlog)
        else:  # once shut down, a unix socket refuses for ever
            fresh = self._beside_path()
            self.watch(None)
            fresh.replace(self.unix)
            self.unix, self.listener = fresh, fresh.socket
        return True

    def _beside_path(self) -> listen.UnixSocket:
        mode = SOCKET_MODE if self._spec.socket_mode is None else self._spec.socket_mode
        return listen.UnixSocket(
            self.path, self._spec.listen_backlog, mode, self._owner, self.kind
        )

    def watch(self, callback: Callback | None) -> None:
        """Call *callback* while a connection waits."""
        if callback is None:
            self._loop.unwatch(self.open().fileno())
        else:
            self._loop.watch(self.open().fileno(), callback)

    def publish(self) -> None:
        """Raises OSError."""
        if self.unix is not None:
            self.unix.publish()

    def close(self) -> None:
        """Close it, and unlink its path if that is ours."""
        if self.listener is None:
            return
        self.watch(None)
        if self.unix is not None:
            self.unix.close()
        else:
            self.listener.close()
        self.listener = self.unix = None

    def restore(self, fd: int, place: listen.PlaceRecord | None) -> None:
        """As the program before this one has left it; -1: none."""
        if fd < 0:
            return
        self.listener = socket.socket(fileno=fd)
        if place is not None:
            self.unix = listen.UnixSocket.restore(place, self.listener)
