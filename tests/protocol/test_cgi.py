"""forkd/protocol/cgi.py: what programs answer (gateway.md 14, cgi.md 5, 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.errors import BackendBroken, Truncated
from forkd.message import Fields, Head
from forkd.protocol.cgi import CgiParser
from forkd.protocol.conversation import Complete, Event, LocalRedirect
from forkd.protocol.response_head import MAX_BLOCK

DONE = Complete(False)
TEXT = Fields([("Content-Type", "text/plain")])
UPGRADE = Fields([("Upgrade", "websocket")])


def joined(events: list[Event]) -> list[Event]:
    """*events* with neighbouring pieces of body as one."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, (bytes, bytearray, memoryview)):
            if out and isinstance(out[-1], bytes):
                out[-1] += bytes(event)
            else:
                out.append(bytes(event))
        else:
            out.append(event)
    return out


def run(data: bytes, step: int, parser: CgiParser) -> list[Event]:
    events: list[Event] = []
    for at in range(0, len(data), step):
        # What is fed is valid during the call only.
        piece = bytearray(data[at : at + step])
        events += joined(parser.feed(memoryview(piece)))
        piece[:] = b"?" * len(piece)
    return events


def parsed(data: bytes, step: int = 1 << 20, **options: object) -> list[Event]:
    """All events up to the end of the stream."""
    parser = CgiParser(**options)
    events = run(data, step, parser)
    return joined([*events, *parser.eof()])


# (output, what both flavours make of it)
RESPONSES: list[tuple[bytes, list[Event]]] = [
    (b"Content-Type: text/plain\n\nhello", [Head(200, TEXT), b"hello", DONE]),
    (b"Content-Type: text/plain\r\n\r\nhello\r\n\r\n", [Head(200, TEXT), b"hello\r\n\r\n", DONE]),
    (b"Content-Type: text/plain\r\n\nhello", [Head(200, TEXT), b"hello", DONE]),
    (b"Content-Type: text/plain\n\n", [Head(200, TEXT), DONE]),
    (b"\nhello", [Head(200), b"hello", DONE]),
    (b"\r\nA: b\r\n\r\n", [Head(200), b"A: b\r\n\r\n", DONE]),
    (b"HTTP/1.1 404 X\r\nContent-Type: text/plain\r\n\r\nno", [Head(404, TEXT), b"no", DONE]),
    (b"Location: /x\n\n", [Head(302, Fields([("Location", "/x")])), DONE]),
    # lengths
    (b"Content-Length: 5\n\nhello", [Head(200, length=5), b"hello", DONE]),
    (b"Content-Length: 5\n\nhello and more", [Head(200, length=5), b"hello", DONE]),
    (b"Content-Length: 0\n\n", [Head(200, length=0), DONE]),
    (b"Content-Length: 0\n\nmore", [Head(200, length=0), DONE]),
    (b"Transfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\n\r\nmore", [Head(200), b"abc", DONE]),
    (b"Status: 204\n\nmore", [Head(204), DONE]),
    (b"Status: 304\nContent-Length: 9\n\n", [Head(304, length=9), DONE]),
    # interim responses
    (b"Status: 100\n\nStatus: 404\n\nno", [Head(100), Head(404), b"no", DONE]),
    (b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 103 E\r\n\r\nContent-Length: 1\n\nx",
     [Head(103, Fields([("A", "b")])), Head(103), Head(200, length=1), b"x", DONE]),
]  # fmt: skip

STEPS = (1, 2, 7, 1 << 20)


@pytest.mark.parametrize(("output", "events"), RESPONSES)
@pytest.mark.parametrize("bare_body", [False, True])
def test_responses(output: bytes, events: list[Event], bare_body: bool) -> None:
    for step in STEPS:
        assert parsed(output, step, bare_body=bare_body) == events


@pytest.mark.parametrize("output", [b"hello", b"hello\nworld: x\n\n", b"<a:b\n"[:2], b"\r"])
def test_output_without_a_head_is_a_body_for_cgi_alone(output: bytes) -> None:
    for step in STEPS:
        assert parsed(output, step, bare_body=True) == [Head(200), output, DONE]
        with pytest.raises(BackendBroken):
            parsed(output, step)


def test_a_long_first_line_without_a_colon_is_a_body_before_its_end() -> None:
    output = b"x" * (MAX_BLOCK + 1)
    parser = CgiParser(bare_body=True)
    assert joined(run(output, 1000, parser)) == [Head(200), output]


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (b"", "without a reply"),
        (b"A: b\n", "inside the header block"),
        (b"A: b", "inside the header block"),
        (b"HTTP/1.1 200 OK\r\n", "inside the header block"),
        (b"HTTP/1.1", "inside the header block"),
        (b"Status: 100\n\n", "inside the header block"),
        (b"Status: abc\n\n", "bad status"),
        (b"HTTP/2 200\n\n", "bad status"),
    ],
)
@pytest.mark.parametrize("bare_body", [False, True])
def test_no_response(output: bytes, why: str, bare_body: bool) -> None:
    for step in STEPS:
        with pytest.raises(BackendBroken, match=why) as caught:
            parsed(output, step, bare_body=bare_body)
        assert not isinstance(caught.value, Truncated)


@pytest.mark.parametrize(
    "output",
    [
        b"Content-Length: 5\n\nhell",
        b"Content-Length: 5\n\n",
        b"Transfer-Encoding: chunked\n\n5\r\nhello\r\n",
        b"Transfer-Encoding: chunked\n\n5\r\nhel",
    ],
)
def test_short_bodies(output: bytes) -> None:
    for step in STEPS:
        with pytest.raises(Truncated):
            parsed(output, step)


def test_the_size_of_a_block_is_limited() -> None:
    field = b"A: " + b"x" * (MAX_BLOCK - 5) + b"\n"
    assert len(field + b"\n") == MAX_BLOCK
    assert isinstance(parsed(field + b"\nbody")[0], Head)
    for step in (4096, 1 << 20):
        for too_long in (b"B" + field + b"\n", b"A: b\n" + field, b"x: " + b"y" * MAX_BLOCK):
            with pytest.raises(BackendBroken, match="more than"):
                run(too_long, step, CgiParser(bare_body=True))


def test_a_counted_body_is_complete_without_the_end_of_the_stream() -> None:
    parser = CgiParser()
    assert run(b"Content-Length: 1\n\nx", 100, parser)[-1] == DONE
    assert parser.feed(b"more") == []
    assert parser.eof() == []


@pytest.mark.parametrize("fields", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"A: b"])
@pytest.mark.parametrize("body", [b"", b"hell", b"hello and more"])
def test_the_answer_to_head_has_no_body_and_is_never_short(fields: bytes, body: bytes) -> None:
    head, *rest = parsed(fields + b"\n\n" + body, head_only=True)
    assert isinstance(head, Head)
    assert head.length == (5 if b"Length" in fields else None)
    assert rest == [DONE]


# -- upgrades ---------------------------------------------------------------------------------

SWITCH = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("early", [b"", b"\n", b"Status: 404\n\nbehind"])
@pytest.mark.parametrize("head", [SWITCH, b"Status: 101\nUpgrade: websocket\n\n"])
def test_nothing_behind_a_101_is_interpreted(head: bytes, early: bytes) -> None:
    for step in STEPS:
        parser = CgiParser()
        assert run(head + early, step, parser) == [Head(101, UPGRADE)]
        assert parser.eof() == []
        assert parser.after_switch() == early
        assert parser.after_switch() == b""


def test_an_interim_head_before_the_101() -> None:
    assert parsed(b"Status: 103\n\n" + SWITCH, 1) == [Head(103), Head(101, UPGRADE)]


# -- local redirects --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (b"Location: /x?y\n\n", "/x?y"),
        (b"Location: /app.cgix\n\n", "/app.cgix"),
        (b"Location: /app.cgi\n\n", None),
        (b"Location: /app.cgi/x\n\n", None),
        (b"Location: /app.cgi?x\n\n", None),
        (b"Location: /x\n\nbody", None),
        (b"Location: http://h/x\n\n", None),
    ],
)
def test_local_redirects(output: bytes, target: str | None) -> None:
    parser = CgiParser(script="/app.cgi")
    events = joined(parser.feed(output))
    assert (events == [LocalRedirect(target)]) if target else (events[0].status == 302)
    assert CgiParser().feed(output)[0].status == 302


# -- anything ---------------------------------------------------------------------------------


def check_cuts(data: bytes, bare: bool, step: int) -> None:
    def outcome(size: int) -> object:
        try:
            return parsed(data, size, bare_body=bare)
        except BackendBroken as error:
            return type(error)

    assert outcome(step) == outcome(1 << 20)


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 9))
def test_how_output_is_cut_makes_no_difference(data: bytes, bare: bool, step: int) -> None:
    check_cuts(data, bare, step)


@given(st.lists(st.sampled_from([
    b"Status: 100", b"Status: 404", b"A: b", b"\n", b"\r\n", b"\n\n", b"Content-Length: 3",
    b"Transfer-Encoding: chunked", b"3\r\nabc\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK", b" x", b"abc",
])), st.integers(1, 9))  # fmt: skip
def test_how_responses_are_cut_makes_no_difference(parts: list[bytes], step: int) -> None:
    check_cuts(b"".join(parts), True, step)
