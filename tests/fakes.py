"""Stand-ins for what surrounds a request: made by hand, without sockets or configuration text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from gevent import get_hub
from gevent.event import Event
from gevent.queue import Queue
from memory_port import MemoryPort

from forkd.address import Address
from forkd.config.model import RequestConfig, ServerSettings
from forkd.config.substitution import Rule, RuleSet
from forkd.errors import ClientGone
from forkd.http.exchange import NO_FIELDS, Upgraded
from forkd.message import ConnInfo, Fields, Head, Request
from forkd.uri import ParseOptions, decode_path, normalise_target

get_hub()  # its descriptors are there before a test counts them

CLIENT = Address("192.0.2.7", 4711)
LISTENER = Address("192.0.2.1", 8080)


def make_request(target: str = "/", method: str = "GET", /, **changes: Any) -> Request:
    """A request for *target*; *changes* are fields of Request, ``fields`` a dict or pairs."""
    path, query = normalise_target(target, ParseOptions())
    fields = changes.pop("fields", {})
    made = Request(
        method=method,
        target=target,
        version="HTTP/1.1",
        host="www.example.org",
        path=path,
        query=query,
        decoded_path=decode_path(path),
        fields=Fields(fields.items() if isinstance(fields, dict) else fields),
        content_length=0,
        keep_alive=True,
        connection=ConnInfo(CLIENT, LISTENER, LISTENER),
        remote=CLIENT,
    )
    return made._replace(**changes)


def rules(*pairs: tuple[str, str]) -> RuleSet:
    return RuleSet(tuple(Rule.parse(pattern, replacement) for pattern, replacement in pairs))


class NoConditions:
    def captures(self, block: int, request: Request) -> tuple[str, ...]:
        return ()


@dataclass
class FakeConfig:
    """As much of Config as request steps see; *choose* stands for the conditions."""

    base: RequestConfig = RequestConfig()
    server: ServerSettings = ServerSettings()
    choose: Callable[[Request], RequestConfig] | None = None
    conditions: NoConditions = field(default_factory=NoConditions)

    def select(self, request: Request) -> RequestConfig:
        return self.choose(request) if self.choose else self.base


@dataclass
class FakeWorker:
    config: Any


class FakeExchange:
    """Keeps what it is told.  ``leaves_after``: bytes of body after which the client is gone.

    The request's body comes from *body*, and then from ``sends``; an exception in it is raised.
    While ``is_slow`` is set, ``write`` waits for it to be cleared.
    """

    def __init__(
        self,
        request: Request,
        settings: RequestConfig | None = None,
        body: Iterable[bytes | Exception] = (),
    ) -> None:
        self.request = request
        self.settings = settings or RequestConfig()
        self.started = False
        self.file_name = ""
        self.on_head: Callable[[Head], Head] = lambda head: head
        self.leaves_after: int | None = None
        self.head: Head | None = None
        self.body = b""
        self.is_finished = False
        self.aborted: str | None = None
        self.calls: list[str] = []
        self.gone = Event()
        self.is_lost = False
        self.environment: tuple[tuple[str, str], ...] = ()
        self.informed: list[Head] = []
        self.port = MemoryPort()
        self.early = b""
        self.is_quick = Event()
        self.is_quick.set()
        self.taken = 0
        self._body: Any = Queue()
        for piece in body:
            self._body.put(piece)

    def configure(self, settings: RequestConfig) -> None:
        self.settings = settings

    def sends(self, *pieces: bytes | Exception) -> None:
        """The client sends more of its body; b"" is the end."""
        for piece in pieces:
            self._body.put(piece)

    def leaves(self, by_reset: bool) -> None:
        self.is_lost = by_reset
        self.gone.set()

    def read(self) -> bytes:
        piece = self._body.get()
        if isinstance(piece, Exception):
            raise piece
        self.taken += len(piece)
        return piece

    def inform(self, head: Head) -> None:
        self.informed.append(head)

    def upgrade(self, head: Head) -> Upgraded:
        self.respond(head)
        return Upgraded(self.port, self.early, lambda bytes_in, bytes_out: None)

    def respond(self, head: Head) -> None:
        assert not self.started, "two heads"
        self.head = self.on_head(head)
        self.started = True
        self.calls.append("respond")

    def write(self, data: bytes) -> None:
        assert self.started and not self.is_finished
        self.is_quick.wait()
        self.calls.append("write")
        self.body += data
        if self.leaves_after is not None and len(self.body) > self.leaves_after:
            raise ClientGone("test")

    def send_file(self, fd: int, offset: int, length: int) -> None:
        self.calls.append("send_file")
        data = os.pread(fd, length, offset)
        self.body += data
        if len(data) < length:
            raise EOFError("file is shorter than it was")

    def finish(self, trailers: Fields = NO_FIELDS) -> None:
        assert self.started and not self.is_finished
        self.is_finished = True

    def abort(self, why: str) -> None:
        self.aborted = why

    @property
    def status(self) -> int:
        assert self.head is not None
        return self.head.status

    def field(self, name: str) -> str:
        assert self.head is not None
        return self.head.fields.get(name)
