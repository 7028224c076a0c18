"""forkd/http/h2.py, h2_exchange.py, stream_port.py: streams, credit, turns, drains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from h2_frames import (
    CONNECT,
    DATA,
    GET,
    GOAWAY,
    PING,
    POST,
    PREFACE,
    Seen,
    frame,
    headers,
    settings,
    window,
)

from forkd.config.model import AccessLogSettings, RequestConfig, ServerSettings
from forkd.http import stream_port
from forkd.http.exchange import Exchange
from forkd.http.h2_exchange import H2Exchange
from forkd.message import Fields, Head
from forkd.net.blocking import COPY_PIECE
from forkd.protocol.h2_stream import STREAM_WINDOW

BEGIN = PREFACE + frame(4, 0, 0)


def sends(size: int) -> Any:
    def handler(exchange: Exchange) -> None:
        exchange.respond(Head(200, Fields(), size))
        exchange.write(bytes(size))
        exchange.finish()

    return handler


class Tunnels:
    """A handler that opens tunnels and keeps their ports and logs."""

    def __init__(self) -> None:
        self.ports: list[Any] = []
        self.logs: list[Any] = []
        self.heard: list[bytearray] = []
        self.ends: list[str] = []

    def __call__(self, exchange: Exchange) -> None:
        port, early, log = exchange.upgrade(Head(101, Fields([("Upgrade", "websocket")])))
        self.ports.append(port)
        self.logs.append(log)
        self.heard.append(bytearray(early))
        port.attach(_Ear(self, len(self.heard) - 1))


class _Ear:
    def __init__(self, owner: Tunnels, index: int) -> None:
        self.owner, self.index = owner, index

    def on_data(self, data: Any) -> None:
        self.owner.heard[self.index] += data

    def on_eof(self) -> None:
        self.owner.ends.append("eof")

    def on_drain(self) -> None:
        self.owner.ends.append("drain")

    def on_close(self, why: str) -> None:
        self.owner.ends.append(f"close {why}")


def test_settings_come_first(connect: Any) -> None:
    client = connect(server=ServerSettings(http2_max_streams=7))
    seen = Seen().feed(client.send(BEGIN))
    assert seen.settings == {3: 7, 4: 65536, 6: 65535, 8: 1, 9: 1}
    assert seen.windows == {0: (1 << 20) - 65535}
    assert seen.settings_acks == 1


@pytest.mark.parametrize("pieces", [0, 1, 11])
def test_two_requests_are_answered(connect: Any, pieces: int) -> None:
    client = connect()
    seen = Seen().feed(client.send(BEGIN + headers(1) + headers(3), pieces=pieces))
    assert seen.status == {1: 200, 3: 200}
    assert seen.body == {1: b"/a", 3: b"/a"}
    assert seen.ended == {1, 3}
    assert seen.fields[1]["content-length"] == "2" and seen.fields[1]["server"] == "forkd"
    assert [entry.request.version for entry in client.entries] == ["HTTP/2.0"] * 2
    assert [entry.number for entry in client.entries] == [0, 1]


def test_streams_of_one_turn_leave_in_one_write(connect: Any) -> None:
    client = connect()
    client.send(BEGIN)
    writes: list[bytes] = []
    write = client.port.write
    client.port.write = lambda data: writes.append(bytes(data)) or write(data)
    client.send(b"".join(headers(number) for number in range(1, 21, 2)))
    assert len(writes) == 1 and len(Seen().feed(writes[0]).ended) == 10


def test_head_has_no_body(connect: Any) -> None:
    asked = ((":method", "HEAD"), *GET[1:])
    seen = Seen().feed(connect().send(BEGIN + headers(1, asked)))
    assert (seen.status, seen.body, seen.ended) == ({1: 200}, {}, {1})


def test_an_answer_that_wants_no_body_resets_the_rest(connect: Any) -> None:
    seen = Seen().feed(connect().send(BEGIN + headers(1, POST, ended=False)))
    assert (seen.status, seen.ended, seen.rst) == ({1: 200}, {1}, {1: "NO_ERROR"})


def test_of_a_body_that_nobody_wants_no_more_is_asked_for(connect: Any) -> None:
    client = connect(sends(3))
    body = frame(DATA, 0, 1, bytes(16384)) * 3
    seen = Seen().feed(client.send(BEGIN + headers(1, POST, ended=False) + body))
    assert seen.ended == {1} and seen.rst == {1: "NO_ERROR"}
    assert 1 not in seen.windows


def test_windows_hold_an_answer_up(connect: Any) -> None:
    client = connect(sends(1000))
    seen = Seen().feed(client.send(BEGIN + settings(window=100) + headers(1)))
    assert len(seen.body[1]) == 100 and not seen.ended
    seen.feed(client.send(settings(window=50) + window(1, 40)))
    assert len(seen.body[1]) == 100  # 10 bytes below nothing
    seen.feed(client.send(window(1, 20)))
    assert len(seen.body[1]) == 110
    seen.feed(client.send(settings(window=5000)))
    assert len(seen.body[1]) == 1000 and seen.ended == {1}


def test_of_a_file_that_nobody_takes_one_piece_is_held(connect: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5 * COPY_PIECE))
    ports = []

    def handler(exchange: Exchange) -> None:
        assert isinstance(exchange, H2Exchange)
        ports.append(exchange._port)
        exchange.respond(Head(200, Fields(), 5 * COPY_PIECE))
        with (tmp_path / "file").open("rb") as file:
            exchange.send_file(file.fileno(), 0, 5 * COPY_PIECE)
        exchange.finish()

    client = connect(handler)
    seen = Seen().feed(client.send(PREFACE + settings(window=0) + headers(1)))
    assert ports[0].queued == COPY_PIECE
    for _ in range(5):
        credit = window(1, COPY_PIECE) + window(0, COPY_PIECE)
        seen.feed(client.send(credit))
    assert len(seen.body[1]) == 5 * COPY_PIECE and seen.ended == {1}


def breaks(exchange: Exchange) -> None:
    raise RuntimeError("a bug")


def breaks_late(exchange: Exchange) -> None:
    exchange.respond(Head(200, Fields(), 5))
    exchange.write(b"ab")
    raise RuntimeError("a bug")


def cut_short(exchange: Exchange) -> None:
    exchange.respond(Head(200, Fields(), 5))
    exchange.write(b"ab")
    exchange.finish()


def forgets(exchange: Exchange) -> None:
    pass


def leaves_open(exchange: Exchange) -> None:
    exchange.respond(Head(200, Fields(), 2))
    exchange.write(b"abcdef")


@pytest.mark.parametrize(
    ("handler", "status", "rst", "mark"),
    [
        (breaks, 500, None, "X"),
        (breaks_late, 200, "INTERNAL_ERROR", "X"),
        (cut_short, 200, "INTERNAL_ERROR", "X"),
        (forgets, 500, None, "+"),
        (leaves_open, 200, None, "+"),
    ],
)
def test_whatever_a_handler_does_its_stream_ends(
    connect: Any, handler: Any, status: int, rst: str | None, mark: str
) -> None:
    client = connect(handler)
    seen = Seen().feed(client.send(BEGIN + headers(1)))
    assert seen.status == {1: status}
    assert (seen.ended, seen.rst) == ((set(), {1: rst}) if rst else ({1}, {}))
    assert [(entry.status, entry.mark) for entry in client.entries] == [(status, mark)]
    assert client.service.streams == 0
    if handler is leaves_open:
        assert seen.body == {1: b"ab"}


@pytest.mark.parametrize("size", [0, 1000])
def test_trailers_follow_the_body_however_long_it_waits(connect: Any, size: int) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(Head(200, Fields()))
        exchange.write(bytes(size))
        exchange.finish(Fields([("X-Sum", "7"), ("Connection", "x"), ("X-Two", " a\r\nb ")]))

    client = connect(handler)
    seen = Seen().feed(client.send(BEGIN + settings(window=100) + headers(1)))
    assert len(seen.body.get(1, b"")) == min(size, 100)
    if size:
        assert not seen.trailers and not seen.ended
        seen.feed(client.send(window(1, 1000)))
    assert len(seen.body.get(1, b"")) == size
    assert seen.trailers == {1: {"x-sum": "7", "x-two": "a  b"}}
    assert (seen.ended, seen.rst) == ({1}, {})


def test_no_trailers_where_there_is_no_body(connect: Any) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(Head(204, Fields()))
        exchange.finish(Fields([("X-Sum", "7")]))

    seen = Seen().feed(connect(handler).send(BEGIN + headers(1)))
    assert (seen.status, seen.ended, seen.trailers, seen.rst) == ({1: 204}, {1}, {}, {})


def asks(stream: int, priority: str) -> bytes:
    return headers(stream, (*GET, ("priority", priority)))


@pytest.mark.parametrize(
    ("priorities", "first"),
    [
        (["u=3", "u=3", "u=3"], [1, 3, 5]),
        (["u=5", "u=3", "u=0"], [5, 3, 1]),
        (["u=3, i", "u=3"], [3, 1]),
        (["", "u=2"], [3, 1]),
    ],
)
def test_urgent_answers_go_first(connect: Any, priorities: list[str], first: list[int]) -> None:
    client = connect(sends(10_000))
    requests = [asks(2 * n + 1, priority) for n, priority in enumerate(priorities)]
    seen = Seen().feed(client.send(BEGIN + b"".join(requests)))
    assert list(dict.fromkeys(seen.order)) == first


def test_incremental_answers_take_turns(connect: Any) -> None:
    client = connect(sends(20_000))
    seen = Seen().feed(client.send(BEGIN + asks(1, "i") + asks(3, "i")))
    assert seen.order[:4] == [1, 3, 1, 3]


# -- tunnels ------------------------------------------------------------------------------------


def test_a_tunnel_is_heard_beside_whole_answers(connect: Any) -> None:
    """Of its urgency: each of them would fill the socket until the last is over."""
    tunnels, size = Tunnels(), 4 * COPY_PIECE
    answer = sends(size)

    def handler(exchange: Exchange) -> None:
        (tunnels if exchange.request.method == "CONNECT" else answer)(exchange)

    client = connect(handler)
    begin = BEGIN + settings(window=1 << 30) + window(0, 1 << 30)
    seen = Seen().feed(client.send(begin + headers(1, CONNECT, ended=False)))
    client.port.blocked = True
    client.send(b"".join(map(headers, (3, 5, 7))))
    client.do(tunnels.ports[0].write, b"hello")
    while 1 not in seen.body:
        client.do(client.port.let_through)
        seen.feed(client.port.take())
    assert sum(len(body) for stream, body in seen.body.items() if stream > 1) <= size


def test_a_tunnel_is_credited_as_it_is_taken(connect: Any) -> None:
    tunnels = Tunnels()
    client = connect(tunnels)
    seen = Seen().feed(client.send(BEGIN + headers(1, CONNECT, ended=False)))
    assert seen.status == {1: 200} and "upgrade" not in seen.fields[1]
    (port,) = tunnels.ports
    seen.feed(client.send(frame(DATA, 0, 1, bytes(16384))))
    assert seen.windows[1] == 16384
    port.pause()
    seen.feed(client.send(frame(DATA, 0, 1, bytes(16384)) * 4))
    assert seen.windows[1] == 16384, "credit for what nobody has taken"
    assert len(tunnels.heard[0]) == 16384
    client.do(port.resume)
    seen.feed(client.port.take())
    assert seen.windows[1] == 16384 + STREAM_WINDOW
    assert len(tunnels.heard[0]) == 5 * 16384


def test_the_connection_is_credited_whoever_is_stalled(connect: Any) -> None:
    tunnels = Tunnels()
    client = connect(tunnels)
    data = b"".join(headers(n, CONNECT, ended=False) for n in range(1, 42, 2))
    seen = Seen().feed(client.send(BEGIN + data))
    given = seen.windows[0]
    for port in tunnels.ports:
        port.pause()
    for number in range(1, 42, 2):
        seen.feed(client.send(frame(DATA, 0, number, bytes(16384)) * 4))
    assert seen.windows[0] > given + (1 << 20) - 65536
    assert not seen.rst and not seen.goaway


def test_an_end_waits_for_what_came_before_it(connect: Any) -> None:
    tunnels = Tunnels()
    client = connect(tunnels)
    client.send(BEGIN + headers(1, CONNECT, ended=False))
    (port,) = tunnels.ports
    port.pause()
    client.send(frame(DATA, 1, 1, b"last"))
    assert tunnels.ends == []
    client.do(port.resume)
    assert (bytes(tunnels.heard[0]), tunnels.ends) == (b"last", ["eof"])
    client.do(port.write, b"answer")
    client.do(port.close)
    seen = Seen().feed(client.port.take())
    assert (seen.body[1], seen.ended, seen.rst) == (b"answer", {1}, {})
    assert tunnels.ends == ["eof", "close "]


def test_what_is_written_waits_for_the_window(connect: Any) -> None:
    tunnels = Tunnels()
    client = connect(tunnels)
    client.send(BEGIN + settings(window=10) + headers(1, CONNECT, ended=False))
    (port,) = tunnels.ports
    assert port.write(bytes(20)) and port.queued == 20
    assert not port.write(bytes(70_000))
    client.send(window(1, 100_000))
    assert port.queued == 70_020 - 65_535  # the connection's window holds the rest
    client.send(window(0, 100_000))
    assert port.queued == 0 and tunnels.ends[-1] == "drain"


def test_the_access_line_of_a_tunnel_comes_at_its_end(connect: Any) -> None:
    tunnels = Tunnels()
    log = AccessLogSettings(filename="/log", format="%m %U %H %>s %b")
    client = connect(tunnels, settings=RequestConfig(access_log=log))
    client.send(BEGIN + headers(1, CONNECT, ended=False) + headers(3, CONNECT, ended=False))
    assert client.entries == []
    tunnels.logs[1](10, 20)
    tunnels.logs[0](1000, 2000)
    assert client.lines == [f"CONNECT /ws/ HTTP/2.0 200 {size}\n" for size in (20, 2000)]
    assert client.entries[1].bytes_in - client.entries[0].bytes_in == 990
    assert client.entries[1].bytes_out > 2000


def test_what_comes_before_a_tunnel_opens_is_counted_once(connect: Any) -> None:
    """By the tunnel, as what comes later."""

    def waits_for_its_backend(exchange: Exchange) -> None:
        gevent.idle()
        tunnels(exchange)

    tunnels = Tunnels()
    log = AccessLogSettings(filename="/log", format="%I")
    for data in (b"", frame(DATA, 0, 1, b"early")):
        client = connect(waits_for_its_backend, settings=RequestConfig(access_log=log))
        client.send(BEGIN + headers(1, CONNECT, ended=False) + data)
        tunnels.logs[-1](5, 0)
        assert client.lines == ["33\n"]
    assert tunnels.heard == [b"", b"early"]


def test_resets_pass_both_ways(connect: Any) -> None:
    tunnels = Tunnels()
    client = connect(tunnels)
    client.send(BEGIN + headers(1, CONNECT, ended=False) + headers(3, CONNECT, ended=False))
    client.send(frame(3, 0, 1, b"\0\0\0\x08"))
    assert tunnels.ends == ["close reset by the client, CANCEL"]
    client.do(tunnels.ports[1].abort, "reset")
    seen = Seen().feed(client.port.take())
    assert seen.rst == {3: "CONNECT_ERROR"}
    assert not Seen().feed(client.send(frame(DATA, 0, 3, b"late"))).rst


# -- the end ------------------------------------------------------------------------------------


def test_a_drain_takes_what_is_on_its_way(connect: Any) -> None:
    tunnels = Tunnels()
    client = connect(tunnels)
    seen = Seen().feed(client.send(BEGIN + headers(1, CONNECT, ended=False)))
    client.do(client.service.drain)
    seen.feed(client.port.take())
    assert (seen.goaway, seen.last) == (["NO_ERROR"], [0x7FFFFFFF])
    seen.feed(client.send(headers(3, CONNECT, ended=False)))  # sent before it could know
    seen.feed(client.send(frame(PING, 1, 0, seen.pings[0])))
    assert seen.last == [0x7FFFFFFF, 3]
    seen.feed(client.send(headers(5)))
    assert 5 not in seen.status
    client.send(frame(DATA, 0, 1, b"alive"))
    assert bytes(tunnels.heard[0]) == b"alive"
    for port in tunnels.ports:
        client.do(port.abort, "over")
    assert client.port.closing and client.is_over


@pytest.mark.parametrize("who", ["client", "server"])
def test_the_last_answer_of_a_connection_has_its_end(connect: Any, who: str) -> None:
    """It is drained and over in the turn that would close the connection."""
    size = 200_000
    client = connect(sends(size))
    seen = Seen().feed(client.send(BEGIN + headers(1)))
    if who == "client":
        client.send(frame(GOAWAY, 0, 0, bytes(8)))
    else:
        client.do(client.service.drain)
        seen.feed(client.port.take())
        client.send(frame(PING, 1, 0, seen.pings[0]))
    for _ in range(4):
        seen.feed(client.send(window(0, 100_000) + window(1, 100_000)))
    assert len(seen.body[1]) == size and seen.ended == {1}


def test_an_error_after_a_drain_names_no_later_stream(connect: Any) -> None:
    """RFC 9113 section 6.8: what a GOAWAY gave up stays so."""
    client = connect(lambda exchange: exchange.read())
    seen = Seen().feed(client.send(BEGIN + headers(1, POST, ended=False)))
    client.do(client.service.drain)
    seen.feed(client.port.take()).feed(client.send(frame(PING, 1, 0, seen.pings[0])))
    seen.feed(client.send(headers(3) + frame(PING, 0, 1, bytes(8))))
    assert seen.last == [2**31 - 1, 1, 1]


def test_a_full_worker_serves_one_stream_of_a_connection(connect: Any) -> None:
    client = connect(Tunnels())
    client.service.has_room = lambda: False
    opened = b"".join(headers(number, CONNECT, ended=False) for number in (1, 3))
    seen = Seen().feed(client.send(BEGIN + opened))
    assert seen.status == {1: 200} and seen.rst == {3: "REFUSED_STREAM"}
    client.service.has_room = lambda: True
    seen.feed(client.send(headers(5, CONNECT, ended=False)))
    assert seen.status == {1: 200, 5: 200}


def test_an_idle_connection_is_closed_politely(connect: Any) -> None:
    client = connect()
    client.send(BEGIN + headers(1))
    client.do(client.service.close_idle)
    assert Seen().feed(client.port.take()).goaway == ["NO_ERROR"]
    assert client.port.closing


def test_a_refusal_that_nobody_takes_ends_by_itself(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_port, "STUCK", 0.05)
    client = connect()
    seen = Seen().feed(client.send(PREFACE + settings(window=0)))
    seen.feed(client.send(headers(1, [*GET, ("content-length", "x")], ended=True)))
    assert seen.status == {1: 400} and not seen.rst
    with gevent.Timeout(15):
        while not seen.feed(client.port.take()).rst:
            gevent.sleep(0.01)
    assert seen.rst == {1: "CANCEL"}


def test_a_lost_connection_ends_every_stream(connect: Any) -> None:
    tunnels = Tunnels()
    over = Event()

    def handler(exchange: Exchange) -> None:
        if exchange.request.method == "CONNECT":
            tunnels(exchange)
        else:
            exchange.gone.wait()
            over.set()

    client = connect(handler)
    client.send(BEGIN + headers(1, CONNECT, ended=False) + headers(3))
    client.do(client.port.abort, "connection reset")
    assert tunnels.ends == ["close connection reset"]
    assert over.is_set() and client.is_over
    assert client.service.streams == 0
