"""forkd/http/h1.py, h1_exchange.py: connections, keep-alive, limits, errors (core.md 3, 4, 8)."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest

from forkd.config.model import DebugSettings, Limits, RequestConfig, ServerSettings
from forkd.errors import BadRequest, ClientGone
from forkd.http.exchange import Exchange
from forkd.message import Fields, Head
from forkd.uri import ParseOptions

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
CLOSE = b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def test_a_small_response_is_one_write(connect: Any, responses: Any) -> None:
    client = connect()
    writes: list[bytes] = []
    write = client.port.write
    client.port.write = lambda data: writes.append(bytes(data)) or write(data)
    (answer,) = responses(client.send(GET))
    assert len(writes) == 1
    assert (answer.version, answer.status, answer.body) == ("HTTP/1.1", 200, b"/a")
    assert answer.fields["content-type"] == "text/plain"
    assert answer.fields["server"] == "forkd"
    assert answer.fields["date"].endswith(" GMT")
    assert "connection" not in answer.fields
    assert not client.is_over


@pytest.mark.parametrize("pieces", [0, 1, 7])
def test_pipelined_requests_are_answered_in_order(
    connect: Any, responses: Any, pieces: int
) -> None:
    client = connect()
    data = b"".join(GET.replace(b"/a", b"/%d" % number) for number in range(5)) + CLOSE
    answers = responses(client.send(data, pieces=pieces))
    assert [answer.body for answer in answers] == [b"/0", b"/1", b"/2", b"/3", b"/4", b"/a"]
    assert [answer.fields.get("connection") for answer in answers] == [None] * 5 + ["close"]
    assert client.port.closing and client.port.linger == 5.0
    assert [entry.mark for entry in client.entries] == ["+"] * 5 + ["-"]
    assert [entry.number for entry in client.entries] == list(range(6))


def test_what_follows_a_close_is_ignored(connect: Any, responses: Any) -> None:
    client = connect()
    assert len(responses(client.send(CLOSE + GET))) == 1
    assert client.is_over


@pytest.mark.parametrize(
    ("request_bytes", "connection", "stays"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "close", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", None, True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\n\r\n", "close", False),
    ],
)
def test_keep_alive(
    connect: Any, responses: Any, request_bytes: bytes, connection: str | None, stays: bool
) -> None:
    client = connect()
    (answer,) = responses(client.send(request_bytes))
    assert answer.version.encode() in request_bytes
    assert answer.fields.get("connection") == connection
    assert client.is_over is not stays


def test_the_connection_ends_after_so_many_requests(connect: Any, responses: Any) -> None:
    client = connect(limits=Limits(max_keep_alive_requests=2))
    answers = responses(client.send(GET * 4))
    assert [answer.fields.get("connection") for answer in answers] == [None, None, "close"]


def test_no_keep_alive_when_its_time_is_zero(connect: Any, responses: Any) -> None:
    client = connect(limits=Limits(max_keep_alive_idle=0))
    (answer,) = responses(client.send(GET + GET))
    assert answer.fields["connection"] == "close"


def test_a_draining_worker_promises_nothing(connect: Any, responses: Any) -> None:
    client = connect()
    client.send(GET)
    client.service.draining = True
    (answer,) = responses(client.send(GET))
    assert answer.fields["connection"] == "close"


def test_idle_connections_can_be_closed_and_busy_ones_are_left(connect: Any) -> None:
    idle = connect()
    idle.send(GET)
    begun = connect()
    begun.send(b"GET / HT")
    for client in (idle, begun):
        client.do(client.service.close_idle)
    assert idle.port.closing and not begun.port.closing
    idle.do(idle.port.finish)
    assert idle.is_over and not idle.service.connections


def test_http11_can_be_switched_off(connect: Any, responses: Any) -> None:
    seen = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange.request)
        exchange.respond(Head(200))
        exchange.finish()

    client = connect(handler, limits=Limits(protocol_http11=False))
    lines = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    (answer,) = responses(client.send(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n"))
    assert (answer.version, answer.fields["connection"]) == ("HTTP/1.0", "close")
    assert "upgrade" not in seen[0].fields
    assert client.is_over


def test_http11_can_be_switched_off_by_a_condition(connect: Any, responses: Any) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.configure(RequestConfig(limits=Limits(protocol_http11=False)))
        exchange.respond(Head(200))
        exchange.finish()

    (answer,) = responses(connect(handler).send(GET))
    assert (answer.version, answer.fields["connection"]) == ("HTTP/1.0", "close")
    assert "transfer-encoding" not in answer.fields


# -- heads ------------------------------------------------------------------------------------


def test_one_blank_line_may_stand_between_requests(connect: Any, responses: Any) -> None:
    for pieces in (0, 1):
        client = connect()
        assert len(responses(client.send(GET + b"\r\n" + GET, pieces=pieces))) == 2


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"\r\n" + GET, [400]),
        (GET + b"\r\n\r\n" + GET, [200, 400]),
        (GET + b"\n" + GET, [200, 400]),
        (b"\x16\x03\x01\x02", [400]),
        (GET + b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n" + GET, [200, 400]),
        (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", [501]),
        (b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", [411]),
    ],
)
def test_bad_heads_are_answered_and_end_the_connection(
    connect: Any, responses: Any, data: bytes, statuses: list[int]
) -> None:
    client = connect()
    answers = responses(client.send(data))
    assert [answer.status for answer in answers] == statuses
    last = answers[-1]
    assert last.fields["connection"] == "close"
    assert last.fields["content-type"] == "text/html"
    assert str(last.status).encode() in last.body
    assert client.port.closing and client.port.linger == 5.0 and client.is_over
    assert [entry.status for entry in client.entries] == statuses
    assert client.entries[-1].request is None


@pytest.mark.parametrize(
    ("data", "version", "line"),
    [
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1", ("GET", " /", "HTTP/1.1")),
        (b"GET / HTTP/1.1\r\nHost: _\r\n\r\n", "HTTP/1.1", ("GET", "/", "HTTP/1.1")),
        (b"GET / RTSP/1.0\r\n\r\n", "HTTP/1.0", ("", "", "")),
        (b"\x16\x03\x01", "HTTP/1.0", ("", "", "")),
    ],
)
def test_version_of_a_refusal_and_its_log_entry(
    connect: Any, responses: Any, data: bytes, version: str, line: tuple[str, str, str]
) -> None:
    client = connect()
    (answer,) = responses(client.send(data))
    assert answer.version == version
    assert client.entries[0].line == line
    assert client.entries[0].bytes_in == len(data)


def test_a_refused_head_request_gets_no_body(connect: Any, responses: Any) -> None:
    (answer,) = responses(connect().send(b"HEAD /%00 HTTP/1.1\r\nHost: h\r\n\r\n"), heads=(0,))
    assert answer.status == 400 and answer.body == b""
    assert int(answer.fields["content-length"]) > 0


@pytest.mark.parametrize("complete", [True, False])
def test_a_head_that_is_too_large(connect: Any, responses: Any, complete: bool) -> None:
    client = connect(server=ServerSettings(max_request_field_size=512))
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 500
    (answer,) = responses(client.send(head + b"\r\n\r\n" if complete else head))
    assert (answer.status, answer.version) == (431, "HTTP/1.0")
    assert client.is_over


def test_a_head_of_just_the_limit_passes(connect: Any, responses: Any) -> None:
    client = connect(server=ServerSettings(max_request_field_size=512))
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: "
    head += b"a" * (512 - len(head) - 4) + b"\r\n\r\n"
    assert responses(client.send(head))[0].status == 200


def test_parse_options_are_obeyed(connect: Any, responses: Any) -> None:
    client = connect(server=ServerSettings(parse_options=ParseOptions(header_strict=False)))
    assert responses(client.send(b"GET / HTTP/1.1\nHost: h\n\n"))[0].status == 200


def test_refused_heads_can_be_logged(connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings = RequestConfig(debug=DebugSettings(request_header_on_error=True))
    with caplog.at_level(logging.INFO):
        connect(settings=settings).send(b"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert "GET /%00" in caplog.text


def test_eof_before_or_inside_a_head_just_closes(connect: Any) -> None:
    for data in (b"", b"GET / HT", GET):
        client = connect()
        if data:
            client.send(data)
        assert client.eof() == b""
        assert client.is_over and client.port.closing
        assert len(client.entries) == (data == GET)


# -- time -------------------------------------------------------------------------------------


def served_within(client: Any, seconds: float) -> bool:
    client.greenlet.join(seconds)
    return client.is_over


PUT = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1"


@pytest.mark.parametrize("data", [b"", b"GET / HT", PUT])
def test_silence_is_answered_with_silence(connect: Any, data: bytes) -> None:
    def handler(exchange: Exchange) -> None:
        while exchange.read():
            pass

    client = connect(handler, limits=Limits(max_read_idle=0.05))
    if data:
        client.send(data)
    assert served_within(client, 5)
    assert client.port.written == b"" and client.port.closing
    assert [entry.mark for entry in client.entries] == (["X"] if b"PUT" in data else [])


def test_kept_connections_have_a_time_of_their_own(connect: Any) -> None:
    client = connect(limits=Limits(max_read_idle=60, max_keep_alive_idle=0.05))
    client.send(GET)
    assert served_within(client, 5)
    assert client.port.closing and not client.port.written


def test_timeouts_can_be_logged(connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings = RequestConfig(debug=DebugSettings(timeouts=True))
    with caplog.at_level(logging.INFO):
        client = connect(limits=Limits(max_read_idle=0.05), settings=settings)
        assert served_within(client, 5)
    assert "nothing received" in caplog.text


def test_a_client_that_does_not_read_is_cut_off(connect: Any) -> None:
    raised = []

    def handler(exchange: Exchange) -> None:
        exchange.respond(Head(200))
        try:
            while True:
                exchange.write(b"x" * 10000)
        except ClientGone as gone:
            raised.append(gone)
            raise

    client = connect(handler, limits=Limits(max_write_idle=0.05))
    client.port.blocked = True
    client.send(GET)
    assert served_within(client, 5)
    assert raised and client.port.closed
    assert client.port.queued < 200_000
    assert client.entries[0].mark == "X"


def test_idle_time_counts_from_the_delivered_answer(connect: Any) -> None:
    client = connect(limits=Limits(max_keep_alive_idle=0.05))
    client.port.blocked = True
    client.send(GET)
    assert not served_within(client, 0.2)
    client.do(client.port.unblock)
    assert served_within(client, 5)


# -- handlers that misbehave ------------------------------------------------------------------


def test_a_handler_that_says_nothing(connect: Any, responses: Any) -> None:
    (answer,) = responses(connect(lambda exchange: None).send(GET))
    assert answer.status == 500


def test_a_handler_that_fails(
    connect: Any, responses: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(exchange: Exchange) -> None:
        raise ZeroDivisionError

    client = connect(handler)
    (answer,) = responses(client.send(GET))
    assert answer.status == 500 and b"ZeroDivision" not in answer.body
    assert "ZeroDivisionError" in caplog.text
    assert client.entries[0].status == 500


def test_a_handler_that_fails_halfway(connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(Head(200, Fields(), 100))
        exchange.write(b"x" * 50)
        raise ZeroDivisionError

    client = connect(handler)
    client.send(GET)
    assert client.port.closed == "internal error"
    assert client.entries[0].mark == "X"


def test_a_handler_that_gives_up(connect: Any) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(Head(200))
        exchange.write(b"x")
        exchange.abort("backend died")

    client = connect(handler)
    client.send(GET)
    assert client.port.closed == "backend died" and client.is_over
    assert [entry.mark for entry in client.entries] == ["X"]


def test_a_second_head_is_a_bug(connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(Head(200))
        exchange.respond(Head(200))

    client = connect(handler)
    client.send(GET)
    assert client.port.closed and "second final head" in caplog.text


def test_an_error_of_the_heads_hook_leaves_the_exchange_unstarted(
    connect: Any, responses: Any
) -> None:
    def refuse(head: Head) -> Head:
        raise BadRequest("no")

    def handler(exchange: Exchange) -> None:
        exchange.on_head = refuse
        with pytest.raises(BadRequest):
            exchange.respond(Head(200))
        assert not exchange.started
        exchange.on_head = lambda head: Head(503, head.fields, head.length)
        exchange.respond(Head(200, Fields(), 0))
        exchange.finish()

    (answer,) = responses(connect(handler).send(GET))
    assert answer.status == 503


def test_gone_is_set_while_the_handler_is_busy(connect: Any) -> None:
    seen = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange.gone.wait(5))
        raise ClientGone("left")

    client = connect(handler)
    client.send(GET)
    assert not seen
    client.eof()
    assert seen == [True] and client.is_over
    assert [entry.status for entry in client.entries] == [0]


def test_reading_ahead_has_a_limit(connect: Any, responses: Any) -> None:
    release = gevent.event.Event()

    def handler(exchange: Exchange) -> None:
        release.wait(5)
        exchange.respond(Head(200, Fields(), 0))
        exchange.finish()

    client = connect(handler)
    client.send(GET)
    for _ in range(20):
        client.send(GET * 400)
    assert client.port.paused
    assert client.port.bytes_in < 100_000
    client.do(release.set)
    gevent.idle()
    assert len(responses(client.port.take())) > 1000
