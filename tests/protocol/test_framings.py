"""forkd/protocol/framings.py: each framing's bytes, both ways, whole, byte by byte and damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from client_frames import BINARY, TEXT, cut, single_bytes
from hypothesis import given
from hypothesis import strategies as st

from forkd.protocol.frame import CloseCode, FrameError
from forkd.protocol.framings import (
    Decoder,
    Encoder,
    FramingError,
    LineDecoder,
    LineEncoder,
    NetstringDecoder,
    NetstringEncoder,
    PacketDecoder,
    PacketEncoder,
    StreamDecoder,
    StreamEncoder,
    TypedDecoder,
    TypedEncoder,
)
from forkd.protocol.tunnel import Packets

Message = tuple[int, bytes]

DECODERS: dict[str, Callable[[int], Decoder]] = {
    "line": lambda most: LineDecoder(TEXT, most),
    "netstring": lambda most: NetstringDecoder(TEXT, most),
    "typed": lambda most: TypedDecoder(most),
}


def decoded(decoder: Decoder, pieces: Iterable[bytes], at_eof: bool = True) -> list[Message]:
    """Whole messages, by the short cut where it is one.  Raises FramingError."""
    found: list[Message] = []
    parts = bytearray()

    def take(pieces: Iterable[tuple[int, bytes, int]]) -> None:
        for opcode, piece, ends in pieces:
            parts.extend(piece)
            if ends:
                found.append((opcode, bytes(parts)))
                parts.clear()

    for piece in pieces:
        shared = bytearray(piece)
        view = memoryview(shared)
        alone = decoder.lone(view)
        take(decoder.feed(view) if alone is None else [(*alone, 1)])
        shared[:] = b"?" * len(shared)
    if at_eof:
        take(decoder.eof())
        assert not parts
    return found


# -- what is right ------------------------------------------------------------------------------

GOOD = [
    ("line", b"one\n", [b"one"]),
    ("line", b"one\ntwo\n\nfour\n", [b"one", b"two", b"", b"four"]),
    ("line", b"dos\r\nunix\n\r\n", [b"dos", b"unix", b""]),
    ("line", b"a\rb\r\r\n", [b"a\rb\r"]),
    ("line", b"the end", [b"the end"]),
    ("line", b"the end\r", [b"the end"]),
    ("line", b"x" * 1000 + b"\n", [b"x" * 1000]),
    ("line", b"", []),
    ("netstring", b"5:hello,", [b"hello"]),
    ("netstring", b"0:,", [b""]),
    ("netstring", b"3:a,b,0:,4:\n:,1,", [b"a,b", b"", b"\n:,1"]),
    ("netstring", b"12:" + b"x" * 12 + b",", [b"x" * 12]),
    ("netstring", b"", []),
    ("typed", b"\1\0\0\0\5hello", [b"hello"]),
    ("typed", b"\1\0\0\0\0", [b""]),
    ("typed", b"\1\0\0\0\1a\1\0\0\0\0\1\0\0\1\0" + b"x" * 256, [b"a", b"", b"x" * 256]),
    ("typed", b"", []),
]


@pytest.mark.parametrize(("framing", "raw", "payloads"), GOOD)
def test_what_a_backend_may_send(framing: str, raw: bytes, payloads: list[bytes]) -> None:
    expected = [(TEXT, payload) for payload in payloads]
    for pieces in ([raw], single_bytes(raw), [b"", raw, b""], cut(raw, [1, 4, 7])):
        assert decoded(DECODERS[framing](0), pieces) == expected
        assert decoded(DECODERS[framing](1000), pieces) == expected


def test_types_of_typed() -> None:
    raw = b"\2\0\0\0\1\xff\1\0\0\0\1a\2\0\0\0\0"
    expected = [(BINARY, b"\xff"), (TEXT, b"a"), (BINARY, b"")]
    assert decoded(TypedDecoder(0), [raw]) == expected
    assert decoded(TypedDecoder(0), single_bytes(raw)) == expected


def test_stream_is_cut_between_characters() -> None:
    text = "aé€😀".encode()
    assert decoded(StreamDecoder(TEXT), [text[:2], text[2:5], text[5:]]) == [
        (TEXT, b"a"),
        (TEXT, "é".encode()),
        (TEXT, "€😀".encode()),
    ]
    assert decoded(StreamDecoder(BINARY), [b"\xff", b"", b"\xe2"]) == [
        (BINARY, b"\xff"),
        (BINARY, b"\xe2"),
    ]


def test_a_packet_is_a_message() -> None:
    packets = [b"one", b"", b"three" * 100]
    assert decoded(PacketDecoder(BINARY), packets) == [(BINARY, packet) for packet in packets]


def test_what_comes_is_passed_on_before_the_message_is_whole() -> None:
    for framing, raw in (
        ("line", b"half a"),
        ("netstring", b"10:half a"),
        ("typed", b"\1\0\0\0\xffhalf a"),
    ):
        assert list(DECODERS[framing](0).feed(raw)) == [(TEXT, b"half a", 0)]


def test_the_short_cut_is_for_one_whole_message() -> None:
    for framing, good in (
        ("line", b"hello\n"),
        ("line", b"hello\r\n"),
        ("netstring", b"5:hello,"),
        ("typed", b"\1\0\0\0\5hello"),
    ):
        assert DECODERS[framing](7).lone(memoryview(good)) == (TEXT, b"hello")
        for other in (good[:-1], good + b"\n", good * 2, b"", good[1:]):
            alone = DECODERS[framing](0).lone(other)
            assert alone is None or framing == "line"
        inside = DECODERS[framing](0)
        list(inside.feed(good[:3]))
        assert inside.lone(good) is None
    assert PacketDecoder(TEXT).lone(b"") == (TEXT, b"")


# -- what is wrong ------------------------------------------------------------------------------

BAD = [
    # framing, limit, raw: the shortest that is wrong, what is whole before it
    ("line", 5, b"12345\n123456", [b"12345"]),
    ("line", 5, b"1234\n\n12345\n1234567\n", [b"1234", b"", b"12345"]),
    ("netstring", 0, b"a", []),
    ("netstring", 0, b":", []),
    ("netstring", 0, b"-", []),
    ("netstring", 0, b" ", []),
    ("netstring", 0, b"5 ", []),
    ("netstring", 0, b"00:", []),
    ("netstring", 0, b"05:", []),
    ("netstring", 0, b"1:a;", []),
    ("netstring", 0, b"1:ab", []),
    ("netstring", 0, b"0:a", []),
    ("netstring", 0, b"2:ok,\n", [b"ok"]),
    ("netstring", 0, b"1" * 21, []),
    ("netstring", 0, b"9" * 19 + b":", []),  # over 2^63
    ("netstring", 5, b"5:12345,6:", [b"12345"]),
    ("typed", 0, b"\0", []),
    ("typed", 0, b"\3", []),
    ("typed", 0, b"\x08", []),
    ("typed", 0, b"\x81", []),
    ("typed", 0, b"\1\0\0\0\2ok\0", [b"ok"]),
    ("typed", 5, b"\1\0\0\0\5hello\1\0\0\0\6", [b"hello"]),
    ("typed", 5, b"\1\xff\xff\xff\xff", []),
]


@pytest.mark.parametrize(("framing", "most", "raw", "before"), BAD)
def test_what_a_backend_must_not_send(
    framing: str, most: int, raw: bytes, before: list[bytes]
) -> None:
    for pieces in ([raw], [raw + b"tail"], single_bytes(raw)):
        decoder = DECODERS[framing](most)
        found: list[bytes] = []
        parts = b""
        with pytest.raises(FramingError):
            for piece in pieces:
                assert decoder.lone(raw) is None
                for _, payload, ends in decoder.feed(piece):
                    parts += payload
                    if ends:
                        found, parts = [*found, parts], b""
        assert found == before


UNFINISHED = [
    ("netstring", b"5"),
    ("netstring", b"5:"),
    ("netstring", b"5:hello"),
    ("netstring", b"0:"),
    ("typed", b"\1"),
    ("typed", b"\1\0\0\0"),
    ("typed", b"\1\0\0\0\5hell"),
]


@pytest.mark.parametrize(("framing", "raw"), UNFINISHED)
def test_an_end_inside_a_message(framing: str, raw: bytes) -> None:
    for pieces in ([raw], single_bytes(raw)):
        with pytest.raises(FramingError, match="inside"):
            decoded(DECODERS[framing](0), pieces)


@pytest.mark.parametrize("chunks", [[b"\xff"], [b"ok\xe2", b"bad"], [b"\xed", b"\xa0"]])
def test_a_stream_of_text_that_is_none(chunks: list[bytes]) -> None:
    with pytest.raises(FramingError, match="UTF-8"):
        decoded(StreamDecoder(TEXT), chunks)


def test_a_stream_of_text_that_ends_inside_a_character() -> None:
    with pytest.raises(FramingError, match="UTF-8"):
        decoded(StreamDecoder(TEXT), [b"ok\xe2"])


# -- to the backend -----------------------------------------------------------------------------

ENCODED = [
    (StreamEncoder(), b"hello", b"hello"),
    (StreamEncoder(), b"", b""),
    (LineEncoder(False), b"hello", b"hello\n"),
    (LineEncoder(False), b"", b"\n"),
    (LineEncoder(True), b"two\nlines\n", b"two lines \n"),
    (NetstringEncoder(), b"hello", b"5:hello,"),
    (NetstringEncoder(), b"", b"0:,"),
    (TypedEncoder(), b"hello", b"\1\0\0\0\5hello"),
    (TypedEncoder(), b"", b"\1\0\0\0\0"),
]


@pytest.mark.parametrize(("encoder", "payload", "raw"), ENCODED)
def test_what_a_backend_gets(encoder: Encoder, payload: bytes, raw: bytes) -> None:
    for kind in (bytes, bytearray, memoryview):
        assert encoder.whole(TEXT, kind(payload)) == raw
    half, size = len(payload) // 2, len(payload)
    parts = [
        encoder.part(TEXT, payload[:half], True, False, size),
        encoder.part(TEXT, payload[half:], False, True, size),
    ]
    assert encoder.join(parts) == raw
    assert encoder.join([]) == b""


def test_packets_to_a_backend() -> None:
    encoder = PacketEncoder()
    packets = encoder.join([encoder.whole(TEXT, b"one"), encoder.whole(BINARY, b"")])
    assert isinstance(packets, Packets) and packets == (b"one", b"")
    assert not encoder.join([])


def test_a_line_feed_in_a_line_is_refused() -> None:
    with pytest.raises(FrameError) as caught:
        LineEncoder(False).whole(TEXT, b"two\nlines")
    assert caught.value.code == CloseCode.INVALID_DATA


# -- properties ---------------------------------------------------------------------------------

messages = st.lists(
    st.one_of(st.binary(max_size=40), st.integers(200, 900).map(lambda size: b"z" * size)),
    max_size=8,
)
places = st.lists(st.integers(0, 2000), max_size=12)


@given(st.sampled_from(sorted(DECODERS)), messages, places)
def test_what_goes_out_comes_back(framing: str, payloads: list[bytes], where: list[int]) -> None:
    encoder: Encoder = {
        "line": LineEncoder(True),
        "netstring": NetstringEncoder(),
        "typed": TypedEncoder(),
    }[framing]
    if framing == "line":  # which keeps neither LF nor a CR at the end
        payloads = [payload.replace(b"\n", b" ").rstrip(b"\r") for payload in payloads]
    raw = b"".join(encoder.whole(TEXT, payload) for payload in payloads)
    expected = [(TEXT, payload) for payload in payloads]
    assert decoded(DECODERS[framing](0), cut(raw, where)) == expected
    assert decoded(DECODERS[framing](0), single_bytes(raw)) == expected


@given(st.sampled_from(sorted(DECODERS)), st.lists(st.binary(max_size=30), max_size=6), places)
def test_random_bytes_are_messages_or_an_error(
    framing: str, pieces: list[bytes], where: list[int]
) -> None:
    def outcome(pieces: Iterable[bytes]) -> object:
        try:
            return decoded(DECODERS[framing](100), pieces)
        except FramingError as error:
            return str(error)

    assert outcome(pieces) == outcome(cut(b"".join(pieces), where))
