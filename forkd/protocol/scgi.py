"""SCGI requests: the environment as a netstring, then the body as it is.

The protocol: https://python.ca/scgi/protocol.txt.  The response is ``protocol.cgi``'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..message import Pair
from .environment import encoded
from .tunnel import Buffer


def encode_environment(environment: Iterable[Pair]) -> bytes:
    """The head of a request; CONTENT_LENGTH comes first in *environment*, SCGI is in it.

    Raises BadRequest.
    """
    text = b"".join(b"%b\0%b\0" % pair for pair in encoded(environment))
    return b"%d:%b," % (len(text), text)


class RawEncoder:
    """A request whose body needs no framing: its length is in the head."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def head(self) -> bytes:
        return self._head

    def body(self, piece: Buffer) -> Buffer:
        return piece

    def end(self) -> bytes:
        return b""
