"""Who belongs to a session (credentials(7)), as /proc tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress


def groups_of(session: int) -> dict[int, int]:
    """The process groups of *session*: the leader's number, and the leader's parent; 0 when the
    leader is gone.  The group that the session's own leader leads is left out."""
    groups: dict[int, int] = {}
    for pid, parent, group in _members(session):
        if group != session:
            groups.setdefault(group, 0)
            if pid == group:
                groups[group] = parent
    return groups


def _members(session: int) -> Iterator[tuple[int, int, int]]:
    """(pid, parent, group) of each process, zombies too."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # The name of a program, in parentheses, may hold any byte.
            _, parent, group, its_session = file.read().rpartition(b")")[2].split()[:4]
            if int(its_session) == session:
                yield int(name), int(parent), int(group)
