"""forkd/bridge/launch.py: which program, whether it may run, its start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkd.bridge.launch import Command, command_of, launch
from forkd.errors import BadRequest, ForkdError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, mode in (("run", 0o755), ("read", 0o644), ("none", 0)):
        (tmp_path / name).write_text("#!/bin/sh\necho out\necho err >&2\ncat\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def named(script: Path | str, **more: str) -> dict[bytes, bytes]:
    pairs = {"SCRIPT_FILENAME": str(script), **more}
    return {name.encode(): value.encode() for name, value in pairs.items()}


@pytest.mark.parametrize("name", ["run", "link"])
def test_the_script_itself(folder: Path, name: str) -> None:
    path = os.fsencode(folder / name)
    assert command_of(named(folder / name), b"") == Command((path,), os.fsencode(folder))
    assert command_of(named(folder / name, INTERPRETER=""), b"").argv == (path,)


def test_an_interpreter_and_the_script(folder: Path) -> None:
    command = command_of(named(folder / "read", INTERPRETER="bin/sh"), b"")
    assert command == Command((b"/bin/sh", os.fsencode(folder / "read")), os.fsencode(folder))


def test_a_relative_path_begins_at_the_root() -> None:
    assert command_of(named("bin/sh"), b"") == Command((b"/bin/sh",), b"/bin")
    assert command_of({b"SCRIPT_FILENAME": b"x", b"INTERPRETER": b"/bin/sh"}, b"/bin/cat") == (
        Command((b"/bin/cat",), b"/bin")
    )


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("", 500), ("/", 403), ("missing", 404), ("missing/below", 404), ("run/below", 403),
        ("read", 403), ("pipe", 403), ("loop", 403), ("x" * 300, 500), ("nul\0", 400),
    ],
)  # fmt: skip
def test_what_may_not_run(folder: Path, path: str, status: int) -> None:
    where = folder / path if path else ""
    with pytest.raises(ForkdError) as found:
        command_of(named(where), b"")
    assert found.value.status == status


def test_a_program_with_three_pipes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    before = sorted(os.listdir("/proc/self/fd"))
    pid, pipes = launch(command_of(named(folder / "run"), b""), {b"A": b"b"})
    assert not any(os.get_blocking(fd) for fd in pipes)
    os.write(pipes.stdin, b"in\n")
    os.close(pipes.stdin)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(pipes.stdout, 100) == b"out\nin\n"
    assert os.read(pipes.stdout, 100) == b""
    assert os.read(pipes.stderr, 100) == b"err\n"
    for fd in pipes[1:]:
        os.close(fd)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("environment", "path"),
    [({b"PATH": b"/mine"}, b"/mine"), ({}, b"/ours"), (None, b"")],
)
def test_path(
    environment: dict[bytes, bytes] | None, path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/ours")
    if environment is None:
        monkeypatch.delenv("PATH")
    pid, pipes = launch(Command((b"/usr/bin/env",), b"/"), environment or {})
    os.waitpid(pid, 0)
    said = os.read(pipes.stdout, 1000).splitlines()
    assert said == ([b"PATH=" + path] if path else [])
    for fd in pipes:
        os.close(fd)


@pytest.mark.parametrize(
    ("command", "environment", "status"),
    [
        (Command((b"/no/such/program",), b"/"), {}, 500),
        (Command((b"/bin/true",), b"/no/such/folder"), {}, 500),
        (Command((b"/bin/true",), b"/"), {b"A": b"x" * (1 << 18)}, 500),
        (Command((b"/bin/true",), b"/"), {b"A=B": b"c"}, 400),
        (Command((b"/bin/true",), b"/"), {b"A": b"\0"}, 400),
    ],
)
def test_what_does_not_start_leaves_nothing(
    command: Command, environment: dict[bytes, bytes], status: int
) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ForkdError) as found:
        launch(command, environment)
    assert found.value.status == status
    assert (status == 400) == isinstance(found.value, BadRequest)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_descriptors_left_is_a_matter_of_time() -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limits[1]))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    try:
        with pytest.raises(ForkdError) as found:
            launch(Command((b"/bin/true",), b"/"), {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)
    assert found.value.status == 503
    assert found.value.fields == (("Retry-After", "1"),)
