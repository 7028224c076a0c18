"""forkd/protocol/fastcgi_mux.py: several requests on one connection."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.errors import BackendBroken
from forkd.protocol.fastcgi import (
    MAX_CONTENT,
    ProtocolStatus,
    RecordDecoder,
    RecordType,
    Role,
    decode_pairs,
    encode_begin,
    encode_end,
    encode_pairs,
    encode_record,
    encode_stream,
)
from forkd.protocol.fastcgi_mux import (
    NO_LIMIT,
    ONE_AT_A_TIME,
    QUANTUM,
    Answer,
    Capability,
    Multiplexer,
    encode_question,
)

STDIN, STDOUT = RecordType.STDIN, RecordType.STDOUT
COMPLETE = ProtocolStatus.REQUEST_COMPLETE


def turns(mux: Multiplexer) -> list[tuple[int, bytes]]:
    found = []
    while (turn := mux.next_turn()) is not None:
        found.append(turn)
    return found


def ids_of(data: bytes) -> list[int]:
    return [record.request_id for record in RecordDecoder().feed(data)]


def begun(mux: Multiplexer, count: int) -> list[int]:
    """Numbers of requests that the application has heard of."""
    numbers = [mux.begin() for _ in range(count)]
    for number in numbers:
        mux.queue(number, encode_begin(number, Role.RESPONDER, True))
    turns(mux)
    return numbers


# -- what an application can do -----------------------------------------------------------------


def values(**told: str) -> bytes:
    pairs = [(name.encode(), value.encode()) for name, value in told.items()]
    return encode_record(RecordType.GET_VALUES_RESULT, 0, encode_pairs(pairs))


def test_the_question() -> None:
    [record] = RecordDecoder().feed(encode_question())
    assert (record.type, record.request_id) == (RecordType.GET_VALUES, 0)
    assert decode_pairs(record.content) == [
        (b"FCGI_MAX_CONNS", b""), (b"FCGI_MAX_REQS", b""), (b"FCGI_MPXS_CONNS", b""),
    ]  # fmt: skip


ANSWERS = [
    (values(FCGI_MPXS_CONNS="1", FCGI_MAX_CONNS="3", FCGI_MAX_REQS="9"), Capability(True, 3, 9)),
    (values(FCGI_MPXS_CONNS="1"), Capability(True, NO_LIMIT, NO_LIMIT)),
    (values(FCGI_MPXS_CONNS="1", FCGI_MAX_REQS="", FCGI_MAX_CONNS="x"), Capability(True)),
    (values(FCGI_MPXS_CONNS="1", FCGI_MAX_REQS="0"), Capability(True, NO_LIMIT, 1)),
    (values(FCGI_MPXS_CONNS="1", FCGI_MAX_REQS="9" * 30), Capability(True)),
    (values(FCGI_MPXS_CONNS="0", FCGI_MAX_REQS="9"), ONE_AT_A_TIME),
    (values(FCGI_MPXS_CONNS=""), ONE_AT_A_TIME),  # the question, echoed
    (values(FCGI_MAX_REQS="9"), ONE_AT_A_TIME),
    (values(), ONE_AT_A_TIME),
    (encode_record(RecordType.GET_VALUES_RESULT, 0, b"\x0f\x01FCGI"), ONE_AT_A_TIME),
    (encode_record(RecordType.GET_VALUES_RESULT, 1, b""), ONE_AT_A_TIME),
    (encode_record(RecordType.UNKNOWN_TYPE, 0, b"\x09" + bytes(7)), ONE_AT_A_TIME),
    (encode_end(1, 0, COMPLETE), ONE_AT_A_TIME),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", ONE_AT_A_TIME),
]


@pytest.mark.parametrize(("told", "capability"), ANSWERS)
@pytest.mark.parametrize("step", [1, 5, 1000])
def test_answers(told: bytes, capability: Capability, step: int) -> None:
    answer = Answer()
    found = None
    for at in range(0, len(told), step):
        assert found is None
        found = answer.feed(told[at : at + step])
        if found is not None:
            break
    assert found == capability


def test_an_answer_with_a_tail() -> None:
    assert Answer().feed(values(FCGI_MPXS_CONNS="1") + b"\x01\x03") == Capability(True)


# -- numbers ------------------------------------------------------------------------------------


def test_numbers_are_dense_and_stay_taken_until_the_end() -> None:
    mux = Multiplexer()
    assert begun(mux, 4) == [1, 2, 3, 4]
    mux.feed(encode_end(3, 0, COMPLETE) + encode_end(2, 0, COMPLETE))
    assert len(mux) == 2
    assert begun(mux, 3) == [2, 3, 5]
    mux.abandon(1)
    assert begun(mux, 1) == [6]
    mux.feed(encode_end(1, 0, COMPLETE))
    assert begun(mux, 1) == [1]


def test_an_application_that_has_not_heard_of_a_request_is_not_told_of_its_end() -> None:
    mux = Multiplexer()
    number = mux.begin()
    mux.queue(number, encode_begin(number, Role.RESPONDER, True))
    mux.abandon(number)
    assert turns(mux) == [] and len(mux) == 0
    assert mux.begin() == number


# -- turns --------------------------------------------------------------------------------------


def test_alone_records_go_out_as_they_are() -> None:
    mux = Multiplexer()
    [number] = begun(mux, 1)
    records = encode_stream(STDIN, number, bytes(3 * MAX_CONTENT)) + encode_record(STDIN, number)
    assert mux.queue(number, records) == mux.waiting(number) == len(records)
    sent = [data for _, data in turns(mux)]
    assert b"".join(sent) == records
    assert mux.waiting(number) == 0


def test_small_records_share_a_turn() -> None:
    mux = Multiplexer()
    [number, _] = begun(mux, 2)
    records = encode_record(STDIN, number, b"x" * 100) * 200
    mux.queue(number, records)
    sent = [data for _, data in turns(mux)]
    assert b"".join(sent) == records
    assert all(len(data) <= QUANTUM for data in sent)
    assert len(sent) == len(records) // (QUANTUM - QUANTUM % 108) + 1


def test_who_has_much_to_send_gives_way_to_the_others() -> None:
    mux = Multiplexer()
    one, two, three = begun(mux, 3)
    mux.queue(one, encode_stream(STDIN, one, bytes(5 * QUANTUM)))
    mux.queue(two, encode_stream(STDIN, two, b"small"))
    mux.queue(three, encode_stream(STDIN, three, bytes(2 * QUANTUM)) + encode_record(STDIN, three))
    sent = turns(mux)
    assert [number for number, _ in sent] == [1, 2, 3, 1, 3, 1, 3, 1, 1]
    for number, data in sent:
        records = RecordDecoder().feed(data)
        assert {record.request_id for record in records} == {number}
        assert sum(len(record.content) for record in records) <= QUANTUM


def test_nobody_writes_for_a_request_that_is_over_or_not_wanted() -> None:
    mux = Multiplexer()
    one, two = begun(mux, 2)
    mux.queue(one, encode_stream(STDIN, one, bytes(2 * QUANTUM)))
    mux.feed(encode_end(one, 0, COMPLETE))
    mux.abandon(two)
    assert mux.queue(one, encode_record(STDIN, one)) == 0
    assert mux.queue(two, encode_record(STDIN, two)) == 0
    assert turns(mux) == [(two, encode_record(RecordType.ABORT_REQUEST, two))]


def test_an_abort_takes_the_place_of_what_waits() -> None:
    mux = Multiplexer()
    one, two = begun(mux, 2)
    mux.queue(one, encode_stream(STDIN, one, bytes(3 * QUANTUM)))
    mux.next_turn()
    mux.queue(two, encode_record(STDIN, two))
    mux.abandon(one)
    mux.abandon(one)
    abort = encode_record(RecordType.ABORT_REQUEST, one)
    assert sorted(turns(mux)) == [(one, abort), (two, encode_record(STDIN, two))]


# -- what comes ---------------------------------------------------------------------------------


def test_records_of_strangers_and_of_nobody_are_ignored() -> None:
    mux = Multiplexer()
    [number] = begun(mux, 1)
    strangers = encode_record(STDOUT, 9, b"x") + encode_end(9, 0, COMPLETE) + values()
    mine = encode_record(STDOUT, number, b"y")
    assert [arrival.records for arrival in mux.feed(strangers + mine)] == [mine]


def test_what_comes_for_an_abandoned_request_is_dropped() -> None:
    mux = Multiplexer()
    one, two = begun(mux, 2)
    mux.abandon(one)
    data = encode_record(STDOUT, one, b"x") + encode_record(STDOUT, two, b"y")
    data += encode_end(one, 0, COMPLETE) + encode_end(two, 7, ProtocolStatus.OVERLOADED)
    [arrival] = mux.feed(data)
    assert arrival.request_id == two and ids_of(arrival.records) == [two, two]
    assert arrival.end == (7, ProtocolStatus.OVERLOADED)
    assert len(mux) == 0


def test_what_comes_together_for_one_stays_together() -> None:
    mux = Multiplexer()
    one, two = begun(mux, 2)
    mine = encode_record(STDOUT, one, b"a"), encode_record(STDOUT, one, b"b")
    data = mine[0] + encode_record(STDOUT, two, b"c") + mine[1] + encode_end(two, 0, COMPLETE)
    came = {arrival.request_id: arrival.records for arrival in mux.feed(data)}
    assert came[one] == b"".join(mine)


def test_unknown_types_are_handed_on_and_padding_is_not() -> None:
    mux = Multiplexer()
    [number] = begun(mux, 1)
    arrivals = mux.feed(bytes((1, 99, 0, number, 0, 1, 3, 0)) + b"xyyy")
    assert arrivals[0].records == bytes((1, 99, 0, number, 0, 1, 0, 0)) + b"x"


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 200 OK\r\n\r\n", encode_record(RecordType.END_REQUEST, 1, b"short")],
)
def test_what_is_no_record_ends_the_connection(data: bytes) -> None:
    mux = Multiplexer()
    begun(mux, 1)
    with pytest.raises(BackendBroken):
        mux.feed(data)


# -- together -----------------------------------------------------------------------------------

pieces = st.lists(st.binary(max_size=300) | st.just(bytes(2 * QUANTUM)), max_size=6)


@given(st.lists(pieces, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_streams_that_share_a_connection_come_out_as_they_went_in(
    streams: list[list[bytes]], chance: random.Random
) -> None:
    """Through a multiplexer, an application that sends them back, and a multiplexer again, the
    bytes cut anywhere."""
    mux, application = Multiplexer(), RecordDecoder()
    numbers = begun(mux, len(streams))
    sent = {n: list(stream) for n, stream in zip(numbers, streams, strict=True)}
    order = [n for n in numbers for _ in sent[n]]
    chance.shuffle(order)
    received = dict.fromkeys(numbers, b"")
    returned = bytearray()

    def some_turns(count: int) -> None:
        for _ in range(count):
            if (turn := mux.next_turn()) is not None:
                for record in application.feed(turn[1]):
                    returned.extend(encode_record(STDOUT, record.request_id, record.content))

    def hear(size: int) -> None:
        for arrival in mux.feed(bytes(returned[:size])):
            for record in RecordDecoder().feed(arrival.records):
                received[arrival.request_id] += record.content
        del returned[:size]

    for number in order:
        mux.queue(number, encode_stream(STDIN, number, sent[number].pop(0)))
        some_turns(chance.randrange(4))
        hear(chance.randint(0, len(returned)))
    some_turns(1000)
    hear(len(returned))
    assert received == {n: b"".join(s) for n, s in zip(numbers, streams, strict=True)}


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_broken(data: bytes) -> None:
    mux = Multiplexer()
    begun(mux, 3)
    try:
        for at in range(0, len(data), 7):
            mux.feed(data[at : at + 7])
    except BackendBroken:
        pass
