"""Users: looked up, refused when they mean root, become for good."""

from __future__ import annotations

import grp
import os
import pwd
import resource
from collections.abc import Callable

import pytest

from forkd.unix import proctitle, user
from forkd.unix.user import Identity

IS_ROOT = os.geteuid() == 0  # nobody else can become somebody else


def exit_of(run: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if run() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_nobody_else() -> None:
    assert user.look_up("", "") is None


@pytest.mark.parametrize(
    ("name", "group", "text"),
    [
        ("no-such-user", "", "no user is named 'no-such-user'"),
        ("", "no-such-group", "no group is named 'no-such-group'"),
        ("root", "", "'root' is root"),
        ("nobody", "root", "is root"),
        ("", "root", "'root' is root"),
    ],
)
def test_refused(name: str, group: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        user.look_up(name, group)


def test_look_up() -> None:
    nobody = user.look_up("nobody", "")
    if not IS_ROOT:
        assert nobody is None
        return
    assert nobody is not None
    assert nobody.uid == 65534
    assert nobody.gid in nobody.groups
    daemon = user.look_up("nobody", "daemon")
    assert daemon is not None
    assert daemon.gid == 1
    only_group = user.look_up("", "daemon")
    assert only_group == Identity(0, 1, (1,))


def test_group_without_a_user() -> None:
    def check() -> bool:
        Identity(0, 1, (1,)).drop()
        ids = (os.getresuid(), os.getresgid(), os.getgroups())
        return not IS_ROOT or ids == ((0, 0, 0), (1, 1, 1), [1])

    assert exit_of(check) == 0


def test_drop_is_for_good() -> None:
    def check() -> bool:
        before = os.getresuid()
        Identity(65534, 65534, (65534, 1)).drop()
        if not IS_ROOT:
            return os.getresuid() == before
        with pytest.raises(PermissionError):
            os.setuid(0)
        ids = os.getresuid() == os.getresgid() == (65534, 65534, 65534)
        return ids and sorted(os.getgroups()) == [1, 65534]

    assert exit_of(check) == 0


def test_drop_twice_is_no_error() -> None:
    def check() -> bool:
        Identity(65534, 65534, (65534,)).drop()
        Identity(65534, 65534, (65534,)).drop()
        return True

    assert exit_of(check) == 0


SERVER = Identity(65534, 65534, (65534, 1))


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
def test_user_of_a_program() -> None:
    assert user.of_program("", "", SERVER) is SERVER
    assert user.of_program("", "", None) is None
    assert user.of_program("nobody", "", SERVER) == user.look_up("nobody", "")
    assert user.of_program("nobody", "daemon", None) == user.look_up("nobody", "daemon")
    assert user.of_program("", "daemon", SERVER) == Identity(65534, 1, (1,))


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("name", "group", "server", "message"),
    [
        ("nosuchuser-x", "", SERVER, "no user is named 'nosuchuser-x'"),
        ("", "nosuchgroup-x", SERVER, "no group is named 'nosuchgroup-x'"),
        ("root", "", SERVER, "'root' is root"),
        ("", "root", SERVER, "'root' is root's"),
        ("", "daemon", None, "group 'daemon' without a user"),
    ],
)
def test_users_that_no_program_may_have(
    name: str, group: str, server: Identity | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        user.of_program(name, group, server)


def test_only_root_runs_programs_as_somebody_else() -> None:
    def check() -> bool:
        Identity(65534, 65534, (65534,)).drop()
        me, mine = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        assert user.of_program(me, mine, None) is None
        for name, group in (("daemon", ""), ("", "daemon"), (me, "daemon")):
            with pytest.raises(PermissionError, match="only root"):
                user.of_program(name, group, None)
        return True

    assert exit_of(check) == 0


def test_fd_limit_zero_means_the_hard_limit() -> None:
    def check() -> bool:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        now = user.raise_fd_limit(0)
        return now == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 1 << 20)

    assert exit_of(check) == 0


def test_fd_limit_as_wanted() -> None:
    def check() -> bool:
        return user.raise_fd_limit(200) == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200

    assert exit_of(check) == 0


def test_fd_limit_beyond_the_hard_one_is_no_error() -> None:
    def check() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        now = user.raise_fd_limit(200)
        return now == resource.getrlimit(resource.RLIMIT_NOFILE)[0] and now in (100, 200)

    assert exit_of(check) == 0


def test_core_files() -> None:
    def check() -> bool:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
        user.allow_core_files()
        return resource.getrlimit(resource.RLIMIT_CORE) == (hard, hard)

    assert exit_of(check) == 0


def test_title() -> None:
    def check() -> bool:
        before = proctitle.is_forkd(os.getpid())
        proctitle.set_title("worker 3")
        return not before and proctitle.is_forkd(os.getpid())

    assert exit_of(check) == 0
    assert not proctitle.is_forkd(1 << 22)
