"""The composition root: what the master is given, and what happens around its run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forkd import paths, preflight, server
from forkd.config.model import Config
from forkd.errors import ConfigError, StartError
from forkd.log import LogFiles
from forkd.server import Options, Server, start
from forkd.unix import user
from forkd.unix.daemon import Outcome
from forkd.unix.user import Identity


class Caller:
    """The waiting caller of a daemon, who is not really there."""

    def __init__(self) -> None:
        self.fd = os.open(os.devnull, os.O_RDONLY)
        self.told: list[Any] = []

    def ready(self) -> None:
        self.told.append("ready")

    def fail(self, status: int, text: str) -> None:
        self.told.append((status, text))


class FakeMaster:
    """Does what ``script`` says with the options it was given."""

    script: Callable[[Any], int] = staticmethod(lambda options: 0)

    def __init__(self, config: Config, options: Any, worker_main: Any) -> None:
        self.config, self.options = config, options

    def run(self, before: Any = None) -> int:
        self.before = before
        return type(self).script(self)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """RUN in the test's folder, no real master, no real daemon, logging as before at the end."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    monkeypatch.setattr(paths, "run_dirs", lambda: (str(tmp_path / "run"),))
    monkeypatch.setattr(server, "Master", FakeMaster)
    monkeypatch.setattr(FakeMaster, "script", staticmethod(lambda master: 0))
    monkeypatch.setattr(LogFiles, "capture_stderr", lambda self: None)
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    text = f'server.document-root = "{tmp_path}"\nserver.bind = "127.0.0.1"\n'
    return preflight.load("web.conf", text.encode())


@pytest.fixture
def options(tmp_path: Path, config: Config) -> Options:
    return Options(paths.identity("web.conf"), str(tmp_path / "x.pid"), True, lambda: config)


def with_server(config: Config, **changes: Any) -> Config:
    return replace(config, server=replace(config.server, **changes))


# -- logs -------------------------------------------------------------------------------------


def plan(config: Config, options: Options, caller: Any = None) -> Any:
    return Server(config, options, caller)._log_plan(config)


def test_where_errors_go(config: Config, options: Options, tmp_path: Path) -> None:
    assert plan(config, options).error == ""
    assert plan(config, options, Caller()).error == str(tmp_path / "run" / "web.log")
    named = with_server(config, errorlog="/var/log/x.log")
    assert plan(named, options).error == plan(named, options, Caller()).error == "/var/log/x.log"
    to_syslog = with_server(config, errorlog_use_syslog=True, syslog_facility="local0")
    found = plan(to_syslog, options, Caller())
    assert (found.error, found.facility, found.error_to_syslog) == ("", "local0", True)


def test_every_log_of_the_configuration(tmp_path: Path, options: Options) -> None:
    config = preflight.load(
        "web.conf",
        f"""
        server.document-root = "{tmp_path}"
        server.modules = ("mod_accesslog")
        accesslog.filename = "/a.log"
        $HTTP["host"] == "h" {{ accesslog.filename = "|cmd" }}
        $HTTP["url"] =^ "/x" {{ accesslog.filename = "" server.breakagelog = "/b.log" }}
        """.encode(),
    )
    assert set(plan(config, options).others) == {"/a.log", "|cmd", "/b.log"}


def test_whose_the_logs_are(
    config: Config, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user, "look_up", lambda *names: Identity(33, 34, (34,)))
    assert plan(config, options).owner == (33, 34)
    monkeypatch.setattr(user, "look_up", lambda *names: None)
    assert plan(config, options).owner is None


def test_an_unknown_user_is_a_fault_of_the_configuration(config: Config, options: Options) -> None:
    with pytest.raises(StartError) as caught:
        plan(with_server(config, username="no-such-user"), options)
    assert caught.value.exit_code == 6


# -- running ----------------------------------------------------------------------------------


def test_a_run_in_the_foreground(
    config: Config, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "run" / options.who.pid_file

    def serve(master: Any) -> int:
        given = master.options
        assert given.pid_file == options.pid_file
        assert given.control_socket == f"{options.pid_file}.sock"
        assert given.load() is config
        logs = given.open_logs(with_server(config, errorlog=str(tmp_path / "error.log")))
        given.use_logs(logs)
        given.on_ready()
        assert os.readlink(link) == options.pid_file
        return 3

    monkeypatch.setattr(FakeMaster, "script", staticmethod(serve))
    assert start(config, options) == 3
    assert not os.path.lexists(link)
    lines = (tmp_path / "error.log").read_text().splitlines()
    assert "server started" in lines[0]
    assert "server stopped" in lines[-1]


def test_what_fails_in_the_foreground_is_raised(
    config: Config, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(master: Any) -> int:
        raise StartError("bind 0.0.0.0:80: Permission denied", 4)

    monkeypatch.setattr(FakeMaster, "script", staticmethod(fail))
    with pytest.raises(StartError, match="Permission denied"):
        start(config, options)


# -- a daemon, from both sides ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome(4, "why"), 4), (Outcome(0, "already running, pid 9"), 0)]
)
def test_the_caller_is_told_why(
    config: Config,
    options: Options,
    outcome: Outcome,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server.daemon, "daemonize", lambda: outcome)
    with pytest.raises(StartError) as caught:
        start(config, replace(options, foreground=False))
    assert (str(caught.value), caught.value.exit_code) == (outcome.text, code)


def test_the_caller_of_a_daemon_that_is_ready(
    config: Config, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.daemon, "daemonize", lambda: Outcome(0, ""))
    assert start(config, replace(options, foreground=False)) == 0


@pytest.fixture
def run_daemon(
    config: Config, options: Options, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Any], int]], tuple[int, list[Any]]]:
    """Runs the daemon's side in this process: its exit status, and what its caller was told."""
    monkeypatch.setattr(server.fork, "close_others", lambda keep: None)

    def run(script: Callable[[Any], int]) -> tuple[int, list[Any]]:
        caller = Caller()
        monkeypatch.setattr(FakeMaster, "script", staticmethod(script))
        return server._run_daemon(config, options, caller), caller.told  # type: ignore[arg-type]

    return run


def test_a_daemon_that_is_ready(run_daemon: Any) -> None:
    def serve(master: Any) -> int:
        master.options.on_ready()
        return 0

    assert run_daemon(serve) == (0, ["ready"])


def test_a_daemon_that_is_refused(run_daemon: Any) -> None:
    def fail(master: Any) -> int:
        raise StartError("the port is taken", 1)

    assert run_daemon(fail) == (1, [(1, "the port is taken")])


def test_a_daemon_that_has_a_defect(run_daemon: Any) -> None:
    def fail(master: Any) -> int:
        raise ZeroDivisionError("oh")

    assert run_daemon(fail) == (1, [(1, "ZeroDivisionError: oh")])


def test_what_comes_later_is_for_the_log_alone(
    run_daemon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(master: Any) -> int:
        master.options.on_ready()
        raise StartError("too late", 1)

    assert run_daemon(fail) == (1, ["ready"])
    assert "too late" in caplog.text


# -- loading again ----------------------------------------------------------------------------


def test_the_loader_finds_the_file_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web.conf").write_text(
        'server.document-root = var.CWD\ninclude "port.conf"\n'
    )
    (tmp_path / "port.conf").write_text("server.port = 8123\n")
    monkeypatch.chdir(tmp_path)
    load = preflight.loader("web.conf", ("server.tag=again",), False)
    monkeypatch.chdir("/")
    config = load()
    assert config.server.port == 8123
    assert config.base.server_tag == "again"
    assert config.base.document_root == str(tmp_path)
    (tmp_path / "port.conf").write_text("server.port = x\n")
    with pytest.raises(ConfigError, match=r"port\.conf:1"):
        load()


def test_the_loader_does_without_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web.conf").write_text(f'server.document-root = "{tmp_path}"\n')
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    load = preflight.loader(str(tmp_path / "web.conf"), (), False)
    (tmp_path / "gone").rmdir()
    assert load().base.document_root == str(tmp_path)


def test_standard_input_is_not_loaded_again() -> None:
    with pytest.raises(StartError, match="cannot be reloaded"):
        preflight.loader("-", (), False)()
