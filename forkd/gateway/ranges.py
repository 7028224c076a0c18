"""Byte ranges (RFC 9110 section 14): the Range field to a list of pairs. Pure.

The limits on what a client may ask for are those of core.md 11.2: a response never has more parts
than that, and parts that lie closer together than the overhead of a part are sent as one.
"""

from __future__ import annotations

import re

Range = tuple[int, int]
"""First and last byte, both included, within the representation."""

MAX_RANGES = 128
MAX_UNSORTED = 10  # once a range begins before its predecessor: joining them is not linear
NEAR = 80  # bytes between two ranges that are not worth a part of their own (RFC 9110 14.6)
MAX_POSITION = 2**63 - 1

_UNIT = "bytes="
_SPEC = re.compile(r"[ \t]*(?:([0-9]+)[ \t]*-[ \t]*([0-9]*)|-([0-9]+))[ \t]*")


def ranges_of(value: str, length: int) -> list[Range] | None:
    """The ranges that the field *value* asks of *length* bytes.

    Empty when none can be satisfied (416); None when the field is to be ignored, its unit being
    another.
    """
    unit, ranges = value[: len(_UNIT)], value[len(_UNIT) :]
    return parse(ranges, length) if unit.lower() == _UNIT else None


def parse(ranges: str, length: int) -> list[Range]:
    """What follows ``bytes=``.  A spec that is malformed or begins behind the end is skipped."""
    found: list[Range] = []
    is_sorted = True
    for spec in ranges.split(","):
        item = _parse_spec(spec, length)
        if item is None:
            continue
        if is_sorted and found and item[0] >= found[-1][0]:
            if _are_near(found[-1], item):
                found[-1] = _joined(found[-1], item)
                continue
        elif found:
            is_sorted = False
        if len(found) >= (MAX_RANGES if is_sorted else MAX_UNSORTED):
            break
        found.append(item)
    return found if is_sorted else _coalesced(found)


def _parse_spec(spec: str, length: int) -> Range | None:
    match = _SPEC.fullmatch(spec)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        count = _position(suffix, MAX_POSITION + 1)
        return (max(length - count, 0), length - 1) if count and length else None
    start = _position(first, MAX_POSITION)
    end = _position(last, MAX_POSITION) if last else length - 1
    if start is None or end is None or end < start or start >= length:
        return None
    return start, min(end, length - 1)


def _position(digits: str, limit: int) -> int | None:
    """The number, None beyond *limit*; thousands of digits are not converted to find that out."""
    significant = digits.lstrip("0")
    if len(significant) > len(str(limit)):
        return None
    number = int(significant or "0")
    return number if number <= limit else None


def _are_near(one: Range, other: Range) -> bool:
    low, high = sorted((one, other))
    return high[0] - low[1] <= NEAR


def _joined(one: Range, other: Range) -> Range:
    return min(one[0], other[0]), max(one[1], other[1])


def _coalesced(ranges: list[Range]) -> list[Range]:
    """Near ranges joined, each at the place of the first of them; at most MAX_UNSORTED go in."""
    out: list[Range] = []
    for item in ranges:
        joined, place = item, len(out)
        while near := [index for index, other in enumerate(out) if _are_near(other, joined)]:
            place = min(place, near[0])
            for index in reversed(near):
                joined = _joined(joined, out.pop(index))
        out.insert(place, joined)
    return out
