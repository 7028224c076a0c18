from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from forkd.errors import BackendBroken, Truncated
from forkd.message import Fields, Head
from forkd.protocol.conversation import Complete, Event
from forkd.protocol.http1 import MAX_HEAD, Http1Encoder, Http1Parser

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"Content-Length: 0\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 100 C\r\n\r\n"


# -- requests -------------------------------------------------------------------------------------


def test_head_of_a_request() -> None:
    encoder = Http1Encoder("GET", "/a?b", [("Host", "x"), ("A", "\xe4")])
    assert encoder.head() == b"GET /a?b HTTP/1.1\r\nHost: x\r\nA: \xe4\r\n\r\n"
    assert encoder.end() == b""


def test_request_of_http10() -> None:
    assert Http1Encoder("GET", "/", [], version="HTTP/1.0").head() == b"GET / HTTP/1.0\r\n\r\n"


def test_body_of_known_length_goes_out_as_it_is() -> None:
    encoder = Http1Encoder("POST", "/", [])
    piece = memoryview(b"abc")
    assert encoder.body(piece) is piece
    assert encoder.end() == b""


def test_body_in_chunks() -> None:
    encoder = Http1Encoder("POST", "/", [], chunked=True)
    assert encoder.body(b"0123456789abcdef") == b"10\r\n0123456789abcdef\r\n"
    assert encoder.body(memoryview(b"x")) == b"1\r\nx\r\n"
    assert encoder.end() == b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a b", "/a%20b"),
        ("/a HTTP/1.1\r\nX: y", "/a%20HTTP/1.1%0D%0AX:%20y"),
        ("/\x7f\t", "/%7F%09"),
        ("/\xe4", "/\xe4"),
    ],
)
def test_target_stays_one_word(target: str, expected: str) -> None:
    head = Http1Encoder("GET", target, []).head()
    assert head == f"GET {expected} HTTP/1.1\r\n\r\n".encode("latin-1")


def test_field_stays_in_its_line() -> None:
    head = Http1Encoder("GET", "/", [("A", "b\r\nC: d")]).head()
    assert head == b"GET / HTTP/1.1\r\nA: b  C: d\r\n\r\n"


# -- responses ------------------------------------------------------------------------------------

Feed = Callable[[Http1Parser, bytes], list[Event]]


def whole(parser: Http1Parser, data: bytes) -> list[Event]:
    return parser.feed(memoryview(bytearray(data)))


def byte_by_byte(parser: Http1Parser, data: bytes) -> list[Event]:
    events: list[Event] = []
    for index in range(len(data)):
        events += parser.feed(data[index : index + 1])
        if events and isinstance(events[-1], Complete):
            break
    return events


@pytest.fixture(params=[whole, byte_by_byte])
def feed(request: pytest.FixtureRequest) -> Iterator[Feed]:
    yield request.param


def joined(events: list[Event]) -> list[object]:
    """*events* with neighbouring pieces of body as one."""
    out: list[object] = []
    for event in events:
        if isinstance(event, bytes | bytearray | memoryview):
            if out and isinstance(out[-1], bytes):
                out[-1] += bytes(event)
            else:
                out.append(bytes(event))
        else:
            out.append(event)
    return out


def head(status: int = 200, length: int | None = None, **fields: str) -> Head:
    pairs = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return Head(status, Fields(pairs), length)


@pytest.mark.parametrize(
    ("method", "data", "expected"),
    [
        (
            "GET",
            OK + b"Content-Length: 3\r\nX-a: b\r\n\r\nabc",
            [head(200, 3, X_a="b"), b"abc", Complete(True)],
        ),
        ("GET", OK + b"Content-Length: 0\r\n\r\n", [head(200, 0), Complete(True)]),
        (
            "GET",
            OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1 \r\nd\r\n0\r\nT: x\r\n\r\n",
            [head(), b"abcd", Complete(True, Fields([("T", "x")]))],
        ),
        (
            "GET",
            CHUNKED + b"0\r\nA: b\r\nContent-Length: 7\r\nX: \x01\r\nSet-Cookie: c\r\n\r\n",
            [head(), Complete(True, Fields([("A", "b")]))],
        ),
        (
            "GET",
            OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            [head(), b"a", Complete(True)],
        ),
        (
            "GET",
            OK + b"Content-Length: 1\r\nConnection: Close\r\n\r\na",
            [head(200, 1, Connection="Close"), b"a", Complete(False)],
        ),
        (
            "GET",
            b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
            [head(200, 1), b"a", Complete(False)],
        ),
        ("HEAD", OK + b"Content-Length: 7\r\n\r\n", [head(200, 7), Complete(True)]),
        ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n", [head(), Complete(True)]),
        ("GET", b"HTTP/1.1 204\r\n\r\n", [head(204), Complete(True)]),
        ("GET", b"HTTP/1.1 304 \r\nContent-Length: 7\r\n\r\n", [head(304, 7), Complete(True)]),
        (
            "GET",
            INTERIM + b"HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx",
            [head(103, Link="<a>"), head(100), head(404, 1), b"x", Complete(True)],
        ),
        (
            "GET",
            EMPTY + b"A:\r\nB: x\x01y\r\nC: \t d\t \r\nE: f\r\n  g\r\nC: 2\r\n\r\n",
            [Head(200, Fields([("C", "d"), ("E", "f g"), ("C", "2")]), 0), Complete(True)],
        ),
        ("GET", OK + b"Content-Length: 1, 1\r\n\r\na", [head(200, 1), b"a", Complete(True)]),
        ("GET", OK + b"Content-Length: 01\r\n\r\na", [head(200, 1), b"a", Complete(True)]),
    ],
)
def test_response(feed: Feed, method: str, data: bytes, expected: list[Event]) -> None:
    assert joined(feed(Http1Parser(method), data)) == expected


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 1\r\n\r\na",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ],
)
def test_bytes_behind_the_response_are_nobodys(data: bytes) -> None:
    events = joined(Http1Parser("GET").feed(data + b"HTTP/1.1 200 OK\r\n\r\n"))
    assert [type(event) for event in events] == [Head, bytes, Complete]
    assert events[1:] == [b"a", Complete(False)]


def test_body_up_to_the_end(feed: Feed) -> None:
    parser = Http1Parser("GET")
    assert joined(feed(parser, OK + b"\r\nabc")) == [head(), b"abc"]
    assert parser.eof() == [Complete(False)]
    assert parser.eof() == []


def test_empty_body_up_to_the_end(feed: Feed) -> None:
    parser = Http1Parser("GET")
    assert joined(feed(parser, OK + b"\r\n")) == [head()]
    assert parser.eof() == [Complete(False)]


def test_eof_behind_a_complete_response() -> None:
    parser = Http1Parser("GET")
    parser.feed(OK + b"Content-Length: 0\r\n\r\n")
    assert parser.eof() == []


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", BackendBroken, "without a reply"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", BackendBroken, "without a reply"),
        (b"HT", BackendBroken, "in the response head"),
        (OK + b"Content-Length: 0\r\n", BackendBroken, "in the response head"),
        (OK + b"Content-Length: 5\r\n\r\nabc", Truncated, "received 3 bytes, expected 5"),
        (OK + b"Content-Length: 5\r\n\r\n", Truncated, "received 0 bytes, expected 5"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", Truncated, "chunked"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", Truncated, "chunked"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", Truncated, "chunked"),
    ],
)
def test_backend_closes_too_early(
    feed: Feed, data: bytes, error: type[BackendBroken], text: str
) -> None:
    parser = Http1Parser("GET")
    feed(parser, data)
    with pytest.raises(BackendBroken, match=text) as caught:
        parser.eof()
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\r\n" + OK + b"\r\n",
        b"Status: 200\r\n\r\n",
        b"hello",
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        OK + b"A: b\n\r\n",
        OK + b"A: b\rC: d\r\n\r\n",
        OK + b"A: b\n\nx",
        OK + b"A b\r\n\r\n",
        OK + b"A : b\r\n\r\n",
        OK + b": b\r\n\r\n",
        OK + b"A: b\0\r\n\r\n",
        OK + b" A: b\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: +2\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 0x1\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_is_no_response(feed: Feed, data: bytes) -> None:
    with pytest.raises(BackendBroken):
        feed(Http1Parser("GET"), data)


def test_head_too_large(feed: Feed) -> None:
    start = OK + b"Content-Length: 0\r\nA: "
    fits = start + b"x" * (MAX_HEAD - len(start) - 4) + b"\r\n\r\n"
    assert len(fits) == MAX_HEAD
    assert joined(Http1Parser("GET").feed(fits))[-1] == Complete(True)
    with pytest.raises(BackendBroken, match="65535"):
        Http1Parser("GET").feed(fits[:-4] + b"x\r\n\r\n")
    with pytest.raises(BackendBroken, match="65535"):
        feed(Http1Parser("GET"), fits[:-4] + b"xxxxx")


def test_head_of_endless_lines_is_refused_while_it_comes() -> None:
    parser = Http1Parser("GET")
    parser.feed(OK)
    with pytest.raises(BackendBroken, match="65535"):
        for _ in range(MAX_HEAD):
            parser.feed(b"a: b\r\n")


# -- switching protocols --------------------------------------------------------------------------

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo/1\r\nConnection: Upgrade\r\n\r\n"


def test_switch_and_what_came_behind_it(feed: Feed) -> None:
    parser = Http1Parser("GET", may_switch=True)
    events = joined(feed(parser, b"HTTP/1.1 103 E\r\n\r\n" + SWITCH + b"HTTP/1.1 early\n\n"))
    assert events == [head(103), head(101, Upgrade="foo/1", Connection="Upgrade")]
    assert parser.after_switch() == b"HTTP/1.1 early\n\n"
    assert parser.eof() == []


def test_nothing_came_behind_the_switch() -> None:
    parser = Http1Parser("GET", may_switch=True)
    parser.feed(SWITCH)
    assert parser.after_switch() == b""


def test_declined_switch_is_an_ordinary_response(feed: Feed) -> None:
    parser = Http1Parser("GET", may_switch=True)
    events = joined(feed(parser, OK + b"Content-Length: 1\r\n\r\nx"))
    assert events == [head(200, 1), b"x", Complete(True)]


def test_switch_to_nothing() -> None:
    with pytest.raises(BackendBroken, match="without Upgrade"):
        Http1Parser("GET", may_switch=True).feed(b"HTTP/1.1 101 Switching\r\n\r\n")


def test_heads_are_translated() -> None:
    def translate(made: Head) -> Head:
        return Head(made.status, made.fields.plus(("Seen", "yes")), made.length)

    parser = Http1Parser("GET", translate=translate)
    events = parser.feed(b"HTTP/1.1 103 E\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n")
    assert events == [head(103, Seen="yes"), head(200, 0, Seen="yes"), Complete(True)]
