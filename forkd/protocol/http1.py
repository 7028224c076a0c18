"""HTTP/1.1 towards a backend (RFC 9112): a request to bytes, bytes to a response.

Responses are read by h11 in its client role.  Their heads pass a gate before it: what h11 would
mend (bare line ends) or learn too late (bytes that are no HTTP at all) is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import h11

from ..errors import BackendBroken, Truncated
from ..message import Fields, Head, Pair
from .conversation import Complete, Event
from .strict_chunks import FORBIDDEN_TRAILERS
from .strict_head import find_end
from .tunnel import Buffer

MAX_HEAD = 65535  # bytes of one response head; lighttpd's limit

_UNFIT_FOR_TARGET = re.compile(r"[\x00-\x20\x7f]")
_LINE_END = re.compile(r"[\r\n]")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")
_VERSION = b"HTTP/1."
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NO_FIELDS = Fields()


class Http1Encoder:
    """One request: ``gateway.proxy_headers`` has chosen its fields, the framing ones included."""

    def __init__(
        self,
        method: str,
        target: str,
        fields: Iterable[Pair],
        *,
        version: str = "HTTP/1.1",
        chunked: bool = False,
    ) -> None:
        """*chunked*: the fields say so, and the body goes out in chunks; else as it comes."""
        self._head = _head(method, target, version, fields)
        self._chunked = chunked

    def head(self) -> bytes:
        return self._head

    def body(self, piece: Buffer) -> Buffer:
        if not self._chunked:
            return piece
        return b"".join((b"%x\r\n" % len(piece), piece, b"\r\n"))

    def end(self) -> bytes:
        return b"0\r\n\r\n" if self._chunked else b""


def _head(method: str, target: str, version: str, fields: Iterable[Pair]) -> bytes:
    # A blank ends the target, a line end its line, whatever the rest of the server has let pass.
    target = _UNFIT_FOR_TARGET.sub(lambda found: f"%{ord(found[0]):02X}", target)
    lines = [f"{method} {target} {version}"]
    lines += [_LINE_END.sub(" ", f"{name}: {value}") for name, value in fields]
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


def _unchanged(head: Head) -> Head:
    return head


class Http1Parser:
    """The response to one request.

    Every call raises BackendBroken at what is no response to it.  A 101 is one only where
    *may_switch*; *translate* is applied to every head.
    """

    def __init__(
        self,
        method: str,
        *,
        may_switch: bool = False,
        translate: Callable[[Head], Head] = _unchanged,
    ) -> None:
        self._may_switch = may_switch
        self._translate = translate
        self._head = bytearray()  # an unfinished one
        self._searched = 0  # bytes of it that hold no end
        self._in_head = True
        self._is_over = False  # complete, or switched to another protocol
        self._h11 = _asked(method, may_switch)

    def feed(self, data: Buffer) -> list[Event]:
        try:
            return self._feed(data)
        except h11.RemoteProtocolError as error:
            raise BackendBroken(str(error)) from error

    def eof(self) -> list[Event]:
        if self._is_over:
            return []
        if self._in_head:
            where = "in the response head" if self._head else "without a reply"
            raise BackendBroken(f"closed {where}")
        self._h11.receive_data(b"")
        try:
            self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise Truncated(str(error)) from error
        return [self._complete(reusable=False)]

    def after_switch(self) -> bytes:
        return self._h11.trailing_data[0]

    # -- heads ------------------------------------------------------------------------------------

    def _feed(self, data: Buffer) -> list[Event]:
        events: list[Event] = []
        if self._in_head:
            self._head += data
            while self._in_head and not self._is_over:
                head = self._next_head()
                if head is None:
                    return events
                events.append(self._translate(head))
            # What follows the last head is h11's.
            data, self._head = self._head, bytearray()
        if data:
            self._h11.receive_data(data)  # type: ignore[arg-type]  # any buffer will do
        return events if self._is_over else [*events, *self._body()]

    def _next_head(self) -> Head | None:
        """The next head, interim or final; None when more bytes are needed."""
        data = self._head
        if not data.startswith(_VERSION[: len(data)]):
            raise BackendBroken(f"not HTTP/1.x: {bytes(data[:40])!r}")
        size = find_end(data, self._searched)
        if size > MAX_HEAD or (size < 0 and len(data) > MAX_HEAD):
            raise BackendBroken(f"response head of more than {MAX_HEAD} bytes")
        if size < 0:
            self._searched = len(data)
            return None
        raw = bytes(data[:size])
        del data[:size]
        self._searched = 0
        self._check(raw)
        self._h11.receive_data(raw)
        event = self._h11.next_event()
        assert isinstance(event, h11.Response | h11.InformationalResponse)
        return self._understood(event)

    def _check(self, raw: bytes) -> None:
        found = _STATUS_LINE.match(raw)
        if found is None:
            raise BackendBroken(f"bad status line {raw[:80]!r}")
        text = raw.replace(b"\r\n", b"")
        if b"\n" in text or b"\r" in text:
            raise BackendBroken("bare line end in the response head")
        if found[1] == b"101" and not self._may_switch:
            raise BackendBroken("101 without having been asked to switch protocols")

    def _understood(self, event: h11.Response | h11.InformationalResponse) -> Head:
        fields, length = _without_framing(event.headers.raw_items())
        status = event.status_code
        if status == 101:
            if "upgrade" not in fields:
                raise BackendBroken("101 without Upgrade")
            self._is_over = True
        self._in_head = status < 200
        return Head(status, fields, length)

    # -- the body ---------------------------------------------------------------------------------

    def _body(self) -> list[Event]:
        events: list[Event] = []
        while not self._is_over:
            event = self._h11.next_event()
            if isinstance(event, h11.Data):
                events.append(event.data)
            elif isinstance(event, h11.EndOfMessage):
                events.append(self._complete(self._may_take_another(), _trailers(event)))
            else:
                break
        return events

    def _may_take_another(self) -> bool:
        states = self._h11.states
        return states == _DONE and not self._h11.trailing_data[0]

    def _complete(self, reusable: bool, trailers: Fields = _NO_FIELDS) -> Complete:
        self._is_over = True
        return Complete(reusable, trailers)


def _without_framing(items: Iterable[tuple[bytes, bytes]]) -> tuple[Fields, int | None]:
    """The fields that may be passed on, and the length of the body where it counts."""
    pairs: list[Pair] = []
    length: int | None = None
    is_chunked = False
    for raw_name, raw_value in items:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        key = name.lower()
        if key == "content-length":
            length = int(value)
        elif key == "transfer-encoding":
            is_chunked = True
        elif value and not _CONTROL.search(value):
            pairs.append((name, value))
    return Fields(pairs), None if is_chunked else length


def _trailers(event: h11.EndOfMessage) -> Fields:
    """Without those that cannot stand behind a body (RFC 9110 section 6.5.1)."""
    if not event.headers:
        return _NO_FIELDS
    return _without_framing(event.headers.raw_items())[0].without(*FORBIDDEN_TRAILERS)


_DONE = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}


def _asked(method: str, may_switch: bool) -> h11.Connection:
    """An h11 connection on which a request has gone out."""
    connection = h11.Connection(h11.CLIENT, MAX_HEAD)
    connection.send(_request(method, may_switch))
    connection.send(_END_OF_REQUEST)
    return connection


@lru_cache
def _request(method: str, may_switch: bool) -> h11.Request:
    """As much of a request as decides how its response is read."""
    fields = [("host", "-"), ("upgrade", "-")]
    return h11.Request(method=method, target="/", headers=fields if may_switch else fields[:1])


_END_OF_REQUEST = h11.EndOfMessage()
