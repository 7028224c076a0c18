"""forkd/protocol/deflate.py: RFC 7692 section 7.1 as a table, the streams, and their memory."""

from __future__ import annotations

import gc
import zlib
from dataclasses import replace

import pytest
from codec_driver import TAIL

from forkd.protocol.deflate import (
    PIECE,
    DeflateBudget,
    DeflateParams,
    Deflater,
    Inflater,
    negotiate,
)
from forkd.protocol.frame import CloseCode, FrameError

WANTED = DeflateParams(level=3, min_size=7, memory_limit=9)
"""What is configured has the same fields as what is agreed on."""
NAME = "permessage-deflate"
BOTH = "server_no_context_takeover; client_no_context_takeover"

NEGOTIATIONS = [
    # configured, offered, answer after the name ("-": declined), what is agreed on
    ("", "", "-", {}),
    ("", "x-webkit-deflate-frame", "-", {}),
    ("", "permessage-bzip2, " + NAME, "", {}),
    ("", NAME, "", {}),
    ("", f"foo; bar=1 , {NAME} ; client_max_window_bits ", "", {}),
    # 7.1.1.1
    (
        "",
        f"{NAME}; server_no_context_takeover",
        "; server_no_context_takeover",
        {"server_no_context_takeover": True},
    ),
    (
        {"server_no_context_takeover": True},
        NAME,
        "; server_no_context_takeover",
        {"server_no_context_takeover": True},
    ),
    ("", f"{NAME}; server_no_context_takeover=1", "-", {}),
    ("", f'{NAME}; server_no_context_takeover=""', "-", {}),
    ("", f"{NAME}; server_no_context_takeover; server_no_context_takeover", "-", {}),
    # 7.1.1.2
    (
        "",
        f"{NAME}; client_no_context_takeover",
        "; client_no_context_takeover",
        {"client_no_context_takeover": True},
    ),
    (
        {"client_no_context_takeover": True},
        NAME,
        "; client_no_context_takeover",
        {"client_no_context_takeover": True},
    ),
    ("", f"{NAME}; client_no_context_takeover=true", "-", {}),
    # 7.1.2.1
    (
        "",
        f"{NAME}; server_max_window_bits=10",
        "; server_max_window_bits=10",
        {"server_max_window_bits": 10},
    ),
    ("", f"{NAME}; server_max_window_bits=15", "; server_max_window_bits=15", {}),
    (
        "",
        f'{NAME}; server_max_window_bits="12"',
        "; server_max_window_bits=12",
        {"server_max_window_bits": 12},
    ),
    (
        {"server_max_window_bits": 11},
        NAME,
        "; server_max_window_bits=11",
        {"server_max_window_bits": 11},
    ),
    (
        {"server_max_window_bits": 11},
        f"{NAME}; server_max_window_bits=13",
        "; server_max_window_bits=11",
        {"server_max_window_bits": 11},
    ),
    (
        {"server_max_window_bits": 11},
        f"{NAME}; server_max_window_bits=9",
        "; server_max_window_bits=9",
        {"server_max_window_bits": 9},
    ),
    ("", f"{NAME}; server_max_window_bits=8", "-", {}),  # zlib cannot
    ("", f"{NAME}; server_max_window_bits=8, {NAME}", "", {}),
    ("", f"{NAME}; server_max_window_bits", "-", {}),
    ("", f"{NAME}; server_max_window_bits=", "-", {}),
    ("", f"{NAME}; server_max_window_bits=7", "-", {}),
    ("", f"{NAME}; server_max_window_bits=16", "-", {}),
    ("", f"{NAME}; server_max_window_bits=09", "-", {}),
    ("", f"{NAME}; server_max_window_bits=+9", "-", {}),
    ("", f"{NAME}; server_max_window_bits=1e1", "-", {}),
    ("", f"{NAME}; server_max_window_bits=10; server_max_window_bits=10", "-", {}),
    # 7.1.2.2
    ("", f"{NAME}; client_max_window_bits", "", {}),
    (
        "",
        f"{NAME}; client_max_window_bits=10",
        "; client_max_window_bits=10",
        {"client_max_window_bits": 10},
    ),
    (
        "",
        f"{NAME}; client_max_window_bits=8",
        "; client_max_window_bits=8",
        {"client_max_window_bits": 8},
    ),
    (
        {"client_max_window_bits": 9},
        f"{NAME}; client_max_window_bits",
        "; client_max_window_bits=9",
        {"client_max_window_bits": 9},
    ),
    (
        {"client_max_window_bits": 12},
        f"{NAME}; client_max_window_bits=10",
        "; client_max_window_bits=10",
        {"client_max_window_bits": 10},
    ),
    (
        {"client_max_window_bits": 9},
        f"{NAME}; client_max_window_bits=15",
        "; client_max_window_bits=9",
        {"client_max_window_bits": 9},
    ),
    # "If a received extension negotiation offer doesn't have the parameter, the response MUST NOT"
    ({"client_max_window_bits": 9}, NAME, "", {}),
    ("", f"{NAME}; client_max_window_bits=7", "-", {}),
    ("", f"{NAME}; client_max_window_bits=16", "-", {}),
    ("", f"{NAME}; client_max_window_bits=", "-", {}),
    ("", f"{NAME}; client_max_window_bits=x", "-", {}),
    # 7.1: all offers in the client's order; "decline" those it cannot take
    ("", f"{NAME}; unknown", "-", {}),
    ("", f"{NAME}; unknown, {NAME}; client_max_window_bits", "", {}),
    ("", f"{NAME.upper()}", "-", {}),
    (
        "",
        f"{NAME}; client_max_window_bits=99, {NAME}; server_no_context_takeover, {NAME}",
        "; server_no_context_takeover",
        {"server_no_context_takeover": True},
    ),
    (
        "",
        f"{NAME}; client_max_window_bits=14; server_max_window_bits=13; {BOTH}",
        f"; {BOTH}; server_max_window_bits=13; client_max_window_bits=14",
        {
            "server_no_context_takeover": True,
            "client_no_context_takeover": True,
            "server_max_window_bits": 13,
            "client_max_window_bits": 14,
        },
    ),
]


@pytest.mark.parametrize(("configured", "offered", "answer", "agreed"), NEGOTIATIONS)
def test_negotiate(configured: dict, offered: str, answer: str, agreed: dict) -> None:
    found = negotiate(offered, replace(WANTED, **(configured or {})))
    if answer == "-":
        assert found is None
    else:
        assert found == (replace(WANTED, **agreed), NAME + answer)


# -- streams ------------------------------------------------------------------------------------


def inflated(inflater: Inflater, data: bytes, ends: bool = True) -> bytes:
    inflater.feed(data, ends)
    out, more = b"", True
    while more:
        piece, more = inflater.take()
        assert len(piece) <= PIECE
        out += piece
    return out


@pytest.mark.parametrize("takes_over", [True, False])
@pytest.mark.parametrize("bits", [9, 15])
def test_what_is_deflated_inflates(bits: int, takes_over: bool) -> None:
    params = DeflateParams(bits, bits, not takes_over, not takes_over)
    budget = DeflateBudget()
    deflater, inflater = Deflater(params, budget), Inflater(params, budget)
    for payload in (b"hello", b"hello", b"\xff" * 5 * PIECE, bytes(range(256)) * 100, b"hello"):
        data = deflater.message(payload)
        assert not data.endswith(TAIL)
        assert inflated(inflater, data) == payload
        data = deflater.part(payload[:3]) + deflater.part(payload[3:]) + deflater.finish()
        half = len(data) // 2
        assert inflated(inflater, data[:half], False) + inflated(inflater, data[half:]) == payload
    assert (budget.used == 0) != takes_over
    del deflater, inflater
    gc.collect()
    assert budget.used == 0


def test_a_piece_that_fills_its_room_to_the_last_byte() -> None:
    budget = DeflateBudget()
    params = DeflateParams()
    deflater, inflater = Deflater(params, budget), Inflater(params, budget)
    for size in (PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE):
        assert inflated(inflater, deflater.message(b"z" * size)) == b"z" * size


@pytest.mark.parametrize("size", [100, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 1])
def test_final_blocks_inside_a_message(size: int) -> None:
    """Section 7.2.3.4, where what is behind the block has been fed with its last bytes."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    final = stream.compress(bytes(size)) + stream.flush(zlib.Z_FINISH)
    for rest in (b"", b"\0"):
        inflater = Inflater(DeflateParams(), DeflateBudget())
        assert inflated(inflater, final * 3 + rest) == bytes(3 * size)


FINAL = bytes.fromhex("cb48cdc9c90700")  # "hello" in a final block
STORED = bytes.fromhex("00 00ff ff00") + bytes(0xFF00) + b"\0"  # its head begins like TAIL


def test_no_cut_changes_what_is_behind_a_final_block() -> None:
    wire = FINAL + STORED
    for place in (*range(len(FINAL) - 2, len(FINAL) + 8), len(wire)):
        inflater = Inflater(DeflateParams(), DeflateBudget())
        pieces = inflated(inflater, wire[:place], False), inflated(inflater, wire[place:])
        assert b"".join(pieces) == b"hello" + bytes(0xFF00), place


@pytest.mark.parametrize("behind", [[b""], [b"", b""], [b"", b"\0"], [b"\0"]])
def test_a_message_may_end_behind_a_final_block(behind: list[bytes]) -> None:
    """With the empty block that section 7.2.3.4 asks for, or without."""
    inflater = Inflater(DeflateParams(), DeflateBudget())
    for _ in range(3):
        assert inflated(inflater, FINAL, False) == b"hello"
        for index, piece in enumerate(behind):
            assert inflated(inflater, piece, index == len(behind) - 1) == b""
        assert inflated(inflater, FINAL[:-1] + b"\0\0") == b"hello"


def test_a_message_without_a_byte() -> None:
    """Section 7.2.3.6: in however many frames, and not only as the first."""
    inflater = Inflater(DeflateParams(), DeflateBudget())
    assert inflated(inflater, FINAL) == b"hello"
    assert inflated(inflater, b"", False) == b""
    with pytest.raises(FrameError) as caught:
        inflater.feed(b"", True)
    assert caught.value.code == CloseCode.INVALID_DATA


def test_a_copy_goes_on_from_where_it_was_made() -> None:
    params = DeflateParams()
    budget = DeflateBudget()
    deflater, inflater = Deflater(params, budget), Inflater(params, budget)
    assert inflated(inflater, deflater.message(b"the window")) == b"the window"
    payload = b"the window, " * 3 * PIECE
    data = deflater.message(payload)
    inflater.feed(data[:-9], False)
    piece, more = inflater.take()
    used = budget.used
    other = inflater.copy()
    assert more and budget.used > used and (other.size, other.is_inside) == (len(piece), True)
    for each in (inflater, other):
        rest, more = b"", True
        while more:
            part, more = each.take()
            rest += part
        assert piece + rest + inflated(each, data[-9:]) == payload
        assert (each.size, each.is_inside) == (0, False)
    assert inflated(inflater, deflater.message(payload)) == payload
    del other, each
    assert budget.used == used


def test_a_copy_of_one_that_has_no_window() -> None:
    budget = DeflateBudget()
    inflater = Inflater(DeflateParams(), budget)
    hello = bytes.fromhex("f248cdc9c90700")
    assert inflated(inflater.copy(), hello) == inflated(inflater, hello) == b"Hello"


def test_the_limit_is_of_a_message() -> None:
    params = DeflateParams()
    deflater, inflater = Deflater(params, DeflateBudget()), Inflater(params, DeflateBudget(), 100)
    for _ in range(3):
        assert inflated(inflater, deflater.message(b"x" * 100)) == b"x" * 100
    with pytest.raises(FrameError) as caught:
        inflated(inflater, deflater.message(b"x" * 101))
    assert caught.value.code == CloseCode.TOO_BIG


@pytest.mark.parametrize("data", [b"\x07", b"\0abcd", b"\x02\x02\0", b""])
def test_what_does_not_inflate(data: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        inflated(Inflater(DeflateParams(), DeflateBudget()), data)
    assert caught.value.code == CloseCode.INVALID_DATA


# -- memory -------------------------------------------------------------------------------------

DEFLATER = 256 << 10  # bytes that zlib's widest takes


def test_the_idle_give_back_what_others_need() -> None:
    budget = DeflateBudget(3 * DEFLATER)
    deflaters = [Deflater(DeflateParams(), budget) for _ in range(5)]
    reader = zlib.decompressobj(-15)
    first = deflaters[0]
    reader.decompress(first.message(b"same again") + TAIL)
    for deflater in deflaters[1:3]:
        deflater.message(b"x")
    assert budget.used == 3 * DEFLATER
    reader.decompress(first.message(b"same again") + TAIL)  # now the others are the older ones
    deflaters[3].message(b"x")
    deflaters[4].message(b"x")
    assert budget.used == 3 * DEFLATER
    assert len(first.message(b"same again")) < 9  # still has its window
    deflaters[1].message(b"x")
    deflaters[2].message(b"x")
    deflaters[3].message(b"x")
    assert budget.used == 3 * DEFLATER
    # A fresh window in the middle of a connection is nothing that the client would notice.
    assert reader.decompress(first.message(b"same again") + TAIL) == b"same again"


def test_a_message_under_way_keeps_its_window() -> None:
    budget = DeflateBudget(DEFLATER)
    one, other = Deflater(DeflateParams(), budget), Deflater(DeflateParams(), budget)
    data = one.part(b"a" * 100)
    other.message(b"b")
    data += one.part(b"a" * 100) + one.finish()
    assert zlib.decompressobj(-15).decompress(data + TAIL) == b"a" * 200


def test_inflaters_count_but_stay() -> None:
    budget = DeflateBudget(DEFLATER)
    params = DeflateParams()
    deflater, inflater = Deflater(params, budget), Inflater(params, budget)
    hello = deflater.message(b"hello")
    assert inflated(inflater, hello) == b"hello"
    assert budget.used < DEFLATER  # the deflater's has been given back
    assert inflated(inflater, deflater.message(b"hello")) == b"hello"


def test_what_is_gone_is_not_counted() -> None:
    budget = DeflateBudget(DEFLATER)
    for _ in range(10):
        Deflater(DeflateParams(), budget).message(b"x")
        gc.collect()
    assert budget.used == 0
