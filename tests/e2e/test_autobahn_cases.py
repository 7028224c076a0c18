"""The cases of the Autobahn test-suite for servers, group by group: framing ``typed``, compression
on, and a backend that copies bytes back.  Strict: see ``e2e.autobahn``."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from client_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, cut, frame
from codec_driver import Compressor, assembled
from e2e.autobahn import Case, Connection, check
from e2e.harness import Forkd, Server
from h2_client import H2Client

PROGRAM = Path(__file__).parent.parent / "programs" / "echo_stream.py"

CONFIG = """
server.max-worker = 1
server.modules = ("mod_wstunnel")
wstunnel.server = ( "/" => (( "socket" => "@DIR@/echo.sock", "bin-path" => "@DIR@/echo_stream.py",
    "max-procs" => 1, "framing" => "typed" )) )
wstunnel.deflate = ( "min-size" => 0 )
"""

DEFLATE = "permessage-deflate; client_max_window_bits"
RSV1 = 4


@pytest.fixture(scope="module")
def server(shared_forkd: Forkd) -> Server:
    shutil.copy(PROGRAM, shared_forkd.directory / "echo_stream.py")
    return shared_forkd.start(CONFIG)


def fragments(opcode: int, pieces: Iterable[bytes], rsv: int = 0) -> bytes:
    *most, last = pieces
    kinds = [opcode, *[CONTINUATION] * len(most)]
    rsvs = [rsv, *[0] * len(most)]
    raw = b"".join(
        frame(kind, piece, fin=False, rsv=bits)
        for kind, piece, bits in zip(kinds, most, rsvs, strict=False)
    )
    return raw + frame(kinds[len(most)], last, rsv=rsvs[len(most)])


HELLO = frame(TEXT, b"Hello, world!")
ECHO = (TEXT, b"Hello, world!")
UTF8 = "Hello-µ@ßöäüàá-UTF-8!!".encode()

# -- 1: framing, 2: pings and pongs ---------------------------------------------------------------


def framing() -> Iterator[Case]:
    for opcode, letter in ((TEXT, b"*"), (BINARY, b"\xfe")):
        for size in (0, 125, 126, 127, 128, 65535, 65536):
            raw, expected = frame(opcode, letter * size), [(opcode, letter * size)]
            yield Case(f"1 {opcode} {size}", raw, expected, 0)
            yield Case(f"1 {opcode} {size} chopped", raw, expected, 0, 997 if size > 999 else 1)


def pings() -> Iterator[Case]:
    for payload in (b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125):
        expected = [(PONG, payload)]
        yield Case(f"2 {len(payload)}", frame(PING, payload), expected, 0)
        yield Case(f"2 {len(payload)} chopped", frame(PING, payload), expected, 0, 1)
    yield Case("2.5", frame(PING, b"\xfe" * 126), [], 1002)
    yield Case("2.7", frame(PONG), [], 0)
    yield Case("2.8", frame(PONG, b"unsolicited"), [], 0)
    yield Case("2.9", frame(PONG, b"unsolicited") + frame(PING, b"x"), [(PONG, b"x")], 0)
    ten = [b"payload-%d" % number for number in range(10)]
    raw = b"".join(frame(PING, payload) for payload in ten)
    for chop in (0, 1):
        yield Case("2.10", raw, [(PONG, payload) for payload in ten], 0, chop)


# -- 3: reserved bits, 4: reserved opcodes ------------------------------------------------------


def reserved_bits() -> Iterator[Case]:
    payload = b"Hello, world!"
    ping = frame(PING)
    yield Case("3.1", frame(TEXT, payload, rsv=1), [], 1002)
    yield Case("3.2", HELLO + frame(TEXT, payload, rsv=2) + ping, [ECHO], 1002)
    yield Case("3.3", HELLO + frame(TEXT, payload, rsv=3) + ping, [ECHO], 1002)
    yield Case("3.4", HELLO + frame(TEXT, payload, rsv=4) + ping, [ECHO], 1002, 1)
    yield Case("3.5", frame(BINARY, b"\x00\xff\xfe", rsv=5), [], 1002)
    yield Case("3.6", frame(PING, payload, rsv=6), [], 1002)
    yield Case("3.7", frame(CLOSE, rsv=7), [], 1002)


def reserved_opcodes() -> Iterator[Case]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        ping = frame(PING)
        bad = frame(opcode, b"reserved")
        yield Case(f"4 {opcode} empty", frame(opcode), [], 1002)
        yield Case(f"4 {opcode}", bad, [], 1002)
        yield Case(f"4 {opcode} behind a message", HELLO + bad + ping, [ECHO], 1002)
        yield Case(f"4 {opcode} chopped", HELLO + bad + ping, [ECHO], 1002, 1)


# -- 5: fragmentation -----------------------------------------------------------------------------


def fragmentation() -> Iterator[Case]:
    whole = (TEXT, b"fragment1fragment2")
    first = frame(TEXT, b"fragment1", fin=False)
    last = frame(CONTINUATION, b"fragment2")
    for opcode in (PING, PONG):
        yield Case("5.1", frame(opcode, b"fragment1", fin=False) + last, [], 1002)
    pong = (PONG, b"ping payload")
    ping = frame(PING, b"ping payload")
    for chop in (0, 1):
        yield Case("5.3", first + last, [whole], 0, chop)
        yield Case("5.6", first + ping + last, [pong, whole], 0, chop)
        nothing = frame(CONTINUATION, b"non-continuation payload")
        yield Case("5.9", nothing + HELLO, [], 1002, chop)
        nothing = frame(CONTINUATION, b"non-continuation payload", fin=False)
        yield Case("5.12", nothing + HELLO, [], 1002, chop)
        yield Case("5.15", first + last + nothing + HELLO, [whole], 1002, chop)
        yield Case("5.18", first + frame(TEXT, b"fragment2"), [], 1002, chop)
        pings = [b"pongme %d!" % number for number in (1, 2)]
        raw = first + frame(CONTINUATION, b"fragment2", fin=False) + frame(PING, pings[0])
        raw += frame(CONTINUATION, b"fragment3", fin=False)
        raw += frame(CONTINUATION, b"fragment4", fin=False) + frame(PING, pings[1])
        raw += frame(CONTINUATION, b"fragment5")
        text = (TEXT, b"fragment1fragment2fragment3fragment4fragment5")
        yield Case("5.19", raw, [*((PONG, each) for each in pings), text], 0, chop)


# -- 6: UTF-8 -------------------------------------------------------------------------------------

VALID = [
    b"",
    UTF8,
    "κόσμε".encode(),
    *(chr(point).encode() for point in (0, 0x80, 0x800, 0x10000)),
    *(chr(point).encode() for point in (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)),
    *(chr(point).encode() for point in (0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF)),
    *(chr(plane << 16 | 0xFFFE).encode() for plane in range(1, 17)),
]

INVALID = [
    "κόσμε".encode() + b"\xed\xa0\x80" + b"edited",
    "κόσμε".encode() + b"\xf4\x90\x80\x80" + b"edited",
    *(b"\x80", b"\xbf", b"\x80\xbf" * 3, bytes(range(0x80, 0xC0))),
    *(bytes(byte for lead in range(*leads) for byte in (lead, 0x20)) for leads in (
        (0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))),
    *(b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"),
    *(b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"),
    b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf",
    *(b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
    *(b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf"),
    *(b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf"),
    *(b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80"),
    *(b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80"),
    *(b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf", b"\xf7\xbf\xbf\xbf"),
    *("κόσμε".encode()[:size] for size in (1, 3, 5, 7, 9)),
]  # fmt: skip


def utf8() -> Iterator[Case]:
    for text in VALID:
        letters = cut(text, range(len(text))) if text else [b""]
        yield Case(f"6 {text!r}", frame(TEXT, text), [(TEXT, text)], 0)
        yield Case(f"6 {text!r} fragmented", fragments(TEXT, letters), [(TEXT, text)], 0)
        yield Case(f"6 {text!r} chopped", frame(TEXT, text), [(TEXT, text)], 0, 1)
    for text in INVALID:
        letters = cut(text, range(len(text)))
        yield Case(f"6 {text!r}", frame(TEXT, text), [], 1007)
        yield Case(f"6 {text!r} fragmented", fragments(TEXT, letters), [], 1007)
        yield Case(f"6 {text!r} behind a message", HELLO + frame(TEXT, text), [ECHO], 1007, 1)


@pytest.mark.parametrize(
    "raw",
    [
        frame(TEXT, "κόσμε".encode(), fin=False) + frame(CONTINUATION, b"\xf4\x90", fin=False),
        frame(TEXT, "κόσμε".encode(), fin=False) + frame(CONTINUATION, b"\xf4\x90" + b"." * 9)[:8],
        frame(TEXT, "κόσμε".encode() + b"\xf4\x90\x80\x80edited")[:-8],
    ],
)  # fmt: skip
def test_6_4_invalid_text_is_not_waited_for(server: Server, raw: bytes) -> None:
    """It is refused before the message, or even the frame, is whole."""
    check(server, Case("6.4", raw, [], 1007))


# -- 7: closing -----------------------------------------------------------------------------------


def closing() -> Iterator[Case]:
    bye = close(1000)
    yield Case("7.1.1", HELLO + bye, [ECHO], 1000)
    yield Case("7.1.2", bye + bye, [], 1000)
    yield Case("7.1.3", bye + frame(PING), [], 1000)
    yield Case("7.1.4", bye + HELLO, [], 1000)
    started = frame(TEXT, b"fragment1", fin=False)
    yield Case("7.1.5", started + bye + frame(CONTINUATION, b"fragment2"), [], 1000)
    big = b"BAsd7&jh23" * 26 * 1024
    yield Case("7.1.6", frame(TEXT, big) + bye + frame(PING), [(TEXT, big)], 1000)
    yield Case("7.3.1", frame(CLOSE), [], None)
    yield Case("7.3.2", frame(CLOSE, b"a"), [], 1002)
    yield Case("7.3.3", close(1000), [], 1000)
    yield Case("7.3.4", close(1000, b"Hello World!"), [], 1000)
    yield Case("7.3.5", close(1000, b"*" * 123), [], 1000)
    yield Case("7.3.6", close(1000, b"*" * 124), [], 1002)
    yield Case("7.5.1", close(1000, "κόσμε".encode() + b"\xed\xa0\x80edited"), [], 1007)
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield Case(f"7.7 {code}", close(code), [], code)
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
        yield Case(f"7.9 {code}", close(code), [], 1002)


# -- 9: sizes, 10: odd frames ---------------------------------------------------------------------


def sizes() -> Iterator[Case]:
    text, data = b"BAsd7&jh23" * 104_858, bytes(range(256)) * 4096
    for opcode, payload in ((TEXT, text), (BINARY, data)):
        expected = [(opcode, payload)]
        yield Case("9.1", frame(opcode, payload), expected, 0)
        pieces = cut(payload, range(0, len(payload), 4096))
        yield Case("9.3", fragments(opcode, pieces), expected, 0)
        yield Case("9.5", frame(opcode, payload), expected, 0, 8192)
        many = frame(opcode, b"*" * 64) * 500
        yield Case("9.7", many, [(opcode, b"*" * 64)] * 500, 0)
    payload = b"*" * 65536
    yield Case("10.1", fragments(TEXT, cut(payload, range(0, 65536, 1300))), [(TEXT, payload)], 0)


GROUPS = [framing, pings, reserved_opcodes, fragmentation, utf8, closing, sizes]


@pytest.mark.parametrize("offer", ["", DEFLATE], ids=["plain", "deflate"])
@pytest.mark.parametrize("group", GROUPS, ids=[group.__name__ for group in GROUPS])
def test_group(server: Server, group: object, offer: str) -> None:
    for case in group():  # type: ignore[operator]
        check(server, case, offer)


def test_reserved_bits(server: Server) -> None:
    for case in reserved_bits():
        check(server, case)


# -- 12, 13: compression --------------------------------------------------------------------------

NARROW = "permessage-deflate; server_no_context_takeover; server_max_window_bits=9"
OFFERS = [
    # offered, answered
    ("permessage-deflate", "permessage-deflate"),
    (DEFLATE, "permessage-deflate"),
    (
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover",
    ),
    (
        "permessage-deflate; client_no_context_takeover; server_max_window_bits=9",
        "permessage-deflate; client_no_context_takeover; server_max_window_bits=9",
    ),
    (
        "permessage-deflate; client_max_window_bits=9; server_max_window_bits=15",
        "permessage-deflate; server_max_window_bits=15; client_max_window_bits=9",
    ),
    (
        f"permessage-deflate; server_max_window_bits=8, {NARROW}, permessage-deflate",
        NARROW,
    ),
    ("permessage-deflate; server_max_window_bits=8", ""),
    ("permessage-deflate; nonsense", ""),
]


@pytest.mark.parametrize(("offer", "answer"), OFFERS)
def test_13_every_offer(server: Server, offer: str, answer: str) -> None:
    with Connection(server, offer=offer) as connection:
        assert connection.agreed == answer
        compress = Compressor(
            9 if "client_max_window_bits=9" in answer else 15,
            "client_no_context_takeover" not in answer,
        )
        raw, said = b"", []
        for size in (0, 16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072):
            payload = (b'{"id": %d, "text": "some JSON, as 12 has it"}, ' % size) * (size // 40 + 1)
            for pieces in ([payload[:size]], cut(payload[:size], range(0, size, 250))):
                message = b"".join(pieces)
                said.append((TEXT, message))
                if answer:
                    wire = compress(message)
                    step = max(1, len(wire) // len(pieces))
                    raw += fragments(TEXT, cut(wire, range(0, len(wire), step)), RSV1)
                else:
                    raw += frame(TEXT, message)
        assert connection.exchange(raw + close(1000)) == [*said, (CLOSE, b"\x03\xe8")]


def test_12_compressed_answers_are_small(server: Server) -> None:
    with Connection(server, offer=DEFLATE) as connection:
        connection.socket.sendall(frame(TEXT, b"again and " * 1000))
        assert len(connection.socket.recv(65536)) < 200


def test_a_bomb(server: Server) -> None:
    """100 MiB of zeros in 100 KiB, where a message may have 64 MiB."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = b"".join(stream.compress(bytes(1 << 20)) for _ in range(100))
    out += stream.flush(zlib.Z_SYNC_FLUSH)
    raw = HELLO + frame(BINARY, out[:-4], rsv=RSV1)
    check(server, Case("bomb", raw, [ECHO], 1009), DEFLATE)


def test_compression_over_http2(server: Server) -> None:
    client = H2Client(server.port)
    stream = client.connect("/", [("sec-websocket-extensions", DEFLATE)])
    client.answered(stream)
    assert stream.status == 200
    assert stream.fields["sec-websocket-extensions"] == "permessage-deflate"
    compress = Compressor()
    text = "grüße ".encode() * 20_000
    stream.send(frame(TEXT, compress(text), rsv=RSV1) + frame(TEXT, compress(text), rsv=RSV1))
    stream.send(close(1000))
    client.run_until(lambda: stream.is_over)
    client.socket.close()
    assert assembled(stream.data) == [(TEXT, text), (TEXT, text), (CLOSE, b"\x03\xe8")]
    assert len(stream.data) < 2000
