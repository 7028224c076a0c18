"""forkd/gateway/ranges.py: what a Range field asks for (core.md 11.2)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors_loader import accepted, load, vector_id

from forkd.gateway.ranges import MAX_RANGES, MAX_UNSORTED, NEAR, parse, ranges_of


@pytest.mark.parametrize("vector", load("range"), ids=vector_id)
def test_vectors_range(vector):
    assert [list(pair) for pair in parse(vector["set"], vector["length"])] in accepted(vector)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-1", [(0, 1)]),
        ("BYTES=0-1", [(0, 1)]),
        ("bytes =0-1", None),
        ("bytes", None),
        ("items=0-1", None),
        ("", None),
        ("bytes=", []),
        ("bytes=0-1, bytes=500-501", [(0, 1)]),  # a second field: its unit is no number
    ],
)
def test_unit(value, expected):
    assert ranges_of(value, 1000) == expected


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ("+1-2", []),
        ("- 5", []),
        ("１-2", []),  # a digit, but not of ASCII
        ("-0", []),
        ("-" + "9" * 5000, []),
        ("0-" + "0" * 5000 + "7", [(0, 7)]),
        ("-9223372036854775808", [(0, 999)]),
        ("900-,-50", [(900, 999)]),
        ("500-500,0-0", [(500, 500), (0, 0)]),
        ("900-901,0-1,400-401,2-3", [(900, 901), (0, 3), (400, 401)]),
        ("500-501,0-1,2-499", [(0, 501)]),  # one that joins two others
    ],
)
def test_parse(ranges, expected):
    assert parse(ranges, 1000) == expected


def test_parse_does_not_convert_what_is_no_ascii_digit():
    assert parse("²-3", 1000) == []


def test_limits():
    far = [f"{start}-{start}" for start in range(0, 200_000, 1000)]
    assert len(parse(",".join(far), 10**6)) == MAX_RANGES
    assert len(parse(",".join(reversed(far)), 10**6)) == MAX_UNSORTED
    random.Random(1).shuffle(far)
    assert len(parse(",".join(far), 10**6)) <= MAX_UNSORTED


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=9),
    st.integers(1, 2000),
)
def test_every_wanted_byte_is_sent_and_parts_stay_apart(pairs, length):
    found = parse(",".join(f"{first}-{last}" for first, last in pairs), length)
    wanted = {byte for first, last in pairs for byte in range(first, min(last, length - 1) + 1)}
    assert wanted <= {byte for first, last in found for byte in range(first, last + 1)}
    assert all(0 <= first <= last < length for first, last in found)
    ordered = sorted(found)
    assert all(b[0] - a[1] > NEAR for a, b in zip(ordered, ordered[1:], strict=False))
