"""forkd/unix/session.py: the groups of a session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from forkd.unix.session import groups_of

GROUPS = """
import os, time
for _ in range(2):
    if os.fork() == 0:
        os.setpgid(0, 0)
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(60)
time.sleep(60)
"""

LEADERLESS = """
import os, time
if os.fork() == 0:
    os.setpgid(0, 0)
    if os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(60)
    os._exit(0)
os.wait()
time.sleep(60)
"""


@contextmanager
def session(code: str, lines: int) -> Iterator[tuple[int, list[int]]]:
    """Its number, and the numbers that its program prints."""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as program:
        assert program.stdout is not None
        try:
            yield program.pid, [int(program.stdout.readline()) for _ in range(lines)]
        finally:
            for group in [*groups_of(program.pid), program.pid]:
                os.killpg(group, signal.SIGKILL)


def test_groups_of_a_session_without_its_own() -> None:
    with session(GROUPS, 2) as (leader, members):
        assert groups_of(leader) == dict.fromkeys(members, leader)


def test_a_group_whose_leader_has_been_reaped() -> None:
    with session(LEADERLESS, 1) as (leader, (member,)):
        group = os.getpgid(member)
        deadline = time.monotonic() + 5
        while groups_of(leader) != {group: 0} and time.monotonic() < deadline:
            time.sleep(0.01)
        assert groups_of(leader) == {group: 0}


def test_no_session_no_groups() -> None:
    assert groups_of(2**22 + 1) == {}
