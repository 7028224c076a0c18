"""permessage-deflate, server side (RFC 7692): what is agreed on, and the two zlib streams.

No I/O.  Which frames are compressed ones is the business of ``protocol.frame``, what becomes of
their messages that of ``protocol.inflation`` and ``protocol.messages``.
"""

from __future__ import annotations

import re
import zlib
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Protocol
from weakref import ref

from .frame import NO_LIMIT, CloseCode, FrameError
from .tunnel import Buffer

NAME = "permessage-deflate"
TAIL = b"\0\0\xff\xff"  # section 7.2.1: ends every flush, and is left out on the wire
PIECE = 64 * 1024  # bytes that are inflated at once
BITE = 4096  # bytes that zlib is given at once: it copies what it leaves, each time
WIDEST = 15  # bits: the window of plain deflate
NARROWEST = 9  # bits: zlib's compressor has none of 8

_BITS = re.compile("[89]|1[0-5]")  # section 7.1.2: no leading zeros

Parameters = dict[str, str | None]
"""Of one offer; None: a name without a value."""


class DeflateSettings(Protocol):
    """What is configured: ``wstunnel.deflate``."""

    @property
    def level(self) -> int:
        """zlib's, 1 to 9."""

    @property
    def min_size(self) -> int:
        """Bytes: a shorter message is sent as it is."""

    @property
    def memory_limit(self) -> int:
        """Bytes for all streams of a worker; 0: no limit."""

    @property
    def server_max_window_bits(self) -> int: ...
    @property
    def client_max_window_bits(self) -> int: ...
    @property
    def server_no_context_takeover(self) -> bool: ...
    @property
    def client_no_context_takeover(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class DeflateParams:
    """What server and client have agreed on (section 7.1), and how the server goes about it."""

    server_max_window_bits: int = WIDEST
    client_max_window_bits: int = WIDEST
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    level: int = 6
    min_size: int = 64
    memory_limit: int = 0


# -- the offer and the answer (section 7.1) -----------------------------------------------------


def negotiate(offers: str, wanted: DeflateSettings) -> tuple[DeflateParams, str] | None:
    """What is agreed on and the answer to say so, for Sec-WebSocket-Extensions *offers*.

    The client's first offer that can be met is taken; None when there is none.
    """
    for offer in offers.split(","):
        name, *rest = (part.strip(" \t") for part in offer.split(";"))
        parameters = _parameters(rest) if name == NAME else None
        agreed = _agree(parameters, wanted) if parameters is not None else None
        if agreed is not None:
            return agreed, _answer(agreed, parameters or {})
    return None


def _parameters(parts: list[str]) -> Parameters | None:
    """Section 7.1: None for one that is unknown, repeated or has a value that it must not have."""
    found: Parameters = {}
    for part in parts:
        name, equals, value = (item.strip(" \t") for item in part.partition("="))
        content = value.replace('"', "").replace("\\", "") if equals else None
        if name in found or name not in _MAY_HAVE or not _MAY_HAVE[name](content):
            return None
        found[name] = content
    return found


def _is_bits(value: str | None) -> bool:
    return value is not None and _BITS.fullmatch(value) is not None


_MAY_HAVE: dict[str, Callable[[str | None], bool]] = {
    "server_no_context_takeover": lambda value: value is None,
    "client_no_context_takeover": lambda value: value is None,
    "server_max_window_bits": _is_bits,
    "client_max_window_bits": lambda value: value is None or _is_bits(value),
}


def _agree(offered: Parameters, wanted: DeflateSettings) -> DeflateParams | None:
    server_bits = int(offered.get("server_max_window_bits") or WIDEST)
    if server_bits < NARROWEST:
        return None
    client_bits = WIDEST
    # Section 7.1.2.2: nothing may be asked of a client that does not know the parameter.
    if "client_max_window_bits" in offered:
        most = int(offered["client_max_window_bits"] or WIDEST)
        client_bits = min(most, wanted.client_max_window_bits)
    return DeflateParams(
        server_max_window_bits=min(server_bits, max(wanted.server_max_window_bits, NARROWEST)),
        client_max_window_bits=client_bits,
        server_no_context_takeover=wanted.server_no_context_takeover
        or "server_no_context_takeover" in offered,
        client_no_context_takeover=wanted.client_no_context_takeover
        or "client_no_context_takeover" in offered,
        level=wanted.level,
        min_size=wanted.min_size,
        memory_limit=wanted.memory_limit,
    )


def _answer(agreed: DeflateParams, offered: Parameters) -> str:
    """Section 7.1: the offer's parameters as they were agreed on, and what the server adds."""
    parts = [NAME]
    if agreed.server_no_context_takeover:
        parts.append("server_no_context_takeover")
    if agreed.client_no_context_takeover:
        parts.append("client_no_context_takeover")
    if "server_max_window_bits" in offered or agreed.server_max_window_bits < WIDEST:
        parts.append(f"server_max_window_bits={agreed.server_max_window_bits}")
    if agreed.client_max_window_bits < WIDEST:
        parts.append(f"client_max_window_bits={agreed.client_max_window_bits}")
    return "; ".join(parts)


# -- the streams (section 7.2) ------------------------------------------------------------------


class DeflateBudget:
    """The memory of all streams of a worker.

    Over the limit, compressors that have not been used for longest are given up: a server may
    begin with an empty window at any message.  A decompressor may not, as the client goes on
    referring to what it has sent before: it is only counted.
    """

    def __init__(self, limit: int = 0) -> None:
        """*limit* in bytes; 0: none."""
        self.used = 0
        self._limit = limit
        self._idle: OrderedDict[int, ref[Deflater]] = OrderedDict()

    def take(self, size: int) -> None:
        """Account for *size* bytes more, and make room for them."""
        self.used += size
        while self._limit and self.used > self._limit and self._idle:
            deflater = self._idle.popitem(last=False)[1]()
            if deflater is not None:
                deflater.give_back()

    def free(self, size: int) -> None:
        self.used -= size

    def rests(self, deflater: Deflater) -> None:
        """*deflater* holds memory that it could do without, and was used just now."""
        if self._limit:
            self._idle.setdefault(id(deflater), ref(deflater))
            self._idle.move_to_end(id(deflater))

    def works(self, deflater: Deflater) -> None:
        """*deflater* cannot do without it, or has none."""
        self._idle.pop(id(deflater), None)


@cache
def budget_of(limit: int) -> DeflateBudget:
    """The one of this process for all who have the same *limit*."""
    return DeflateBudget(limit)


class Deflater:
    """Messages to compressed payloads (section 7.2.1).  Has no memory of its own before the first,
    nor after one when the window is not taken over."""

    __slots__ = ("__weakref__", "_bits", "_budget", "_level", "_stream", "_takes_over")

    def __init__(self, params: DeflateParams, budget: DeflateBudget) -> None:
        self._bits = params.server_max_window_bits
        self._level = params.level
        self._takes_over = not params.server_no_context_takeover
        self._budget = budget
        self._stream: zlib._Compress | None = None

    def message(self, payload: Buffer) -> bytes:
        """All of one message."""
        return self._open().compress(payload) + self.finish()

    def part(self, payload: Buffer) -> bytes:
        """What is to be sent for a part of a message: perhaps nothing yet."""
        stream = self._open()
        self._budget.works(self)
        return stream.compress(payload)

    def finish(self) -> bytes:
        """The rest of the message."""
        rest = self._open().flush(zlib.Z_SYNC_FLUSH)[: -len(TAIL)]
        if self._takes_over:
            self._budget.rests(self)
        else:
            self.give_back()
        return rest

    def _open(self) -> zlib._Compress:
        stream = self._stream
        if stream is None:
            self._budget.take(self._memory)
            stream = zlib.compressobj(self._level, zlib.DEFLATED, -self._bits)
            self._stream = stream
        return stream

    def give_back(self) -> None:
        """Forget what was compressed before, and with it all memory; not inside a message."""
        if self._stream is not None:
            self._stream = None
            self._budget.works(self)
            self._budget.free(self._memory)

    @property
    def _memory(self) -> int:
        return (1 << self._bits + 2) + (1 << zlib.DEF_MEM_LEVEL + 9)  # zconf.h

    def __del__(self) -> None:
        self.give_back()


class Inflater:
    """Compressed payloads to messages (section 7.2.2), no more than a piece at a time."""

    __slots__ = (
        "_at",
        "_bits",
        "_budget",
        "_data",
        "_ends",
        "_is_bare",
        "_max_size",
        "_stream",
        "_takes_over",
        "is_inside",
        "size",
    )

    def __init__(
        self, params: DeflateParams, budget: DeflateBudget, max_message_size: int = 0
    ) -> None:
        """*max_message_size* in bytes, 0: no limit."""
        # A window that is wider than needed does no harm: some compressors of 8 bits use 9.
        self._bits = max(params.client_max_window_bits, NARROWEST)
        self._takes_over = not params.client_no_context_takeover
        self._budget = budget
        self._max_size = max_message_size or NO_LIMIT
        self._stream: zlib._Decompress | None = None
        self._data = b""  # what was fed
        self._at = 0  # how far that has been inflated
        self._ends = False  # whether that is the end of the message
        self._is_bare = False  # whether the message has no byte so far
        self.is_inside = False
        """Whether a message is open whose last bytes have not been fed."""
        self.size = 0
        """Of the open message, what has been taken; 0 behind its end."""

    def feed(self, data: Buffer, ends: bool) -> None:
        """The next bytes of a message, its last if *ends*; all before must have been taken.

        Raises FrameError INVALID_DATA.
        """
        self._is_bare = not data and (self._is_bare or not self.is_inside)
        if ends and self._is_bare:
            # Section 7.2.3.6: an empty message is one byte.
            raise FrameError(CloseCode.INVALID_DATA, "compressed message without data")
        self._data = bytes(data) + TAIL if ends else bytes(data)
        self._at = 0
        self._ends = ends
        self.is_inside = not ends

    def take(self) -> tuple[bytes, bool]:
        """(at most PIECE bytes, whether there is more of what was fed).

        Raises FrameError, INVALID_DATA or TOO_BIG.
        """
        stream = self._stream
        bite = self._data[self._at : self._at + BITE]
        if stream is None:
            if not bite or self._ends and bite == TAIL:
                # Section 7.2.3.4: behind a final block some senders leave out the empty block that
                # TAIL belongs to.
                return self._all_taken()
            self._budget.take(self._memory)
            stream = self._stream = zlib.decompressobj(-self._bits)
        try:
            piece = stream.decompress(bite, PIECE)
        except zlib.error:
            raise FrameError(CloseCode.INVALID_DATA, "corrupt compressed data") from None
        # Of a stream that has ended, what is behind it may stand in both.
        rest = stream.unused_data if stream.eof else stream.unconsumed_tail
        self._at += len(bite) - len(rest)
        self.size += len(piece)
        if self.size > self._max_size:
            raise FrameError(CloseCode.TOO_BIG, "message too big")
        if stream.eof:  # section 7.2.3.4: a final block ends its stream, but not the message
            self._forget()
        if self._at < len(self._data) or len(piece) == PIECE:
            return piece, True
        return self._all_taken(piece)

    def _all_taken(self, piece: bytes = b"") -> tuple[bytes, bool]:
        self._data = b""
        if self._ends:
            self.size = 0
            if not self._takes_over:
                self._forget()
        return piece, False

    def copy(self) -> Inflater:
        """Another that goes on from here: whatever is still to be taken, is to be taken of both."""
        stream = self._stream and self._stream.copy()
        other = copy(self)
        other._stream = stream
        if stream is not None:
            self._budget.take(self._memory)
        return other

    def _forget(self) -> None:
        if self._stream is not None:
            self._stream = None
            self._budget.free(self._memory)

    @property
    def _memory(self) -> int:
        return (1 << self._bits) + (7 << 10)  # zconf.h, struct inflate_state

    def __del__(self) -> None:
        self._forget()
