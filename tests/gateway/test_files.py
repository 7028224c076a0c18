"""forkd/gateway/files.py: what is opened, and what is not (core.md 10.2)."""

from __future__ import annotations

import os
import socket

import pytest

from forkd.errors import Forbidden, ForkdError, NotFound
from forkd.gateway import files


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "f.txt").write_bytes(b"content\n")
    (tmp_path / "dir" / "\xe4").mkdir()
    os.symlink("dir", tmp_path / "dirlink")
    os.symlink("f.txt", tmp_path / "dir" / "link.txt")
    os.symlink("nowhere", tmp_path / "broken")
    os.symlink("loop", tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
    return str(tmp_path)


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def find(tree: str, path: str, follow: bool = True) -> tuple[str, str, bool]:
    with files.lookup(tree, tree + path, follow) as found:
        assert os.fstat(found.fd).st_ino == os.stat(found.path).st_ino
        return found.path.removeprefix(tree), found.path_info, found.is_folder


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/dir/f.txt", ("/dir/f.txt", "", False)),
        ("/dir", ("/dir", "", True)),
        ("/dir/", ("/dir/", "", True)),
        ("/", ("/", "", True)),
        ("/dir/f.txt/a/b", ("/dir/f.txt", "/a/b", False)),
        ("/dir/f.txt/", ("/dir/f.txt", "/", False)),
        ("/dir/f.txt" + "/x" * 3000, ("/dir/f.txt", "/x" * 3000, False)),
    ],
)
def test_found(tree, path, found, follow):
    assert find(tree, path, follow) == found


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/nope", NotFound),
        ("/nope/deeper", NotFound),
        ("/dir/nope/", NotFound),
        ("/" + "n" * 300, NotFound),
        ("/" + "n/" * 3000, NotFound),
        ("/fifo", Forbidden),
        ("/fifo/x", Forbidden),
        ("/socket", Forbidden),
    ],
)
def test_refused(tree, path, error, follow):
    with pytest.raises(error):
        find(tree, path, follow)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/dir/link.txt", ("/dir/link.txt", "", False)),
        ("/dirlink/f.txt", ("/dirlink/f.txt", "", False)),
        ("/dirlink", ("/dirlink", "", True)),
        ("/dirlink/", ("/dirlink/", "", True)),
        ("/dirlink/f.txt/x", ("/dirlink/f.txt", "/x", False)),
    ],
)
def test_symlinks(tree, path, found):
    assert find(tree, path) == found
    with pytest.raises(Forbidden):
        find(tree, path, follow=False)


@pytest.mark.parametrize("path", ["/broken", "/loop", "/loop/x"])
def test_broken_symlinks(tree, path):
    with pytest.raises(NotFound):
        find(tree, path)
    with pytest.raises(Forbidden):
        find(tree, path, follow=False)


def test_symlink_above_the_base_counts(tree, tmp_path_factory):
    above = tmp_path_factory.mktemp("above") / "root"
    above.symlink_to(tree)
    assert find(str(above), "/dir/f.txt")[0] == "/dir/f.txt"
    with pytest.raises(Forbidden):
        find(str(above), "/dir/f.txt", follow=False)


def test_path_info_can_be_switched_off(tree):
    with pytest.raises(NotFound):
        files.lookup(tree, tree + "/dir/f.txt/x", True, path_info=False)


def test_a_base_that_is_a_file_has_path_info_too(tree):
    base = tree + "/dir/f.txt"
    with files.lookup(base, base + "/x", True) as found:
        assert (found.path, found.path_info) == (base, "/x")


def test_names_are_bytes(tree):
    with files.lookup(tree, tree + "/dir/\xc3\xa4", True) as found:
        assert found.is_folder


def test_no_permission(tree, monkeypatch):
    """Tests may run as root, who may do everything: the system call refuses in the kernel's
    place."""
    real_open = os.open

    def refusing(name, flags, *args, **kwargs):
        if not flags & os.O_PATH:
            raise PermissionError(13, "Permission denied")
        return real_open(name, flags, *args, **kwargs)

    monkeypatch.setattr(files.os, "open", refusing)
    with pytest.raises(Forbidden):
        find(tree, "/dir/f.txt")
    assert find(tree, "/dir") == ("/dir", "", True)


def test_other_errors_are_the_servers_own(tree, monkeypatch):
    def failing(*args, **kwargs):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(files.os, "open", failing)
    with pytest.raises(ForkdError) as caught:
        find(tree, "/dir/f.txt")
    assert caught.value.status == 500


def test_descriptor_is_closed_when_fstat_fails(tree, monkeypatch):
    def failing(fd):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fstat", failing)
        with pytest.raises(ForkdError):
            find(tree, "/dir/f.txt")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/dir/f.txt", True), ("/dir/link.txt", True), ("/dir", False), ("/no", False), ("\0", False)],
)
def test_is_regular(tree, path, expected):
    assert files.is_regular(tree + path) is expected
