"""HTTP in the clear where TLS is spoken: ``negotiate.refuse_plain``; and what ALPN decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gevent
import pytest
from memory_port import MemoryPort

from forkd.accesslog import Entry
from forkd.address import Address
from forkd.config.model import Config, ErrorSettings, Features, Limits, RequestConfig
from forkd.config.model import ServerSettings as Server
from forkd.http import negotiate
from forkd.http.connection import Service
from forkd.http.exchange import Exchange
from forkd.http.negotiate import PREFACE, offered, refuse_plain
from forkd.message import ConnInfo
from forkd.net.blocking import BlockingPort

HERE = Address("192.0.2.1", 443)
INFO = ConnInfo(Address("192.0.2.7", 4711), HERE, HERE)


def refused(*pieces: bytes, eof: bool = False) -> tuple[MemoryPort, list[Entry]]:
    """What is done about a client that sends *pieces*."""
    entries: list[Entry] = []
    errors = ErrorSettings(errorfile_prefix="/proc/self/nothing")
    settings = RequestConfig(limits=Limits(max_read_idle=0.05), errors=errors)
    config = Config("-", Server(), (), (), settings, None)  # type: ignore[arg-type]
    service = Service(config, lambda _, entry: entries.append(entry))
    port = MemoryPort()
    blocking = BlockingPort(port)
    greenlet = gevent.spawn(refuse_plain, blocking, INFO, service)
    for piece in pieces:
        gevent.idle()
        port.receive(piece)
    if eof:
        port.receive_eof()
    greenlet.get(timeout=5)
    return port, entries


@pytest.mark.parametrize(
    "pieces",
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",),
        (b"GET /", b" HTTP/1.1\r\nHost: h\r\n", b"\r\n"),
        (b"NONSENSE\r\n\r\n",),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000,),
        (b"G\0 / HTTP/1.1\r\n\r\n",),
    ],
)
def test_the_answer(pieces: tuple[bytes, ...]) -> None:
    port, entries = refused(*pieces)
    answer = port.take()
    status = 431 if len(pieces[0]) > 10_000 else 400
    assert answer.split(b" ", 2)[1] == str(status).encode()
    assert b"use https://" in answer and b"\r\nConnection: close\r\n" in answer
    assert port.closing
    assert [entry.status for entry in entries] == [status]


def test_a_head_request_gets_a_head() -> None:
    answer = refused(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")[0].take()
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("eof", [False, True])
def test_half_a_request_gets_nothing(eof: bool) -> None:
    port, entries = refused(b"GET / HT", eof=eof)
    assert port.take() == b"" and port.closing and not entries


# ALPN


def test_what_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiate, "VERSIONS", {"http/1.1": None, "h2": None})
    assert offered(Features()) == ("h2", "http/1.1")
    assert offered(Features(h2proto=False)) == ("http/1.1",)
    monkeypatch.setattr(negotiate, "VERSIONS", {"http/1.1": None})
    assert offered(Features()) == ("http/1.1",)


@pytest.mark.parametrize(("alpn", "spoken"), [("h2", "h2"), ("http/1.1", "1"), ("", "1")])
def test_over_tls_the_handshake_decides(
    connect: Any, monkeypatch: pytest.MonkeyPatch, alpn: str, spoken: str
) -> None:
    began: list[str] = []

    def version(name: str) -> Any:
        class Version:
            def __init__(self, port: Any, info: Any, service: Any) -> None: ...

            def serve(self, handle: Any) -> None:
                began.append(name)

        return Version

    monkeypatch.setattr(negotiate, "VERSIONS", {"http/1.1": version("1"), "h2": version("h2")})
    connect(info=replace(INFO, tls=True, alpn=alpn)).send(PREFACE)
    assert began == [spoken]


def test_what_tls_tells_is_told_of_every_request(connect: Any) -> None:
    seen: list[Exchange] = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange)

    facts = (("SSL_PROTOCOL", "TLSv1.3"), ("REMOTE_USER", "ann"))
    client = connect(handler, info=replace(INFO, tls=True, environment=facts))
    client.send(b"GET /a HTTP/1.1\r\nHost: h:443\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n")
    assert [exchange.request.environment for exchange in seen] == [facts, facts]
    assert [exchange.request.scheme for exchange in seen] == ["https", "https"]
    assert [exchange.request.host for exchange in seen] == ["h", "h"]
