"""forkd/protocol/fastcgi_app.py: FastCGI as an application hears it."""

from __future__ import annotations

import pytest

from forkd.errors import BackendBroken, BadRequest
from forkd.protocol.fastcgi import (
    KEEP_CONN,
    ProtocolStatus,
    Record,
    RecordDecoder,
    RecordType,
    Role,
    decode_pairs,
    encode_begin,
    encode_pairs,
    encode_record,
    encode_stream,
)
from forkd.protocol.fastcgi_app import (
    MAX_PARAMS,
    Abort,
    ApplicationDecoder,
    Begin,
    Event,
    GetValues,
    Input,
    Params,
    Refused,
    Unknown,
    encode_unknown_type,
    encode_values,
)

ENVIRONMENT = {b"CONTENT_LENGTH": b"5", b"EMPTY": b"", b"LONG": b"x" * 300}


def fed(data: bytes, step: int, decoder: ApplicationDecoder | None = None) -> list[Event]:
    """All events, with the data of inputs copied."""
    decoder = decoder or ApplicationDecoder()
    events: list[Event] = []
    for at in range(0, len(data), step):
        for event in decoder.feed(memoryview(data)[at : at + step]):
            if isinstance(event, Input):
                event = Input(event.request_id, bytes(event.data))
            events.append(event)
    return events


def params(number: int, environment: dict[bytes, bytes] = ENVIRONMENT) -> bytes:
    text = encode_pairs(environment.items())
    return b"".join(
        (
            encode_stream(RecordType.PARAMS, number, text[:10]),
            encode_stream(RecordType.PARAMS, number, text[10:]),
            encode_record(RecordType.PARAMS, number),
        )
    )


def stdin(number: int, data: bytes = b"") -> bytes:
    return encode_record(RecordType.STDIN, number, data)


def one(data: bytes) -> Record:
    (record,) = RecordDecoder().feed(data)
    return record


REQUEST = encode_begin(1, Role.RESPONDER, False) + params(1) + stdin(1, b"hello") + stdin(1)
PADDED = b"\x01\x05\x00\x01\x00\x03\x05\x00abc-----"


def test_whole_byte_by_byte_and_with_a_tail() -> None:
    expected: list[Event] = [
        Begin(1, False),
        Params(1, ENVIRONMENT),
        Input(1, b"hello"),
        Input(1, b""),
    ]
    for tail in (b"", stdin(1, b"late"), stdin(7, b"stranger"), b"\x01\x05\x00"):
        for step in (1, 3, 1000):
            assert fed(REQUEST + tail, step) == expected


def test_padding_is_left_out() -> None:
    head = encode_begin(1, Role.RESPONDER, False) + params(1)
    for step in (1, 1000):
        assert fed(head + PADDED, step)[2:] == [Input(1, b"abc")]


def test_of_variables_sent_twice_the_last_counts() -> None:
    text = encode_pairs([(b"A", b"1"), (b"B", b"2"), (b"A", b"3")])
    data = encode_begin(1, Role.RESPONDER, False)
    data += encode_record(RecordType.PARAMS, 1, text) + encode_record(RecordType.PARAMS, 1)
    assert fed(data, 1000)[1] == Params(1, {b"A": b"3", b"B": b"2"})


def test_an_authorizer_has_no_input() -> None:
    data = encode_begin(1, Role.AUTHORIZER, True) + params(1) + stdin(1)
    assert fed(data, 1) == [Begin(1, True), Params(1, ENVIRONMENT), Input(1, b"")]


def test_a_second_request_is_refused_while_the_first_is_active() -> None:
    decoder = ApplicationDecoder()
    second = encode_begin(2, Role.RESPONDER, True) + params(2) + stdin(2, b"x") + stdin(2)
    refused = Refused(2, True, ProtocolStatus.CANT_MPX_CONN)
    assert fed(REQUEST + second, 1000, decoder)[4:] == [refused]
    decoder.finish(1)
    assert fed(second, 1000, decoder)[0] == Begin(2, True)


def test_more_requests_at_a_time_are_told_apart() -> None:
    decoder = ApplicationDecoder(max_requests=2)
    begin = encode_begin(1, Role.RESPONDER, True) + encode_begin(2, Role.RESPONDER, True)
    data = begin + params(2) + params(1) + stdin(2, b"b") + stdin(1, b"a") + stdin(2) + stdin(1)
    assert [(type(event), event.request_id) for event in fed(data, 5, decoder)] == [
        (Begin, 1), (Begin, 2), (Params, 2), (Params, 1), (Input, 2), (Input, 1), (Input, 2),
        (Input, 1),
    ]  # fmt: skip


def test_too_many_are_refused_for_another_reason_than_the_second() -> None:
    decoder = ApplicationDecoder(max_requests=2)
    data = b"".join(encode_begin(number, Role.RESPONDER, True) for number in (1, 2, 3))
    assert fed(data, 1000, decoder)[2] == Refused(3, True, ProtocolStatus.OVERLOADED)


@pytest.mark.parametrize("role", [0, Role.FILTER, 4, 65535])
def test_unknown_role(role: int) -> None:
    data = encode_record(RecordType.BEGIN_REQUEST, 1, bytes((role >> 8, role & 255, 0)) + bytes(5))
    data += params(1) + stdin(1)
    assert fed(data, 1000) == [Refused(1, False, ProtocolStatus.UNKNOWN_ROLE)]


def test_abort() -> None:
    abort = encode_record(RecordType.ABORT_REQUEST, 1)
    begin = encode_begin(1, Role.RESPONDER, False)
    assert fed(begin + abort, 1) == [Begin(1, False), Abort(1)]
    assert fed(abort, 1) == []


def test_flags_other_than_keep_conn_mean_nothing() -> None:
    for flags, keeps in ((0, False), (KEEP_CONN, True), (0xFE, False), (0xFF, True)):
        data = encode_record(RecordType.BEGIN_REQUEST, 9, bytes((0, 1, flags)) + bytes(5))
        assert fed(data, 1000) == [Begin(9, keeps)]


def test_questions_about_the_application() -> None:
    names = (b"FCGI_MAX_REQS", b"WHAT", b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS")
    question = encode_record(
        RecordType.GET_VALUES, 0, encode_pairs((name, b"") for name in names)
    )
    assert fed(question, 1) == [GetValues(names)]
    answer = one(encode_values(names, {b"FCGI_MAX_CONNS": 16, b"FCGI_MAX_REQS": 17, b"MORE": 1}))
    assert (answer.type, answer.request_id) == (RecordType.GET_VALUES_RESULT, 0)
    assert decode_pairs(answer.content) == [(b"FCGI_MAX_REQS", b"17"), (b"FCGI_MAX_CONNS", b"16")]


def test_unknown_types_are_answered_known_ones_that_make_no_sense_are_not() -> None:
    for kind in (0, 12, 255):
        data = bytes((1, kind, 0, 0, 0, 1, 0, 0, 7))
        assert fed(data, 1) == [Unknown(kind)]
        answer = one(encode_unknown_type(kind))
        assert (answer.type, answer.request_id) == (RecordType.UNKNOWN_TYPE, 0)
        assert bytes(answer.content) == bytes((kind,)) + bytes(7)
    for kind in (RecordType.DATA, RecordType.STDOUT, RecordType.END_REQUEST):
        assert fed(encode_record(kind, 1, b"x"), 1) == []


BEGIN = encode_begin(1, Role.RESPONDER, False)

BAD = {
    "request 0": encode_begin(0, Role.RESPONDER, False),
    "begun twice": BEGIN + BEGIN,
    "input too early": BEGIN + stdin(1, b"x"),
    "variables cut short": BEGIN + encode_record(RecordType.PARAMS, 1, b"\x05\x05abc")
    + encode_record(RecordType.PARAMS, 1),
    "too many variables": BEGIN
    + encode_stream(RecordType.PARAMS, 1, bytes(MAX_PARAMS + 1)),
    "question cut short": encode_record(RecordType.GET_VALUES, 0, b"\x81"),
}  # fmt: skip


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_refused(data: bytes) -> None:
    for step in (1000, 1 << 22):
        with pytest.raises(BadRequest):
            fed(data, step)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x01\x01\x00\x01\x00\x02\x00\x00ab"])
def test_what_is_not_fastcgi_is_refused(data: bytes) -> None:
    for step in (1, 1000):
        with pytest.raises(BackendBroken):
            fed(data, step)
