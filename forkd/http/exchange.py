"""What a gateway may do to a client: one request and its response, whatever the HTTP version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gevent.event import Event

from ..config.model import RequestConfig
from ..message import Head, Request
from ..net.port import Port


class Exchange(Protocol):
    """One request.  All methods but ``abort`` are for the exchange's own greenlet.

    Every method that waits for the client raises ``ClientGone`` when it has left or was too slow
    (``max_read_idle``, ``max_write_idle``).
    """

    request: Request
    settings: RequestConfig
    """Set by ``handle`` as soon as it has selected; until then the global values."""
    gone: Event
    """Set when the client has left."""
    started: bool
    """Whether the final head has been sent."""
    on_head: Callable[[Head], Head]
    """Applied to the final head before it is sent: response hooks. ``handle`` sets it."""
    file_name: str
    """Physical path, for the access log; "" when none."""

    def read(self) -> bytes:
        """The next piece of the body, b"" at its end; asks for it with 100 Continue when needed."""

    def inform(self, head: Head) -> None:
        """An interim response, 1xx; dropped for HTTP/1.0."""

    def respond(self, head: Head) -> None:
        """The final head.  Date, Server, Connection and the framing are added here."""

    def write(self, data: bytes) -> None:
        """A piece of the body; waits while the client is slow.  Ignored for HEAD, 204, 304."""

    def send_file(self, fd: int, offset: int, length: int) -> None:
        """A piece of the body from a regular file: sendfile on a plain socket."""

    def finish(self) -> None:
        """The body is complete.  A body shorter than ``Head.length`` is an ``abort``."""

    def upgrade(self, head: Head) -> tuple[Port, bytes]:
        """Send 101 (or 200 for HTTP/2); the client's end, and bytes that had come early.

        The exchange is over for its greenlet; ``log_tunnel`` is called when the tunnel ends.
        """

    def log_tunnel(self, bytes_in: int, bytes_out: int) -> None:
        """The access line of an upgraded exchange, with the bytes of its tunnel."""

    def abort(self, why: str) -> None:
        """What was promised cannot be kept: close or reset."""


Handler = Callable[[Exchange], None]
