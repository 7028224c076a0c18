"""The port of one request on a shared FastCGI connection: what its greenlet reads and writes, later
a tunnel.

FastCGI has no flow control, and the connection is the others' too: what comes while nobody takes it
is held here, in memory first and then in files, and a request for which too much is held is given
up.  Writing waits for the connection's turns.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from gevent import get_hub

from ..errors import ForkdError
from ..net.port import HIGH_WATER, Listener, Nobody
from ..protocol.tunnel import Buffer
from ..scoreboard import Lease
from .spool import Spool

log = logging.getLogger(__name__)

MAX_IN_MEMORY = 256 * 1024  # bytes held for one request that are not in files
MAX_HELD = 16 * 1024 * 1024  # bytes held for one request; more, and it is given up
FILE_SIZE = MAX_HELD  # bytes of one file: two at most, as descriptors are scarce
PIECE = 64 * 1024


class Carrier(Protocol):
    """The connection, as its requests see it."""

    def write(self, port: MuxPort, records: Buffer) -> None:
        """Whole *records*, to be sent when it is their turn."""

    def waiting(self, number: int) -> int:
        """Bytes that the request has written and whose turn has not come."""

    def left(self, port: MuxPort) -> None:
        """*port* is closed before the end of its request: nobody wants that any more."""

    def keep(self, port: MuxPort, lease: Lease) -> None:
        """*lease* counts the request until the application has ended it."""

    def hold_up(self, port: MuxPort) -> None:
        """Much is held for *port*: read no more, if nobody else would notice."""

    def go_on(self) -> None:
        """Nothing is held any more."""

    def spool(self) -> Spool:
        """A place for what is held."""


class MuxPort:
    """One request as a ``net.port.Port``, of whole records that bear its number."""

    __slots__ = (
        "_carrier", "_end_told", "_given", "_has_ended", "_held", "_is_closing", "_is_delivering",
        "_linger", "_listener", "_paused", "_timer", "_why", "bytes_in", "bytes_out", "is_awaited",
        "is_over", "number",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, number: int, is_awaited: bool = False) -> None:
        self.number = number
        """Its request id."""
        self.is_awaited = is_awaited
        """Whether the connection had nothing to do until now, and so may be dead already."""
        self.bytes_in = 0
        self.bytes_out = 0
        self.is_over = False
        """END_REQUEST has come: the number may be another's by now."""
        self._carrier = carrier
        self._listener: Listener = Nobody()
        self._paused = True
        self._held: Spool | None = None  # came while nobody took it
        self._given = 0  # how much of that has been handed on
        self._is_delivering = False
        self._has_ended = False  # the connection brings nothing more
        self._end_told = False
        self._is_closing = False
        self._linger = 0.0
        self._timer: Any = None
        self._why: str | None = None  # why it is closed

    def keep(self, lease: Lease) -> None:
        """Let *lease* count the request until the application has ended it."""
        self._carrier.keep(self, lease)

    @property
    def queued(self) -> int:
        return 0 if self._is_mute else self._carrier.waiting(self.number)

    @property
    def _is_mute(self) -> bool:
        return self.is_over or self._why is not None

    def attach(self, listener: Listener) -> None:
        self._listener = listener
        self.bytes_in = self.bytes_out = 0
        if self._why is not None:
            get_hub().loop.run_callback(listener.on_close, self._why)
            return
        self._end_told = False
        self._paused = False
        self._deliver_soon()

    # -- reading --------------------------------------------------------------------------------

    def receive(self, records: bytes) -> None:
        """From the connection: whole *records*."""
        if self._is_closing or self._why is not None:
            return
        if self._paused or self._held is not None:
            self._hold(records)
        else:
            self._hand_on(records)

    def _hold(self, records: bytes) -> None:
        if self._held is None:
            self._held, self._given = self._carrier.spool(), 0
        try:
            self._held.append(records)
        except ForkdError as error:
            self.abort(str(error))
            return
        held = self._held.size - self._given
        if held > MAX_HELD:
            self.abort(f"{held} bytes wait for a client that does not take them")
        elif held > MAX_IN_MEMORY and not self.is_over:
            self._carrier.hold_up(self)

    def _hand_on(self, data: bytes) -> None:
        self.bytes_in += len(data)
        try:
            self._listener.on_data(data)
        except Exception:  # a listener's bug ends this request, and no other
            log.exception("request: listener failed")
            self.abort("internal error")

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused and self._why is None:
            self._paused = False
            self._deliver_soon()

    def _deliver_soon(self) -> None:
        if not self._is_delivering:
            self._is_delivering = True
            get_hub().loop.run_callback(self._deliver)

    def _deliver(self) -> None:
        """Hand on a piece of what was held; at the end, that too."""
        self._is_delivering = False
        if self._paused or self._is_closing or self._why is not None:
            return
        if self._held is not None:
            self._hand_on(self._take_held(self._held))
            self._deliver_soon()
        elif self._has_ended:
            self._tell_end()
        elif not self.is_over:
            self._carrier.go_on()

    def _tell_end(self) -> None:
        if not self._end_told:
            self._end_told = True
            self._listener.on_eof()

    def _take_held(self, held: Spool) -> bytes:
        piece = held.read(self._given, PIECE)
        self._given += len(piece)
        if self._given == held.size:
            self._drop_held()
        else:
            held.forget(self._given)
        return piece

    def _drop_held(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    # -- writing --------------------------------------------------------------------------------

    def write(self, data: Buffer) -> bool:
        if self._is_mute or self._has_ended:
            return True
        self._carrier.write(self, data)
        return self.queued <= HIGH_WATER

    def drained(self) -> None:
        """From the connection: all that was written has gone out, or nobody waits for it."""
        if not self._is_closing and self._why is None:
            self._listener.on_drain()

    def write_eof(self) -> None:
        """The connection is not the request's to half-close: its records say what is over."""

    # -- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """From the connection: END_REQUEST is about to be received."""
        self.is_over = True

    def finished(self) -> None:
        """From the connection: it has been received."""
        if self._is_closing:
            self._shut("")
        else:
            self.drained()

    def end(self) -> None:
        """From the connection: it brings nothing more."""
        self._has_ended = True
        if self._is_closing:
            self._shut("")
        elif not self._paused:
            self._deliver_soon()

    def lose(self, why: str) -> None:
        """From the connection: it is closed."""
        self._shut("" if self._is_closing else why)

    def close(self, linger: float = 5.0) -> None:
        if self._is_closing or self._why is not None:
            return
        self._is_closing = True
        self._drop_held()
        if self.is_over or self._has_ended:
            self._shut("")
            return
        self._carrier.go_on()
        self._linger = linger
        self._set_timer()

    def _set_timer(self) -> None:
        self._timer = get_hub().loop.timer(self._linger)
        self._timer.start(self._linger_over, self.bytes_out, update=True)

    def _linger_over(self, sent_before: int) -> None:
        # The time counts from the last byte that could go out: a slow reader is not a dead one.
        self._timer.close()
        if self.queued and self.bytes_out != sent_before:
            self._set_timer()
        else:
            self.abort("")

    def abort(self, why: str) -> None:
        self._shut("" if self._is_closing else why)

    def _shut(self, why: str) -> None:
        if self._why is not None:
            return
        self._why = why
        self._drop_held()
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if not self.is_over:
            self._carrier.left(self)
        listener, self._listener = self._listener, Nobody()
        try:
            listener.on_close(why)
        except Exception:
            log.exception("request: listener failed")
