"""From a backend's response to the client's: whole, or as it comes (gateway.md 13, 14)."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
from gevent.event import Event

from ..config.model import Config
from ..http.exchange import Exchange
from ..message import Head
from . import representation
from .link import Link
from .policy import Streaming, response_streaming
from .response_fields import closes, presentable
from .spool import PIECE, Spool

_BODILESS = frozenset({204, 304})  # RFC 9110 section 6.4.1


def respond(exchange: Exchange, head: Head, link: Link, config: Config) -> None:
    """Send *head*, which is final, and the body that *link* reads; then let *link* go.

    Raises what ``Link.pieces`` and the exchange raise; what was sent by then is the caller's to
    abort.
    """
    if closes(head):
        exchange.request = exchange.request._replace(keep_alive=False)
    mode = response_streaming(head, exchange.settings.limits)
    head = presentable(head)
    if exchange.request.method == "HEAD" or head.status in _BODILESS:
        _respond_empty(exchange, head, link)
    elif mode is Streaming.BUFFERED:
        _respond_whole(exchange, head, link, config)
    else:
        exchange.respond(head)
        if mode is Streaming.DIRECT:
            for piece in link.pieces():
                exchange.write(piece)
        else:
            _pass_on(exchange, link, config)
        link.done()
        exchange.finish(link.trailers)


def _respond_empty(exchange: Exchange, head: Head, link: Link) -> None:
    link.discard()
    link.done()
    exchange.respond(head)
    exchange.finish()


def _respond_whole(exchange: Exchange, head: Head, link: Link, config: Config) -> None:
    """The backend is free before the client has the first byte."""
    with Spool.of(config.server) as spool:
        for piece in link.pieces():
            spool.append(piece)
        link.done()
        if link.trailers or "trailer" in head.fields:
            fields = head.fields.without("Trailer").plus(*link.trailers)
            head = Head(head.status, fields, head.length)
        representation.serve(exchange, head, spool, config)


# -- at once, however slow the client is ------------------------------------------------------


def _pass_on(exchange: Exchange, link: Link, config: Config) -> None:
    """The backend is read as fast as it writes; what the client does not take yet is spooled."""
    with Spool.of(config.server) as spool:
        backlog = _Backlog(spool)
        reader = gevent.spawn(backlog.fill, link.pieces())
        try:
            for piece in backlog.pieces():
                exchange.write(piece)
        finally:
            reader.kill()


class _Backlog:
    """Pieces on their way from one greenlet to another."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._taken = 0
        self._changed = Event()
        self._is_over = False
        self._error: BaseException | None = None

    def fill(self, pieces: Iterator[bytes]) -> None:
        try:
            for piece in pieces:
                self._spool.append(piece)
                self._changed.set()
        except Exception as error:
            self._error = error
        finally:
            self._is_over = True
            self._changed.set()

    def pieces(self) -> Iterator[bytes]:
        """All that is filled in, in order; then raises what filling it in raised."""
        while True:
            piece = self._take()
            if piece:
                yield piece
            elif self._is_over:
                break
            else:
                self._changed.clear()
                self._changed.wait()
        if self._error is not None:
            raise self._error

    def _take(self) -> bytes:
        piece = self._spool.read(self._taken, PIECE)
        self._taken += len(piece)
        if piece:
            self._spool.forget(self._taken)
            if not self._spool.size:
                self._taken = 0
        return piece
