"""Standard error of backends: whole lines, the last ones kept, floods cut."""

from __future__ import annotations

import pytest

from forkd.stderr import KEPT, MAX_LINE, MAX_RATE, StderrLines

TEXT = b"one\ntwo\r\n\nthree \xc3\xa4 \xff\nrest"
LINES = ["one", "two", "", "three ä �"]


@pytest.mark.parametrize("size", [1, 3, len(TEXT)])
def test_lines_do_not_depend_on_how_they_come(size: int) -> None:
    lines, found = StderrLines(), []
    for start in range(0, len(TEXT), size):
        found += lines.feed(TEXT[start : start + size], 0.0)
    assert found == LINES
    assert lines.end(0.0) == ["rest"]
    assert list(lines.last) == [*LINES, "rest"]


def test_the_last_are_kept() -> None:
    lines = StderrLines()
    lines.feed(b"".join(b"%d\n" % n for n in range(100)), 0.0)
    assert list(lines.last) == [str(n) for n in range(100 - KEPT, 100)]


@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_a_line_without_end_is_cut(tail: bytes) -> None:
    lines = StderrLines()
    found = lines.feed(b"x" * (2 * MAX_LINE + 10) + tail, 0.0) + lines.end(0.0)
    assert [len(line) for line in found] == [MAX_LINE, MAX_LINE, 10]


def test_a_flood_is_dropped_and_counted() -> None:
    lines = StderrLines()
    assert len(lines.feed(b"x\n" * (MAX_RATE + 7), 5.2)) == MAX_RATE
    assert lines.feed(b"x\n", 5.9) == []
    assert lines.feed(b"y\n", 6.0) == ["(8 lines dropped)", "y"]
    assert lines.end(7.0) == []


def test_what_was_dropped_is_said_at_the_end() -> None:
    lines = StderrLines()
    lines.feed(b"x\n" * (MAX_RATE + 1), 5.0)
    assert lines.end(5.0) == ["(1 lines dropped)"]
