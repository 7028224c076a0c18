"""A client in memory: bytes in, what was written out, a scripted handler between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
import pytest
from gevent import get_hub
from memory_port import MemoryPort

from forkd.accesslog import Ended, Entry, compile_format
from forkd.address import Address
from forkd.config.model import (
    AccessLogSettings,
    Config,
    Features,
    Limits,
    RequestConfig,
    ServerSettings,
)
from forkd.http.connection import Service
from forkd.http.exchange import Exchange
from forkd.http.negotiate import serve_connection
from forkd.message import ConnInfo, Fields, Head

INFO = ConnInfo(Address("192.0.2.1", 4711), Address("127.0.0.1", 80), Address("0.0.0.0", 80))


@dataclass
class Answer:
    """One response as written: version, status, fields by lower-case name, body with framing."""

    version: str
    status: int
    fields: dict[str, str]
    body: bytes


def parse(data: bytes, heads: tuple[int, ...] = ()) -> list[Answer]:
    """The responses in *data*; those at the indexes *heads* answer HEAD and have no body."""
    found: list[Answer] = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, data
        start, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = start.split(" ", 2)
        fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
        size = len(rest)
        if int(status) < 200 or status in ("204", "304") or len(found) in heads:
            size = 0
        elif "content-length" in fields:
            size = int(fields["content-length"])
        elif fields.get("transfer-encoding") == "chunked":
            size = rest.index(b"0\r\n\r\n") + 5
        found.append(Answer(version, int(status), fields, rest[:size]))
        data = rest[size:]
    return found


def hello(exchange: Exchange) -> None:
    """A handler that answers with the path."""
    body = exchange.request.path.encode("latin-1")
    exchange.respond(Head(200, Fields([("Content-Type", "text/plain")]), len(body)))
    exchange.write(body)
    exchange.finish()


@dataclass
class Client:
    """The other end of a served connection."""

    service: Service
    port: MemoryPort
    entries: list[Any] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Of the access log, where the settings want one."""
    greenlet: Any = None

    def send(self, data: bytes, *, pieces: int = 0) -> bytes:
        """Send *data*, in pieces of so many bytes; what was written when all is quiet again."""
        step = pieces or len(data)
        for at in range(0, len(data), step):
            self.do(self.port.receive, data[at : at + step])
        return self.port.take()

    def do(self, action: Callable[..., None], *arguments: Any) -> None:
        """Let *action* happen in the loop, and everything that follows from it."""
        get_hub().loop.run_callback(action, *arguments)
        gevent.idle()

    def eof(self) -> bytes:
        self.do(self.port.receive_eof)
        return self.port.take()

    @property
    def is_over(self) -> bool:
        return bool(self.greenlet.dead)


@pytest.fixture
def connect() -> Any:
    """``connect(handler, limits=..., server=..., settings=...) -> Client``"""
    opened: list[Client] = []

    def start(
        handler: Callable[[Exchange], None] = hello,
        *,
        limits: Limits = Limits(),  # noqa: B008
        server: ServerSettings = ServerSettings(),  # noqa: B008
        settings: RequestConfig = RequestConfig(server_tag="forkd"),  # noqa: B008
        info: ConnInfo = INFO,
    ) -> Client:
        base = replace(settings, limits=limits)
        config = Config("-", server, (), (), base, None)  # type: ignore[arg-type]

        def log(settings: AccessLogSettings, entry: Entry | Ended) -> None:
            client.entries.append(entry)
            if settings.is_wanted:
                compiled = compile_format(settings.format, settings.escaping)
                client.lines.append(compiled.line(entry))

        client = Client(Service(config, log), MemoryPort())
        port: Any = client.port
        client.greenlet = gevent.spawn(serve_connection, port, info, client.service, handler)
        gevent.idle()
        opened.append(client)
        return client

    yield start
    for client in opened:
        client.greenlet.kill()


@pytest.fixture
def responses() -> Callable[..., list[Answer]]:
    return parse


@pytest.fixture
def trailer_server() -> ServerSettings:
    return ServerSettings(features=Features(trailer_whitelist=("x-sum",)))
