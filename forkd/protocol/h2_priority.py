"""Extensible priorities (RFC 9218): which response goes first, and which share the line."""

from __future__ import annotations

import re
from typing import NamedTuple

_MEMBER = re.compile(r"([a-z*][a-z0-9_\-.*]*)(?:=([^;,]*))?(?:;[^,]*)?")
_URGENCY = re.compile(r"[0-7]")
_LONGEST = 256  # characters; a frame full of members would cost milliseconds


class Priority(NamedTuple):
    """Section 4: urgency 0 goes first; incremental ones of one urgency take turns."""

    urgency: int = 3
    incremental: bool = False


DEFAULT = Priority()


def parse_priority(value: str) -> Priority:
    """The value of a ``priority`` field or a PRIORITY_UPDATE frame; what it gets wrong, or leaves
    out, is as by default."""
    urgency, incremental = DEFAULT
    if len(value) > _LONGEST:
        return DEFAULT
    for item in value.split(","):
        found = _MEMBER.fullmatch(item.strip(" \t"))
        if found is None:
            continue
        key, given = found[1], (found[2] or "").strip(" \t")
        if key == "u" and _URGENCY.fullmatch(given):
            urgency = int(given)
        elif key == "i" and (found[2] is None or given in ("?0", "?1")):
            incremental = given != "?0"
    return Priority(urgency, incremental)
