"""The client listeners: bound by the master, inherited by workers, kept where nothing changed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from ..config.model import ListenerSpec
from ..unix import listen
from .failure import cannot_listen

DEFER_TIME = 30  # seconds that a deferred connection may wait for its first bytes


class Listener:
    """One listening socket; several specs of one address share the open socket behind it."""

    def __init__(
        self, spec: ListenerSpec, sock: socket.socket, place: listen.UnixSocket | None
    ) -> None:
        self.spec = spec
        self.socket = sock
        self.place = place

    @classmethod
    def bind(cls, spec: ListenerSpec) -> Listener:
        """Raises OSError."""
        if not spec.address.is_unix:
            sock = listen.bind_tcp(spec.address, spec.backlog, spec.v6only)
            sock.setblocking(False)
            return cls(spec, sock, None)
        place = listen.bind_unix(spec.address.host, spec.backlog, spec.socket_mode)
        place.publish()
        place.socket.setblocking(False)
        return cls(spec, place.socket, place)

    def respecified(self, spec: ListenerSpec) -> Listener:
        """Another one for the same open socket."""
        return Listener(spec, self.socket.dup(), self.place)

    def is_at(self, spec: ListenerSpec) -> bool:
        """Whether *spec* means this socket, whatever options it has."""
        return (self.spec.address, self.spec.v6only) == (spec.address, spec.v6only)

    def apply(self) -> None:
        """Set what can be changed while it listens."""
        self.socket.listen(self.spec.backlog)
        if self.place is None:
            listen.defer_accept(self.socket, DEFER_TIME if self.spec.defer_accept else 0)
        elif self.spec.socket_mode is not None:
            os.chmod(self.place.path, self.spec.socket_mode)


class Listeners:
    """All that listen.  A reload first opens what the new configuration needs, then settles."""

    def __init__(self) -> None:
        self._open: dict[ListenerSpec, Listener] = {}

    def open(
        self, specs: Iterable[ListenerSpec]
    ) -> tuple[tuple[ListenerSpec, socket.socket], ...]:
        """The sockets of *specs*, those bound that were not.  Raises StartError at the first that
        cannot be; ``settle`` with the old specs then undoes what was done.
        """
        found = []
        for spec in specs:
            try:
                listener = self._open.get(spec) or self._add(spec)
            except OSError as error:
                raise cannot_listen(str(spec.address), error) from None
            found.append((spec, listener.socket))
        return tuple(found)

    def settle(self, specs: Iterable[ListenerSpec]) -> None:
        """Close every other one, and let the options of *specs* hold."""
        wanted = set(specs)
        for spec in [spec for spec in self._open if spec not in wanted]:
            self._close(self._open.pop(spec))
        for listener in self._open.values():
            listener.apply()

    def close(self) -> None:
        """Close all; new clients are refused.  Workers still hold theirs until they are told."""
        self.settle(())

    @property
    def specs(self) -> tuple[ListenerSpec, ...]:
        return tuple(self._open)

    def _add(self, spec: ListenerSpec) -> Listener:
        same = next((one for one in self._open.values() if one.is_at(spec)), None)
        listener = Listener.bind(spec) if same is None else same.respecified(spec)
        self._open[spec] = listener
        if same is None:
            listener.apply()
        return listener

    def _close(self, listener: Listener) -> None:
        place = listener.place
        listener.socket.close()
        if place is not None and all(one.place is not place for one in self._open.values()):
            place.close()
