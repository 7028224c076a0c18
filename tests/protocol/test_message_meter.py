"""forkd/protocol/message_meter.py: where messages end, however their bytes are cut."""

from __future__ import annotations

from client_frames import BINARY, CONTINUATION, PING, TEXT, frame
from hypothesis import given
from hypothesis import strategies as st

from forkd.protocol.message_meter import MessageMeter

PIECES = [
    # (bytes, whether it begins the last frame of a message)
    (frame(TEXT, b""), True),
    (frame(PING, b"?" * 125), False),
    (frame(TEXT, b"a" * 200, fin=False), False),
    (frame(CONTINUATION, b"b" * 70_000, fin=False), False),
    (frame(PING, b""), False),
    (frame(CONTINUATION, b"c"), True),
    (frame(BINARY, b"\x81" * 126), True),
    (frame(BINARY, b"d" * 65_536), True),
    (frame(TEXT, b"e"), True),
]
STREAM = b"".join(data for data, _ in PIECES)
ENDS = [
    sum(len(data) for data, _ in PIECES[:index])
    for index, (_, is_last) in enumerate(PIECES)
    if is_last
]
"""Where the last frame of each message begins."""


def test_every_budget_ends_before_the_message_that_is_too_much() -> None:
    for budget in range(len(ENDS) + 2):
        size, messages = MessageMeter().cut(memoryview(STREAM), budget)
        assert messages == min(budget, len(ENDS))
        assert size == (ENDS[budget] if budget < len(ENDS) else len(STREAM))


def test_what_is_left_is_given_again() -> None:
    meter, at = MessageMeter(), 0
    for end in ENDS[1:]:
        size, messages = meter.cut(memoryview(STREAM)[at:], 1)
        at += size
        assert (at, messages) == (end, 1)
    assert meter.cut(memoryview(STREAM)[at:], 0) == (0, 0)
    assert meter.cut(memoryview(STREAM)[at:], 9) == (len(STREAM) - at, 1)


@given(st.lists(st.integers(1, 300), max_size=2000))
def test_cuts_change_nothing(steps: list[int]) -> None:
    meter, at, total = MessageMeter(), 0, 0
    for step in [*steps, len(STREAM)]:
        size, messages = meter.cut(memoryview(STREAM)[at : at + step], 100)
        assert size == len(STREAM[at : at + step])
        at, total = at + size, total + messages
    assert total == len(ENDS)


@given(st.binary(max_size=200), st.integers(0, 5))
def test_nothing_is_too_strange(data: bytes, budget: int) -> None:
    size, messages = MessageMeter().cut(memoryview(data), budget)
    assert 0 <= size <= len(data)
    assert messages <= budget
