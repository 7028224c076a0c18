"""Where a server's files are, and how its pid file is found again."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from forkd import paths
from forkd.errors import StartError
from forkd.unix import pidfile


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RUN, not made yet, whoever runs the test; and another place where it may be."""
    folder = tmp_path / "run"
    monkeypatch.setattr(paths, "run_dirs", lambda: (str(folder), str(tmp_path / "other")))
    return folder


def identity(folder: Path, name: str = "web.conf") -> paths.Identity:
    return paths.identity(str(folder / name))


def test_identity_is_the_real_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web.conf").touch()
    (tmp_path / "link.conf").symlink_to("web.conf")
    monkeypatch.chdir(tmp_path)
    who = identity(tmp_path)
    assert re.fullmatch(r"web-[0-9a-f]{8}\.pid", who.pid_file)
    assert paths.identity("web.conf") == paths.identity("./web.conf") == who
    assert paths.identity("link.conf").digest == who.digest
    assert paths.identity("other.conf").digest != who.digest


def test_standard_input_is_known_by_its_text() -> None:
    assert paths.identity("-", b"a").digest != paths.identity("-", b"b").digest
    assert paths.identity("-", b"a").pid_file.startswith("stdin-")


@pytest.mark.parametrize(
    ("uid", "runtime", "expected"),
    [
        (0, True, ("/run/forkd",)),
        (1000, True, ("@/forkd", "/tmp/forkd-1000")),
        (1000, False, ("/tmp/forkd-1000",)),
    ],
)
def test_run(
    uid: int,
    runtime: bool,
    expected: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path if runtime else tmp_path / "missing"))
    assert paths.run_dirs() == tuple(path.replace("@", str(tmp_path)) for path in expected)


def test_run_is_made_for_its_user_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.make_run_dir() == str(run)
    assert paths.make_run_dir() == str(run)
    assert stat.S_IMODE(run.stat().st_mode) & 0o022 == 0


@pytest.mark.parametrize("trap", ["link", "file", "open"])
def test_run_of_somebody_else_is_refused(run: Path, tmp_path: Path, trap: str) -> None:
    if trap == "link":
        run.symlink_to(tmp_path)
    elif trap == "file":
        run.touch()
    else:
        run.mkdir()
        run.chmod(0o777)
    with pytest.raises(StartError) as caught:
        paths.make_run_dir()
    assert caught.value.exit_code == 4


def test_pid_file_option_then_directive_then_run(run: Path, tmp_path: Path) -> None:
    who = identity(tmp_path)
    assert paths.pid_file_for(who, "/a.pid", "/b.pid") == "/a.pid"
    assert paths.pid_file_for(who, "", "/b.pid") == "/b.pid"
    assert paths.pid_file_for(who, "", "") == str(run / who.pid_file)
    assert paths.pid_file_for(who, "x.pid", "") == os.path.abspath("x.pid")


def test_control_socket_beside_the_pid_file_unless_too_long(run: Path) -> None:
    assert paths.control_socket_for("/run/x.pid") == "/run/x.pid.sock"
    fits = "/" + "x" * 101
    assert paths.control_socket_for(fits) == f"{fits}.sock"
    long = paths.control_socket_for(fits + "x")
    assert long.startswith(f"{run}/")
    assert long.endswith(".sock")
    assert paths.control_socket_for(fits + "y") != long


def test_log_of_a_daemon(run: Path, tmp_path: Path) -> None:
    assert paths.log_file_for(identity(tmp_path)) == str(run / "web.log")


# -- finding ----------------------------------------------------------------------------------


def never() -> str:
    raise AssertionError("the configuration was loaded")


def test_option_wins(run: Path, tmp_path: Path) -> None:
    found = paths.find_pid_file(identity(tmp_path), "/x.pid", never, lambda path: True)
    assert found == "/x.pid"


def test_a_locked_file_in_run_is_found_without_the_configuration(
    run: Path, tmp_path: Path
) -> None:
    who = identity(tmp_path)
    path = str(tmp_path / "other" / who.pid_file)
    assert paths.find_pid_file(who, "", never, lambda name: name == path) == path


def test_a_link_leads_to_the_directives_file(run: Path, tmp_path: Path) -> None:
    who = identity(tmp_path)
    real = str(tmp_path / "real.pid")
    paths.leave_link(who, real)
    assert os.readlink(run / who.pid_file) == real
    assert paths.find_pid_file(who, "", never, lambda path: path == real) == real
    paths.remove_link(who, real)
    paths.remove_link(who, real)
    assert os.listdir(run) == []


def test_nothing_locked_then_the_directive_then_run(run: Path, tmp_path: Path) -> None:
    who = identity(tmp_path)
    assert paths.find_pid_file(who, "", lambda: "/d.pid", lambda path: False) == "/d.pid"
    assert paths.find_pid_file(who, "", lambda: "", lambda path: False) == str(run / who.pid_file)


def test_no_link_where_the_pid_file_is_in_run(run: Path, tmp_path: Path) -> None:
    who = identity(tmp_path)
    path = Path(paths.pid_file_for(who, "", ""))
    path.write_text("1\n")
    paths.leave_link(who, str(path))
    paths.remove_link(who, str(path))
    assert path.read_text() == "1\n"


def test_a_link_replaces_an_old_one_and_stays_for_its_owner(run: Path, tmp_path: Path) -> None:
    who = identity(tmp_path)
    paths.leave_link(who, "/old.pid")
    paths.leave_link(who, "/new.pid")
    paths.remove_link(who, "/old.pid")
    assert os.readlink(run / who.pid_file) == "/new.pid"


def test_a_link_to_another_server_that_runs_stays(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = identity(tmp_path)
    paths.leave_link(who, "/first.pid")
    monkeypatch.setattr(pidfile, "holder", lambda path: 99)
    paths.leave_link(who, "/second.pid")
    assert os.readlink(run / who.pid_file) == "/first.pid"


def test_a_link_that_cannot_be_made_is_no_failure(run: Path, tmp_path: Path) -> None:
    run.touch()
    paths.leave_link(identity(tmp_path), "/x.pid")


def test_a_link_left_behind_is_not_taken_for_a_pid_file(run: Path, tmp_path: Path) -> None:
    who = identity(tmp_path)
    paths.leave_link(who, "/old.pid")
    assert paths.pid_file_for(who, "", "") == str(run / who.pid_file)
    assert os.listdir(run) == []
