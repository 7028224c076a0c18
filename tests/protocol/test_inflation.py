"""forkd/protocol/inflation.py: compressed messages as events, big ones twice where needed."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator

import pytest
from client_frames import BINARY, CONTINUATION, PING, TEXT, cut
from codec_driver import TAIL, Compressor
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.protocol.deflate import PIECE, DeflateBudget, DeflateParams, Inflater
from forkd.protocol.frame import RSV1, CloseCode, Event, FrameError
from forkd.protocol.inflation import AGAIN, HELD, Inflation

PARAMS = DeflateParams()
INFLATER = (1 << 15) + (7 << 10)  # bytes that zlib's widest takes


def inflation(
    needs_size: bool = True,
    params: DeflateParams = PARAMS,
    budget: DeflateBudget | None = None,
    most: int = 0,
) -> Inflation:
    return Inflation(Inflater(params, budget or DeflateBudget(), most), needs_size)


def events(opcode: int, pieces: list[bytes]) -> list[Event]:
    """A compressed message as the frame decoder has it."""
    return [
        (opcode | RSV1, piece, int(index == len(pieces) - 1)) for index, piece in enumerate(pieces)
    ]


def noise_and_zeros(size: int) -> bytes:
    """Half of it cannot be made smaller, so that it comes in many a frame."""
    return random.Random(size).randbytes(size // 2) + bytes(size - size // 2)


def passed_on(found: Iterable[Event], needs_size: bool = True) -> list[tuple[int, bytes]]:
    """The messages that somebody gets who heeds AGAIN; AssertionError where he could not."""
    whole: list[tuple[int, bytes]] = []
    kind, kept, counted, announced = 0, b"", b"", -1
    for opcode, piece, ends in found:
        assert len(piece) <= PIECE
        if opcode & AGAIN:
            assert opcode ^ AGAIN == kind and announced < 0 and len(kept) > HELD
            counted += piece
            announced = len(kept) + len(counted) if ends else -1
            continue
        assert opcode == kind or not kind if announced < 0 else opcode == CONTINUATION
        kind = opcode or kind
        kept += piece
        assert announced >= 0 or len(kept) <= HELD + PIECE or not needs_size
        if ends:
            assert announced in (-1, len(kept)) and kept.endswith(counted)
            whole.append((kind, kept))
            kind, kept, counted, announced = 0, b"", b"", -1
    assert not (kept or counted)
    return whole


def test_what_is_not_compressed_goes_by() -> None:
    plain: list[Event] = [(PING, b"?", 0), (TEXT, b"te", 0), (TEXT, b"xt", 1), (BINARY, b"aabb", 2)]
    assert list(inflation().events(iter(plain))) == plain


def test_each_message_of_a_run() -> None:
    wire = Compressor(takes_over=False)(b"seven")
    made = inflation(params=DeflateParams(client_no_context_takeover=True))
    assert list(made.events(iter([(TEXT | RSV1, wire * 3, 3)]))) == [(TEXT, b"seven", 1)] * 3


@pytest.mark.parametrize("needs_size", [True, False])
def test_up_to_a_size_a_message_comes_once(needs_size: bool) -> None:
    for size in (0, 1, PIECE, HELD - 1, HELD):
        wire = Compressor()(bytes(size))
        found = list(inflation(needs_size).events(iter(events(BINARY, [wire]))))
        assert passed_on(found) == [(BINARY, bytes(size))]
        assert {opcode for opcode, _, _ in found} == {BINARY}


def test_a_message_whose_size_is_not_needed_comes_once() -> None:
    wire = Compressor()(bytes(3 * HELD))
    found = list(inflation(False).events(iter(events(BINARY, [wire]))))
    assert {opcode for opcode, _, _ in found} == {BINARY}


def test_a_bigger_one_comes_twice_behind_what_is_kept() -> None:
    wire = Compressor()(b"t" * 3 * HELD)
    found = list(inflation().events(iter(events(TEXT, [wire]))))
    assert passed_on(found) == [(TEXT, b"t" * 3 * HELD)]
    kinds = [opcode for opcode, _, _ in found]
    assert kinds == sorted(kinds, key=[TEXT, TEXT | AGAIN, CONTINUATION].index)
    sizes = [sum(len(piece) for opcode, piece, _ in found if opcode == kind) for kind in set(kinds)]
    assert sum(sizes) < 5 * HELD + PIECE


def test_the_rest_of_one_that_was_fed_whole() -> None:
    made = inflation()
    made.inflater.feed(Compressor()(bytes(3 * HELD)), True)
    piece, more = made.inflater.take()
    assert more and passed_on(made.rest(BINARY, piece)) == [(BINARY, bytes(3 * HELD))]


def test_control_frames_between_fragments_stay_where_they_are() -> None:
    wire = Compressor()(noise_and_zeros(4 * HELD))
    fed = events(BINARY, cut(wire, range(0, len(wire), 99_991)))
    for place in range(1, len(fed)):
        asked: list[Event] = [*fed[:place], (PING, b"?", 0)]
        found = list(inflation().events(iter(asked)))
        assert found[-1] == (PING, b"?", 0)


@pytest.mark.parametrize("last", [b"", TAIL + b"\0"])
def test_a_last_frame_without_payload(last: bytes) -> None:
    """What ends a message may be no byte at all, also behind the place where it is forked."""
    payload = bytes(2 * HELD)
    wire = Compressor()(payload) + last
    for place in (len(wire), len(wire) - len(last), 100):
        fed = events(BINARY, [wire[:place], wire[place:], b""])
        assert passed_on(inflation().events(iter(fed))) == [(BINARY, payload)]


def test_final_blocks_inside_a_message() -> None:
    """RFC 7692 section 7.2.3.4: each ends its stream, and the next one begins without a window."""
    stretch = noise_and_zeros(HELD - 1000)

    def final() -> bytes:
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        return stream.compress(stretch) + stream.flush(zlib.Z_FINISH)

    wire = final() * 5 + b"\0"
    for pieces in ([wire], cut(wire, range(0, len(wire), 70_001))):
        found = inflation().events(iter(events(BINARY, pieces)))
        assert passed_on(found) == [(BINARY, stretch * 5)]


def test_frames_that_end_behind_what_looks_like_the_end() -> None:
    """What comes again is in other pieces than what was counted."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    big = stream.compress(bytes(2 * HELD)) + stream.flush(zlib.Z_SYNC_FLUSH)
    stored = TAIL + b"\0" + b"s" * 0xFF00  # a block whose head begins like TAIL
    pieces = [big, b"\3\0" + TAIL, stored[4:] + b"\0"]  # behind a final block
    found = inflation().events(iter(events(BINARY, pieces)))
    assert passed_on(found) == [(BINARY, bytes(2 * HELD) + b"s" * 0xFF00)]


def test_the_copy_counts_while_it_lives() -> None:
    budget = DeflateBudget()
    made = inflation(budget=budget)
    used = set()
    wire = Compressor()(bytes(4 * HELD))
    for _ in made.events(iter(events(BINARY, [wire]))):
        used.add(budget.used)
    assert used == {INFLATER, 2 * INFLATER} and budget.used == INFLATER
    del made
    assert budget.used == 0


@pytest.mark.parametrize(
    ("payload", "most"),
    [(bytes(64 << 20), 1 << 20), (random.Random(1).randbytes(8 << 20), 9 << 20)],
    ids=["zeros", "noise"],
)
def test_what_is_held_is_what_came(payload: bytes, most: int) -> None:
    """Of zeros next to nothing, and of what cannot be made smaller nothing twice."""
    wire = cut(Compressor(level=1)(payload), range(0, len(payload), 1 << 16))
    tracemalloc.start()
    try:
        found = inflation().events(_fresh(events(BINARY, wire)))
        ends = sum(ends for _, _, ends in found)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert ends == 2 and peak < most


def _fresh(fed: list[Event]) -> Iterator[Event]:
    """Each made when it is asked for."""
    return ((opcode, bytes(bytearray(piece)), ends) for opcode, piece, ends in fed)


def test_a_message_that_is_too_big_comes_to_no_end() -> None:
    wire = Compressor()(bytes(3 * HELD + 1))
    found = []
    with pytest.raises(FrameError) as caught:
        found += inflation(most=3 * HELD).events(iter(events(BINARY, [wire])))
    assert caught.value.code == CloseCode.TOO_BIG
    assert all(not ends for _, _, ends in found)
    made = inflation(most=3 * HELD).events(iter(events(BINARY, [Compressor()(bytes(3 * HELD))])))
    assert passed_on(made) == [(BINARY, bytes(3 * HELD))]


payloads = st.lists(
    st.one_of(
        st.binary(max_size=50),
        st.integers(HELD - 300, HELD + 2 * PIECE).map(bytes),
        st.integers(HELD, 4 * HELD).map(noise_and_zeros),
    ),
    max_size=5,
)


@given(payloads, st.booleans(), st.booleans(), st.sampled_from([9, 15]), st.data())
@settings(max_examples=60, deadline=None)
def test_what_was_compressed_comes_whole(
    said: list[bytes], needs_size: bool, takes_over: bool, bits: int, data: st.DataObject
) -> None:
    """However it is fragmented, and whatever of it the next message refers to."""
    params = DeflateParams(client_max_window_bits=bits, client_no_context_takeover=not takes_over)
    compress = Compressor(bits, takes_over)
    made = inflation(needs_size, params)
    found: list[Event] = []
    for payload in said * 2:
        wire = compress(payload)
        places = data.draw(st.lists(st.integers(0, len(wire)), max_size=6))
        fed = events(BINARY, cut(wire, places))
        calls = cut(bytes(len(fed)), data.draw(st.lists(st.integers(0, 6), max_size=2)))
        for call in calls:  # a message may come in several reads
            found += made.events(iter(fed[: len(call)]))
            fed = fed[len(call) :]
    assert passed_on(found, needs_size) == [(BINARY, payload) for payload in said * 2]
