"""The response of a program that speaks CGI (RFC 3875 section 6), from bytes to events.

The same text comes out of a CGI program, an SCGI or uwsgi server and the STDOUT stream of FastCGI.
A ``Head`` for each header block (interim ones first), then the body; after a 101 nothing more is
interpreted: what follows belongs to the tunnel.
"""

from __future__ import annotations

from ..errors import BackendBroken
from ..message import Head
from .conversation import Complete, Event, LocalRedirect
from .response_body import Chunked, Counted, Discarded, Framing, UntilEof
from .response_head import MAX_BLOCK, Block, parse_block
from .strict_head import find_end
from .tunnel import Buffer

_BODILESS = frozenset({204, 304})  # RFC 9110 section 6.4.1


class CgiParser:
    """One response.  Every call raises BackendBroken at what cannot be a response.

    *bare_body*: output whose first line has no colon is a body without a head, as of a CGI script
    that just prints; elsewhere it is an error.  *head_only*: the answer to HEAD.  *script*: the URL
    path of a program that may redirect to another one of this server, None for one that may not.
    """

    def __init__(
        self, *, bare_body: bool = False, head_only: bool = False, script: str | None = None
    ) -> None:
        self._bare_body = bare_body
        self._head_only = head_only
        self._script = script
        self._unread = bytearray()  # of an unfinished head, or behind a 101
        self._searched = 0  # bytes of it that hold no end
        self._framing: Framing | None = None
        self._has_spoken = False
        self.is_switched = False
        """Whether a 101 has come."""

    @property
    def is_open_ended(self) -> bool:
        """Whether only the end of the stream tells where the body ends."""
        return isinstance(self._framing, UntilEof)

    def feed(self, data: Buffer) -> list[Event]:
        """The events that *data* completes; pieces of body may be views of it."""
        if self._framing is not None:
            return self._body(data)
        self._has_spoken = self._has_spoken or bool(data)
        self._unread += data
        events: list[Event] = []
        while self._framing is None and not self.is_switched:
            block = self._next_block()
            if block is None:
                return events
            self._begin(block, events)
        if self._framing is not None:
            events += self._body(self._take(len(self._unread)))
        return events

    def eof(self) -> list[Event]:
        """The program will say nothing more.

        Raises Truncated when a length has promised more, BackendBroken without a whole head.
        """
        if self.is_switched:
            return []
        if self._framing is None:
            return self._eof_in_head()
        was_over = self._framing.is_over
        self._framing.eof()
        return [] if was_over else [Complete(False)]

    def after_switch(self) -> bytes:
        """What came behind the 101."""
        return self._take(len(self._unread))

    # -- the head ---------------------------------------------------------------------------------

    def _next_block(self) -> Block | None:
        """The next header block; None when more bytes are needed."""
        data = self._unread
        if data.startswith((b"\n", b"\r\n")):  # no fields at all
            return parse_block(self._take(data.index(b"\n") + 1))
        if not self._searched and not self._begins_with_a_head():
            return self._no_head()
        size = find_end(data, self._searched)
        if size > MAX_BLOCK or (size < 0 and len(data) > MAX_BLOCK):
            raise BackendBroken(f"header block of more than {MAX_BLOCK} bytes")
        if size < 0:
            # The first line is looked at until it is there.
            self._searched = len(data) if b"\n" in data else 0
            return None
        return parse_block(self._take(size))

    def _begins_with_a_head(self) -> bool:
        """Whether the first line, as far as it goes, may be a field or a status line."""
        data = self._unread
        end = data.find(b"\n")
        if end < 0 and len(data) <= MAX_BLOCK:
            return True
        return data.startswith(b"HTTP/") or b":" in data[: end if end >= 0 else None]

    def _no_head(self) -> Block | None:
        if not self._bare_body:
            raise BackendBroken(f"no header field: {bytes(self._unread[:80])!r}")
        return Block(Head(200))

    def _begin(self, block: Block, events: list[Event]) -> None:
        """What follows the head of *block*."""
        head = block.head
        if self._leads_elsewhere(block.local_target):
            self._framing = Discarded()
            events.append(LocalRedirect(block.local_target))
            return
        events.append(head)
        if head.status == 101:
            self.is_switched = True
        elif head.status >= 200:
            self._framing = self._framing_of(block)
            if self._framing.is_over:
                events.append(Complete(False))

    def _leads_elsewhere(self, target: str) -> bool:
        script = self._script
        if not target or script is None or self._unread:
            return False
        # The program would be asked again, and again.
        return target != script and not target.startswith((f"{script}/", f"{script}?"))

    def _framing_of(self, block: Block) -> Framing:
        if self._head_only or block.head.status in _BODILESS:
            return Discarded()
        if block.is_chunked:
            return Chunked()
        return UntilEof() if block.head.length is None else Counted(block.head.length)

    def _eof_in_head(self) -> list[Event]:
        data = self._unread
        if not self._has_spoken:
            raise BackendBroken("closed without a reply")
        is_bare = data and b"\n" not in data and b":" not in data and not data.startswith(b"HTTP/")
        if not (self._bare_body and is_bare):
            raise BackendBroken("closed inside the header block")
        events: list[Event] = []
        self._begin(Block(Head(200)), events)
        return [*events, *self._body(self._take(len(data))), *self.eof()]

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        self._searched = 0
        return taken

    # -- the body ---------------------------------------------------------------------------------

    def _body(self, data: Buffer) -> list[Event]:
        framing = self._framing
        assert framing is not None
        if framing.is_over:
            return []
        events: list[Event] = [*framing.feed(data)]
        if framing.is_over:
            events.append(Complete(False))
        return events
