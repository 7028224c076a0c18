"""forkd/protocol/http2.py with its sender: bytes in, calls and bytes out."""

from __future__ import annotations

from typing import Any

import pytest
from h2_frames import (
    CONNECT,
    DATA,
    GET,
    GOAWAY,
    PING,
    POST,
    PREFACE,
    PRIORITY_UPDATE,
    SETTINGS,
    Seen,
    frame,
    headers,
    ping,
    rst,
    settings,
    window,
)

from forkd.message import Pair
from forkd.protocol.h2_fields import H2Head
from forkd.protocol.h2_frames import ErrorCode
from forkd.protocol.h2_guards import FORGIVEN_FRAMES, IDLE_FRAMES, PROVOKED_RESETS
from forkd.protocol.h2_priority import DEFAULT, Priority
from forkd.protocol.h2_sender import CREDIT, INITIAL_WINDOW
from forkd.protocol.h2_stream import STREAM_WINDOW, Stream
from forkd.protocol.http2 import CONNECTION_WINDOW, Http2
from forkd.protocol.strict_head import RawHead

BEGIN = PREFACE + frame(SETTINGS, 0, 0)
SETTLED = frame(SETTINGS, 1, 0)
PADDED, END = 0x8, 0x1


class Ear:
    """Hears one stream."""

    def __init__(self, heard: list[Any], number: int) -> None:
        self._heard, self._number = heard, number

    def on_data(self, data: Any) -> None:
        self._heard.append(("data", self._number, bytes(data)))

    def on_end(self) -> None:
        self._heard.append(("end", self._number))

    def on_reset(self, why: str) -> None:
        self._heard.append(("reset", self._number, why))


class Peer:
    """A connection, what it has called, and what it has written."""

    def __init__(self, max_streams: int = 8) -> None:
        self.heard: list[Any] = []
        self.seen = Seen()
        self.all: dict[int, Stream] = {}
        self.http2 = Http2(self, max_streams, 8192)

    def on_request(self, stream: Stream, head: H2Head) -> Ear:
        self.all[stream.id] = stream
        self.heard.append(("request", stream.id, head.head.method, head.protocol))
        return Ear(self.heard, stream.id)

    def on_window(self) -> None:
        self.heard.append(("window",))

    def on_ping(self, data: bytes) -> None:
        self.heard.append(("ping", data))

    def on_goaway(self) -> None:
        self.heard.append(("goaway",))

    def feed(self, data: bytes, step: int = 0) -> list[Any]:
        """What has been heard of *data*, fed in pieces of *step* bytes; ``seen`` knows the rest."""
        before = len(self.heard)
        step = step or len(data) or 1
        for at in range(0, len(data), step):
            self.http2.receive(memoryview(data)[at : at + step])
        self.look()
        return self.heard[before:]

    def look(self) -> Seen:
        return self.seen.feed(bytes(self.http2.take()))


def open_peer(*requests: bytes, begin: bytes = BEGIN) -> Peer:
    peer = Peer()
    peer.feed(begin + b"".join(requests))
    peer.heard.clear()
    return peer


def tunnel(number: int = 1) -> bytes:
    return headers(number, CONNECT, ended=False)


def post(number: int, length: int | None = None) -> bytes:
    fields = POST if length is None else (*POST, ("content-length", str(length)))
    return headers(number, fields, ended=False)


# -- the same, however it is cut ------------------------------------------------------------------

REQUEST = ("request", 1, "GET", "")
TUNNEL = ("request", 1, "CONNECT", "websocket")
UPLOAD = ("request", 1, "POST", "")

SCRIPTS: dict[str, tuple[bytes, list[Any], dict[str, Any]]] = {
    "request": (headers(1), [REQUEST, ("end", 1)], {}),
    "tunnel": (
        tunnel() + frame(DATA, 0, 1, b"one") + frame(DATA, 0, 1, b"two") + frame(DATA, END, 1),
        [TUNNEL, ("data", 1, b"one"), ("data", 1, b"two"), ("end", 1)],
        {},
    ),
    "close and end in one frame": (
        tunnel() + frame(DATA, END, 1, b"bye"),
        [TUNNEL, ("data", 1, b"bye"), ("end", 1)],
        {},
    ),
    "padding": (
        tunnel() + frame(DATA, PADDED, 1, b"\3one\0\0\0"),
        [TUNNEL, ("data", 1, b"one")],
        {},
    ),
    "trailers": (
        post(1, 3) + frame(DATA, 0, 1, b"abc") + headers(1, [("x-sum", "1")]),
        [UPLOAD, ("data", 1, b"abc"), ("end", 1)],
        {},
    ),
    "continuation": (
        frame(1, END, 1, headers(1)[9:20]) + frame(9, 4, 1, headers(1)[20:]),
        [REQUEST, ("end", 1)],
        {},
    ),
    "ping": (ping(), [], {"ping_acks": 1}),
    "answered ping": (frame(PING, 1, 0, b"abcdefgh"), [("ping", b"abcdefgh")], {}),
    "goaway": (frame(GOAWAY, 0, 0, bytes(8)), [("goaway",)], {}),
    "reset": (
        tunnel() + rst(1),
        [TUNNEL, ("reset", 1, "reset by the client, CANCEL")],
        {},
    ),
    "too long": (
        post(1, 2) + frame(DATA, 0, 1, b"abc"),
        [UPLOAD, ("reset", 1, "body longer than content-length")],
        {"rst": {"1": "PROTOCOL_ERROR"}},
    ),
    "too short": (
        post(1, 4) + frame(DATA, END, 1, b"abc"),
        [UPLOAD, ("data", 1, b"abc"), ("reset", 1, "body shorter than content-length")],
        {"rst": {"1": "PROTOCOL_ERROR"}},
    ),
    "behind the end": (
        headers(1, POST) + frame(DATA, 0, 1, b"abc"),
        [UPLOAD, ("end", 1), ("reset", 1, "DATA behind END_STREAM")],
        {"rst": {"1": "STREAM_CLOSED"}},
    ),
    "data on an idle stream": (frame(DATA, 0, 1, b"abc"), [], {"goaway": ["PROTOCOL_ERROR"]}),
    "nothing is heard behind an error": (
        frame(PING, 0, 1, bytes(8)) + headers(1),
        [],
        {"goaway": ["PROTOCOL_ERROR"]},
    ),
    "long frame": (frame(DATA, 0, 1, length=16385), [], {"goaway": ["FRAME_SIZE_ERROR"]}),
}  # fmt: skip


@pytest.mark.parametrize("tail", [b"", ping()[:-1]], ids=["", "tail"])
@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str, step: int, tail: bytes) -> None:
    data, heard, outcome = SCRIPTS[name]
    peer = Peer()
    found = peer.feed(BEGIN + data + tail, step)
    assert [event for event in found if event != ("window",)] == heard
    assert peer.seen.outcome == outcome
    assert (peer.http2.error is not None) == ("goaway" in outcome)


@pytest.mark.parametrize("step", [0, 1])
def test_another_preface_is_the_end(step: int) -> None:
    peer = Peer()
    assert peer.feed(b"PRI * HTTP/1.1\r\n\r\n", step) == []
    assert peer.seen.outcome == {"goaway": ["PROTOCOL_ERROR"]}


def test_ours_comes_first_and_theirs_is_acknowledged() -> None:
    peer = Peer(max_streams=3)
    first = peer.look()
    assert first.settings == {3: 3, 4: STREAM_WINDOW, 6: 65535, 8: 1, 9: 1}
    assert first.windows == {0: CONNECTION_WINDOW - INITIAL_WINDOW}
    peer.feed(BEGIN)
    assert peer.seen.settings_acks == 1


# -- the client's windows -------------------------------------------------------------------------


def test_the_connections_window_is_filled_up_without_being_asked() -> None:
    peer = open_peer(*(tunnel(2 * n + 1) for n in range(8)))
    given = peer.seen.windows[0]
    piece = frame(DATA, 0, 1, bytes(16384))[:5]
    for number in range(1, 17, 2):
        data = piece + number.to_bytes(4) + bytes(16384)
        peer.feed(data * 4)
    peer.feed(frame(DATA, 0, 1, b""))
    assert peer.seen.windows[0] == given, "half of it is still there"
    peer.http2.credit(peer.all[1], STREAM_WINDOW)
    peer.feed(frame(DATA, 0, 1, b"x"))
    assert peer.seen.windows == {0: given + CONNECTION_WINDOW // 2 + 1, 1: STREAM_WINDOW}


def test_a_stream_is_credited_for_what_has_been_taken() -> None:
    peer = open_peer(tunnel())
    peer.feed(frame(DATA, 0, 1, bytes(16384)) * 2)
    stream = peer.all[1]
    peer.http2.credit(stream, CREDIT - 1)
    assert 1 not in peer.look().windows
    peer.http2.credit(stream, 1)
    assert peer.look().windows[1] == CREDIT
    assert stream.window == STREAM_WINDOW - 2 * 16384 + CREDIT


def test_padding_is_taken_by_us() -> None:
    peer = open_peer(tunnel())
    for _ in range(65):  # 256 bytes each that nobody hears
        peer.feed(frame(DATA, PADDED, 1, b"\xff" + bytes(255)))
    assert peer.seen.windows[1] >= CREDIT and peer.heard == []


@pytest.mark.parametrize(
    "last", [frame(DATA, 0, 1, b"x"), frame(DATA, PADDED, 1, b"\0"), frame(DATA, END, 1, b"x")]
)
def test_a_streams_window_overrun_ends_it_alone(last: bytes) -> None:
    peer = open_peer(tunnel(), tunnel(3))
    peer.feed(frame(DATA, 0, 1, bytes(16384)) * 4)
    assert peer.feed(last + frame(DATA, 0, 3, b"x")) == [
        ("reset", 1, "stream's window overrun"),
        ("data", 3, b"x"),
    ]
    assert peer.seen.outcome == {"rst": {"1": "FLOW_CONTROL_ERROR"}}


def test_data_for_a_stream_that_is_over_counts_and_is_dropped() -> None:
    peer = open_peer(tunnel())
    peer.http2.reset(peer.all[1], ErrorCode.CANCEL)
    given = peer.look().windows[0]
    assert peer.feed(frame(DATA, 0, 1, bytes(16384)) * 33) == []
    assert peer.seen.windows[0] > given
    assert peer.seen.outcome == {"rst": {"1": "CANCEL"}}


# -- our windows ----------------------------------------------------------------------------------


def test_what_is_sent_leaves_less_room() -> None:
    peer = open_peer(tunnel(), tunnel(3), begin=PREFACE + settings(window=50_000))
    http2, stream = peer.http2, peer.all[1]
    assert (stream.room, http2.room) == (50_000, INITIAL_WINDOW)
    http2.send(stream, b"small")
    http2.send(stream, bytes(40_000))
    assert (stream.room, http2.room) == (9_995, INITIAL_WINDOW - 40_005)
    assert peer.all[3].room == 50_000
    assert peer.look().order == [1] * 4, "frames of 16 KiB at most"
    assert peer.seen.body[1] == b"small" + bytes(40_000)
    assert peer.feed(window(1, 5) + window(0, 7)) == [("window",), ("window",)]
    assert (stream.room, http2.room) == (10_000, INITIAL_WINDOW - 39_998)


def test_settings_change_the_room_of_every_stream() -> None:
    peer = open_peer(tunnel(), tunnel(3))
    peer.http2.send(peer.all[1], bytes(100))
    assert peer.feed(settings(window=50)) == [("window",)]
    assert [stream.room for stream in peer.all.values()] == [-50, 50]
    peer.feed(tunnel(5))
    assert peer.all[5].room == 50 and peer.http2.room == INITIAL_WINDOW - 100


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (window(1, 0), {"rst": {"1": "PROTOCOL_ERROR"}}),
        (window(0, 0), {"goaway": ["PROTOCOL_ERROR"]}),
        (window(1, 0x7FFFFFFF), {"rst": {"1": "FLOW_CONTROL_ERROR"}}),
        (window(0, 0x7FFFFFFF), {"goaway": ["FLOW_CONTROL_ERROR"]}),
        (window(1, 1) + settings(window=0x7FFFFFFF), {"goaway": ["FLOW_CONTROL_ERROR"]}),
        (settings(window=0x80000000), {"goaway": ["FLOW_CONTROL_ERROR"]}),
        (window(3, 1), {"goaway": ["PROTOCOL_ERROR"]}),
    ],
)
def test_bad_windows(data: bytes, outcome: dict[str, Any]) -> None:
    peer = open_peer(tunnel())
    peer.feed(data)
    assert peer.seen.outcome == outcome


def test_credit_that_answers_what_was_sent_is_no_flood() -> None:
    peer = open_peer(tunnel())
    for _ in range(IDLE_FRAMES):
        peer.http2.send(peer.all[1], b"x")
        peer.feed(window(1, 1) + window(0, 1))
    assert not peer.seen.goaway
    peer.feed(window(1, 1) * (IDLE_FRAMES + 1))
    assert peer.seen.goaway == ["ENHANCE_YOUR_CALM"]


def test_a_long_life_is_no_flood() -> None:
    peer = open_peer(SETTLED)
    for _ in range(IDLE_FRAMES // FORGIVEN_FRAMES + 1):
        peer.feed(ping() * FORGIVEN_FRAMES)
        peer.http2.forgive()
    assert not peer.seen.goaway
    for number in range(1, 4 * PROVOKED_RESETS, 2):
        peer.feed(headers(number, GET[1:]))
        peer.http2.forgive()
    assert not peer.seen.goaway


# -- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("trailers", [[], [("x-sum", "1")]])
def test_an_answer(trailers: list[Pair]) -> None:
    peer = open_peer(headers(1))
    http2, stream = peer.http2, peer.all[1]
    http2.respond(stream, 103, [("link", "a")])
    assert peer.look().status == {1: 103} and not stream.is_answered
    size = http2.respond(stream, 200, [("x", "y")])
    assert size == len(http2.out) and stream.is_answered
    http2.send(stream, b"body")
    http2.end(stream, trailers)
    seen = peer.look()
    assert (seen.status, seen.fields, seen.body) == ({1: 200}, {1: {"x": "y"}}, {1: b"body"})
    assert (seen.ended, seen.trailers) == ({1}, {1: dict(trailers)} if trailers else {})
    assert http2.streams == {} and not stream.sends
    assert http2.take() == b""


def test_of_many_table_sizes_two_are_told() -> None:
    peer = open_peer(*(settings(table=size) for size in (65536, 100, 5000, 300)), headers(1))
    peer.seen.decoder.max_allowed_table_size = 300
    peer.http2.respond(peer.all[1], 200, [("x", "y")])
    told = bytes(peer.http2.out)[9:]
    assert told.startswith(b"\x3f\x45\x3f\x8d\x02"), "100, 300"
    assert peer.look().fields == {1: {"x": "y"}}


@pytest.mark.parametrize("told", [(100, 100), (4096, 100, 100), (100, 4096, 4096)])
def test_a_table_size_may_be_said_twice(told: tuple[int, ...]) -> None:
    """As the two SETTINGS of a client that comes from HTTP/1.1 do."""
    peer = open_peer(headers(1), headers(3))
    fields = [(f"name-{number}", "value") for number in range(8)]
    peer.http2.respond(peer.all[1], 200, fields)
    peer.feed(b"".join(settings(table=size) for size in told))
    peer.look().decoder.max_allowed_table_size = told[-1]
    peer.http2.respond(peer.all[3], 200, fields)
    assert peer.look().fields[3] == dict(fields)


def test_a_head_may_be_all() -> None:
    peer = open_peer(headers(1))
    peer.http2.respond(peer.all[1], 204, [], ended=True)
    assert peer.look().ended == {1} and peer.http2.streams == {}


def test_both_sides_have_to_end() -> None:
    peer = open_peer(tunnel())
    http2, stream = peer.http2, peer.all[1]
    http2.respond(stream, 200, [])
    http2.end(stream)
    assert list(http2.streams) == [1]
    assert peer.feed(frame(DATA, 0, 1, b"more") + frame(DATA, END, 1)) == [
        ("data", 1, b"more"),
        ("end", 1),
    ]
    assert http2.streams == {}
    peer.feed(frame(DATA, 0, 1, b"late"))
    assert peer.seen.rst == {1: "STREAM_CLOSED"}


# -- how many, and until when ---------------------------------------------------------------------


def test_streams_above_the_limit_are_refused() -> None:
    peer = Peer(max_streams=2)
    peer.feed(BEGIN + tunnel(1) + tunnel(3) + tunnel(5))
    assert list(peer.all) == [1, 3] and peer.seen.outcome == {"rst": {"5": "REFUSED_STREAM"}}
    peer.http2.reset(peer.all[1], ErrorCode.CANCEL)
    peer.feed(tunnel(7))
    assert list(peer.all) == [1, 3, 7]


def test_behind_a_goaway_of_ours_only_what_there_was_goes_on() -> None:
    peer = open_peer(tunnel())
    peer.http2.go_away(1)
    assert peer.feed(tunnel(3) + frame(DATA, 0, 3, b"x") + frame(DATA, 0, 1, b"y")) == [
        ("data", 1, b"y")
    ]
    assert peer.seen.outcome == {"goaway": ["NO_ERROR"]} and peer.seen.last == [1]


def test_a_priority_may_come_before_its_stream() -> None:
    update = frame(PRIORITY_UPDATE, 0, 0, (1).to_bytes(4) + b"u=1, i")
    peer = open_peer(update, headers(1, (*GET, ("priority", "u=5"))))
    assert peer.all[1].priority == Priority(1, True)
    peer.feed(frame(PRIORITY_UPDATE, 0, 0, (1).to_bytes(4) + b"u=6"))
    assert peer.all[1].priority == Priority(6, False)
    peer.feed(frame(PRIORITY_UPDATE, 0, 0, (1).to_bytes(4) + b"u=1," * 4000 + b"i"))
    assert peer.all[1].priority == DEFAULT, "not worth its reading"


def test_priorities_of_what_was_never_served_are_forgotten() -> None:
    def update(number: int) -> bytes:
        return frame(PRIORITY_UPDATE, 0, 0, number.to_bytes(4) + b"u=1")

    peer = Peer(max_streams=2)
    peer.feed(BEGIN + tunnel(1) + tunnel(3))
    peer.feed(b"".join(update(number) + tunnel(number) for number in (5, 7, 9)))
    assert set(peer.seen.rst) == {5, 7, 9}
    peer.http2.reset(peer.all[1], ErrorCode.CANCEL)
    peer.feed(update(11) + tunnel(11))
    assert peer.all[11].priority.urgency == 1


def test_data_on_an_even_stream_is_the_end() -> None:
    """RFC 9113 section 5.1: nobody has opened it."""
    peer = open_peer(tunnel(3))
    peer.feed(frame(DATA, 0, 2, b"x"))
    assert peer.seen.outcome == {"goaway": ["PROTOCOL_ERROR"]}


def test_a_connection_that_was_http1() -> None:
    peer = Peer()
    theirs = settings(window=100)[9:]
    head = RawHead("GET", "/", "HTTP/2.0", [("host", "h")])
    peer.http2.upgrade(theirs, H2Head(head, "", None, None))
    assert peer.heard == [("request", 1, "GET", ""), ("end", 1)]
    assert peer.look().settings_acks == 0, "the 101 has said it"
    peer.feed(BEGIN)
    assert peer.all[1].room == 100
    peer.http2.respond(peer.all[1], 200, [], ended=True)
    assert peer.look().status == {1: 200}
