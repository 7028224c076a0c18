"""forkd/protocol/frame.py: headers, Close, events (RFC 6455 sections 5 and 7.4)."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from client_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    ServerFrame,
    cut,
    frame,
    server_frames,
    single_bytes,
)

from forkd.protocol.frame import (
    CloseCode,
    Event,
    FrameDecoder,
    FrameError,
    Opcode,
    decode_close,
    each_message,
    encode_close,
    encode_control,
    encode_header,
    is_sendable,
)

SENDABLE = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
NOT_SENDABLE = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


def feed(decoder: FrameDecoder, pieces: Iterable[bytes]) -> list[tuple[int, bytes, int]]:
    """The events of *pieces*; data of one opcode that belongs together joined."""
    joined: list[tuple[int, bytes, int]] = []
    for opcode, payload, ends in (event for piece in pieces for event in decoder.feed(piece)):
        if joined and joined[-1][0] == opcode < CLOSE and not joined[-1][2]:
            payload = joined.pop()[1] + bytes(payload)
        joined.append((opcode, bytes(payload), ends))
    return joined


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8200"),
        (1, "8201"),
        (125, "827d"),
        (126, "827e007e"),
        (256, "827e0100"),  # section 5.7
        (65535, "827effff"),
        (65536, "827f0000000000010000"),  # section 5.7
        (1 << 40, "827f0000010000000000"),
    ],
)
def test_header(size: int, header: str) -> None:
    assert encode_header(0x82, size).hex() == header


def test_unmasked_examples() -> None:
    """Section 5.7: what a server sends."""
    assert encode_header(0x81, 5) + b"Hello" == bytes.fromhex("810548656c6c6f")
    assert encode_control(Opcode.PING, b"Hello") == bytes.fromhex("890548656c6c6f")


def test_close_frames() -> None:
    assert server_frames(encode_close(0)) == [ServerFrame(CLOSE, b"")]
    assert server_frames(encode_close(1001)) == [ServerFrame(CLOSE, b"\x03\xe9")]


@pytest.mark.parametrize("code", SENDABLE)
def test_codes_that_may_be_sent(code: int) -> None:
    assert is_sendable(code)
    assert decode_close(code.to_bytes(2, "big") + "grüße".encode()) == code


@pytest.mark.parametrize("code", NOT_SENDABLE)
def test_codes_that_may_not(code: int) -> None:
    assert not is_sendable(code)
    with pytest.raises(FrameError) as error:
        decode_close(code.to_bytes(2, "big"))
    assert error.value.code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", CloseCode.PROTOCOL_ERROR),
        (b"\x03\xe8\xff", CloseCode.INVALID_DATA),
        (b"\x03\xe8ok\xe2\x82", CloseCode.INVALID_DATA),
        (b"\x03\xec\xff", CloseCode.PROTOCOL_ERROR),  # code before reason
    ],
)
def test_invalid_close(payload: bytes, code: CloseCode) -> None:
    with pytest.raises(FrameError) as error:
        decode_close(payload)
    assert error.value.code == code


def test_close_without_code() -> None:
    assert decode_close(b"") == 0


EXAMPLES: list[tuple[str, bytes, list[Event]]] = [
    ("5.7 masked text", bytes.fromhex("818537fa213d7f9f4d5158"), [(TEXT, b"Hello", 1)]),
    ("5.7 pong", bytes.fromhex("8a8537fa213d7f9f4d5158"), [(Opcode.PONG, b"Hello", 0)]),
    (
        "5.7 fragments",
        frame(TEXT, b"Hel", fin=False) + frame(CONTINUATION, b"lo"),
        [(TEXT, b"Hel", 0), (TEXT, b"lo", 1)],
    ),
    (
        "5.4 control between fragments",
        frame(BINARY, b"a", fin=False) + frame(PING, b"?") + frame(CONTINUATION, b"b"),
        [(BINARY, b"a", 0), (PING, b"?", 0), (BINARY, b"b", 1)],
    ),
    ("empty message", frame(TEXT), [(TEXT, b"", 1)]),
    (
        "empty fragments",
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION),
        [(TEXT, b"", 0), (TEXT, b"", 0), (TEXT, b"", 1)],
    ),
    ("5.7 256 bytes", frame(BINARY, b"\x01" * 256), [(BINARY, b"\x01" * 256, 1)]),
    ("5.7 64 KiB", frame(BINARY, b"\x02" * 65536), [(BINARY, b"\x02" * 65536, 1)]),
    ("key of zeros", frame(TEXT, b"bare", key=bytes(4)), [(TEXT, b"bare", 1)]),
]

each_example = pytest.mark.parametrize(
    ("raw", "events"), [row[1:] for row in EXAMPLES], ids=[row[0] for row in EXAMPLES]
)


@each_example
def test_examples_whole_and_with_a_tail(raw: bytes, events: list[Event]) -> None:
    decoder = FrameDecoder()
    assert list(decoder.feed(raw)) == events
    assert decoder.is_idle
    assert list(decoder.feed(raw + frame(PING, b"tail")[:7])) == events
    assert not decoder.is_idle


@each_example
def test_examples_byte_by_byte(raw: bytes, events: list[Event]) -> None:
    whole = feed(FrameDecoder(), [raw])
    decoder = FrameDecoder()
    assert feed(decoder, single_bytes(raw)) == whole
    assert decoder.is_idle


def test_a_long_payload_is_not_collected() -> None:
    """A frame of 2^62 bytes: every byte comes out at once, unmasked in the right phase."""
    header = b"\x82\xff" + (1 << 62).to_bytes(8, "big") + b"\x01\x02\x03\x04"
    decoder = FrameDecoder()
    assert list(decoder.feed(header)) == []
    assert list(decoder.feed(bytes(3))) == [(BINARY, b"\x01\x02\x03", 0)]
    assert list(decoder.feed(bytes(2))) == [(BINARY, b"\x04\x01", 0)]
    assert list(decoder.feed(bytes(1))) == [(BINARY, b"\x02", 0)]
    assert not decoder.is_idle


class TestRuns:
    """Many small messages of one size come as one piece."""

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 127, 128, 129, 300])
    @pytest.mark.parametrize("size", [0, 1, 16, 125])
    def test_nothing_is_lost(self, size: int, count: int, opcode: int) -> None:
        source = random.Random(count)
        payloads = [bytes(source.choices(range(128), k=size)) for _ in range(count)]
        raw = b"".join(frame(opcode, payload, key=source.randbytes(4)) for payload in payloads)
        events = list(FrameDecoder().feed(raw))
        assert b"".join(payload for _, payload, _ in events) == b"".join(payloads)
        assert {event[0] for event in events} == {opcode}
        assert sum(ends for _, _, ends in events) == count
        assert len(events) <= max(4, count // 100)

    def test_a_run_ends_where_the_size_or_the_type_changes(self) -> None:
        raw = frame(TEXT, b"ab") * 6 + frame(TEXT, b"abc") * 5 + frame(BINARY, b"cba") * 4
        events = list(FrameDecoder().feed(raw + frame(BINARY, b"end")[:-1]))
        assert events[:3] == [(TEXT, b"ab" * 6, 6), (TEXT, b"abc" * 5, 5), (BINARY, b"cba" * 4, 4)]
        assert events[3] == (BINARY, b"en", 0)

    def test_what_interrupts_a_run_is_seen(self) -> None:
        raw = frame(TEXT, b"abcd") * 5 + frame(PING, b"ping") + frame(TEXT, b"abcd") * 5
        assert [event[0] for event in FrameDecoder().feed(raw)] == [TEXT, PING, TEXT]

    def test_a_run_inside_a_fragmented_message_is_an_error(self) -> None:
        decoder = FrameDecoder()
        list(decoder.feed(frame(TEXT, b"open", fin=False)))
        with pytest.raises(FrameError):
            list(decoder.feed(frame(TEXT, b"abcd") * 8))

    def test_a_run_over_the_limit(self) -> None:
        with pytest.raises(FrameError) as error:
            list(FrameDecoder(max_message_size=3).feed(frame(TEXT, b"abcd") * 8))
        assert error.value.code == CloseCode.TOO_BIG


def test_events_before_an_error_are_given() -> None:
    events = []
    with pytest.raises(FrameError):
        for event in FrameDecoder().feed(frame(TEXT, b"good") + b"\x83\x80"):
            events.append(event)
    assert events == [(TEXT, b"good", 1)]


def test_any_cut_gives_the_same() -> None:
    source = random.Random(7)
    raw = b"".join(
        frame(source.choice([TEXT, BINARY]), source.randbytes(source.choice([0, 3, 126, 70000])))
        for _ in range(12)
    )
    whole = feed(FrameDecoder(), [raw])
    for _ in range(20):
        places = [source.randrange(len(raw)) for _ in range(6)]
        assert feed(FrameDecoder(), cut(raw, places)) == whole


def test_the_messages_of_an_event() -> None:
    assert list(each_message(b"aabbcc", 3)) == [b"aa", b"bb", b"cc"]
    assert list(each_message(b"", 2)) == [b"", b""]
    assert list(each_message(b"piece", 0)) == list(each_message(b"piece", 1)) == [b"piece"]
