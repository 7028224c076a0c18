"""forkd/protocol/messages.py through codecs.py: every framing, with and without compression."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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
    single_bytes,
)
from codec_driver import Compressor, Driver, assembled
from hypothesis import given, settings
from hypothesis import strategies as st
from violations import (
    DEFLATE_VIOLATION_IDS,
    DEFLATE_VIOLATIONS,
    RSV1,
    VIOLATION_IDS,
    VIOLATIONS,
)

from forkd.protocol.codecs import CodecSettings, make_codec
from forkd.protocol.deflate import DeflateParams
from forkd.protocol.inflation import HELD
from forkd.protocol.messages import TURN, MessageCodec
from forkd.protocol.tunnel import MORE, End, Packets, TunnelCodec
from forkd.protocol.websocket import WebSocketCodec

DEFLATE = DeflateParams(min_size=0)
FRAMINGS = ("line", "netstring", "typed", "seqpacket")
CODECS = [CodecSettings(framing) for framing in FRAMINGS] + [
    CodecSettings(framing, deflate=DEFLATE) for framing in ("stream", *FRAMINGS)
]
IDS = [f"{each.framing}{'-deflate' if each.deflate else ''}" for each in CODECS]
TYPED = CodecSettings("typed")
every_codec = pytest.mark.parametrize("of", CODECS, ids=IDS)

HOLD = 64 * 1024


def codec(of: CodecSettings = TYPED, **changes: Any) -> TunnelCodec:
    return make_codec(replace(of, **changes))


def driver(of: CodecSettings = TYPED, **changes: Any) -> Driver:
    return Driver(codec(of, **changes))


def framed(framing: str, opcode: int, payload: bytes) -> bytes:
    """A message as the backend sees it."""
    return {
        "stream": payload,
        "line": payload + b"\n",
        "netstring": b"%d:%b," % (len(payload), payload),
        "typed": bytes([opcode]) + len(payload).to_bytes(4, "big") + payload,
        "seqpacket": payload,
    }[framing]


def fragments(opcode: int, pieces: Sequence[bytes], rsv: int = 0) -> bytes:
    last = len(pieces) - 1
    return b"".join(
        frame(
            CONTINUATION if index else opcode,
            piece,
            fin=index == last,
            rsv=0 if index else rsv,
        )
        for index, piece in enumerate(pieces)
    )


def test_which_codec_serves_which_framing() -> None:
    assert isinstance(make_codec(CodecSettings()), WebSocketCodec)
    assert isinstance(make_codec(CodecSettings(deflate=DEFLATE)), MessageCodec)
    fresh: TunnelCodec = make_codec(TYPED)
    assert isinstance(fresh, MessageCodec)
    assert (fresh.end, fresh.peer_closed, fresh.messages, fresh.pongs) == (None, False, (0, 0), 0)


# -- client to backend --------------------------------------------------------------------------

PAYLOADS = [
    (TEXT, b""),
    (BINARY, b""),
    (TEXT, b"hello"),
    (BINARY, b"\xff\xfe"),
    (TEXT, "grüße € 😀".encode()),
    (BINARY, b"b" * 125),
    (TEXT, b"t" * 126),
    (TEXT, b"t" * 4096),
    (BINARY, b"b" * 65535),
    (TEXT, "é".encode() * 40_000),
    (BINARY, b"b" * 300_000),
]


@every_codec
@pytest.mark.parametrize("is_compressed", [False, True])
def test_messages_to_the_backend(of: CodecSettings, is_compressed: bool) -> None:
    is_compressed = is_compressed and of.deflate is not None
    for opcode, payload in PAYLOADS:
        expected = framed(of.framing, opcode, payload)
        wire, rsv = (Compressor()(payload), RSV1) if is_compressed else (payload, 0)
        third = max(1, len(wire) // 3)
        for raw in (
            frame(opcode, wire, rsv=rsv),
            fragments(opcode, [wire[:third], wire[third:]], rsv),
            fragments(opcode, [b"", wire[:1], b"", wire[1:third], wire[third:], b""], rsv),
        ):
            ways = [[raw], cut(raw, range(0, len(raw), 4099)), cut(raw, [1, 7, 9, 70_000])]
            if len(raw) < 1000:
                ways.append(single_bytes(raw))
            for pieces in ways:
                found = driver(of).client(*pieces)
                assert found.data == expected
                assert found.codec.messages == (1, 0) and found.codec.end is None
                assert found.to_client == b""


@every_codec
def test_messages_from_the_backend(of: CodecSettings) -> None:
    for opcode, payload in PAYLOADS:
        if of.framing == "stream" and not payload:
            continue
        raw = framed(of.framing, opcode, payload)
        packets = of.framing == "seqpacket"
        for pieces in [raw], cut(raw, range(0, len(raw), 40_009)), cut(raw, [1, 2, 5, 6]):
            found = driver(of, binary=opcode == BINARY)
            found.backend(*([raw] if packets else pieces))
            messages = found.messages()
            if of.framing == "stream":
                assert b"".join(each for _, each in messages) == payload
                assert {kind for kind, _ in messages} == {opcode}
            else:
                assert messages == [(opcode, payload)]
                assert found.codec.messages == (0, 1)
            assert found.codec.end is None and found.data == b""


@every_codec
def test_runs_of_small_messages(of: CodecSettings) -> None:
    """The frame decoder gives them joined."""
    for payload in (b"", b"seven", "é€".encode()):
        wire, rsv = (Compressor()(payload), RSV1) if of.deflate else (payload, 0)
        found = driver(of, deflate=of.deflate and replace(DEFLATE, client_no_context_takeover=True))
        found.client(frame(TEXT, wire, rsv=rsv) * 9)
        assert found.data == framed(of.framing, TEXT, payload) * 9
        assert found.codec.messages == (9, 0)


def test_packets() -> None:
    found = driver(CodecSettings("seqpacket"))
    found.client(frame(TEXT, b"one") + frame(BINARY) + frame(PING) + frame(TEXT, b"three"))
    assert found.to_backend == [b"one", b"", b"three"]
    assert codec(CodecSettings("seqpacket")).from_client(frame(BINARY))[1] == Packets((b"",))
    assert not codec(CodecSettings("seqpacket")).from_client(frame(PING))[1]
    found.backend(b"answer", b"", "€".encode())
    assert found.messages()[1:] == [(TEXT, b"answer"), (TEXT, b""), (TEXT, "€".encode())]


@pytest.mark.parametrize("framing", ["line", "netstring", "typed"])
def test_a_big_message_goes_on_as_it_comes(framing: str) -> None:
    """Where its length is known, or need not be."""
    payload = b"x" * (HOLD + 1)
    raw = frame(BINARY, payload + b"the rest")
    expected = framed(framing, BINARY, payload + b"the rest")
    found = driver(CodecSettings(framing))
    found.client(raw[:-8])
    assert len(found.data) >= HOLD and expected.startswith(found.data)
    found.client(raw[-8:-4], raw[-4:])
    assert found.data == expected and found.codec.messages == (1, 0)


def test_of_fragments_the_last_tells_the_length() -> None:
    found = driver(TYPED)
    first = frame(BINARY, b"x" * 2 * HOLD, fin=False)
    last = frame(CONTINUATION, b"y" * 100)
    found.client(first)
    assert found.data == b""
    found.client(last[:50])
    assert found.data.startswith(b"\2" + (2 * HOLD + 100).to_bytes(4, "big") + b"x")
    found.client(last[50:])
    assert found.data == framed("typed", BINARY, b"x" * 2 * HOLD + b"y" * 100)


def test_small_messages_wait_until_they_are_whole() -> None:
    for of in CODECS:
        if of.framing == "stream":
            continue
        found = driver(of).client(frame(TEXT, b"not yet")[:-1])
        assert found.to_backend == []
        if of.framing != "seqpacket":
            found.backend(framed(of.framing, TEXT, b"no")[:-1])
        assert found.to_client == b""


def test_a_big_message_goes_to_the_client_in_fragments() -> None:
    payload = bytes(range(128)) * 2000
    raw = framed("typed", TEXT, payload)
    found = driver(TYPED).backend(*cut(raw, range(0, len(raw), 30_000)))
    sent = found.frames()
    assert [each.opcode for each in sent] == [TEXT] + [CONTINUATION] * (len(sent) - 1)
    assert [each.fin for each in sent] == [False] * (len(sent) - 1) + [True]
    assert len(sent) > 2 and b"".join(each.payload for each in sent) == payload
    assert found.codec.messages == (0, 1)


def test_pings_are_answered_between_fragments() -> None:
    raw = fragments(TEXT, [b"\xe2", b"\x82\xac"])
    half = raw.index(frame(CONTINUATION, b"\x82\xac"))
    found = driver().client(raw[:half] + frame(PING, b"?") + frame(PONG) + raw[half:])
    assert found.frames() == [ServerFrame(PONG, b"?")] and found.codec.pongs == 1
    assert found.data == framed("typed", TEXT, "€".encode())


@pytest.mark.parametrize(
    ("newline", "data", "code"), [("refuse", b"", 1007), ("space", b"two lines\n", 0)]
)
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_line_feed_inside_a_message(newline: str, data: bytes, code: int, pieces: int) -> None:
    raw = frame(TEXT, b"two\nlines")
    found = driver(CodecSettings("line", line_newline=newline))
    found.client(*([raw] if pieces == 1 else single_bytes(raw))).end()
    assert found.data == data
    assert (found.codec.end.code if found.codec.end else 0) == code


# -- violations ---------------------------------------------------------------------------------

GOOD = frame(TEXT, b"good ") + frame(PING, b"!")


def violated(of: CodecSettings, pieces: Sequence[bytes]) -> Driver:
    """After the backend has echoed what it got: a violation does not hinder that."""
    found = Driver(make_codec(of), lambda data: data).client(*pieces).end()
    end = found.codec.end
    assert end is not None and end.reason.startswith("protocol_error:") and found.codec.peer_closed
    return found


@pytest.mark.parametrize(("raw", "code"), [row[1:] for row in VIOLATIONS], ids=VIOLATION_IDS)
def test_violation(raw: bytes, code: int) -> None:
    """What was sent before is answered first; then comes Close, and nothing behind it."""
    for of in CODECS:
        if of.deflate and raw == b"\xc1":
            continue  # where compression was agreed on it is the beginning of a message
        found = violated(of, [GOOD + raw + frame(TEXT, b"tail") + close(1000)])
        *messages, last = found.messages()
        assert (PONG, b"!") in messages and last == (CLOSE, code.to_bytes(2, "big"))
        assert CLOSE not in [kind for kind, _ in messages]
        assert (TEXT, b"good ") in messages or of.framing == "stream"
        assert found.data.startswith(framed(of.framing, TEXT, b"good "))
        assert b"tail" not in found.data
        assert violated(of, single_bytes(GOOD + raw)).codec.end == found.codec.end


@pytest.mark.parametrize(
    ("raw", "code"), [row[1:] for row in DEFLATE_VIOLATIONS], ids=DEFLATE_VIOLATION_IDS
)
def test_violation_of_permessage_deflate(raw: bytes, code: int) -> None:
    for of in CODECS:
        if of.deflate:
            for pieces in ([GOOD + raw], single_bytes(GOOD + raw)):
                found = violated(of, pieces)
                assert (TEXT, b"good ") in found.messages() or of.framing == "stream"
                assert found.messages()[-1] == (CLOSE, code.to_bytes(2, "big"))


@every_codec
def test_nothing_is_relayed_behind_a_violation(of: CodecSettings) -> None:
    """Not even what would be one message by itself."""
    found = driver(of).client(frame(TEXT, b"\xff"), frame(TEXT, b"late"), frame(PING)).end()
    assert found.data == b"" and found.messages() == [(CLOSE, (1007).to_bytes(2, "big"))]


@every_codec
@pytest.mark.parametrize("code", [0, 1000, 3000])
def test_close_is_answered_behind_the_last_answer(of: CodecSettings, code: int) -> None:
    raw = close(code) if code else frame(CLOSE)
    found = driver(of).client(frame(TEXT, b"question") + raw)
    assert found.to_client == b""
    found.client(frame(TEXT, b"late") + frame(PING, b"late"))
    found.backend(framed(of.framing, TEXT, b"answer")).end()
    assert found.messages() == [(TEXT, b"answer"), (CLOSE, raw[6:] and code.to_bytes(2, "big"))]
    assert found.codec.end == End(f"client_close:{code or 1005}", code)


# -- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("most", [10, 100_000])
def test_limits_from_the_client(framing: str, most: int) -> None:
    of = CodecSettings(framing, max_message_size=most)
    half = most // 2
    for size, code in ((most, 0), (most + 1, 1009)):
        payload = b"x" * size
        for raw in (frame(BINARY, payload), fragments(BINARY, [payload[:half], payload[half:]])):
            for pieces in ([raw], cut(raw, range(0, len(raw), 997))):
                found = driver(of).client(*pieces).end()
                assert (found.codec.end.code if found.codec.end else 0) == code
                assert (found.data == framed(framing, BINARY, payload)) == (not code)


@pytest.mark.parametrize("most", [10, 300, 100_000])
def test_limits_of_messages_that_compression_makes_bigger(most: int) -> None:
    of = CodecSettings("typed", max_message_size=most, max_frame_size=most, deflate=DEFLATE)
    noise = random.Random(most).randbytes(most + 1)
    for size, code in ((most, 0), (most + 1, 1009)):
        payload = noise[:size]
        wire = Compressor()(payload)
        assert len(wire) > size
        for raw in (
            frame(BINARY, wire, rsv=RSV1),
            fragments(BINARY, [wire[:-1], wire[-1:]], rsv=RSV1),
            frame(BINARY, payload),
        ):
            found = driver(of).client(raw).end()
            assert (found.codec.end.code if found.codec.end else 0) == code
            assert (found.data == framed("typed", BINARY, payload)) == (not code)


def test_limits_of_frames_hold_for_what_is_on_the_wire() -> None:
    of = CodecSettings("typed", max_message_size=500, max_frame_size=100, deflate=DEFLATE)
    wire = Compressor()(random.Random(1).randbytes(200))
    pieces = [wire[:100], wire[100:200], wire[200:]]
    assert driver(of).client(fragments(BINARY, pieces, rsv=RSV1)).codec.end is None
    end = driver(of).client(frame(BINARY, wire[:101], fin=False, rsv=RSV1)).end().codec.end
    assert end is not None and end.code == 1009


def test_limits_of_frames() -> None:
    of = CodecSettings("typed", max_frame_size=5)
    assert driver(of).client(fragments(TEXT, [b"12345", b"67890"])).codec.end is None
    end = driver(of).client(frame(TEXT, b"123456")).end().codec.end
    assert end is not None and end.code == 1009


@pytest.mark.parametrize("framing", ["line", "netstring", "typed"])
def test_limits_from_the_backend(framing: str) -> None:
    of = CodecSettings(framing, max_message_size=10)
    found = driver(of).backend(framed(framing, TEXT, b"0123456789"))
    assert found.messages() == [(TEXT, b"0123456789")] and found.codec.end is None
    found.backend(framed(framing, TEXT, b"0123456789+"))
    assert found.messages()[-1] == (CLOSE, (1011).to_bytes(2, "big"))
    assert found.codec.end is not None and found.codec.end.reason.startswith("backend_framing:")


def test_a_message_of_4_gib_has_no_typed_header() -> None:
    raw = b"\x82\xff" + (1 << 32).to_bytes(8, "big") + bytes(4)
    found = driver(TYPED).client(raw, *[bytes(HOLD)] * 2).end()
    assert found.codec.end is not None and found.codec.end.code == 1009


def test_ten_thousand_fragments_are_one_message() -> None:
    for of in CODECS:
        found = driver(of).client(fragments(BINARY, [b"x"] * 10_000))
        assert found.data == framed(of.framing, BINARY, b"x" * 10_000)
        assert found.codec.messages == (1, 0)


# -- a bad backend ------------------------------------------------------------------------------


@every_codec
def test_text_from_the_backend_that_is_none(of: CodecSettings) -> None:
    found = driver(of).backend(framed(of.framing, TEXT, b"fine"))
    found.backend(framed(of.framing, TEXT, b"\xff\xff"))
    assert found.messages() == [(TEXT, b"fine"), (CLOSE, (1011).to_bytes(2, "big"))]
    assert driver(of, binary=True).backend(framed(of.framing, BINARY, b"\xff")).messages() == [
        (BINARY, b"\xff")
    ]


def test_big_text_from_the_backend_that_is_none() -> None:
    payload = b"x" * 200_000 + b"\xff" + b"y" * 200_000
    raw = framed("typed", TEXT, payload)
    found = driver(TYPED).backend(*cut(raw, range(0, len(raw), 30_000)))
    *sent, last = found.frames()
    assert last == ServerFrame(CLOSE, (1011).to_bytes(2, "big"))
    assert b"\xff" not in b"".join(each.payload for each in sent)
    assert found.codec.end == End("backend_invalid_utf8", 1011)


@pytest.mark.parametrize(
    ("framing", "raw"),
    [("netstring", b"5:12345;"), ("typed", b"\0\0\0\0\0"), ("typed", b"\x08\0\0\0\0")],
)
def test_malformed_framing(framing: str, raw: bytes) -> None:
    good = framed(framing, TEXT, b"good")
    for pieces in ([good + raw], single_bytes(good + raw)):
        found = driver(CodecSettings(framing)).backend(*pieces, b"more")
        assert found.messages() == [(TEXT, b"good"), (CLOSE, (1011).to_bytes(2, "big"))]
        end = found.codec.end
        assert end is not None and end.reason.startswith("backend_framing:")


@pytest.mark.parametrize(
    ("framing", "raw", "last", "code"),
    [
        ("line", b"", [], 1000),
        ("line", b"not ended", [(TEXT, b"not ended")], 1000),
        ("netstring", b"0:,", [(TEXT, b"")], 1000),
        ("netstring", b"9:half", [], 1011),
        ("typed", b"\2\0\0\0\0", [(BINARY, b"")], 1000),
        ("typed", b"\2\0\0", [], 1011),
        ("seqpacket", b"packet", [(TEXT, b"packet")], 1000),
    ],
)
def test_the_end_of_the_backend(
    framing: str, raw: bytes, last: list[tuple[int, bytes]], code: int
) -> None:
    found = driver(CodecSettings(framing))
    if raw:
        found.backend(raw)
    found.to_client += found.codec.backend_eof()[0]
    assert found.messages() == [*last, (CLOSE, code.to_bytes(2, "big"))]
    assert found.codec.end is not None
    assert found.codec.end.await_peer == (code == 1000)
    assert found.codec.backend_eof() == (b"", b"") and found.codec.ping() == b""


def test_after_our_close_only_the_clients_is_looked_for() -> None:
    for of in CODECS:
        made = codec(of)
        made.from_client(frame(TEXT, b"half", fin=False))
        made.backend_eof()
        assert made.from_client(frame(CONTINUATION, b"late")) == (b"", b"")
        assert not made.peer_closed
        made.from_client(close(1000))
        assert made.peer_closed and made.from_backend(b"late") == (b"", b"")


# -- compression --------------------------------------------------------------------------------

COMPRESSED = CodecSettings("typed", deflate=DeflateParams(min_size=20))
RSV1_TEXT = 0xC1


def test_small_messages_are_not_compressed() -> None:
    found = driver(COMPRESSED)
    found.backend(framed("typed", TEXT, b"a" * 19))
    assert found.to_client == b"\x81\x13" + b"a" * 19
    found.to_client.clear()
    found.backend(framed("typed", TEXT, b"a" * 20))
    assert found.to_client[0] == RSV1_TEXT and len(found.to_client) < 10


def test_what_does_not_get_smaller_is_sent_as_it_is() -> None:
    found = driver(COMPRESSED)
    noise = zlib.compress(bytes(range(256)) * 9)
    messages = [(BINARY, noise), (BINARY, b"a" * 99), (BINARY, noise), (BINARY, b"a" * 99)]
    found.backend(b"".join(framed("typed", *each) for each in messages))
    assert found.messages() == messages
    assert found.to_client[0] == 0x82


@pytest.mark.parametrize("takes_over", [True, False])
def test_the_window_is_taken_over_or_not(takes_over: bool) -> None:
    params = replace(DEFLATE, server_no_context_takeover=not takes_over)
    found = driver(COMPRESSED, deflate=params)
    sentence = b"the same sentence, again and again and again"
    sizes = []
    for _ in range(3):
        found.to_client.clear()
        found.backend(framed("typed", TEXT, sentence))
        sizes.append(len(found.to_client))
    assert (sizes[1] < sizes[0] // 3) == (sizes[2] < sizes[0] // 3) == takes_over


@pytest.mark.parametrize("takes_over", [True, False])
@pytest.mark.parametrize("bits", [8, 9, 12, 15])
def test_the_clients_window(bits: int, takes_over: bool) -> None:
    params = replace(
        DEFLATE, client_max_window_bits=bits, client_no_context_takeover=not takes_over
    )
    compress = Compressor(max(bits, 9), takes_over)
    payload = bytes(range(256)) * 300
    found = driver(COMPRESSED, deflate=params)
    for _ in range(4):
        found.client(frame(BINARY, compress(payload), rsv=RSV1), frame(BINARY, b"plain"))
    assert found.codec.messages == (8, 0)
    assert found.data.count(framed("typed", BINARY, payload)) == 4


@pytest.mark.parametrize("bits", [9, 15])
def test_the_servers_window(bits: int) -> None:
    params = replace(DEFLATE, server_max_window_bits=bits)
    payload = bytes(range(256)) * 40
    raw = b"".join(framed("typed", BINARY, payload) for _ in range(3))
    found = driver(COMPRESSED, deflate=params).backend(raw)
    assert assembled(found.to_client, bits) == [(BINARY, payload)] * 3


RFC_EXAMPLES = [
    ("7.2.3.1 one block", ["f248cdc9c90700"], b"Hello"),
    ("7.2.3.1 two fragments", ["f248cd", "c9c90700"], b"Hello"),
    ("7.2.3.3 no compression", ["000500faff48656c6c6f00"], b"Hello"),
    ("7.2.3.4 final block", ["f348cdc9c9070000"], b"Hello"),
    ("7.2.3.4 final block, and nothing behind it", ["f348cdc9c90700"], b"Hello"),
    ("7.2.3.4 final block before another", ["f348cdc9c90700", "f248cdc9c90700"], b"HelloHello"),
    ("7.2.3.5 two blocks", ["f24805000000ffffcac9c90700"], b"Hello"),
]


@pytest.mark.parametrize(
    ("pieces", "text"), [row[1:] for row in RFC_EXAMPLES], ids=[row[0] for row in RFC_EXAMPLES]
)
def test_examples_of_the_rfc(pieces: list[str], text: bytes) -> None:
    raw = fragments(TEXT, [bytes.fromhex(piece) for piece in pieces], RSV1)
    raw += frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1)
    expected = framed("typed", TEXT, text) + framed("typed", TEXT, b"Hello")
    for feed in ([raw], single_bytes(raw)):
        assert driver(COMPRESSED).client(*feed).data == expected


def test_example_of_the_rfc_with_takeover() -> None:
    """Section 7.2.3.2."""
    raw = frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1)
    raw += frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1)
    raw += frame(TEXT, b"\0", rsv=RSV1)  # 7.2.3.6: empty
    expected = framed("typed", TEXT, b"Hello") * 2 + framed("typed", TEXT, b"")
    assert driver(COMPRESSED).client(raw).data == expected


def bomb(size: int) -> bytes:
    """The frame of one compressed message of *size* zeros."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = b"".join(stream.compress(bytes(1 << 20)) for _ in range(size >> 20))
    out += stream.flush(zlib.Z_SYNC_FLUSH)
    return frame(BINARY, out[:-4], rsv=RSV1)


@pytest.mark.parametrize("framing", ["line", "netstring", "typed", "seqpacket"])
def test_a_bomb_is_too_big_before_it_takes_memory(framing: str) -> None:
    raw = bomb(64 << 20)
    made = codec(COMPRESSED, framing=framing, max_message_size=1 << 20)
    tracemalloc.start()
    try:
        found = Driver(made).client(*cut(raw, range(0, len(raw), 1 << 18)))
        peak = tracemalloc.get_traced_memory()[1]
        kept = tracemalloc.get_traced_memory()[0] - len(found.data)
        found.end()
    finally:
        tracemalloc.stop()
    assert found.codec.end is not None and found.codec.end.code == 1009
    assert peak < 8 << 20 and kept < 1 << 18


SIZED = pytest.mark.parametrize("framing", ["netstring", "typed"])


@SIZED
@pytest.mark.parametrize("allowed", [True, False])
def test_of_a_bomb_little_is_kept_though_its_length_goes_first(framing: str, allowed: bool) -> None:
    raw = bomb(64 << 20)
    most = (64 << 20) - (not allowed)
    made = codec(COMPRESSED, framing=framing, max_message_size=most)
    sizes, calls = [], 0
    tracemalloc.start()
    try:
        for piece in cut(raw, range(0, len(raw), 1 << 14)):
            sizes.append(len(made.from_client(piece)[1]))
            while made.end is MORE:
                made.end, calls = None, calls + 1
                sizes.append(len(made.from_client(b"")[1]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20 and max(sizes) < 1 << 20
    if allowed:
        assert 0 < sum(sizes) - (64 << 20) < 12
        assert calls > 2 * (64 << 20) // (TURN + 2 * 65536)
        assert made.messages == (1, 0) and made.end is None
    else:
        assert sum(sizes) == 0 and made.end is not None and made.end.code == 1009


@SIZED
@pytest.mark.parametrize("takes_over", [True, False])
def test_a_compressed_message_that_is_inflated_twice(framing: str, takes_over: bool) -> None:
    """Its characters lie across the place where that begins; the window is the same behind it."""
    params = replace(DEFLATE, client_no_context_takeover=not takes_over)
    made = driver(COMPRESSED, framing=framing, deflate=params)
    compress = Compressor(takes_over=takes_over)
    expected = b""
    for before in range(4):
        text = b"x" * (before + 1) + "€".encode() * HELD
        for opcode, payload in (TEXT, text), (TEXT, b"small"), (BINARY, text[:-1]), (TEXT, text):
            wire = compress(payload)
            raw = fragments(opcode, [wire[:50], b"", wire[50:], b""], RSV1)
            made.client(*cut(raw, [len(raw) // 2]))
            expected += framed(framing, opcode, payload)
    assert made.data == expected
    assert made.codec.messages == (16, 0) and made.codec.end is None


@SIZED
@pytest.mark.parametrize("place", [0, HELD - 1, HELD, 2 * HELD, 4 * HELD - 1])
def test_of_big_text_that_is_none_nothing_is_passed_on(framing: str, place: int) -> None:
    """Neither where it is wrong in the midst, nor where it ends inside a character."""
    text = b"x" * place + b"\xe2" + b"x" * (4 * HELD - 1 - place)
    for raw in (
        frame(TEXT, Compressor()(text), rsv=RSV1),
        fragments(TEXT, cut(Compressor()(text), range(0, 9999, 500)), RSV1),
    ):
        found = driver(COMPRESSED, framing=framing).client(raw).end()
        assert found.data == b""
        assert found.codec.end is not None and found.codec.end.code == 1007


@SIZED
def test_what_is_between_and_behind_the_fragments_of_a_big_message(framing: str) -> None:
    payload = random.Random(7).randbytes(4 * HELD)
    wire = cut(Compressor()(payload), range(0, 4 * HELD, 100_000))
    raw = b"".join(
        frame(PING, b"%d" % index)
        + frame(
            CONTINUATION if index else BINARY,
            piece,
            fin=index == len(wire) - 1,
            rsv=0 if index else RSV1,
        )
        for index, piece in enumerate(wire)
    )
    found = driver(COMPRESSED, framing=framing)
    found.client(raw[:-1])
    assert found.messages() == [(PONG, b"%d" % index) for index in range(len(wire))]
    assert found.data == b""
    found.client(raw[-1:] + frame(TEXT, b"plain") + close(1000)).end()
    assert found.data == framed(framing, BINARY, payload) + framed(framing, TEXT, b"plain")
    assert found.messages()[-1] == (CLOSE, b"\x03\xe8") and found.codec.messages == (2, 0)


@SIZED
def test_a_message_that_is_being_inflated_again_is_dropped_with_the_tunnel(framing: str) -> None:
    made = codec(COMPRESSED, framing=framing)
    assert not made.from_client(bomb(16 << 20))[1]
    to_backend = b""
    while not to_backend:
        made.end = None
        to_backend = made.from_client(b"")[1]
    assert made.end is MORE
    made.end = None
    assert made.close(1001, "idle") == b"\x88\x02\x03\xe9"
    assert made.from_client(b"") == (b"", b"") and made.peer_closed


def test_what_is_inflated_comes_in_turns() -> None:
    """So a codec has never more for its backend than a read would bring, however well it was
    compressed."""
    made = codec(COMPRESSED, framing="stream")
    raw = bomb(32 << 20)
    sizes = [len(made.from_client(raw)[1])]
    while made.end is not None:
        made.end = None
        sizes.append(len(made.from_client(b"")[1]))
    assert sum(sizes) == 32 << 20
    assert max(sizes) <= TURN + (64 << 10) and len(sizes) > 50
    assert made.messages == (1, 0)


def test_final_blocks_without_end_take_turns_too() -> None:
    """Each is a stream of its own, and of no byte."""
    made = codec(COMPRESSED)
    found = Driver(made).client(frame(TEXT, b"\x03\0" * 20_000 + b"\0", rsv=RSV1))
    assert found.data == framed("typed", TEXT, b"") and found.turns > 10


def test_input_that_is_held_back_is_dropped_with_the_tunnel() -> None:
    made = codec(COMPRESSED, framing="stream")
    made.from_client(bomb(16 << 20))
    made.end = None
    assert made.close(1001, "idle") == b"\x88\x02\x03\xe9"
    assert made.from_client(b"") == (b"", b"") and made.peer_closed


def test_an_idle_codec_is_small() -> None:
    made = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(500):
            one = driver(TYPED).client(*cut(frame(TEXT, b"message") * 5, [3, 30]))
            one.backend(framed("typed", TEXT, b"answer"))
            made.append(one.codec)
            del one
        each = (tracemalloc.get_traced_memory()[0] - before) / 500
    finally:
        tracemalloc.stop()
    assert each < 800


# -- properties ---------------------------------------------------------------------------------

contents = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=50).map(str.encode)),
    st.tuples(st.just(BINARY), st.binary(max_size=50)),
    st.tuples(st.just(BINARY), st.integers(100, 2000).map(lambda size: b"\x5a" * size)),
    st.tuples(st.just(TEXT), st.sampled_from([b"", b"t" * 70_000, "é€".encode() * 20_000])),
    st.tuples(st.just(TEXT), st.integers(HELD // 5, HELD // 2).map("é€".encode().__mul__)),
)
places = st.lists(st.one_of(st.integers(0, 4000), st.integers(0, 200_000)), max_size=12)
params = st.builds(
    DeflateParams,
    server_max_window_bits=st.sampled_from([9, 12, 15]),
    client_max_window_bits=st.sampled_from([9, 12, 15]),
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    level=st.sampled_from([1, 6, 9]),
    min_size=st.sampled_from([0, 30]),
)


@given(
    st.sampled_from(FRAMINGS),
    st.none() | params,
    st.lists(contents, max_size=6),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_what_a_client_says_comes_back(
    framing: str, deflate: DeflateParams | None, said: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """Through a backend that copies bytes: fragmented, compressed, cut anywhere, both ways."""
    if framing != "typed":
        said = [(BINARY, payload) for _, payload in said]
    if framing == "line":
        said = [(BINARY, each.replace(b"\n", b"").rstrip(b"\r")) for _, each in said]
    agreed = deflate or DeflateParams()
    compress = Compressor(agreed.client_max_window_bits, not agreed.client_no_context_takeover)
    raw, pings = b"", []
    for opcode, payload in said:
        rsv = RSV1 if deflate and data.draw(st.booleans()) else 0
        wire = compress(payload) if rsv else payload
        pieces = cut(wire, data.draw(st.lists(st.integers(0, 60), max_size=3)))
        if data.draw(st.booleans()):
            pings.append(b"%d" % len(raw))
            raw += frame(PING, pings[-1])
        raw += fragments(opcode, pieces, rsv)
    made = make_codec(CodecSettings(framing, binary=True, deflate=deflate))
    there = Driver(made).client(*cut(raw, data.draw(places)))
    if framing == "seqpacket":
        there.backend(*there.to_backend)
    else:
        there.backend(*cut(there.data, data.draw(places)))
    back = assembled(
        there.to_client, agreed.server_max_window_bits, not agreed.server_no_context_takeover
    )
    assert [each for each in back if each[0] != PONG] == said
    assert [payload for kind, payload in back if kind == PONG] == pings
    assert made.messages == (len(said), len(said)) and made.end is None


@given(st.sampled_from(CODECS), st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=300, deadline=None)
def test_random_bytes_from_a_client_never_raise(of: CodecSettings, pieces: list[bytes]) -> None:
    found = driver(of, max_message_size=1000).client(*pieces).end()
    kinds = [kind for kind, _ in found.messages()]
    assert kinds.count(CLOSE) == (found.codec.end is not None)


@given(st.sampled_from(CODECS), st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=200, deadline=None)
def test_random_compressed_bytes_never_raise(of: CodecSettings, payloads: list[bytes]) -> None:
    raw = b"".join(frame(BINARY, payload, rsv=RSV1) for payload in payloads)
    found = driver(of, deflate=DEFLATE, max_message_size=1000).client(raw).end()
    end = found.codec.end
    assert end is None or end.code in (1007, 1009)


@given(st.sampled_from(CODECS), st.booleans(), st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=200, deadline=None)
def test_random_bytes_from_a_backend_never_raise(
    of: CodecSettings, binary: bool, pieces: list[bytes]
) -> None:
    found = driver(of, binary=binary, max_message_size=50).backend(*pieces)
    found.to_client += found.codec.backend_eof()[0]
    kind, code = found.messages()[-1]
    assert kind == CLOSE and int.from_bytes(code, "big") in (1000, 1011)
