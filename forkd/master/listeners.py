"""The client listeners: bound by the master or handed over by a service manager, inherited by
workers, kept where nothing changed."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping, Sequence

from ..address import INHERITED
from ..config.listeners import ANY_INET4, ANY_INET6
from ..config.model import ListenerSpec
from ..errors import StartError
from ..unix import listen
from ..unix.activation import Inherited
from .failure import cannot_listen
from .state import FdRecord, ListenerRecord

DEFER_TIME = 30  # seconds that a deferred connection may wait for its first bytes

log = logging.getLogger(__name__)


class Listener:
    """Where one spec listens; several specs of one address share the open sockets behind them.

    More than one socket only where a service manager gave several the same name.
    """

    def __init__(
        self,
        spec: ListenerSpec,
        sockets: Sequence[socket.socket],
        place: listen.UnixSocket | None = None,
    ) -> None:
        self.spec = spec
        self.sockets = sockets
        self.place = place
        """Our own file; None for TCP and for what was inherited."""

    @classmethod
    def bind(cls, spec: ListenerSpec) -> Listener:
        """Raises OSError."""
        if not spec.address.is_unix:
            sock = listen.bind_tcp(spec.address, spec.backlog, spec.v6only)
            sock.setblocking(False)
            return cls(spec, [sock])
        place = listen.bind_unix(spec.address.host, spec.backlog, spec.socket_mode)
        place.publish()
        place.socket.setblocking(False)
        return cls(spec, [place.socket], place)

    @classmethod
    def inherit(cls, spec: ListenerSpec, found: Iterable[Inherited]) -> Listener:
        """Raises OSError."""
        sockets = [one.socket.dup() for one in found]
        for sock in sockets:
            sock.setblocking(False)
        return cls(spec, sockets)

    @classmethod
    def restore(cls, record: ListenerRecord, places: Mapping[str, listen.UnixSocket]) -> Listener:
        """The listener of the program before this one.  *places*: those of others, by path."""
        sockets = [socket.socket(fileno=one.fd) for one in record.sockets]
        for sock in sockets:
            sock.setblocking(False)
        place = None
        if record.place is not None:
            shared = places.get(record.place.path)
            place = shared or listen.UnixSocket.restore(record.place, sockets[0])
        return cls(record.spec, sockets, place)

    def snapshot(self) -> ListenerRecord:
        return ListenerRecord(
            self.spec,
            tuple(FdRecord(sock.fileno()) for sock in self.sockets),
            self.place.snapshot() if self.place is not None else None,
        )

    def respecified(self, spec: ListenerSpec) -> Listener:
        """Another one for the same open sockets."""
        return Listener(spec, [sock.dup() for sock in self.sockets], self.place)

    def is_at(self, spec: ListenerSpec) -> bool:
        """Whether *spec* means these sockets, whatever options it has."""
        return (self.spec.address, self.spec.v6only) == (spec.address, spec.v6only)

    def apply(self) -> None:
        """Set what can be changed while it listens.  Raises OSError."""
        for sock in self.sockets:
            sock.listen(self.spec.backlog)
            if sock.family != socket.AF_UNIX:
                listen.send_at_once(sock)
                listen.defer_accept(sock, DEFER_TIME if self.spec.defer_accept else 0)
        if self.place is not None and self.spec.socket_mode is not None:
            self.place.change_mode(self.spec.socket_mode)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


class Listeners:
    """All that listen.  A reload first opens what the new configuration needs, then settles."""

    def __init__(self, inherited: Sequence[Inherited] = ()) -> None:
        """*inherited* stay open: any later configuration may mean them."""
        self.inherited = inherited
        self._open: dict[ListenerSpec, Listener] = {}

    def restore(self, records: Iterable[ListenerRecord]) -> None:
        """Those that the program before this one has opened."""
        places: dict[str, listen.UnixSocket] = {}
        for record in records:
            one = self._open[record.spec] = Listener.restore(record, places)
            if one.place is not None:
                places[one.place.path] = one.place

    def snapshot(self) -> tuple[ListenerRecord, ...]:
        return tuple(one.snapshot() for one in self._open.values())

    def open(
        self, specs: Iterable[ListenerSpec], by_address: bool = False
    ) -> tuple[tuple[ListenerSpec, socket.socket], ...]:
        """The sockets of *specs*, those bound that were not.  Raises StartError at the first that
        cannot be; ``settle`` with the old specs then undoes what was done.

        *by_address*: what was inherited serves the specs of its address too, and has to serve one;
        else it serves those that name it.
        """
        meant = _assign(tuple(specs), self.inherited, by_address)
        found = []
        for spec, inherited in meant.items():
            try:
                listener = self._open.get(spec) or self._add(spec, inherited)
            except OSError as error:
                raise cannot_listen(str(spec.address), error) from None
            found += [(spec, sock) for sock in listener.sockets]
        return tuple(found)

    def settle(self, specs: Iterable[ListenerSpec]) -> None:
        """Close every other one, and let the options of *specs* hold."""
        wanted = set(specs)
        for spec in [spec for spec in self._open if spec not in wanted]:
            self._close(self._open.pop(spec))
        for spec, listener in self._open.items():
            try:
                listener.apply()
            except OSError as error:  # somebody has removed its file
                log.error("listener %s: %s", spec.address, error.strerror)

    def close(self) -> None:
        """Close all; new clients are refused.  Workers still hold theirs until they are told."""
        self.settle(())
        for one in self.inherited:
            one.socket.close()

    @property
    def specs(self) -> tuple[ListenerSpec, ...]:
        return tuple(self._open)

    def _add(self, spec: ListenerSpec, inherited: Sequence[Inherited]) -> Listener:
        same = next((one for one in self._open.values() if one.is_at(spec)), None)
        if same is not None:
            listener = same.respecified(spec)
        elif inherited:
            listener = Listener.inherit(spec, inherited)
        else:
            listener = Listener.bind(spec)
        self._open[spec] = listener
        if same is None:
            listener.apply()
        return listener

    def _close(self, listener: Listener) -> None:
        place = listener.place
        listener.close()
        if place is not None and all(one.place is not place for one in self._open.values()):
            place.close()


def _assign(
    specs: Sequence[ListenerSpec], inherited: Sequence[Inherited], by_address: bool
) -> dict[ListenerSpec, list[Inherited]]:
    """What was inherited for each spec, in their order; a spec without is to be bound.

    A main listener that nothing but its absence names is left out when the manager has opened
    others instead of it.  Raises StartError.
    """
    meant = {spec: _named(spec, inherited) for spec in specs}
    if by_address:
        for one in inherited:
            spec = None if one in sum(meant.values(), []) else _at_address(specs, one)
            if spec is not None:
                meant[spec].append(one)
    used = sum(meant.values(), [])
    for one in inherited:
        if one in used:
            continue
        text = f"inherited socket {one}: no listener of the configuration means it"
        if by_address:
            raise StartError(text)
        log.warning(text)
    if by_address and inherited:
        meant = {spec: found for spec, found in meant.items() if found or not spec.is_implied}
    return meant


def _named(spec: ListenerSpec, inherited: Sequence[Inherited]) -> list[Inherited]:
    if not spec.address.is_inherited:
        return []
    name = spec.address.host.removeprefix(INHERITED)
    found = [one for one in inherited if one.name == name]
    if not found:
        names = ", ".join(one.name for one in inherited if one.name) or "none"
        raise StartError(f"{spec.address}: no such socket was inherited; named are: {names}")
    return found


def _at_address(specs: Sequence[ListenerSpec], one: Inherited) -> ListenerSpec | None:
    """The spec of its address; else, of a socket for all addresses, one for all of the other kind
    at that port: a manager opens ``[::]`` where the configuration means ``0.0.0.0``."""
    for spec in specs:
        if spec.address == one.address:
            return spec
    wildcards = (ANY_INET4, ANY_INET6)
    for spec in specs:
        is_same_port = spec.address.port == one.address.port
        if is_same_port and one.address.host in wildcards and spec.address.host in wildcards:
            return spec
    return None
