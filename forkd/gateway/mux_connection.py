"""A FastCGI connection that several requests share (scgi_fastcgi.md 4).

It is read whatever its requests do, and written in turns: a request that nobody reads, or one that
uploads much, is not the others' business.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from gevent import get_hub

from ..config.model import ServerSettings
from ..errors import BackendBroken
from ..net.port import Port
from ..protocol.fastcgi import ProtocolStatus
from ..protocol.fastcgi_mux import Multiplexer
from ..protocol.tunnel import Buffer
from ..scoreboard import Lease
from .mux_port import FILE_SIZE, MAX_IN_MEMORY, MuxPort
from .spool import Spool

log = logging.getLogger(__name__)

BATCH = 64 * 1024  # bytes of several turns that are given to the socket at once
ABORT_TIME = 5.0  # seconds for END_REQUEST when nothing but requests nobody wants is under way


class Owner(Protocol):
    """Who opened the connection."""

    def has_room(self) -> None:
        """A request is over."""

    def cannot_share(self, why: str) -> None:
        """The application does not multiplex, whatever it said."""

    def gone(self, connection: MuxConnection) -> None:
        """*connection* takes no more requests.  Called once."""


class MuxConnection:
    """The requests of one connection; the listener of its port, and their ``Carrier``."""

    def __init__(
        self, port: Port, name: str, owner: Owner, server: ServerSettings, idle: float
    ) -> None:
        """Take over *port*; without a request for *idle* seconds it is closed."""
        self._port = port
        self._name = name
        self._owner = owner
        self._server = server
        self._idle = idle
        self._mux = Multiplexer()
        self._ports: dict[int, MuxPort] = {}
        """By number: requests that are wanted and not over."""
        self._leases: dict[int, Lease] = {}
        """By number: what counts requests that their owners have done with."""
        self._is_open = True
        """May take another request."""
        self._has_served = False
        self._has_ended = False
        self._is_held_up = False
        self._patience = 0.0
        self._timer: Any = None
        port.attach(self)
        self._rest()

    @property
    def requests(self) -> int:
        """Those that the application may still work at."""
        return len(self._mux)

    @property
    def is_congested(self) -> bool:
        """Whether a new request would have to wait, or would make others wait."""
        return self._port.queued > 0 or self._is_held_up

    def open(self) -> MuxPort:
        """A port for another request."""
        self._wake()
        self.go_on()  # it is not alone any more
        is_awaited = self._has_served and not self._mux
        self._has_served = True
        port = MuxPort(self, self._mux.begin(), is_awaited)
        self._ports[port.number] = port
        return port

    def retire(self) -> None:
        """Take no more requests, and close when the last one is over."""
        if self._is_open:
            self._is_open = False
            self._owner.gone(self)
            self._rest()

    # -- from the application -------------------------------------------------------------------

    def on_data(self, data: Buffer) -> None:
        if not self._mux:
            self._fail("records of no request")
            return
        before = len(self._mux)
        try:
            arrivals = self._mux.feed(data)
        except BackendBroken as error:
            self._owner.cannot_share(str(error))
            self._fail(str(error))
            return
        over = before - len(self._mux)
        self._settle()
        # What a request makes of its records may begin another one, with a number that is free.
        found = [(self._ports[arrival.request_id], arrival) for arrival in arrivals]
        for port, arrival in found:
            if arrival.end is not None:
                del self._ports[port.number]
                port.finish()
        for port, (_, records, end) in found:
            if end is not None and end.protocol_status == ProtocolStatus.CANT_MPX_CONN:
                self._owner.cannot_share("CANT_MPX_CONN")
            port.receive(records)
            if end is not None:
                port.finished()
        for _ in range(over):
            self._owner.has_room()
        self._rest()

    def on_eof(self) -> None:
        self.retire()
        self._has_ended = True
        self._settle()
        for port in list(self._ports.values()):
            port.end()
        self._rest()

    def on_close(self, why: str) -> None:
        self._has_ended = True  # what waits goes nowhere, so it may be asked of another one
        self.retire()
        self._wake()
        self._settle()
        for port in list(self._ports.values()):
            port.lose(why or "closed")

    def _fail(self, why: str) -> None:
        log.warning("%s: shared connection dropped: %s", self._name, why)
        self._port.abort(why)

    # -- to the application ---------------------------------------------------------------------

    def write(self, port: MuxPort, records: Buffer) -> None:
        self._mux.queue(port.number, records)
        self._flush(port)

    def waiting(self, number: int) -> int:
        return self._mux.waiting(number)

    def on_drain(self) -> None:
        self._flush()

    def _flush(self, writer: MuxPort | None = None) -> None:
        """Send what waits, until the socket is full; *writer* sees for itself what became of it."""
        drained: dict[int, MuxPort] = {}
        while not self._has_ended and not self._port.queued:
            turns = self._next_turns()
            if not turns:
                break
            taken = self._port.bytes_out
            self._port.write(b"".join([records for _, records in turns]))
            if self._port.bytes_out == taken and not self._port.queued:
                break  # it is lost, as the loop is about to tell: nobody has heard of these
            for number, records in turns:
                port = self._ports.get(number)
                if port is not None:
                    port.bytes_out += len(records)
                    if port is not writer and not self._mux.waiting(number):
                        drained[number] = port
        for port in drained.values():
            port.drained()

    def _next_turns(self) -> list[tuple[int, bytes]]:
        """(number, records) of as many turns as are given to the socket at once."""
        turns, size = [], 0
        while size < BATCH and (turn := self._mux.next_turn()) is not None:
            turns.append(turn)
            size += len(turn[1])
        return turns

    # -- its requests ---------------------------------------------------------------------------

    def left(self, port: MuxPort) -> None:
        del self._ports[port.number]
        self._mux.abandon(port.number)
        self._settle()
        self._flush()
        self.go_on()
        self._owner.has_room()
        self._rest()

    def keep(self, port: MuxPort, lease: Lease) -> None:
        # The number of one that has left may be another's by now.
        if self._ports.get(port.number) is port and port.number not in self._leases:
            self._leases[port.number] = lease
            self._settle()
        else:
            lease.release()

    def _settle(self) -> None:
        """What is over, or never will be, counts no more."""
        for number in tuple(self._leases):
            if self._has_ended or number not in self._mux:
                self._leases.pop(number).release()

    def hold_up(self, port: MuxPort) -> None:
        if len(self._mux) == 1:
            self._is_held_up = True
            self._port.pause()

    def go_on(self) -> None:
        if self._is_held_up:
            self._is_held_up = False
            self._port.resume()

    def spool(self) -> Spool:
        return Spool(self._server.upload_dirs, FILE_SIZE, MAX_IN_MEMORY)

    # -- between requests -----------------------------------------------------------------------

    def _rest(self) -> None:
        """Without a request that somebody wants, the connection has its days numbered."""
        if self._ports:
            return
        if not self._is_open:
            self._wake()
            self._port.close(0)
            return
        patience = ABORT_TIME if self._mux else self._idle
        if self._timer is None or patience != self._patience:
            self._wake()
            self._patience = patience
            self._timer = get_hub().loop.timer(patience)
            self._timer.start(self.retire, update=True)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
