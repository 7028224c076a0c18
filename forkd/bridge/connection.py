"""A connection from the server in front: what SCGI and FastCGI have in common."""

from __future__ import annotations

import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ForkdError
from ..net.port import FdPort
from ..protocol.tunnel import Buffer
from .hangup import Hangups
from .run import Runs

LINGER = 5.0  # seconds in which the client may notice the end, once it has all bytes

_PHRASES = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections share."""

    runs: Runs
    hangups: Hangups
    limit: int
    """How many connections there may be at a time."""
    binary: bytes = b""
    """What is run in place of what requests name; an absolute path."""


def status_reply(error: ForkdError) -> bytes:
    """What a program would have said (RFC 3875 section 6); why is for the log only."""
    said = f"{error.status} {_PHRASES[error.status]}"
    fields = "".join(f"{name}: {value}\r\n" for name, value in error.fields)
    return f"Status: {said}\r\n{fields}Content-Type: text/plain\r\n\r\n{said}\n".encode()


class Connection(ABC):
    """One connection.  *on_end* is called once, when it is closed and its programs are over."""

    def __init__(
        self,
        sock: socket.socket,
        service: Service,
        on_end: Callable[[Connection], None],
    ) -> None:
        self.service = service
        self.client = FdPort(sock)
        self.is_lost = False
        """Nobody is there any more who could hear us."""
        self.is_at_eof = False
        """The client will send nothing more."""
        self._on_end = on_end
        self._fd = sock.fileno()
        self.is_ending = False
        """Nothing more is to be read from it."""
        self._is_closed = False
        service.hangups.watch(sock, self._hung_up)
        self.client.attach(self)

    # -- what a protocol does -------------------------------------------------------------------

    @abstractmethod
    def received(self, data: Buffer) -> None:
        """The client sent *data*.  A ForkdError ends the connection without an answer."""

    @abstractmethod
    def input_ended(self) -> None:
        """The client has sent its last byte.  It may still be reading, unless ``lost`` follows."""

    @abstractmethod
    def has_room(self) -> None:
        """All that was written has been sent."""

    @abstractmethod
    def lost(self) -> None:
        """The client is lost, before all was said; what it sent last may not have come yet."""

    @property
    @abstractmethod
    def is_busy(self) -> bool:
        """Whether a program runs."""

    @property
    @abstractmethod
    def has_said_all(self) -> bool:
        """Whether the client has been given all that it is going to get."""

    @abstractmethod
    def drain(self) -> None:
        """This process is to end: close, if no request has come."""

    # -- what it may use ------------------------------------------------------------------------

    def end(self) -> None:
        """Close, as soon as everything that was written is sent, however long that takes."""
        self.is_ending = True
        if not self.client.queued:
            self.client.close(LINGER)

    def end_if_idle(self) -> None:
        """Call when a program is over."""
        if self._is_closed and not self.is_busy:
            on_end, self._on_end = self._on_end, _nothing
            on_end(self)

    # -- callbacks ------------------------------------------------------------------------------

    def on_data(self, data: Buffer) -> None:
        if self.is_ending:
            return
        try:
            self.received(data)
        except ForkdError as error:
            log.warning("connection dropped: %s", error)
            self.client.abort(str(error))

    def on_eof(self) -> None:
        self.is_at_eof = True
        self.input_ended()

    def on_drain(self) -> None:
        if self.is_ending:
            self.client.close(LINGER)
        else:
            self.has_room()

    def on_close(self, why: str) -> None:
        self.service.hangups.forget(self._fd)
        self._is_closed = True
        if not self.is_at_eof:
            self.on_eof()
        self.lose()
        self.end_if_idle()

    def _hung_up(self) -> None:
        # What it sent before is still to be read; its end comes behind that.
        if not self.has_said_all:
            self.lose()
        elif self.is_at_eof:
            self.client.close(0)

    def lose(self) -> None:
        if not self.is_lost and not self.has_said_all:
            self.is_lost = True
            self.lost()


def _nothing(_: Connection) -> None:
    """Stands where ``on_end`` was."""
