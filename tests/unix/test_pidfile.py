"""The pid file: the lock says who runs, the number only repeats it."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.unix import pidfile
from forkd.unix.pidfile import AlreadyRunning, PidFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pid"


@pytest.fixture
def other(path: Path) -> Iterator[int]:
    """Another process that holds the lock."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        PidFile.acquire(str(path)).write(os.getpid())
        os.write(writer, b"x")
        time.sleep(1000)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_write_and_release(path: Path) -> None:
    own = PidFile.acquire(str(path))
    assert path.read_bytes() == b""
    assert not own.left_over
    own.write(123)
    assert path.read_bytes() == b"123\n"
    assert stat.S_IMODE(path.stat().st_mode) & ~0o644 == 0
    own.release()
    assert not path.exists()


def test_second_holder_is_refused_and_changes_nothing(path: Path, other: int) -> None:
    with pytest.raises(AlreadyRunning) as caught:
        PidFile.acquire(str(path))
    assert caught.value.pid == other
    assert caught.value.exit_code == 0
    assert path.read_text() == f"{other}\n"
    assert pidfile.holder(str(path)) == other


def test_holder_of_nothing(path: Path) -> None:
    assert pidfile.holder(str(path)) == 0
    path.write_text("1\n")  # init lives, but holds no lock
    assert pidfile.holder(str(path)) == 0


def test_left_over_file_is_taken_over(path: Path) -> None:
    path.write_text("999999\n")
    own = PidFile.acquire(str(path))
    assert own.left_over
    assert path.read_bytes() == b""
    own.release()


def test_lock_is_not_inherited_by_a_child(path: Path) -> None:
    own = PidFile.acquire(str(path))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if pidfile.holder(str(path)) == os.getppid() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    own.release()


@pytest.mark.parametrize("kind", ["symlink", "folder", "fifo"])
def test_only_a_regular_file_will_do(path: Path, tmp_path: Path, kind: str) -> None:
    if kind == "symlink":
        (tmp_path / "precious").write_text("precious")
        path.symlink_to(tmp_path / "precious")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(OSError):
        PidFile.acquire(str(path))
    if kind == "symlink":
        assert (tmp_path / "precious").read_text() == "precious"


def test_release_leaves_a_successors_file(path: Path) -> None:
    own = PidFile.acquire(str(path))
    path.unlink()
    path.write_text("somebody else's\n")
    own.release()
    assert path.read_text() == "somebody else's\n"


def test_wait_released(path: Path, other: int) -> None:
    assert not pidfile.wait_released(str(path), 0.05)
    os.kill(other, signal.SIGKILL)
    assert pidfile.wait_released(str(path), 10)
    assert pidfile.wait_released(str(path.parent / "none"), 0)
