"""A daemon stands alone, and its caller knows how its start went."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from forkd.unix.daemon import Outcome, has_terminal

PROGRAM = """
import os, sys
from forkd.unix.daemon import Outcome, daemonize
result = daemonize()
if isinstance(result, Outcome):
    print("outcome", result.status, result.text, flush=True)
    sys.exit(result.status)
{body}
"""


def run(body: str) -> tuple[int, str]:
    """(exit status, all output) of a caller whose daemon does *body*."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_ready() -> None:
    status, text = run("result.ready(); print('lost')")
    assert (status, text) == (0, "outcome 0 \n")


def test_failure_has_status_and_reason() -> None:
    status, text = run("print('said before', flush=True); result.fail(4, 'no: why')")
    assert (status, text) == (4, "said before\noutcome 4 no: why\n")


def test_silent_death_is_a_failure() -> None:
    status, text = run("os._exit(0)")
    assert (status, text) == (1, "outcome 1 the server ended while it was starting\n")


def test_daemon_stands_alone() -> None:
    status, text = run(
        "import os\n"
        "alone = os.getpid() not in (os.getsid(0), os.getpgid(0))\n"
        "stdin = os.readlink('/proc/self/fd/0')\n"
        "result.fail(3, f'{alone} {os.getcwd()} {stdin}')"
    )
    assert (status, text) == (3, "outcome 3 True / /dev/null\n")


def test_caller_that_does_not_wait_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    from forkd.unix.daemon import ReadyPipe

    ReadyPipe(writer).fail(1, "nobody hears that")


def test_open_standard_fills_the_gaps() -> None:
    code = (
        "import os; os.close(0); os.close(2)\n"
        "from forkd.unix.daemon import open_standard; open_standard()\n"
        "print(os.readlink('/proc/self/fd/0'), os.readlink('/proc/self/fd/2'),"
        " sorted(os.listdir('/proc/self/fd'))[:4])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "/dev/null /dev/null ['0', '1', '2', '3']\n"


def test_outcome_is_a_value() -> None:
    assert Outcome(0, "") == Outcome(0, "")


def test_session_leader_has_no_terminal() -> None:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(has_terminal())
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("status", [1, 5, 6])
def test_status_survives(status: int) -> None:
    assert run(f"result.fail({status})")[0] == status
