"""Responses over HTTP/1.x: framing, fields, files, interim heads, upgrades (core.md 9)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from forkd.config.model import AccessLogSettings, Limits, RequestConfig
from forkd.errors import UpgradeRequired
from forkd.http.exchange import Exchange, Upgraded
from forkd.message import Fields, Head

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
OLD = b"GET /a HTTP/1.0\r\n\r\n"
HEAD = b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"


def answering(head: Head, *pieces: bytes) -> Any:
    def handler(exchange: Exchange) -> None:
        exchange.respond(head)
        for piece in pieces:
            exchange.write(piece)
        exchange.finish()

    return handler


def test_known_length(connect: Any) -> None:
    out = connect(answering(Head(200, Fields(), 4), b"ab", b"cd")).send(GET)
    assert out.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: 4\r\n" in out and out.endswith(b"\r\n\r\nabcd")


def test_unknown_length_is_chunked(connect: Any, responses: Any) -> None:
    client = connect(answering(Head(200), b"ab", b"", b"c" * 16))
    (answer,) = responses(client.send(GET))
    assert answer.fields["transfer-encoding"] == "chunked"
    assert answer.body == b"2\r\nab\r\n10\r\n" + b"c" * 16 + b"\r\n0\r\n\r\n"
    assert not client.is_over
    assert client.entries[0].body_bytes == 18


def test_unknown_length_in_http10_ends_with_the_connection(connect: Any, responses: Any) -> None:
    client = connect(answering(Head(200), b"abc"))
    (answer,) = responses(client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
    assert answer.fields["connection"] == "close"
    assert "content-length" not in answer.fields and "transfer-encoding" not in answer.fields
    assert answer.body == b"abc" and client.port.wrote_eof


@pytest.mark.parametrize(
    ("head", "request_bytes", "length"),
    [
        (Head(200, Fields(), 4), HEAD, "4"),
        (Head(200), HEAD, None),
        (Head(204, Fields(), 0), GET, None),
        (Head(304, Fields(), 4), GET, None),
    ],
)
def test_responses_without_a_body(
    connect: Any, responses: Any, head: Head, request_bytes: bytes, length: str | None
) -> None:
    client = connect(answering(head, b"abcd"))
    answers = responses(client.send(request_bytes * 2), heads=(0, 1))
    assert [answer.body for answer in answers] == [b"", b""]
    assert answers[0].fields.get("content-length") == length
    assert "transfer-encoding" not in answers[0].fields
    assert client.entries[0].body_bytes == 0


def test_a_body_that_is_too_short_never_looks_complete(connect: Any) -> None:
    for request_bytes in (GET, OLD):
        client = connect(answering(Head(200, Fields(), 4), b"abc"))
        client.send(request_bytes)
        assert client.port.closed == "response ends 1 bytes short"
        assert client.entries[0].mark == "X"


def test_a_body_that_is_too_long_is_cut(connect: Any, responses: Any) -> None:
    answers = responses(connect(answering(Head(200, Fields(), 4), b"abcdef", b"g")).send(GET + GET))
    assert [answer.body for answer in answers] == [b"abcd", b"abcd"]


def test_fields_of_the_connection_are_ours(connect: Any, responses: Any) -> None:
    fields = Fields(
        [
            ("Connection", "X-Y, close"),
            ("Keep-Alive", "1"),
            ("Content-Length", "99"),
            ("Transfer-Encoding", "gzip"),
            ("Date", "then"),
            ("Server", "theirs"),
        ]
    )
    out = connect(answering(Head(200, fields, 0))).send(GET)
    (answer,) = responses(out)
    assert answer.fields == {"content-length": "0", "date": "then", "server": "theirs"}


def test_no_server_field_without_a_tag(connect: Any, responses: Any) -> None:
    client = connect(answering(Head(200, Fields(), 0)), settings=RequestConfig(server_tag=""))
    assert "server" not in responses(client.send(GET))[0].fields


def test_line_ends_in_values_become_blanks(connect: Any, responses: Any) -> None:
    fields = Fields([("X", "a\r\nSet-Cookie: b\0"), ("Y\r\n", "\xe9")])
    (answer,) = responses(connect(answering(Head(200, fields, 0))).send(GET))
    assert answer.fields["x"] == "a  Set-Cookie: b"
    assert answer.fields["y  "] == "\xe9"


def test_unknown_status_has_an_empty_reason(connect: Any) -> None:
    out = connect(answering(Head(299, Fields(), 0))).send(GET)
    assert out.startswith(b"HTTP/1.1 299 \r\n")


def test_a_refused_upgrade_names_the_protocol(connect: Any, responses: Any) -> None:
    head = Head(426, Fields(UpgradeRequired.fields), 0)
    (answer,) = responses(connect(answering(head)).send(GET))
    assert answer.fields["connection"] == "upgrade"
    assert answer.fields["upgrade"] == "websocket"


# -- when it goes out -------------------------------------------------------------------------


def test_a_head_does_not_wait_for_a_slow_body(connect: Any) -> None:
    go_on = gevent.event.Event()

    def handler(exchange: Exchange) -> None:
        exchange.respond(Head(200))
        go_on.wait(5)
        exchange.write(b"late")
        exchange.finish()

    client = connect(handler)
    assert client.send(GET).endswith(b"\r\n\r\n")
    client.do(go_on.set)
    gevent.idle()
    assert client.port.take() == b"4\r\nlate\r\n0\r\n\r\n"


def test_interim_heads(connect: Any, responses: Any) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.inform(Head(103, Fields([("Link", "</x>\r\nX: y")])))
        answering(Head(200, Fields(), 0))(exchange)

    first, second = responses(connect(handler).send(GET))
    assert (first.status, first.fields) == (103, {"link": "</x>  X: y"})
    assert second.status == 200
    (only,) = responses(connect(handler).send(OLD))
    assert only.status == 200


# -- files ------------------------------------------------------------------------------------


def sending(path: Path, length: int, size: int | None) -> Any:
    def handler(exchange: Exchange) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            exchange.respond(Head(200, Fields(), size))
            exchange.send_file(fd, 1, length)
            exchange.finish()
        finally:
            os.close(fd)

    return handler


@pytest.mark.parametrize("size", [10, 100_000])
def test_files(connect: Any, responses: Any, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"-" + bytes(range(256)) * (size // 256 + 1))
    expected = path.read_bytes()[1 : size + 1]
    client = connect(sending(path, size, size))
    first, second = responses(client.send(GET + GET))
    assert first.body == second.body == expected
    assert client.entries[0].body_bytes == size
    assert client.entries[0].bytes_out > size
    (answer,) = responses(connect(sending(path, size, size)).send(HEAD), heads=(0,))
    assert answer.body == b""


def test_a_file_of_unknown_length_is_chunked(connect: Any, responses: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"-abc")
    (answer,) = responses(connect(sending(path, 3, None)).send(GET))
    assert answer.body == b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_file_that_has_shrunk(
    connect: Any, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"-" * size)
    client = connect(sending(path, size, size))
    client.send(GET)
    assert client.port.closed is not None
    assert client.entries[0].mark == "X"


# -- upgrades ---------------------------------------------------------------------------------


WEBSOCKET = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_upgrade_hands_over_the_port_and_early_bytes(connect: Any, responses: Any) -> None:
    given: list[Any] = []

    def handler(exchange: Exchange) -> None:
        assert exchange.read() == b""
        exchange.on_head = lambda head: Head(head.status, head.fields.plus(("X", "1")))
        gevent.idle()
        given.append(exchange)
        given.extend(exchange.upgrade(Head(101, Fields([("Upgrade", "websocket")]))))

    client = connect(handler)
    client.do(client.port.receive, WEBSOCKET + b"early")
    client.do(client.port.receive, b" bytes")
    (answer,) = responses(client.port.take())
    assert (answer.status, answer.version) == (101, "HTTP/1.1")
    assert answer.fields["connection"] == "upgrade"
    assert answer.fields["upgrade"] == "websocket"
    assert answer.fields["x"] == "1" and "date" in answer.fields and "server" in answer.fields
    assert "content-length" not in answer.fields and "transfer-encoding" not in answer.fields
    exchange, port, early, _ = given
    assert port is client.port
    assert early + bytes(client.port.take()) in (b"early", b"early bytes")
    assert client.is_over and client.port.closed is None and not client.port.closing
    assert client.entries == [] and not client.service.connections


class Opening:
    """A handler that opens tunnels and keeps them."""

    def __init__(self) -> None:
        self.opened: list[Upgraded] = []

    def __call__(self, exchange: Exchange) -> None:
        self.opened.append(exchange.upgrade(Head(101, Fields([("Upgrade", "websocket")]))))


def test_the_access_line_of_a_tunnel_comes_at_its_end(connect: Any) -> None:
    handler = Opening()
    log = AccessLogSettings(
        filename="/log", format='%h "%r" %{X-One}i %{id}C %{upgrade}o %>s %X %b %I %O'
    )
    client = connect(handler, settings=RequestConfig(access_log=log))
    head = WEBSOCKET[:-2] + b"X-One: 1%s\r\nCookie: id=7\r\n\r\n"
    out = client.send(head)
    assert client.entries == []
    handler.opened[0].log(100, 2000)
    bytes_in, bytes_out = len(head) + 100, len(out) + 2000
    sizes = f"2000 {bytes_in} {bytes_out}"
    assert client.lines == [f'192.0.2.1 "GET /ws HTTP/1.1" 1%s 7 websocket 101 - {sizes}\n']
    (ended,) = client.entries
    assert (ended.status, ended.bytes_in, ended.bytes_out) == (101, bytes_in, bytes_out)
    assert 0 <= ended.duration < 60 and abs(time.time() - ended.ended) < 60


def test_tunnels_without_a_log_share_what_counts_them(connect: Any) -> None:
    handler = Opening()
    first, second = connect(handler), connect(handler)
    second.service.log = first.service.log
    received, sent = len(WEBSOCKET), len(first.send(WEBSOCKET))
    second.send(WEBSOCKET)
    one, other = (opened.log for opened in handler.opened)
    assert one is other
    one(1, 2)
    other(3, 4)
    counted = [(entry.bytes_in, entry.bytes_out) for entry in first.entries]
    assert counted == [(received + 1, sent + 2), (received + 3, sent + 4)]
    assert first.lines == []


def test_a_failure_behind_the_upgrade_closes_the_port(
    connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.upgrade(Head(101, Fields([("Upgrade", "websocket")])))
        raise ZeroDivisionError

    client = connect(handler)
    client.send(WEBSOCKET)
    assert client.port.closed == "internal error"


def test_log_entry(connect: Any) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.configure(RequestConfig(server_name="s", limits=Limits()))
        exchange.file_name = "/srv/a"
        exchange.environment = (("A", "1"),)
        answering(Head(200, Fields([("X", "y")]), 2), b"ab")(exchange)

    client = connect(handler)
    out = client.send(GET)
    (entry,) = client.entries
    assert (entry.file_name, entry.server_name, entry.environment) == ("/srv/a", "s", (("A", "1"),))
    assert (entry.bytes_in, entry.bytes_out) == (len(GET), len(out))
    assert entry.response_fields.get("x") == "y"
    assert entry.response_fields.get("content-length") == "2"
    assert 0 <= entry.duration < 5 and entry.started > 0
