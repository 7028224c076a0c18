"""Programs get what gateway.md 6 says they get; failures come as errors, not as children."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from pathlib import Path

import psutil
import pytest

from forkd.config.hosts import RESOURCES
from forkd.unix.spawn import Program, environment, spawn_proc
from forkd.unix.user import Identity

# A shell would show descriptors and signal masks of its own making.
REPORT = """#!/usr/bin/perl
use Cwd;
my $count = @ARGV;
my ($first, $foo) = ($ARGV[0] // "", $ENV{FOO} // "");
print STDERR "cwd=", getcwd(), " args=$count first=$first env=$foo\\n";
for my $fd (0 .. 63) {
    my $target = readlink "/proc/self/fd/$fd";
    print STDERR "fd $fd $target\\n" if defined $target;
}
open my $status, "<", "/proc/self/status" or die;
print STDERR grep { /^(SigBlk|SigIgn|Uid|Gid|Groups|NSpgid)/ } <$status>;
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "report"
    path.write_text(REPORT)
    path.chmod(0o755)
    tmp_path.chmod(0o755)
    return path


def run(program: Program) -> tuple[int, int, str]:
    """(pid, exit status, what it wrote to standard error)."""
    reader, writer = os.pipe()
    listener, other = os.pipe()
    pid = spawn_proc(program, listener, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(listener)
    os.close(other)
    return pid, status, text


def test_program_gets_exactly_three_descriptors(script: Path) -> None:
    extra = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(extra, True)
    _, status, text = run(Program((str(script),), {"PATH": os.environ["PATH"]}))
    os.close(extra)
    lines = text.splitlines()
    assert status == 0
    numbers = {int(line.split()[1]) for line in lines if line.startswith("fd")}
    assert {number for number in numbers if number < 10} == {0, 1, 2}  # the shell's own is above
    assert "fd 1 /dev/null" in lines
    assert "/dev/zero" not in text


def test_cwd_arguments_environment(script: Path) -> None:
    env = {"PATH": os.environ["PATH"], "FOO": "bar"}
    _, _, text = run(Program((str(script), "", "b"), env, cwd=str(script.parent)))
    assert f"cwd={script.parent} args=2 first= env=bar" in text


def test_relative_program_is_found_from_here_not_from_its_cwd(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(script.parent.parent)
    relative = os.path.join(script.parent.name, script.name)
    program = Program((relative,), {"PATH": os.environ["PATH"]}, cwd=str(script.parent))
    assert run(program)[1] == 0


def test_no_signal_is_blocked_or_ignored(script: Path) -> None:
    _, _, text = run(Program((str(script),), {"PATH": os.environ["PATH"]}))
    masks = [int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Sig")]
    assert masks == [0, 1 << signal.SIGFPE - 1]  # which perl itself ignores


def test_umask_and_limits_are_the_programs_own() -> None:
    text = "umask; ulimit -Sn; ulimit -Hn; ulimit -t"
    program = Program(
        ("/bin/sh", "-c", f"({text}) >&2"),
        umask=0o026,
        rlimits=(("nofile", 30, 40), ("cpu", 7, 7)),
    )
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert run(program)[2].split() == ["0026", "30", "40", "7"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_every_limit_that_may_be_configured_is_known_here(name: str) -> None:
    assert hasattr(resource, f"RLIMIT_{name.upper()}")


def test_limit_that_cannot_be_is_named() -> None:
    with pytest.raises(PermissionError) as caught:
        spawn_proc(Program(("/bin/true",), rlimits=(("nofile", 1 << 40, 1 << 40),)), 0, 2)
    assert caught.value.filename == "limit nofile"


def test_program_leads_its_group() -> None:
    reader, writer = os.pipe()
    pid = spawn_proc(Program(("/bin/sleep", "1000")), reader, 2)
    assert os.getpgid(pid) == pid
    os.killpg(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("argv", "cwd", "error", "filename"),
    [
        ("/nowhere/prog", "/", FileNotFoundError, "/nowhere/prog"),
        ("/etc/passwd", "/", PermissionError, "/etc/passwd"),
        ("/bin/true", "/nowhere", FileNotFoundError, "/nowhere"),
    ],
)
def test_failures_name_the_path(
    argv: str, cwd: str, error: type[OSError], filename: str
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    children = psutil.Process().children()
    with pytest.raises(error) as caught:
        spawn_proc(Program((argv,), cwd=cwd), 0, 2)
    assert caught.value.filename == filename
    assert len(os.listdir("/proc/self/fd")) == before
    assert psutil.Process().children() == children


def test_system_without_room_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BlockingIOError):
        spawn_proc(Program(("/bin/true",)), 0, 2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_environment_that_cannot_be_is_an_error() -> None:
    with pytest.raises(OSError):
        spawn_proc(Program(("/bin/true",), {"A": "x\0y"}), 0, 2)


def test_program_runs_as_another_user_for_good(script: Path) -> None:
    program = Program(
        (str(script),), {"PATH": os.environ["PATH"]}, identity=Identity(65534, 65534, (65534,))
    )
    for folder in (script.parent, *script.parent.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    lines = run(program)[2].splitlines()
    expected = [["65534"] * 4, ["65534"] * 4, ["65534"]]
    if os.geteuid() != 0:
        ids = [str(one) for one in (os.getuid(), os.getgid())]
        expected = [ids[:1] * 4, ids[1:] * 4, [str(one) for one in os.getgroups()]]
    assert [line.split()[1:] for line in lines if line.startswith(("Uid", "Gid", "Gr"))] == expected


BASE = {"A": "1", "B": "2", "NOTIFY_SOCKET": "x", "LISTEN_FDS": "2", "WATCHDOG_USEC": "1"}


@pytest.mark.parametrize(
    ("copy", "extra", "expected"),
    [
        ((), (), {"A": "1", "B": "2", "PHP_FCGI_CHILDREN": "1"}),
        (("B", "C"), (), {"B": "2", "PHP_FCGI_CHILDREN": "1"}),
        ((), (("A", "x"),), {"A": "x", "B": "2", "PHP_FCGI_CHILDREN": "1"}),
        (("A",), (("PHP_FCGI_CHILDREN", "4"),), {"A": "1", "PHP_FCGI_CHILDREN": "4"}),
        (("NOTIFY_SOCKET",), (), {"PHP_FCGI_CHILDREN": "1"}),
    ],
)
def test_environment(
    copy: tuple[str, ...], extra: tuple[tuple[str, str], ...], expected: dict[str, str]
) -> None:
    assert environment(BASE, copy, extra) == expected


def test_program_dies_with_the_process_that_started_it() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(reader)
        spawn_proc(Program(("/bin/sleep", "1000"), death_signal=signal.SIGTERM), 0, writer)
        os._exit(0)
    os.close(writer)
    os.waitpid(parent, 0)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_python_is_a_program_too() -> None:
    assert run(Program((sys.executable, "-c", "raise SystemExit(5)")))[1] == 5
