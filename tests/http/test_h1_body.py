"""Request bodies over HTTP/1.1: framing, 100 Continue, limits, what nobody reads (core.md 7, 8)."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.config.model import Limits, ServerSettings
from forkd.errors import ForkdError
from forkd.http.exchange import Exchange
from forkd.message import Fields, Head

GET = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"


def put(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("PUT /b HTTP/1.1", "Host: h", *lines, "")).encode()


def echo(exchange: Exchange) -> None:
    """What was read, or the status of what went wrong."""
    body = b""
    try:
        while piece := exchange.read():
            body += piece
        status = 200
    except ForkdError as error:
        status = error.status
    fields = Fields([("X-Sum", exchange.request.fields.get("x-sum"))])
    exchange.respond(Head(status, fields, len(body)))
    exchange.write(body)
    exchange.finish()


def ignore(exchange: Exchange) -> None:
    exchange.respond(Head(200, Fields(), 0))
    exchange.finish()


CHUNKED = "Transfer-Encoding: chunked"
BODIES = [
    (put("Content-Length: 5") + b"hello", b"hello"),
    (put("Content-Length: 0"), b""),
    (put(CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (put(CHUNKED) + b"2;a=b\r\nhe\r\n003 \r\nllo\r\n000\r\n\r\n", b"hello"),
    (put(CHUNKED) + b"0\r\nX-Sum: 1\r\n\r\n", b""),
]


@pytest.mark.parametrize("pieces", [0, 1, 3])
@pytest.mark.parametrize(("request_bytes", "body"), BODIES)
def test_bodies_whole_in_pieces_and_with_a_request_behind(
    connect: Any, responses: Any, request_bytes: bytes, body: bytes, pieces: int
) -> None:
    client = connect(echo)
    answers = responses(client.send(request_bytes + GET, pieces=pieces))
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body == body
    assert client.entries[0].bytes_in == len(request_bytes)
    assert client.entries[1].bytes_in == len(GET)


@pytest.mark.parametrize(
    "body",
    [
        b"5 x\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"0\r\nX-Sum: 1\n\r\n",
        b"0\r\nContent-Length: 1\r\n\r\n",
    ],
)
def test_bad_chunks_end_the_connection(connect: Any, responses: Any, body: bytes) -> None:
    client = connect(echo)
    (answer,) = responses(client.send(put(CHUNKED) + body + GET))
    assert (answer.status, answer.fields["connection"]) == (400, "close")
    assert client.port.closing and client.is_over


def test_only_listed_trailers_become_fields(
    connect: Any, responses: Any, trailer_server: ServerSettings
) -> None:
    body = b"0\r\nX-Sum: 42\r\nX-Other: 1\r\n\r\n"
    (answer,) = responses(connect(echo, server=trailer_server).send(put(CHUNKED) + body))
    assert answer.fields["x-sum"] == "42"
    (answer,) = responses(connect(echo).send(put(CHUNKED) + body))
    assert answer.fields["x-sum"] == ""


# -- 100 Continue -----------------------------------------------------------------------------


EXPECT = put("Content-Length: 5", "Expect: 100-Continue")


def test_continue_is_sent_when_the_handler_reads(connect: Any, responses: Any) -> None:
    client = connect(echo)
    assert client.send(EXPECT) == b"HTTP/1.1 100 Continue\r\n\r\n"
    (answer,) = responses(client.send(b"hello"))
    assert answer.body == b"hello" and not client.is_over


@pytest.mark.parametrize("came", [1, 5])
def test_no_continue_when_body_has_come(connect: Any, responses: Any, came: int) -> None:
    client = connect(echo)
    client.do(client.port.receive, EXPECT + b"hello"[:came])
    if came < 5:
        client.do(client.port.receive, b"hello"[came:])
    (answer,) = responses(client.port.take())
    assert answer.status == 200


def test_no_continue_for_who_does_not_want_the_body(connect: Any, responses: Any) -> None:
    client = connect(ignore)
    (answer,) = responses(client.send(EXPECT))
    assert answer.fields["connection"] == "close"  # its body may come or not: nobody can tell
    assert client.is_over


@pytest.mark.parametrize(
    "request_bytes",
    [
        EXPECT.replace(b"HTTP/1.1", b"HTTP/1.0"),
        put("Content-Length: 5", "Expect: something"),
        put("Content-Length: 0", "Expect: 100-continue"),
    ],
)
def test_no_continue(connect: Any, request_bytes: bytes) -> None:
    assert b"100 Continue" not in connect(echo).send(request_bytes)


# -- limits -----------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_not_asked_for(connect: Any, responses: Any) -> None:
    client = connect(echo, limits=Limits(max_request_size=4))
    (answer,) = responses(client.send(EXPECT))
    assert (answer.status, answer.fields["connection"]) == (413, "close")


def test_chunks_count_as_soon_as_they_are_announced(connect: Any, responses: Any) -> None:
    client = connect(echo, limits=Limits(max_request_size=4))
    (answer,) = responses(client.send(put(CHUNKED) + b"3\r\nabc\r\n2\r\n"))
    assert (answer.status, answer.fields["connection"]) == (413, "close")


def test_a_body_of_just_the_limit_passes(connect: Any, responses: Any) -> None:
    client = connect(echo, limits=Limits(max_request_size=5))
    assert responses(client.send(put(CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"))[0].body == b"hello"


# -- what nobody reads ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_bytes",
    [put("Content-Length: 5") + b"hello", put(CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"],
)
def test_an_unread_body_is_dropped(connect: Any, responses: Any, request_bytes: bytes) -> None:
    answers = responses(connect(ignore).send(request_bytes + GET, pieces=40))
    assert [answer.status for answer in answers] == [200, 200]


def test_a_large_unread_body_ends_the_connection(connect: Any, responses: Any) -> None:
    client = connect(ignore)
    (answer,) = responses(client.send(put("Content-Length: 1000000") + b"x"))
    assert answer.fields["connection"] == "close" and client.is_over


def test_an_endless_unread_body_ends_the_connection(connect: Any, responses: Any) -> None:
    client = connect(ignore)
    client.send(put(CHUNKED))
    for _ in range(10):
        client.send(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    assert client.is_over and client.port.closing


def test_a_bad_chunk_in_an_unread_body_ends_the_connection(connect: Any) -> None:
    client = connect(ignore)
    client.send(put(CHUNKED) + b"zz\r\n" + GET)
    assert client.is_over


def test_a_client_that_leaves_inside_its_body(connect: Any) -> None:
    client = connect(echo)
    client.send(put("Content-Length: 5") + b"he")
    assert client.eof() == b""
    assert client.is_over and client.entries[0].mark == "X"


def test_reading_after_the_end_gives_nothing(connect: Any, responses: Any) -> None:
    def handler(exchange: Exchange) -> None:
        while exchange.read():
            pass
        assert exchange.read() == exchange.read() == b""
        ignore(exchange)

    answers = responses(connect(handler).send(put("Content-Length: 1") + b"x" + GET))
    assert [answer.status for answer in answers] == [200, 200]
