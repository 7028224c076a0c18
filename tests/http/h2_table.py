"""What RFC 9113 forbids a client, as frames and what must come of them.

Each row: where the rule stands, what is sent behind the preface and an empty SETTINGS, what comes
of it: ``goaway`` and ``rst`` with a code, ``status`` of a stream, or ``fine``: nothing of the kind.
Stream 1 has been asked for, and its body is awaited, where a row begins with OPEN.
"""

from __future__ import annotations

import struct
from typing import Any

from h2_frames import (
    CONNECT,
    CONTINUATION,
    DATA,
    GET,
    GOAWAY,
    HEADERS,
    PING,
    POST,
    PRIORITY,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    frame,
    headers,
    ping,
    rst,
    settings,
    window,
)

OPEN = headers(1, POST, ended=False)
TUNNEL = headers(1, CONNECT, ended=False)
DONE = headers(1)
G = block(GET)


def _with(*extra: tuple[str, str], base: Any = GET, drop: str = "") -> bytes:
    kept = [pair for pair in base if pair[0] != drop]
    return headers(1, [*kept, *extra])


def goaway(code: str) -> dict[str, Any]:
    return {"goaway": code}


def reset(code: str = "PROTOCOL_ERROR", stream: int = 1) -> dict[str, Any]:
    return {"rst": (stream, code)}


FINE: dict[str, Any] = {}
SIZE, PROTOCOL = goaway("FRAME_SIZE_ERROR"), goaway("PROTOCOL_ERROR")
FLOW, COMPRESSION = goaway("FLOW_CONTROL_ERROR"), goaway("COMPRESSION_ERROR")
CALM = goaway("ENHANCE_YOUR_CALM")

ROWS: list[tuple[str, bytes, dict[str, Any]]] = [
    # 4.1 frame format, 4.2 sizes
    ("4.1 unknown type", frame(0x99, 0xFF, 7, b"x") + ping(), FINE),
    ("4.1 undefined flags", frame(PING, 0xFE, 0, b"12345678"), FINE),
    ("4.1 reserved bit", frame(SETTINGS, 0, 0x80000000), FINE),
    ("4.2 DATA too large", OPEN + frame(DATA, 0, 1, bytes(16385)), SIZE),
    ("4.2 too large by its head alone", frame(0x99, 0, 0, b"", length=16385), SIZE),
    ("4.2 HEADERS too large", frame(HEADERS, 4, 1, b"", length=1 << 20), SIZE),
    # 4.3 field blocks
    ("4.3 bad index", frame(HEADERS, 5, 1, b"\xff\xff\xff\x0f"), COMPRESSION),
    ("4.3 index 0", frame(HEADERS, 5, 1, b"\x80"), COMPRESSION),
    ("4.3 cut short", frame(HEADERS, 5, 1, G[:-3]), COMPRESSION),
    ("4.3 table too large", frame(HEADERS, 5, 1, b"\x3f\xff\xff\x7f" + G), COMPRESSION),
    ("4.3 trailers that cannot be read", OPEN + frame(HEADERS, 5, 1, b"\x80"), COMPRESSION),
    ("4.3 other frame within", frame(HEADERS, 1, 1, G) + ping(), PROTOCOL),
    ("4.3 DATA within", OPEN + frame(HEADERS, 1, 3, G) + frame(DATA, 0, 1, b"x"), PROTOCOL),
    ("4.3 unknown frame within", frame(HEADERS, 1, 1, G) + frame(0x99, 0, 1), PROTOCOL),
    # 5.1 states of streams
    ("5.1 DATA on idle", frame(DATA, 0, 1, b"x"), PROTOCOL),
    ("5.1 RST_STREAM on idle", rst(1), PROTOCOL),
    ("5.1 WINDOW_UPDATE on idle", window(1, 1), PROTOCOL),
    ("5.1 PRIORITY on idle", frame(PRIORITY, 0, 9, struct.pack(">LB", 3, 1)), FINE),
    ("5.1 DATA behind the end", headers(1, CONNECT) + frame(DATA, 0, 1, b"x"),
     reset("STREAM_CLOSED")),
    ("5.1 HEADERS behind the end", headers(1, CONNECT) + headers(1), reset("STREAM_CLOSED")),
    ("5.1 WINDOW_UPDATE behind reset", OPEN + rst(1) + window(1, 1), FINE),
    ("5.1 RST_STREAM behind reset", OPEN + rst(1) + rst(1), FINE),
    ("5.1 DATA behind their reset", OPEN + rst(1) + frame(DATA, 0, 1, b"x"),
     reset("STREAM_CLOSED")),
    ("5.1 HEADERS behind their reset", OPEN + rst(1) + headers(1), goaway("STREAM_CLOSED")),
    # 5.1.1 identifiers
    ("5.1.1 even", headers(2), PROTOCOL),
    ("5.1.1 going down", headers(5) + headers(3), PROTOCOL),
    ("5.1.1 HEADERS on 0", headers(0), PROTOCOL),
    # 5.3 priority
    ("5.3 PRIORITY on itself", OPEN + frame(PRIORITY, 0, 1, struct.pack(">LB", 1, 1)), reset()),
    ("5.3 HEADERS on itself", frame(HEADERS, 0x25, 1, struct.pack(">LB", 1, 1) + G), reset()),
    # 6.1 DATA
    ("6.1 on 0", frame(DATA, 0, 0, b"x"), PROTOCOL),
    ("6.1 padding as long as the frame", OPEN + frame(DATA, 8, 1, b"\x06hello"), PROTOCOL),
    ("6.1 padding all of it", OPEN + frame(DATA, 8, 1, b"\x05\0\0\0\0\0"), FINE),
    ("6.1 no room for the pad length", OPEN + frame(DATA, 8, 1), PROTOCOL),
    # 6.2 HEADERS
    ("6.2 padding too long", frame(HEADERS, 0xD, 1, b"\xff" + G), PROTOCOL),
    ("6.2 no room for priority", frame(HEADERS, 0x25, 1, b"\0\0\0"), SIZE),
    # 6.3 PRIORITY
    ("6.3 on 0", frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    ("6.3 of 4 bytes", frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    # 6.4 RST_STREAM
    ("6.4 on 0", rst(0), PROTOCOL),
    ("6.4 of 3 bytes", OPEN + frame(RST, 0, 1, bytes(3)), SIZE),
    ("6.4 unknown code", OPEN + rst(1, 0xFFFF), FINE),
    # 6.5 SETTINGS
    ("6.5 ack with payload", frame(SETTINGS, 1, 0, bytes(6)), SIZE),
    ("6.5 on a stream", frame(SETTINGS, 0, 1), PROTOCOL),
    ("6.5 of 5 bytes", frame(SETTINGS, 0, 0, bytes(5)), SIZE),
    ("6.5.2 push 2", settings(push=2), PROTOCOL),
    ("6.5.2 window 2^31", settings(window=1 << 31), FLOW),
    ("6.5.2 frames too small", settings(frame=16383), PROTOCOL),
    ("6.5.2 frames too large", settings(frame=1 << 24), PROTOCOL),
    ("6.5.2 unknown", frame(SETTINGS, 0, 0, struct.pack(">HL", 0xFACE, 1)), FINE),
    ("6.5.2 the last of two counts", settings(window=5) + settings(window=70000) + DONE, FINE),
    # 6.6 PUSH_PROMISE
    ("6.6 from a client", OPEN + frame(PUSH_PROMISE, 4, 1, struct.pack(">L", 2) + G), PROTOCOL),
    # 6.7 PING
    ("6.7 on a stream", frame(PING, 0, 1, bytes(8)), PROTOCOL),
    ("6.7 of 7 bytes", frame(PING, 0, 0, bytes(7)), SIZE),
    ("6.7 an answer to nothing", frame(PING, 1, 0, bytes(8)), FINE),
    # 6.8 GOAWAY
    ("6.8 on a stream", frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    ("6.8 of 4 bytes", frame(GOAWAY, 0, 0, bytes(4)), SIZE),
    # 6.9 WINDOW_UPDATE, flow control
    ("6.9 zero on a stream", OPEN + window(1, 0), reset()),
    ("6.9 zero on the connection", window(0, 0), PROTOCOL),
    ("6.9 of 3 bytes", frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    ("6.9.1 overflow of a stream", OPEN + window(1, 0x7FFFFFFF), reset("FLOW_CONTROL_ERROR")),
    ("6.9.1 overflow of the connection", window(0, 0x7FFFFFFF), FLOW),
    ("6.9.1 stream overrun", TUNNEL + frame(DATA, 0, 1, bytes(16384)) * 8,
     reset("FLOW_CONTROL_ERROR")),
    ("6.9.1 padding counts", TUNNEL + frame(DATA, 8, 1, b"\xff" + bytes(16383)) * 9,
     reset("FLOW_CONTROL_ERROR")),
    ("6.9.2 settings overflow a window",
     OPEN + window(1, 0x7FFFFFFF - 65535) + settings(window=65536), FLOW),
    # 6.10 CONTINUATION
    ("6.10 without HEADERS", frame(CONTINUATION, 4, 1, G), PROTOCOL),
    ("6.10 behind END_HEADERS", OPEN + frame(CONTINUATION, 4, 1, G), PROTOCOL),
    ("6.10 on 0", frame(HEADERS, 1, 1, G) + frame(CONTINUATION, 4, 0), PROTOCOL),
    ("6.10 on another stream", frame(HEADERS, 1, 1, G) + frame(CONTINUATION, 4, 3), PROTOCOL),
    ("6.10 behind DATA", OPEN + frame(DATA, 0, 1) + frame(CONTINUATION, 4, 1), PROTOCOL),
    ("6.10 in pieces", frame(HEADERS, 1, 1, G[:9]) + frame(CONTINUATION, 0, 1, G[9:20])
     + frame(CONTINUATION, 4, 1, G[20:]), {"status": (1, 200)}),
    ("6.10 without an end", frame(HEADERS, 1, 1, G) + frame(CONTINUATION, 0, 1) * 33, CALM),
    ("6.10 block too large", frame(HEADERS, 1, 1) + frame(CONTINUATION, 0, 1, bytes(16384)) * 5,
     CALM),
    # 8.1 messages
    ("8.1 trailers that do not end", OPEN + headers(1, [("x-t", "v")], ended=False), reset()),
    ("8.1 pseudo field in trailers", OPEN + headers(1, [(":path", "/")]), reset()),
    ("8.1 trailers", OPEN + headers(1, [("x-t", "v")]), {"status": (1, 200)}),
    ("8.1.1 body too long", headers(1, [*POST, ("content-length", "1")], ended=False)
     + frame(DATA, 1, 1, b"xx"), reset()),
    ("8.1.1 body too short", headers(1, [*POST, ("content-length", "3")], ended=False)
     + frame(DATA, 1, 1, b"xx"), reset()),
    ("8.1.1 no body but a length", headers(1, [*POST, ("content-length", "3")]), reset()),
    ("8.1.1 short by trailers", headers(1, [*POST, ("content-length", "3")], ended=False)
     + headers(1, [("x-t", "v")]), reset()),
    ("8.1.1 two lengths", _with(("content-length", "0"), ("content-length", "0")), reset()),
    # 8.2 fields
    ("8.2 capital in a name", _with(("X-Y", "1")), reset()),
    ("8.2.1 blank in a name", _with(("x y", "1")), reset()),
    ("8.2.1 colon in a name", _with(("x:y", "1")), reset()),
    ("8.2.1 byte beyond ASCII in a name", _with(("x\xe9", "1")), reset()),
    ("8.2.1 NUL in a value", _with(("x", "a\0b")), reset()),
    ("8.2.1 LF in a value", _with(("x", "a\nb")), reset()),
    ("8.2.1 CR in a value", _with(("x", "a\rb")), reset()),
    ("8.2.1 value begins with a blank", _with(("x", " a")), reset()),
    ("8.2.1 value ends with a tab", _with(("x", "a\t")), reset()),
    ("8.2.2 connection", _with(("connection", "close")), reset()),
    ("8.2.2 transfer-encoding", _with(("transfer-encoding", "chunked")), reset()),
    ("8.2.2 upgrade", _with(("upgrade", "x")), reset()),
    ("8.2.2 te", _with(("te", "gzip")), reset()),
    ("8.2.2 te trailers", _with(("te", "trailers")), {"status": (1, 200)}),
    # 8.3 pseudo fields
    ("8.3 unknown", _with((":x", "1"), base=GET[:0] + GET), reset()),
    ("8.3 of a response", headers(1, [(":status", "200"), *GET]), reset()),
    ("8.3 informational", headers(1, [(":status", "100"), *GET]), reset()),
    ("8.3 behind a field", headers(1, [*GET[:3], ("x", "y"), GET[3]]), reset()),
    ("8.3 twice", headers(1, [*GET, GET[0]]), reset()),
    ("8.3.1 no :method", _with(drop=":method"), reset()),
    ("8.3.1 no :scheme", _with(drop=":scheme"), reset()),
    ("8.3.1 no :path", _with(drop=":path"), reset()),
    ("8.3.1 empty :path", headers(1, [*GET[:3], (":path", "")]), reset()),
    ("8.3.1 relative :path", headers(1, [*GET[:3], (":path", "a")]), reset()),
    ("8.3.1 no authority at all", _with(drop=":authority"), reset()),
    ("8.3.1 host alone", _with(("host", "h"), drop=":authority"), {"status": (1, 200)}),
    ("8.3.1 host differs", _with(("host", "other")), reset()),
    ("8.3.1 two hosts", _with(("host", "h"), ("host", "i")), reset()),
    # 8.5 CONNECT
    ("8.5 with :path", headers(1, [(":method", "CONNECT"), (":authority", "1:2"),
                                   (":path", "/")]), reset()),
    ("8.5 with :scheme", headers(1, [(":method", "CONNECT"), (":authority", "1:2"),
                                     (":scheme", "http")]), reset()),
    ("8.5 without authority", headers(1, [(":method", "CONNECT")]), reset()),
    ("8.5 HEADERS in the tunnel", TUNNEL + headers(1, [("x-t", "v")]), reset()),
    # RFC 8441, RFC 9218
    ("8441.4 other protocol", headers(1, [CONNECT[0], (":protocol", "x"), *CONNECT[2:]]),
     {"status": (1, 405)}),
    ("8441.4 no :path", headers(1, CONNECT[:4]), {"status": (1, 400)}),
    ("9218.7.1 on a stream", frame(PRIORITY_UPDATE, 0, 1, struct.pack(">L", 1)), PROTOCOL),
    ("9218.7.1 of stream 0", frame(PRIORITY_UPDATE, 0, 0, struct.pack(">L", 0)), PROTOCOL),
    ("9218.7.1 short", frame(PRIORITY_UPDATE, 0, 0, b"\0"), SIZE),
    # abuse (core.md 15.5)
    ("pings without end", ping() * 10001, CALM),
    ("empty DATA", OPEN + frame(DATA, 0, 1) * 1001, CALM),
    ("rapid reset", b"".join(headers(n, POST, ended=False) + rst(n) for n in range(1, 61, 2)),
     goaway("NO_ERROR")),
    ("streams without SETTINGS ack",
     b"".join(headers(n, POST, ended=False) + rst(n) for n in (1, 203)), CALM),
    ("HPACK bomb", frame(HEADERS, 1, 1, b"\x40\x01x\x7f\xa1\x1e" + bytes([97]) * 4000
     + b"\xbe" * 40) + frame(CONTINUATION, 4, 1), CALM),
]  # fmt: skip
