"""forkd/protocol/websocket.py: RFC 6455 to the letter, wstunnel.md 5 and 6, stream framing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from random import Random
from typing import NamedTuple

import pytest
from client_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ServerFrame,
    close,
    cut,
    frame,
    server_frames,
    single_bytes,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from violations import VIOLATION_IDS, VIOLATIONS

from forkd.protocol.tunnel import End, TunnelCodec
from forkd.protocol.websocket import WebSocketCodec

CLOSED_1000 = (b"\x88\x02\x03\xe8", b"")


def closing(code: int) -> ServerFrame:
    return ServerFrame(CLOSE, code.to_bytes(2, "big"))


class Outcome(NamedTuple):
    """All that a codec made of what a client sent."""

    to_client: bytes
    to_backend: bytes
    end: End | None
    peer_closed: bool
    messages: tuple[int, int]
    pongs: int


def relay(pieces: Iterable[bytes], codec: WebSocketCodec | None = None) -> Outcome:
    codec = codec or WebSocketCodec()
    to_client, to_backend = bytearray(), bytearray()
    is_over = False
    for piece in pieces:
        # As in the server: a view of a buffer that is soon overwritten.
        shared = bytearray(piece)
        client, backend = codec.from_client(memoryview(shared))
        to_client += client
        to_backend += backend
        shared[:] = b"\xaa" * len(shared)
        if codec.end is not None and codec.end.after_backend:
            codec.end, is_over = None, True
    if is_over:  # and the backend has had nothing more to say
        to_client += codec.backend_eof()[0]
    return Outcome(
        bytes(to_client),
        bytes(to_backend),
        codec.end,
        codec.peer_closed,
        codec.messages,
        codec.pongs,
    )


def three_ways(raw: bytes, tail: bytes = frame(BINARY, b"tail")[:5]) -> Outcome:
    """The outcome of *raw*, which is the same whole, byte by byte, and with more behind it."""
    whole = relay([raw])
    assert relay(single_bytes(raw)) == whole
    assert relay([raw + tail]) == whole
    return whole


def test_is_a_tunnel_codec() -> None:
    codec: TunnelCodec = WebSocketCodec()
    assert (codec.end, codec.peer_closed, codec.messages, codec.pongs) == (None, False, (0, 0), 0)


# -- client to backend -----------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, 4, 5, 16, 124, 125, 126, 127, 128, 1024, 2047, 2048, 4095, 4096, 6144]
)
def test_one_message_of_every_kind_of_length(size: int, opcode: int) -> None:
    """Bit 11 of a 16-bit length among them."""
    payload = bytes(index % 127 for index in range(size))
    outcome = three_ways(frame(opcode, payload))
    assert outcome == Outcome(b"", payload, None, False, (1, 0), 0)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [65535, 65536, 65537, 200_000])
def test_one_long_message(size: int, opcode: int) -> None:
    payload = bytes(index % 127 for index in range(size))
    raw = frame(opcode, payload)
    for places in ([], [1], [9], [13, 14], [20, 4000, 65000], range(0, len(raw), 4099)):
        assert relay(cut(raw, places)).to_backend == payload


ACCEPTED = [
    ("5.6 text that is UTF-8", frame(TEXT, "κόσμε".encode()), "κόσμε".encode(), 1),
    ("5.6 binary that is not", frame(BINARY, b"\xff\xfe\x80"), b"\xff\xfe\x80", 1),
    ("5.3 key of zeros", frame(TEXT, b"bare", key=bytes(4)), b"bare", 1),
    ("5.2 most of 16 bits", frame(BINARY, b"m" * 8191), b"m" * 8191, 1),
    ("two messages", frame(TEXT, b"one") + frame(BINARY, b"two!"), b"onetwo!", 2),
    ("a run of messages", frame(TEXT, b"seven") * 7, b"seven" * 7, 7),
    ("a run that is not ASCII", frame(TEXT, "é".encode()) * 7, "é".encode() * 7, 7),
    ("a run of empty messages", frame(BINARY) * 9, b"", 9),
    (
        "5.4 fragments",
        frame(TEXT, b"frag", fin=False)
        + frame(CONTINUATION, b"men", fin=False)
        + frame(CONTINUATION, b"ted"),
        b"fragmented",
        1,
    ),
    (
        "5.4 empty fragments",
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION, b"x"),
        b"x",
        1,
    ),
    (
        "8.1 character across fragments",
        frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"\xac"),
        "€".encode(),
        1,
    ),
    (
        "8.1 character across three, one empty",
        frame(TEXT, b"\xf0\x9f", fin=False)
        + frame(CONTINUATION, fin=False)
        + frame(CONTINUATION, b"\x98", fin=False)
        + frame(CONTINUATION, b"\x80"),
        "😀".encode(),
        1,
    ),
    ("8.1 noncharacters", frame(TEXT, "\ufffe\uffff\U0010ffff".encode()), None, 1),
    ("8.1 around the surrogates", frame(TEXT, "\ud7ff\ue000".encode()), None, 1),
    ("8.1 NUL", frame(TEXT, b"\0"), b"\0", 1),
    ("message still open", frame(BINARY, b"open", fin=False), b"open", 0),
]


@pytest.mark.parametrize(
    ("raw", "payload", "messages"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_accepted(raw: bytes, payload: bytes | None, messages: int) -> None:
    outcome = relay([raw])
    assert relay(single_bytes(raw)) == outcome
    assert outcome.end is None and outcome.to_client == b""
    assert outcome.messages == (messages, 0)
    assert payload is None or outcome.to_backend == payload


@pytest.mark.parametrize(("raw", "payload"), [row[1:3] for row in ACCEPTED[:-1]])
def test_accepted_with_a_tail(raw: bytes, payload: bytes | None) -> None:
    assert relay([raw + frame(PING)[:3]]) == relay([raw])


def test_payload_is_passed_on_as_it_arrives() -> None:
    """Section 5.4: fragments need not be collected, nor need the bytes of a frame."""
    raw = frame(BINARY, b"abcdef")
    codec = WebSocketCodec()
    passed_on = [bytes(codec.from_client(byte)[1]) for byte in single_bytes(raw)]
    assert passed_on == [b""] * 6 + [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_half_a_character_waits_for_the_rest() -> None:
    codec = WebSocketCodec()
    assert codec.from_client(frame(TEXT, b"1 \xe2\x82", fin=False)) == (b"", b"1 ")
    assert codec.from_client(frame(CONTINUATION, b"\xac")) == (b"", b"\xe2\x82\xac")


# -- violations: each row is the shortest input that is wrong --------------------------------------

GOOD = frame(TEXT, b"good ") + frame(PING, b"!")


@pytest.mark.parametrize(("raw", "code"), [row[1:] for row in VIOLATIONS], ids=VIOLATION_IDS)
def test_violation(raw: bytes, code: int) -> None:
    """The close code goes out, once; what came before is delivered, what follows is not."""
    outcome = three_ways(GOOD + raw, tail=frame(TEXT, b"tail") + close(1000))
    assert server_frames(outcome.to_client)[-1] == closing(code)
    assert [sent.opcode for sent in server_frames(outcome.to_client)].count(CLOSE) == 1
    assert server_frames(outcome.to_client)[0] == ServerFrame(PONG, b"!")
    assert outcome.to_backend.startswith(b"good ") and b"tail" not in outcome.to_backend
    assert outcome.end is not None and outcome.end.code == code
    assert outcome.end.reason.startswith("protocol_error:")
    assert not outcome.end.await_peer and outcome.peer_closed


@pytest.mark.parametrize(
    "raw",
    [raw for name, raw, _ in VIOLATIONS if "across messages" not in name and "run" not in name],
)
def test_violation_is_seen_at_its_first_wrong_byte(raw: bytes) -> None:
    codec = WebSocketCodec()
    assert relay([raw[:-1]], codec).end is None
    assert relay([raw[-1:]], codec).end is not None


def test_valid_text_before_the_invalid_byte_is_delivered() -> None:
    assert three_ways(frame(TEXT, "né".encode() + b"\xe2\x28 more")).to_backend == "né".encode()


# -- limits ----------------------------------------------------------------------------------------

LIMITS = [
    # max_message_size, max_frame_size, raw, delivered, code
    (10, 0, frame(TEXT, b"x" * 10), 10, 0),
    (10, 0, frame(TEXT, b"x" * 11), 0, 1009),
    (10, 0, frame(BINARY, b"x" * 11) * 9, 0, 1009),
    (10, 0, frame(BINARY, b"x" * 10) * 9, 90, 0),
    (200, 0, frame(BINARY, b"x" * 200), 200, 0),
    (200, 0, frame(BINARY, b"x" * 201), 0, 1009),
    (10, 0, frame(BINARY, b"x" * 6, fin=False) + frame(CONTINUATION, b"x" * 4), 10, 0),
    (10, 0, frame(BINARY, b"x" * 6, fin=False) + frame(CONTINUATION, b"x" * 5), 6, 1009),
    (10, 0, frame(BINARY, b"x" * 6) + frame(BINARY, b"x" * 6), 12, 0),
    (0, 5, frame(BINARY, b"x" * 5, fin=False) + frame(CONTINUATION, b"x" * 5), 10, 0),
    (0, 5, frame(BINARY, b"x" * 5, fin=False) + frame(CONTINUATION, b"x" * 6), 5, 1009),
    (0, 5, frame(PING, b"x" * 6), 0, 0),
    (70_000, 0, frame(BINARY, b"x" * 70_000), 70_000, 0),
    (70_000, 0, frame(BINARY, b"x" * 70_001), 0, 1009),
    (70_000, 65_536, frame(BINARY, b"x" * 65_537), 0, 1009),
    (70_000, 0, frame(BINARY, b"x" * 65_000) * 2, 130_000, 0),
]


@pytest.mark.parametrize(("most", "most_in_frame", "raw", "delivered", "code"), LIMITS)
def test_limits(most: int, most_in_frame: int, raw: bytes, delivered: int, code: int) -> None:
    for pieces in ([raw], cut(raw, range(0, len(raw), 997)), cut(raw, range(20))):
        codec = WebSocketCodec(max_message_size=most, max_frame_size=most_in_frame)
        outcome = relay(pieces, codec)
        assert (outcome.end.code if outcome.end else 0) == code
        assert outcome.to_backend == b"x" * delivered


def test_too_big_is_known_from_the_length() -> None:
    codec = WebSocketCodec(max_message_size=1000)
    header = frame(BINARY, b"x" * 1001)[:4]
    assert codec.from_client(header) == (b"", b"")
    assert codec.end == End("protocol_error:frame too big", 1009, after_backend=True)


# -- control frames --------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"ping", b"\xff" * 125])
def test_ping_is_answered_with_its_payload(payload: bytes) -> None:
    """Section 5.5.3: "identical Application data"."""
    outcome = three_ways(frame(PING, payload))
    assert server_frames(outcome.to_client) == [ServerFrame(PONG, payload)]
    assert outcome.to_backend == b"" and outcome.messages == (0, 0)


def test_every_ping_is_answered_in_order() -> None:
    raw = b"".join(frame(PING, b"%d" % number) for number in range(20))
    sent = server_frames(three_ways(raw).to_client)
    assert sent == [ServerFrame(PONG, b"%d" % number) for number in range(20)]


def test_ping_between_fragments() -> None:
    """Section 5.4: "Control frames MAY be injected in the middle of a fragmented message"."""
    raw = frame(TEXT, b"\xe2", fin=False) + frame(PING, b"?") + frame(CONTINUATION, b"\x82\xac")
    outcome = three_ways(raw)
    assert server_frames(outcome.to_client) == [ServerFrame(PONG, b"?")]
    assert outcome.to_backend == "€".encode() and outcome.messages == (1, 0)


def test_pongs_are_counted_and_not_answered() -> None:
    """Section 5.5.3: "A response to an unsolicited Pong frame is not expected"."""
    outcome = three_ways(frame(PONG) + frame(TEXT, b"between") + frame(PONG, b"ping"))
    assert outcome == Outcome(b"", b"between", None, False, (1, 0), 2)


def test_own_ping() -> None:
    codec = WebSocketCodec()
    assert server_frames(codec.ping()) == [ServerFrame(PING, b"ping")]
    assert codec.messages == (0, 0) and codec.end is None


# -- the client closes -----------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [b"", b"bye", "grüße".encode(), b"r" * 123])
@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4999])
def test_close_is_answered_with_its_code(code: int, reason: bytes) -> None:
    """Section 5.5.1."""
    outcome = three_ways(close(code, reason), tail=frame(TEXT, b"late") + b"\xff\xff")
    assert server_frames(outcome.to_client) == [closing(code)]
    assert outcome.end == End(f"client_close:{code}", code)
    assert outcome.peer_closed


def test_close_without_a_code() -> None:
    outcome = three_ways(frame(CLOSE))
    assert server_frames(outcome.to_client) == [ServerFrame(CLOSE, b"")]
    assert outcome.end == End("client_close:1005", 0)


def test_close_comes_behind_what_was_sent_before() -> None:
    raw = frame(TEXT, b"last words") + frame(PING, b"?") + close(1000)
    outcome = three_ways(raw)
    assert server_frames(outcome.to_client) == [ServerFrame(PONG, b"?"), closing(1000)]
    assert outcome.to_backend == b"last words"


def test_close_inside_a_fragmented_message() -> None:
    outcome = three_ways(frame(TEXT, b"half\xe2", fin=False) + close(1000))
    assert server_frames(outcome.to_client) == [closing(1000)]
    assert outcome.to_backend == b"half" and outcome.messages == (0, 0)


def test_everything_after_the_close_is_discarded() -> None:
    """Section 5.5.1, 1.4: "any further data" is of no meaning."""
    codec = ended_by_client()
    for raw in (frame(TEXT, b"late"), frame(PING), b"\xff" * 50, close(1001), frame(BINARY) * 9):
        assert codec.from_client(raw) == (b"", b"")
    assert codec.end == End("client_close:1000", 1000) and codec.messages == (0, 0)


def ended_by_client() -> WebSocketCodec:
    codec = WebSocketCodec()
    relay([close(1000)], codec)
    return codec


def ended_by_error() -> WebSocketCodec:
    codec = WebSocketCodec()
    relay([b"\x83"], codec)
    return codec


def ended_by_backend() -> WebSocketCodec:
    codec = WebSocketCodec()
    codec.from_backend(b"some text \xe2")
    codec.from_backend(b"\x82\xac")
    codec.backend_eof()
    return codec


def ended_by_us() -> WebSocketCodec:
    codec = WebSocketCodec()
    codec.from_backend(b"half \xe2")
    codec.close(1001, "idle")
    return codec


@pytest.mark.parametrize("ended", [ended_by_client, ended_by_error, ended_by_backend, ended_by_us])
def test_nothing_is_sent_after_a_close(ended: type[WebSocketCodec]) -> None:
    """Section 5.5.1: "The application MUST NOT send any more data frames after" it."""
    codec = ended()
    end = codec.end
    assert codec.from_backend(b"late") == (b"", b"")
    assert codec.from_backend(b"\xff") == (b"", b"")
    assert codec.ping() == b""
    assert codec.close(1001, "stop") == b""
    assert codec.backend_eof() == (b"", b"")
    assert codec.from_client(frame(PING, b"?")) == (b"", b"")
    assert codec.client_eof() == (b"", b"")
    assert codec.end == end and end is not None


@pytest.mark.parametrize(("raw", "code"), [(close(3001), 3001), (b"\x83", 1002)])
def test_the_last_answers_of_the_backend_go_before_our_close(raw: bytes, code: int) -> None:
    codec = WebSocketCodec()
    assert codec.from_client(frame(TEXT, b"question") + raw) == (b"", b"question")
    end = codec.end
    assert end is not None and end.after_backend and end.code == code and codec.peer_closed
    codec.end = None
    assert codec.from_client(frame(TEXT, b"late") + frame(PING)) == (b"", b"")
    assert codec.ping() == b"" and codec.client_eof() == (b"", b"")
    assert server_frames(codec.from_backend(b"answer")[0]) == [ServerFrame(TEXT, b"answer")]
    assert codec.end is None
    assert server_frames(codec.close(1001, "stop")) == [closing(code)]
    assert codec.end == End(end.reason, code)


# -- we close --------------------------------------------------------------------------------------


def test_backend_eof() -> None:
    codec = WebSocketCodec()
    assert codec.backend_eof() == CLOSED_1000
    assert codec.end == End("backend_eof", 1000, await_peer=True)
    assert not codec.peer_closed


@pytest.mark.parametrize("code", [1001, 1011, 1012])
def test_close(code: int) -> None:
    codec = WebSocketCodec()
    assert server_frames(codec.close(code, "the reason")) == [closing(code)]
    assert codec.end == End("the reason", code)


@pytest.mark.parametrize(
    "before", [b"", frame(TEXT, b"half \xe2", fin=False), frame(TEXT, b"cut")[:8], b"\x81"]
)
@pytest.mark.parametrize("pieces", [[], [1, 2, 3], range(100)])
def test_data_is_discarded_until_the_peer_closes(before: bytes, pieces: Iterable[int]) -> None:
    """Section 7.1.1, 5.5.1; text is no longer judged."""
    rest = frame(TEXT, b"cut")[8:] if before[1:] and before[0] == 0x81 else b""
    if before == b"\x81":
        rest = frame(TEXT, b"cut")[1:]
    if before[:1] == b"\x01":
        rest = frame(CONTINUATION, b"\xff\xff")
    rest += frame(BINARY, b"late" * 100) + frame(PING, b"?") + frame(TEXT, b"\xff") * 6
    codec = WebSocketCodec()
    codec.from_client(before)
    codec.backend_eof()
    received = codec.messages
    for piece in cut(rest, pieces):
        assert codec.from_client(piece) == (b"", b"")
        assert not codec.peer_closed
    assert codec.from_client(close(1000) + b"garbage") == (b"", b"")
    assert codec.peer_closed
    assert codec.end == End("backend_eof", 1000, await_peer=True)
    assert codec.messages == received


def test_a_peer_that_breaks_the_protocol_is_not_awaited() -> None:
    codec = WebSocketCodec()
    codec.backend_eof()
    assert codec.from_client(b"\x83") == (b"", b"")
    assert codec.peer_closed and codec.end == End("backend_eof", 1000, await_peer=True)


def test_client_eof() -> None:
    """Section 7.1.5: no Close was received; there is nobody to send one to."""
    codec = WebSocketCodec()
    codec.from_client(frame(TEXT, b"half", fin=False))
    assert codec.client_eof() == (b"", b"")
    assert codec.end == End("client_eof") and codec.peer_closed


def test_client_eof_instead_of_its_close() -> None:
    codec = WebSocketCodec()
    codec.backend_eof()
    assert codec.client_eof() == (b"", b"")
    assert codec.end == End("backend_eof", 1000, await_peer=True) and codec.peer_closed


# -- backend to client -----------------------------------------------------------------------------


@pytest.mark.parametrize(("binary", "opcode"), [(False, TEXT), (True, BINARY)])
@pytest.mark.parametrize("size", [1, 2, 125, 126, 127, 2048, 65535, 65536, 262144])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_one_chunk_is_one_frame(
    kind: type[memoryview], size: int, binary: bool, opcode: int
) -> None:
    """Section 5.1: never masked; 5.2: the fewest bytes of length."""
    codec = WebSocketCodec(binary=binary)
    payload = b"x" * size
    to_client, to_backend = codec.from_backend(kind(payload))
    assert server_frames(bytes(to_client)) == [ServerFrame(opcode, payload)]
    assert to_backend == b""
    assert codec.messages == (0, 1) and codec.end is None


def test_a_frame_keeps_nothing_of_the_shared_buffer() -> None:
    for size in (20, 2000):
        shared = bytearray(b"x" * size)
        to_client = WebSocketCodec().from_backend(memoryview(shared))[0]
        shared[:] = b"?" * size
        assert b"?" not in bytes(to_client)


def test_empty_chunk_is_no_frame() -> None:
    for binary in (False, True):
        codec = WebSocketCodec(binary=binary)
        assert codec.from_backend(b"") == (b"", b"")
        assert codec.messages == (0, 0)


def test_binary_is_not_judged() -> None:
    codec = WebSocketCodec(binary=True)
    assert codec.from_backend(b"\xff\xe2")[0] == b"\x82\x02\xff\xe2"
    assert codec.backend_eof() == CLOSED_1000


CUTS = [
    # chunks, frames, whether an incomplete character is left
    ([b"a", b"b"], [b"a", b"b"], False),
    ([b"\xe2\x82\xac"], [b"\xe2\x82\xac"], False),
    ([b"\xe2", b"\x82", b"\xac"], [b"\xe2\x82\xac"], False),
    ([b"a\xe2\x82", b"\xacb"], [b"a", b"\xe2\x82\xacb"], False),
    ([b"\xf0\x9f\x98", b"\x80\xf0", b"\x9f\x98\x80"], [b"\xf0\x9f\x98\x80"] * 2, False),
    ([b"a" * 200 + b"\xc3", b"\xa9"], [b"a" * 200, b"\xc3\xa9"], False),
    ([b"a\xc3"], [b"a"], True),
    ([b"\xf4\x8f\xbf"], [], True),
]


@pytest.mark.parametrize(("chunks", "frames", "left"), CUTS)
def test_text_is_cut_between_characters(
    chunks: list[bytes], frames: list[bytes], left: bool
) -> None:
    codec = WebSocketCodec()
    sent = b"".join(bytes(codec.from_backend(memoryview(chunk))[0]) for chunk in chunks)
    assert server_frames(sent) == [ServerFrame(TEXT, payload) for payload in frames]
    assert codec.messages == (0, len(frames)) and codec.end is None
    last = server_frames(codec.backend_eof()[0])
    assert last == [closing(1011 if left else 1000)]
    assert codec.end is not None
    assert codec.end.reason == ("backend_invalid_utf8" if left else "backend_eof")


@pytest.mark.parametrize(
    ("chunks", "delivered"),
    [
        ([b"\xff"], b""),
        ([b"good\xffbad"], b"good"),
        ([b"good\xe2", b"bad"], b"good"),
        ([b"\xed", b"\xa0"], b""),
        ([b"x" * 1000 + b"\xc0"], b"x" * 1000),
    ],
)
def test_invalid_text_from_the_backend(chunks: list[bytes], delivered: bytes) -> None:
    codec = WebSocketCodec()
    sent = server_frames(b"".join(bytes(codec.from_backend(chunk)[0]) for chunk in chunks))
    assert sent[-1] == closing(1011)
    assert b"".join(text.payload for text in sent[:-1]) == delivered
    assert codec.end == End("backend_invalid_utf8", 1011)


# -- what an idle tunnel costs ---------------------------------------------------------------------


def test_an_idle_codec_is_small() -> None:
    """With traffic behind it, some of it in pieces: nothing of that is kept."""
    count = 500
    raw = frame(TEXT, b"message") * 3 + frame(PING) + frame(BINARY, b"b" * 3000)
    codecs = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            codec = WebSocketCodec()
            relay(cut(raw, [10, 100]), codec)
            codec.from_backend(b"answer")
            codecs.append(codec)
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert codecs[0].messages == (4, 1)
    assert each < 400


# -- properties ------------------------------------------------------------------------------------

controls = st.one_of(
    st.builds(lambda payload: (PING, payload), st.binary(max_size=125)),
    st.builds(lambda payload: (PONG, payload), st.binary(max_size=125)),
)
payloads = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=60).map(str.encode)),
    st.tuples(st.just(BINARY), st.binary(max_size=60)),
    st.tuples(st.just(BINARY), st.integers(120, 1200).map(lambda size: b"\x5a" * size)),
)
keys = st.binary(min_size=4, max_size=4)


class Stream(NamedTuple):
    """What a client sends, and what it comes to."""

    raw: bytes
    data: bytes
    messages: int
    pings: list[bytes]
    pongs: int


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    raw, data, pings, pongs = bytearray(), bytearray(), [], 0
    messages = draw(st.lists(payloads, max_size=8))
    for opcode, payload in messages:
        pieces = cut(payload, draw(st.lists(st.integers(0, 60), max_size=3)))
        for number, piece in enumerate(pieces):
            for kind, content in draw(st.lists(controls, max_size=1)):
                raw += frame(kind, content, key=draw(keys))
                if kind == PING:
                    pings.append(content)
                else:
                    pongs += 1
            last = number == len(pieces) - 1
            raw += frame(CONTINUATION if number else opcode, piece, fin=last, key=draw(keys))
        data += payload
    return Stream(bytes(raw), bytes(data), len(messages), pings, pongs)


places = st.lists(st.integers(0, 4000), max_size=12)


@given(streams(), places)
def test_any_stream_cut_anywhere(stream: Stream, where: list[int]) -> None:
    outcome = relay(cut(stream.raw, where))
    assert outcome.to_backend == stream.data
    assert server_frames(outcome.to_client) == [ServerFrame(PONG, ping) for ping in stream.pings]
    assert outcome.messages == (stream.messages, 0)
    assert outcome.pongs == stream.pongs and outcome.end is None


@given(st.lists(st.sampled_from([0, 1, 5, 16, 125]), max_size=40), st.randoms(), places)
def test_runs_cut_anywhere(sizes: list[int], source: Random, where: list[int]) -> None:
    """Small messages, many of a size: taken in runs, or one by one, or in pieces."""
    sizes = [size for size in sizes for _ in range(source.choice([1, 3, 9]))]
    raw = b"".join(frame(TEXT, b"%c" % (65 + size % 26) * size) for size in sizes)
    outcome = relay(cut(raw, where))
    assert outcome == relay(single_bytes(raw))
    assert outcome.to_backend == b"".join(b"%c" % (65 + size % 26) * size for size in sizes)
    assert outcome.messages == (len(sizes), 0)


@given(streams(), st.integers(0, 5000), st.integers(1, 255), places)
@settings(max_examples=200)
def test_a_damaged_stream_ends_the_same_however_it_is_cut(
    stream: Stream, position: int, flip: int, where: list[int]
) -> None:
    raw = bytearray(stream.raw + close(1000))
    raw[position % len(raw)] ^= flip
    whole = relay([bytes(raw)])
    assert relay(cut(bytes(raw), where)) == whole
    assert relay(single_bytes(bytes(raw))) == whole


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_random_bytes_never_raise(pieces: list[bytes]) -> None:
    outcome = relay(pieces)
    sent = server_frames(outcome.to_client)
    assert [reply.opcode for reply in sent].count(CLOSE) == (outcome.end is not None)


@given(st.text(max_size=200), places)
def test_any_text_from_the_backend(text: str, where: list[int]) -> None:
    codec = WebSocketCodec()
    sent = server_frames(
        b"".join(bytes(codec.from_backend(chunk)[0]) for chunk in cut(text.encode(), where))
    )
    assert "".join(each.payload.decode() for each in sent) == text
    assert codec.backend_eof() == CLOSED_1000


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_any_bytes_from_the_backend(chunks: list[bytes]) -> None:
    """What goes out as text is text; what cannot is a Close 1011."""
    codec = WebSocketCodec()
    sent = b"".join(bytes(codec.from_backend(chunk)[0]) for chunk in chunks)
    sent += bytes(codec.backend_eof()[0])
    *texts, last = server_frames(sent)
    delivered = "".join(text.payload.decode() for text in texts)
    try:
        assert b"".join(chunks).decode() == delivered
        assert last == closing(1000)
    except UnicodeDecodeError as error:
        assert b"".join(chunks)[: error.start].decode() == delivered
        assert last == closing(1011)
