"""Requests and response heads as frozen values that every layer speaks of.

Text is bytes read as Latin-1, one to one, so nothing is lost and ``str`` methods work; whoever
opens a file encodes it back (``os_path``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .address import Address

Version = Literal["HTTP/1.0", "HTTP/1.1", "HTTP/2.0"]
Pair = tuple[str, str]


def os_path(text: str) -> bytes:
    """The file name that Latin-1 *text* stands for."""
    return text.encode("latin-1")


def from_os(name: str | bytes) -> str:
    """The inverse of ``os_path``, for names the system gave us."""
    return os.fsencode(name).decode("latin-1")


def ascii_lower(text: str) -> str:
    """*text* in lower case as bytes have it: letters beyond ASCII are no letters."""
    return text.encode("latin-1").lower().decode("latin-1")


def has_token(value: str, token: str) -> bool:
    """Whether the comma-separated *value* contains *token*, case ignored.

    The token may be followed by the end, a blank, a comma or a ``;`` (upgrade.md 2).
    """
    token = token.lower()
    for item in value.lower().split(","):
        if item.strip(" \t").split(";", 1)[0].split(" ", 1)[0].split("\t", 1)[0] == token:
            return True
    return False


class Fields:
    """Header or trailer fields in order, immutable; names compare without case."""

    __slots__ = ("_pairs", "_map")

    def __init__(self, pairs: Iterable[Pair] = ()) -> None:
        self._pairs: tuple[Pair, ...] = tuple(pairs)
        self._map: dict[str, Pair] | None = None

    @classmethod
    def indexed(cls, index: dict[str, Pair]) -> Fields:
        """From name in lower case to field, where no name is repeated; *index* is ours now."""
        fields = cls(index.values())
        fields._map = index
        return fields

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __contains__(self, name: str) -> bool:
        return name.lower() in (self._map or self._index())

    def __repr__(self) -> str:
        return f"Fields({list(self._pairs)!r})"

    def get(self, name: str, default: str = "") -> str:
        """The value of *name*, repeated ones joined with ``, `` (Cookie ``; ``)."""
        found = (self._map or self._index()).get(name.lower())
        return default if found is None else found[1]

    def plus(self, *pairs: Pair) -> Fields:
        """These fields with *pairs* behind them."""
        return Fields(self._pairs + pairs)

    def replacing(self, name: str, value: str) -> Fields:
        """*name* once, with *value*, where it stood first or else last; empty: *name* removed."""
        lower = name.lower()
        out: list[Pair] = []
        placed = not value
        for pair in self._pairs:
            if pair[0].lower() != lower:
                out.append(pair)
            elif not placed:
                out.append((pair[0], value))
                placed = True
        if not placed:
            out.append((name, value))
        return Fields(out)

    def without(self, *names: str) -> Fields:
        lower = {name.lower() for name in names}
        return Fields(pair for pair in self._pairs if pair[0].lower() not in lower)

    def _index(self) -> dict[str, Pair]:
        if self._map is None:
            index = {pair[0].lower(): pair for pair in self._pairs}
            self._map = index if len(index) == len(self._pairs) else _joined(self._pairs)
        return self._map


def _joined(pairs: tuple[Pair, ...]) -> dict[str, Pair]:
    """The index of *pairs*, some of which have the same name."""
    index: dict[str, Pair] = {}
    for name, value in pairs:
        key = name.lower()
        if key in index:
            joint = "; " if key == "cookie" else ", "
            value = f"{index[key][1]}{joint}{value}"
        index[key] = name, value
    return index


@dataclass(frozen=True, slots=True)
class ConnInfo:
    """What is known of a connection before its first byte. ``listener`` is the address as bound."""

    peer: Address
    local: Address
    listener: Address
    tls: bool = False
    alpn: str = ""
    """The protocol that the TLS handshake has agreed on (RFC 7301); "" for none."""
    environment: tuple[Pair, ...] = ()
    """Variables for gateways that hold for every request: what TLS tells."""


class Request(NamedTuple):
    """One request, checked and normalised; hooks make copies with ``_replace``."""

    # Of tuples with exactly twenty items CPython 3.11 keeps 2000 without ever using one again.

    method: str
    target: str
    """As received."""
    version: Version
    host: str
    """Authority: lower case, default port removed (core.md 5); "" when there was none."""
    path: str
    """Normalised, still percent-encoded, without query (core.md 6)."""
    query: str | None
    """Normalised; None when the target has no ``?``."""
    decoded_path: str
    """``path`` decoded and simplified, for file lookup and gateway matching.  A gateway sees it
    without ``path_info``: the name of the script."""
    fields: Fields
    """Repeated ones already joined, empty ones dropped (core.md 4)."""
    content_length: int | None
    """Bytes of body; 0 for none, None for a chunked one."""
    keep_alive: bool
    """Whether the client wants the connection kept."""
    connection: ConnInfo
    remote: Address
    """The client: the peer, or what a trusted proxy said of it."""
    protocol: str = ""
    """``:protocol`` of an extended CONNECT (RFC 8441), else ""."""
    environment: tuple[Pair, ...] = ()
    """Variables for gateways beyond RFC 3875: setenv, TLS, authentication."""
    number: int = 0
    """Requests before this one on the connection."""
    started: float = 0.0
    """Seconds since the epoch when the head had arrived."""
    physical: tuple[str, str] | None = None
    """(base folder, file path) when the request was mapped to the file system."""
    path_info: str = ""
    """What followed the script's name in the path, split off for a gateway (gateway.md 3)."""
    rewrites: int = 0
    """How often url.rewrite-* has changed the URL; -1 when it may not be changed again."""

    @property
    def scheme(self) -> str:
        return "https" if self.connection.tls else "http"

    @property
    def full_target(self) -> str:
        """Normalised path and query together."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def wants_websocket(self) -> bool:
        """A GET over HTTP/1.1 that asks for the upgrade, or an extended CONNECT (wstunnel.md 2)."""
        if self.version == "HTTP/2.0":
            return self.method == "CONNECT" and self.protocol == "websocket"
        return (
            self.method == "GET"
            and self.version == "HTTP/1.1"
            and has_token(self.fields.get("upgrade"), "websocket")
            and has_token(self.fields.get("connection"), "upgrade")
        )


class Head(NamedTuple):
    """Status and fields of a response; the HTTP version that sends it adds the framing fields."""

    status: int
    fields: Fields = Fields()
    length: int | None = None
    """Bytes of body when known; None: until ``finish``."""

    @property
    def switches_protocol(self) -> bool:
        return self.status == 101 and "upgrade" in self.fields
