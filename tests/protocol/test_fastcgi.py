"""forkd/protocol/fastcgi.py: records and name-value pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.errors import BackendBroken
from forkd.protocol.fastcgi import (
    MAX_CONTENT,
    ProtocolStatus,
    Record,
    RecordDecoder,
    RecordType,
    Role,
    decode_end,
    decode_pairs,
    encode_begin,
    encode_end,
    encode_pairs,
    encode_record,
    encode_stream,
)


def padded(kind: int, request_id: int, content: bytes, padding: int) -> bytes:
    sizes = len(content).to_bytes(2, "big") + bytes((padding, 0))
    return bytes((1, kind)) + request_id.to_bytes(2, "big") + sizes + content + b"\xff" * padding


def decoded(data: bytes, step: int) -> list[Record]:
    decoder = RecordDecoder()
    records = []
    for at in range(0, len(data), step):
        piece = bytearray(data[at : at + step])
        records += [Record(kind, who, bytes(text)) for kind, who, text in decoder.feed(piece)]
        piece[:] = b"?" * len(piece)
    assert decoder.is_empty
    return records


def test_bytes_of_a_record() -> None:
    record = encode_record(RecordType.STDIN, 0x0102, b"abc")
    assert record == b"\x01\x05\x01\x02\x00\x03\x00\x00abc"
    assert encode_record(RecordType.PARAMS, 1) == b"\x01\x04\x00\x01\x00\x00\x00\x00"
    assert encode_begin(1, Role.RESPONDER, keep_conn=True) == (
        b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\0\0\0\0\0"
    )
    assert encode_begin(1, Role.AUTHORIZER, keep_conn=False)[8:] == b"\x00\x02\x00\0\0\0\0\0"


RECORDS = st.tuples(
    st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=300), st.integers(0, 255)
)


@given(st.lists(RECORDS, max_size=8), st.integers(1, 100))
def test_records_with_any_padding_cut_anywhere(records: list, step: int) -> None:
    wire = b"".join(padded(*record) for record in records)
    expected = [Record(*record[:3]) for record in records]
    assert decoded(wire, step) == decoded(wire, len(wire) or 1) == expected


def test_the_largest_record_byte_by_byte() -> None:
    wire = padded(6, 1, b"x" * MAX_CONTENT, 255)
    assert decoded(wire, 1) == [Record(6, 1, b"x" * MAX_CONTENT)]


@pytest.mark.parametrize("step", [1, 100])
def test_another_version(step: int) -> None:
    with pytest.raises(BackendBroken):
        decoded(b"HTTP/1.1 200 OK\r\n", step)


@given(st.binary(max_size=1000))
def test_streams(data: bytes) -> None:
    records = decoded(encode_stream(RecordType.STDIN, 7, data), 64)
    assert records == ([Record(RecordType.STDIN, 7, data)] if data else [])


@pytest.mark.parametrize("size", [MAX_CONTENT, MAX_CONTENT + 1, 3 * MAX_CONTENT])
def test_long_streams(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    records = decoded(encode_stream(RecordType.STDIN, 7, memoryview(data)[:size]), 1 << 20)
    assert b"".join(record.content for record in records) == data[:size]
    sizes = [len(record.content) for record in records]
    assert sizes[:-1] == [MAX_CONTENT] * ((size - 1) // MAX_CONTENT)


PAIRS = [
    (b"A", b"", b"\x01\x00A"),
    (b"", b"", b"\x00\x00"),
    (b"A", b"x" * 127, b"\x01\x7fA" + b"x" * 127),
    (b"A", b"x" * 128, b"\x01\x80\x00\x00\x80A" + b"x" * 128),
    (b"n" * 300, b"v", b"\x80\x00\x01\x2c\x01" + b"n" * 300 + b"v"),
]


@pytest.mark.parametrize(("name", "value", "wire"), PAIRS)
def test_bytes_of_a_pair(name: bytes, value: bytes, wire: bytes) -> None:
    assert encode_pairs([(name, value)]) == wire
    assert decode_pairs(wire) == [(name, value)]
    for size in range(1, len(wire)):
        with pytest.raises(ValueError):
            decode_pairs(wire[:size])


@given(st.lists(st.tuples(st.binary(max_size=200), st.binary(max_size=200))))
def test_pairs_round_trip(pairs: list[tuple[bytes, bytes]]) -> None:
    assert decode_pairs(encode_pairs(pairs)) == pairs


def test_end_request() -> None:
    [record] = decoded(encode_end(3, 0xFFFFFFFF, ProtocolStatus.OVERLOADED), 1)
    assert (record.type, record.request_id) == (RecordType.END_REQUEST, 3)
    assert decode_end(record.content) == (0xFFFFFFFF, ProtocolStatus.OVERLOADED)
    with pytest.raises(BackendBroken):
        decode_end(b"\0" * 7)
