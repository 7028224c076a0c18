"""What a client must not do: every MUST of RFC 6455 sections 4 to 8 that its frames can break, and
those of RFC 7692 sections 6 and 7 for a client that may compress.

Each row is (name with its section, the shortest input that is wrong, the close code that answers
it); what is before the last byte is right.
"""

from __future__ import annotations

from client_frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, close, frame

OPEN = frame(TEXT, b"op", fin=False)

VIOLATIONS: list[tuple[str, bytes, int]] = [
    # 5.1: "The server MUST close the connection upon receiving a frame that is not masked."
    ("5.1 unmasked text", b"\x81\x05", 1002),
    ("5.1 unmasked empty text", b"\x81\x00", 1002),
    ("5.1 unmasked long text", b"\x81\x7e", 1002),
    ("5.1 unmasked ping", b"\x89\x00", 1002),
    ("5.1 unmasked close", b"\x88\x02", 1002),
    ("5.1 unmasked continuation", OPEN + b"\x80\x03", 1002),
    # 5.2: "MUST be 0 unless an extension is negotiated"
    ("5.2 RSV1", b"\xc1", 1002),
    ("5.2 RSV2", b"\xa2", 1002),
    ("5.2 RSV3", b"\x91", 1002),
    ("5.2 RSV on ping", b"\xc9", 1002),
    ("5.2 RSV on close", b"\xf8", 1002),
    ("5.2 RSV on continuation", OPEN + b"\xc0", 1002),
    # 5.2: "If an unknown opcode is received, the receiving endpoint MUST Fail"
    *((f"5.2 opcode {opcode}", bytes([0x80 | opcode]), 1002) for opcode in range(3, 8)),
    *((f"5.2 opcode {opcode}", bytes([0x80 | opcode]), 1002) for opcode in range(11, 16)),
    *((f"5.2 fragmented opcode {opcode}", bytes([opcode]), 1002) for opcode in (3, 7, 11, 15)),
    ("5.2 opcode inside a message", OPEN + b"\x83", 1002),
    # 5.2: "the minimal number of bytes MUST be used to encode the length"
    ("5.2 125 in 16 bits", b"\x82\xfe\x00\x7d", 1002),
    ("5.2 0 in 16 bits", b"\x82\xfe\x00\x00", 1002),
    ("5.2 65535 in 64 bits", b"\x82\xff" + (65535).to_bytes(8, "big"), 1002),
    ("5.2 5 in 64 bits", b"\x81\xff" + (5).to_bytes(8, "big"), 1002),
    # 5.2: "the most significant bit MUST be 0"
    ("5.2 2^63", b"\x82\xff" + (1 << 63).to_bytes(8, "big"), 1002),
    ("5.2 2^64 - 1", b"\x82\xff" + b"\xff" * 8, 1002),
    # 5.4
    ("5.4 continuation of nothing", b"\x80", 1002),
    ("5.4 fragmented continuation of nothing", b"\x00", 1002),
    ("5.4 continuation after the end", OPEN + frame(CONTINUATION) + b"\x80", 1002),
    ("5.4 continuation after a whole message", frame(TEXT, b"m") + b"\x00", 1002),
    ("5.4 text inside a message", OPEN + b"\x81", 1002),
    ("5.4 binary inside a message", OPEN + b"\x82", 1002),
    ("5.4 fragmented text inside a message", OPEN + b"\x01", 1002),
    ("5.4 text behind a ping inside a message", OPEN + frame(PING, b"p") + b"\x81", 1002),
    # 5.5: "MUST have a payload length of 125 bytes or less and MUST NOT be fragmented"
    ("5.5 fragmented close", b"\x08", 1002),
    ("5.5 fragmented ping", b"\x09", 1002),
    ("5.5 fragmented pong", b"\x0a", 1002),
    ("5.5 ping of 126", b"\x89\xfe", 1002),
    ("5.5 ping of 64 bits", b"\x89\xff", 1002),
    ("5.5 pong of 126", b"\x8a\xfe", 1002),
    ("5.5 close of 126", b"\x88\xfe", 1002),
    ("5.5 close of 64 bits", b"\x88\xff", 1002),
    # 5.5.1, 7.4
    ("5.5.1 half a code", frame(CLOSE, b"\x03"), 1002),
    *(
        (f"7.4 code {code}", close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    ("7.4 bad code with a reason", close(1005, b"why"), 1002),
    ("5.5.1 reason not UTF-8", close(1000, b"\xff"), 1007),
    ("5.5.1 reason cut", close(1000, b"ok \xe2\x82"), 1007),
    ("5.5.1 reason with a surrogate", close(1000, b"\xed\xa0\x80"), 1007),
    # 5.6, 8.1: as early as it can be known, the rest of the frame unseen
    ("8.1 invalid byte", frame(TEXT, b"ok\xff....")[:9], 1007),
    ("8.1 stray continuation", frame(TEXT, b"\x80....")[:7], 1007),
    ("8.1 overlong slash", frame(TEXT, b"\xc0\xaf...")[:7], 1007),
    ("8.1 overlong of three", frame(TEXT, b"\xe0\x80\xaf")[:8], 1007),
    ("8.1 overlong of four", frame(TEXT, b"\xf0\x80\x80\xaf")[:8], 1007),
    ("8.1 surrogate", frame(TEXT, b"\xed\xa0\x80")[:8], 1007),
    ("8.1 over U+10FFFF", frame(TEXT, b"\xf4\x90\x80\x80")[:8], 1007),
    ("8.1 five bytes", frame(TEXT, b"\xf8\x88\x80\x80\x80")[:7], 1007),
    ("8.1 character cut by ASCII", frame(TEXT, b"\xe2\x82a..")[:9], 1007),
    ("8.1 in a long frame", frame(TEXT, b"a" * 300 + b"\xff" * 100)[:309], 1007),
    ("8.1 character cut by the end", frame(TEXT, b"ok\xe2\x82"), 1007),
    (
        "8.1 character cut by the last fragment",
        frame(TEXT, b"\xce", fin=False) + frame(CONTINUATION),
        1007,
    ),
    (
        "8.1 across fragments",
        frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82", fin=False)
        + frame(CONTINUATION, b"a")[:7],
        1007,
    ),
    (
        "8.1 surrogate across fragments",
        frame(TEXT, b"\xed", fin=False) + frame(CONTINUATION, b"\xa0\x80")[:7],
        1007,
    ),
    ("8.1 character across messages", frame(TEXT, b"\xc3") + frame(TEXT, b"\xa9"), 1007),
    ("8.1 in a run", (frame(TEXT, b"a\xc3") + frame(TEXT, b"\xa9a")) * 8, 1007),
]
VIOLATION_IDS = [row[0] for row in VIOLATIONS]

RSV1 = 4
HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 section 7.2.3.1
OPEN_COMPRESSED = frame(TEXT, HELLO[:3], fin=False, rsv=RSV1)

DEFLATE_VIOLATIONS: list[tuple[str, bytes, int]] = [
    # RFC 7692 6: "MUST NOT set the Per-Message Compressed bit of control frames and non-first
    # fragments of a data message"; an endpoint that gets one "MUST _Fail the WebSocket Connection_"
    ("6.1 RSV1 on a continuation", OPEN_COMPRESSED + b"\xc0", 1002),
    ("6.1 RSV1 on a continuation in the middle", OPEN_COMPRESSED + b"\x40", 1002),
    ("6.1 RSV1 on a continuation of a plain message", OPEN + b"\xc0", 1002),
    ("6.1 RSV1 on ping", b"\xc9", 1002),
    ("6.1 RSV1 on pong", b"\xca", 1002),
    ("6.1 RSV1 on close", b"\xc8", 1002),
    ("6.1 RSV1 on ping inside a message", OPEN_COMPRESSED + b"\xc9", 1002),
    # RFC 6455 5.2: the other two are no part of the extension
    ("5.2 RSV2", b"\xa1", 1002),
    ("5.2 RSV3", b"\x91", 1002),
    ("5.2 RSV1 and RSV2", b"\xe1", 1002),
    ("5.2 RSV1 and RSV3", b"\xd2", 1002),
    # RFC 6455 5.4: a compressed message is fragmented as any other
    ("5.4 compressed message inside a compressed one", OPEN_COMPRESSED + b"\xc1", 1002),
    ("5.4 plain message inside a compressed one", OPEN_COMPRESSED + b"\x81", 1002),
    ("5.4 compressed message inside a plain one", OPEN + b"\xc1", 1002),
    ("5.2 RSV1 on an opcode that is reserved", b"\xc3", 1002),
    # RFC 7692 7.2.2: what cannot be decompressed
    ("7.2.2 block of the reserved type", frame(TEXT, b"\x07", rsv=RSV1), 1007),
    ("7.2.2 stored block whose lengths do not fit", frame(BINARY, b"\0abcd", rsv=RSV1), 1007),
    ("7.2.2 reference to before the beginning", frame(BINARY, b"\x02\x02\0", rsv=RSV1), 1007),
    ("7.2.3.6 compressed message of no byte", frame(TEXT, b"", rsv=RSV1), 1007),
    # RFC 6455 8.1, after decompressing
    (
        "8.1 compressed text that is not UTF-8",
        frame(TEXT, bytes.fromhex("fa0f00"), rsv=RSV1),
        1007,
    ),
]
DEFLATE_VIOLATION_IDS = [row[0] for row in DEFLATE_VIOLATIONS]
