"""What is said to a backend about one request, and what it answers: the interface of the codecs.

A gateway protocol is a ``RequestEncoder`` and a ``ResponseParser``.  Both are pure: bytes in, bytes
or events out; connections, waiting and the client are the business of ``gateway.base``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..message import Fields, Head
from .tunnel import Buffer


class Stderr(NamedTuple):
    """What the program says to the admin, any number of lines or parts of one."""

    text: bytes


class LocalRedirect(NamedTuple):
    """In place of a head: the program wants *target* served instead (RFC 3875 section 6.2.2).

    Only parsers that were told to look for it give one; it is the last event.
    """

    target: str
    """Path and query, as the program wrote them."""


class Complete(NamedTuple):
    """The response is whole; the last event.  What follows it is nobody's."""

    reusable: bool
    """Whether the protocol lets the connection take another request."""
    trailers: Fields = Fields()
    """Fields that came behind the body and may be passed on."""


Event = Head | bytes | bytearray | memoryview | Stderr | LocalRedirect | Complete
"""In this order: any number of interim heads (1xx but 101); the final head; pieces of the body;
Complete.  Stderr may come anywhere, even when the rest is over.

A head holds all fields of the response but those that concern only this connection; its ``length``
is the Content-Length (None: to be seen at the end).  A 101 is a final head without body and without
Complete.  A piece of the body may be a view that is valid until the next call only."""


class RequestEncoder(Protocol):
    """One request in the words of the protocol."""

    def head(self) -> bytes:
        """All that goes before the body."""

    def body(self, piece: Buffer) -> Buffer:
        """A piece of the body, never empty: raw, a chunk, STDIN records."""

    def end(self) -> bytes:
        """The body is over: nothing, the last chunk, the empty STDIN record."""


class ResponseParser(Protocol):
    """The bytes of one response to events.

    Raises BackendBroken for what the protocol does not allow.
    """

    def feed(self, data: Buffer) -> list[Event]:
        """What *data* completes; an unfinished piece is kept.  Not called after Complete."""

    def eof(self) -> list[Event]:
        """The backend has closed: what that completes.  Not called after Complete.

        Raises BackendBroken when no head has come, Truncated when the body is short of what was
        announced.  A response to HEAD, a 204 or a 304 is never short.
        """

    def after_switch(self) -> bytes:
        """What came behind a 101: bytes for the client, with the protocol's wrapping taken off.

        What came behind it unfinished (half a record) stays with the codec of the tunnel, which
        the gateway makes from the parser's state.
        """
