"""One request and its response on the connection to one backend: codecs, time-outs, the client's
leaving.  What the response means for the client is not known here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from math import inf
from types import TracebackType

from gevent.event import Event as GeventEvent

from ..errors import BackendBroken, BackendTimeout, ClientGone, Refused, Truncated
from ..http.exchange import Exchange
from ..message import Fields, Head, Request
from ..net.blocking import BlockingPort
from ..protocol.conversation import (
    Complete,
    Event,
    LocalRedirect,
    RequestEncoder,
    ResponseParser,
    Stderr,
)
from .body import RequestBody
from .conversation import Backend, Conversation, Terms
from .pool import IDEMPOTENT
from .pump import Pump
from .response_fields import presentable

log = logging.getLogger(__name__)

MAX_INTERIM = 1000  # interim responses to one request: more are no progress, but never idle
_BODILESS = frozenset({204, 304})  # RFC 9110 section 6.4.1


class StaleConnection(Exception):
    """A kept connection was dead, or the backend refused the request at once: nothing has been done
    with it, and it may be sent over another one."""


class Link:
    """A context manager that owns its backend: one that was not let go of is aborted."""

    def __init__(self, conversation: Conversation, exchange: Exchange, backend: Backend) -> None:
        self.backend = backend
        self.terms: Terms = conversation.terms(backend)
        self._conversation = conversation
        self._exchange = exchange
        self._port = BlockingPort(backend.port)
        self._request: Request = exchange.request
        self._body: RequestBody | None = None
        self._parser: ResponseParser | None = None
        self._pump: Pump | None = None
        self._events: Iterator[Event] = iter(())
        self._head: Head | None = None
        self._protocol_allows_reuse = False
        self.trailers = Fields()
        """Known when ``pieces`` has come to its end."""
        self._client_ended = False
        self._is_let_go = False

    def __enter__(self) -> Link:
        self._exchange.gone.rawlink(self._client_changed)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_let_go:
            self._stop()
            self._is_let_go = True
            self._conversation.abort(self.backend, str(error) if error else "abandoned")

    def _stop(self) -> None:
        self._exchange.gone.unlink(self._client_changed)
        if self._pump is not None:
            self._pump.stop()

    # -- the request ------------------------------------------------------------------------------

    def send(self, request: Request, body: RequestBody, holds_end: bool) -> None:
        """Begin to send; *holds_end*: until ``release_end``, as more may follow in a tunnel."""
        encoder: RequestEncoder
        encoder, self._parser = self._conversation.begin(request, body.length, self.backend)
        self._request, self._body = request, body
        self._events = self._read_events(self._parser)
        self._pump = Pump(self._port, encoder, body, self.terms, holds_end, self._half_close)
        self._pump.start()

    def release_end(self) -> None:
        if self._pump is not None:
            self._pump.release_end()

    def _client_changed(self, _: GeventEvent) -> None:
        """In the hub: the client has left, or has closed its direction."""
        if self._exchange.is_lost:
            self._port.interrupt(ClientGone("left before the answer"))
        else:
            self._client_ended = True
            self._half_close()

    def _half_close(self) -> None:
        if (
            self._client_ended
            and self.terms.fin_propagate
            and self._pump is not None
            and self._pump.is_over
        ):
            self._client_ended = False  # once
            self._conversation.half_close(self.backend)

    # -- the response -----------------------------------------------------------------------------

    def head(self) -> Head | LocalRedirect:
        """The final head, or what came in place of it; interim ones go to the client.

        Raises BackendBroken, BackendTimeout, ClientGone, StaleConnection, and whatever reading the
        request's body raised, like ``pieces``.
        """
        interim = 0
        for event in self._events:
            if isinstance(event, LocalRedirect):
                return event
            if isinstance(event, Head):
                if event.status >= 200 or event.status == 101:
                    self._head = event
                    return event
                interim += 1
                if interim > MAX_INTERIM:
                    raise self._broken(f"more than {MAX_INTERIM} interim responses")
                self._exchange.inform(presentable(event))
        raise self._broken("no response head")

    def pieces(self) -> Iterator[bytes]:
        """The body, up to its end.  Raises Truncated when that is missing."""
        for event in self._events:
            if isinstance(event, Complete):
                self._protocol_allows_reuse = event.reusable
                self.trailers = event.trailers
                return
            if isinstance(event, bytes | bytearray | memoryview):
                yield bytes(event)
            else:
                raise self._broken("a second response head")
        raise Truncated(f"{self.backend.name}: response without an end")

    def discard(self) -> None:
        """Read the rest of the response."""
        for _ in self.pieces():
            pass

    def _read_events(self, parser: ResponseParser) -> Iterator[Event]:
        while True:
            data = self._receive()
            try:
                events = parser.feed(data) if data else parser.eof()
            except Refused as error:
                if self._head is None and self._body is not None and self._body.is_whole:
                    raise StaleConnection(str(error)) from error
                raise
            except BackendBroken as error:
                raise type(error)(f"{self.backend.name}: {error}") from error
            if not data:
                self._check_death()
            for event in events:
                if isinstance(event, Stderr):
                    self._log_stderr(event.text)
                else:
                    yield event
            if not data:
                return

    def _receive(self) -> bytes:
        """What the backend has sent; b"" at its end."""
        timeout = self.terms.read_timeout or inf
        while True:
            taken = self._port.bytes_out
            try:
                data = self._port.recv(timeout)
            except TimeoutError as error:
                if self._is_pumping and self._port.bytes_out != taken:
                    continue  # it is busy with the request
                raise BackendTimeout(f"{self.backend.name}: response, {error}") from error
            except ClientGone as error:
                if error is self._port.error:
                    raise
                return self._after_reset(error)
            if not data and self._is_stale:
                raise StaleConnection
            return data

    @property
    def _is_pumping(self) -> bool:
        return self._pump is not None and self._pump.is_at_work

    @property
    def _is_stale(self) -> bool:
        port, backend = self._port, self.backend
        may_repeat = backend.is_kept and self._request.method in IDEMPOTENT
        is_unheard = backend.is_shared and port.bytes_out == 0
        return (
            port.bytes_in == 0
            and (may_repeat or is_unheard)
            and self._body is not None
            and self._body.is_whole
        )

    def _after_reset(self, error: ClientGone) -> bytes:
        if self._is_stale:
            raise StaleConnection from error
        if self._body is not None and self._body.length != 0:
            # So the system tells us that it closed without having read all: no more than an end.
            return b""
        raise self._broken(str(error))

    def _check_death(self) -> None:
        """A response that only the end of the connection delimits is whole if that was meant."""
        head = self._head
        if (
            head is not None
            and head.length is None
            and head.status != 101
            and head.status not in _BODILESS
            and self._request.method != "HEAD"
            and not self._conversation.ended_well(self.backend)
        ):
            raise Truncated(f"{self.backend.name}: died in the middle of its response")

    def _broken(self, why: str) -> BackendBroken:
        return BackendBroken(f"{self.backend.name}: {why}")

    def _log_stderr(self, text: bytes) -> None:
        for line in text.decode("utf-8", "replace").splitlines():
            log.warning("%s: stderr: %s", self.backend.name, line)

    # -- letting go -------------------------------------------------------------------------------

    def done(self) -> None:
        """The response has been read, as far as anybody wants it."""
        self._stop()
        self._is_let_go = True
        self._conversation.done(self.backend, self._is_reusable)

    @property
    def _is_reusable(self) -> bool:
        port = self._port
        return (
            self._protocol_allows_reuse
            and self._pump is not None
            and self._pump.is_over
            and not (port.pending or port.at_eof or port.error or port.closed_why)
        )

    def switch(self) -> tuple[bytes, bytes]:
        """All of the request has gone out, a 101 has come, and the port is free for a tunnel.

        What came behind the 101: for the client as it is; for the codec of the tunnel.
        """
        if self._pump is not None:
            self._pump.wait()
        if self._port.error is not None:
            raise self._port.error
        self._stop()
        greeting = self._parser.after_switch() if self._parser is not None else b""
        return greeting, self._port.detach()[1]

    def handed_over(self) -> None:
        """A tunnel owns the backend."""
        self._is_let_go = True
