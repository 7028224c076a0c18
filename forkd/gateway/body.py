"""The body of a request on its way to a backend: kept until it is whole, or passed on as it comes
(gateway.md 13)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from ..config.model import ServerSettings
from ..errors import LengthRequired
from ..http.exchange import Exchange
from .policy import Streaming, request_streaming
from .spool import Spool


class RequestBody(Protocol):
    """What is sent behind the head of a request."""

    length: int | None
    """Bytes; None when only the end will tell."""
    is_whole: bool
    """Whether it is all here: it may be sent again, and sending it waits for no client."""
    is_small: bool
    """Whether it may be sent at once, whatever the backend does."""

    def pieces(self) -> Iterator[bytes]:
        """All of it; raises what ``Exchange.read`` raises."""


class WholeBody:
    """A body that has been received."""

    is_whole = True

    def __init__(self, spool: Spool) -> None:
        self.length: int | None = spool.size
        self.is_small = spool.is_in_memory
        self.pieces = spool.pieces


class NoBody:
    """What a request without a body has."""

    length: int | None = 0
    is_whole = True
    is_small = True

    def pieces(self) -> Iterator[bytes]:
        return iter(())


_NONE: RequestBody = NoBody()


class StreamedBody:
    """A body that is read from the client while it is sent to the backend: whoever is slower sets
    the pace."""

    is_whole = False
    is_small = False

    def __init__(self, exchange: Exchange) -> None:
        self.length = exchange.request.content_length
        self._read = exchange.read

    def pieces(self) -> Iterator[bytes]:
        while piece := self._read():
            yield piece


def receive(
    exchange: Exchange, server: ServerSettings, *, needs_length: bool, is_wanted: bool
) -> AbstractContextManager[RequestBody]:
    """The body of the request; none where it is not wanted.

    Raises LengthRequired when it is to be streamed without *needs_length* being met, and what
    ``Exchange.read`` raises.
    """
    request = exchange.request
    # An extended CONNECT has no body: what follows it belongs to the tunnel (upgrade.md 1).
    has_body = is_wanted and request.content_length != 0 and not request.protocol
    if not has_body:
        return nullcontext(_NONE)
    if request_streaming(request, exchange.settings.limits) is Streaming.BUFFERED:
        return _whole(exchange, server)
    if needs_length and request.content_length is None:
        raise LengthRequired("request body of unknown length")
    return nullcontext(StreamedBody(exchange))


@contextmanager
def _whole(exchange: Exchange, server: ServerSettings) -> Iterator[RequestBody]:
    with Spool.of(server) as spool:
        while piece := exchange.read():
            spool.append(piece)
        yield WholeBody(spool)
