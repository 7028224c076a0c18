"""forkd/unix/spawn.py: spawn_cgi, with real processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from forkd.unix import signals
from forkd.unix.spawn import spawn_cgi

REPORT = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "input": sys.stdin.read(),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if fd != "3"),
    "pid": os.getpid(), "group": os.getpgid(0), "session": os.getsid(0),
}))
print("complaint", file=sys.stderr)
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Any, bytes, int]]:
    """Run a program to its end: what it says on its output, on standard error, its status."""

    def run(
        argv: list[bytes], env: Mapping[bytes, bytes], data: bytes = b""
    ) -> tuple[Any, bytes, int]:
        files = [tmp_path / name for name in ("in", "out", "err")]
        files[0].write_bytes(data)
        fds = [os.open(file, os.O_RDWR | os.O_CREAT) for file in files]
        try:
            pid = spawn_cgi(argv, env, bytes(tmp_path), (fds[0], fds[1], fds[2]))
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            for fd in fds:
                os.close(fd)
        report = json.loads(files[1].read_text() or "null")
        assert report is None or report["pid"] == pid
        return report, files[2].read_bytes(), status

    return run


def inherited() -> set[int]:
    """What this process lets its children have, because it was given it so."""
    numbers = {int(name) for name in os.listdir("/proc/self/fd")}
    return {
        fd
        for fd in numbers
        if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)
    }


def python(code: str, *args: bytes) -> list[bytes]:
    return [os.fsencode(sys.executable), b"-ISc", code.encode(), *args]


def test_a_program_gets_what_it_is_given_and_nothing_else(run: Any, tmp_path: Path) -> None:
    home = os.getcwd()
    report, complaint, status = run(
        python(REPORT, b"caf\xe9"), {b"A": b"1", b"B": b"\xff"}, b"body"
    )
    assert report["argv"][1:] == ["caf\udce9"]
    report["env"].pop("LC_CTYPE", None)  # Python's own doing
    assert report["env"] == {"A": "1", "B": "\udcff"}
    assert report["cwd"] == str(tmp_path)
    assert report["input"] == "body"
    assert set(report["fds"]) - inherited() == {0, 1, 2}
    assert (complaint, status) == (b"complaint\n", 0)
    assert os.getcwd() == home


def test_it_leads_a_group_in_our_session(run: Any) -> None:
    report, _, _ = run(python(REPORT), {})
    assert report["group"] == report["pid"]
    assert report["session"] == os.getsid(0)


def test_what_python_ignores_is_default_and_nothing_is_blocked(run: Any) -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    with signals.blocked():
        _, said, _ = run([b"/bin/sh", b"-c", b"exec grep Sig /proc/self/status >&2"], {})
        _, _, status = run([b"/bin/sh", b"-c", b"kill -PIPE $$"], {})
    masks = dict(line.split(":\t") for line in said.decode().splitlines())
    assert int(masks["SigBlk"], 16) == 0
    for number in signals.PYTHONS_OWN:
        assert not int(masks["SigIgn"], 16) >> number - 1 & 1
    assert status == -signal.SIGPIPE


@pytest.mark.parametrize(
    ("content", "mode", "number"),
    [
        (None, 0, errno.ENOENT),
        (b"#!/bin/sh\n", 0o644, errno.EACCES),
        (b"no program", 0o755, errno.ENOEXEC),
        (b"#!/nonexistent/interpreter\n", 0o755, errno.ENOENT),
    ],
)
def test_what_cannot_be_executed(
    tmp_path: Path, content: bytes | None, mode: int, number: int
) -> None:
    program = tmp_path / "program"
    if content is not None:
        program.write_bytes(content)
        program.chmod(mode)
    home, before = os.getcwd(), psutil.Process().children()
    with pytest.raises(OSError) as caught:
        spawn_cgi([bytes(program)], {}, bytes(tmp_path), (0, 1, 2))
    assert caught.value.errno == number
    assert os.getcwd() == home
    assert psutil.Process().children() == before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    home = os.getcwd()
    with pytest.raises(FileNotFoundError):
        spawn_cgi([b"/bin/true"], {}, bytes(tmp_path / "none"), (0, 1, 2))
    assert os.getcwd() == home


def test_no_nul_in_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="null"):
        spawn_cgi([b"/bin/true"], {b"A": b"a\0b"}, bytes(tmp_path), (0, 1, 2))
