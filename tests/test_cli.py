"""The command line: words to calls, failures to exit codes, actions on a server that is not there.

Configurations are real files; the server itself is replaced by a record of what was asked of it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import forkd
from forkd import __version__, cli, paths
from forkd.actions import Exit
from forkd.errors import StartError
from forkd.service import Refused, Service
from forkd.unix import reexec
from forkd.unix.pidfile import AlreadyRunning

GOOD = 'server.document-root = "@ROOT@"\nserver.bind = "127.0.0.1"\nserver.port = 8081\n'
NEEDS_A_PROGRAM = """\
server.modules = ("mod_wstunnel")
wstunnel.server = ("/ws/" => (("socket" => "/tmp/x.sock", "bin-path" => "/missing/program")))
"""


@dataclass(frozen=True)
class ServerOptions:
    """As those of ``server``."""

    who: Any
    pid_file: str
    foreground: bool
    load: Any
    inherited: Any = ()
    notifier: Any = None
    idle_limit: float = 0
    command: Any = None


class World:
    """One pretended server: what is asked of it, and what it answers."""

    def __init__(self) -> None:
        self.pid = 0
        self.calls: list[Any] = []
        self.answers: dict[str, Any] = {}
        self.starts: Callable[[], int] = lambda: 0
        self.stops: Callable[[], None] = lambda: None

    def start(self, config: Any, options: Any) -> int:
        self.calls.append(("start", options.pid_file, options.foreground))
        status = self.starts()
        self.pid = 4711
        return status

    def resume(self, left: bytes, options: Any) -> int:
        self.calls.append(("resume", left, options.foreground))
        return 0

    def try_out(self, left: bytes) -> None:
        self.calls.append(("try", left))
        self.starts()

    def stop(self, patience: float, now: bool) -> bool:
        if not self.pid:
            return False
        self.calls.append(("stop", patience, now))
        self.stops()
        self.pid = 0
        return True

    def ask(self, do: str, timeout: float) -> Any:
        answer = self.answers.get(do, {"ok": True})
        if isinstance(answer, Exception):
            raise answer
        self.calls.append((do, timeout))
        return answer


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    world = World()
    monkeypatch.setattr(paths, "run_dirs", lambda: (str(tmp_path / "run"),))
    monkeypatch.setattr(Service, "pid", property(lambda self: world.pid))
    monkeypatch.setattr(Service, "stop", lambda self, *args: world.stop(*args))
    monkeypatch.setattr(Service, "ask", lambda self, *args: world.ask(*args))
    server = ModuleType("forkd.server")
    server.start = world.start  # type: ignore[attr-defined]
    server.Options = ServerOptions  # type: ignore[attr-defined]
    server.resume = world.resume  # type: ignore[attr-defined]
    server.try_out = world.try_out  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "forkd.server", server)
    monkeypatch.setattr(forkd, "server", server, raising=False)
    return world


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "web.conf"
    path.write_text(GOOD.replace("@ROOT@", str(tmp_path)))
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.conf"
    path.write_text("server.port = \n = 3\n")
    return path


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


# -- words ------------------------------------------------------------------------------------


def test_version_features_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-v") == 0
    assert capsys.readouterr().out == f"forkd/{__version__}\n"
    assert run("-V") == 0
    assert capsys.readouterr().out.startswith(f"forkd/{__version__}\n  ")
    assert run("-h") == 0
    text = capsys.readouterr().out
    for action in cli.ACTIONS:
        assert action.name in text
    for option in cli.OPTIONS:
        assert option.hidden or option.opts[0] in text


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 255, "No configuration available"),
        (("-D",), 255, "No configuration available"),
        (("--bogus",), 255, "--bogus"),
        (("-f",), 255, "-f"),
        (("-f", "a", "-f", "b"), 255, "once"),
        (("-i", "0", "-f", "a"), 255, "-i"),
        (("-1", "-f", "-"), 255, "-1: standard input is the client's"),
        (("-f", "a", "--now"), 255, "--now"),
        (("--bogus", "start"), 2, "--bogus"),
        (("start", "--bogus"), 2, "--bogus"),
        (("start", "-f"), 2, "-f"),
        (("start", "-f", "a", "-f", "b"), 2, "once"),
        (("start", "stop"), 2, "one action"),
        (("status", "now"), 2, "one action"),
        (("frobnicate",), 2, "frobnicate"),
        (("-1", "start"), 2, "-1"),
        (("-i", "5", "reload"), 2, "-i"),
        (("start", "--now"), 2, "--now"),
        (("stop", "--json"), 2, "--json"),
        (("start", "-t"), 2, "-t"),
        (("start", "-o", "x"), 2, "KEY=VALUE"),
        (("stop", "--timeout", "-1"), 2, "--timeout"),
        (("stop", "--timeout", "soon"), 2, "--timeout"),
    ],
)
def test_wrong_words(
    words: tuple[str, ...], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == status
    caught = capsys.readouterr()
    assert caught.out == ""
    assert message in caught.err
    assert len(caught.err.splitlines()) == 1


def test_options_stand_before_or_after_the_action(world: World, conf: Path) -> None:
    assert run("-D", "-f", conf, "--pid-file", "/x.pid", "start") == 0
    world.pid = 0
    assert run("start", "--foreground", "--file", conf, "--pid-file", "/x.pid") == 0
    assert world.calls == [("start", "/x.pid", True)] * 2


def test_the_tables_agree() -> None:
    assert set(cli.EXIT_CODES) == set(Exit)
    names = [name for action in cli.ACTIONS for name in (action.name, *action.aliases)]
    assert len(names) == len(set(names))
    known = {option.name for option in cli.OPTIONS}
    assert {name for action in cli.ACTIONS for name in action.options} <= known
    assert all(isinstance(option, click.Option) and option.help for option in cli.OPTIONS)


def test_every_action_of_lsb_is_there() -> None:
    lsb = {"start", "stop", "restart", "try-restart", "reload", "force-reload", "status"}
    assert lsb <= {action.name for action in cli.ACTIONS}


# -- check ------------------------------------------------------------------------------------


def test_check(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "-f", conf) == 0
    assert capsys.readouterr() == (f"{conf}: fine\n", "")
    assert run("configtest", "-q", "-f", conf) == 0
    assert capsys.readouterr() == ("", "")


def test_from_a_folder_that_is_gone(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run("check", "-f", conf) == 0


def test_check_of_a_bad_file_shows_the_place(
    bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", "-f", bad) == 6
    caught = capsys.readouterr()
    assert caught.out == ""
    first, source, caret = caught.err.splitlines()[:3]
    assert first.startswith(f"{bad}:2:2: error: ")
    assert source.strip() == "= 3"
    assert caret.strip() == "^"


def test_check_of_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "-f", tmp_path / "none.conf") == 6
    assert "none.conf" in capsys.readouterr().err


def test_warnings_are_shown_and_strict_refuses(
    conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf.write_text(conf.read_text() + 'server.nonsense = "x"\n')
    assert run("check", "-f", conf) == 0
    assert "warning" in capsys.readouterr().err
    assert run("check", "-q", "-f", conf) == 0
    assert capsys.readouterr().err == ""
    assert run("check", "--strict", "-f", conf) == 6
    assert "error" in capsys.readouterr().err


def test_overrides(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--print", "-f", conf, "-o", "server.port=8099") == 0
    assert "server.port = 8099" in capsys.readouterr().out
    assert run("check", "-f", conf, "-o", "server.port=nonsense") == 6


def test_a_bad_access_log_format_is_refused_with_its_place(
    conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf.write_text(
        conf.read_text() + 'server.modules = ("mod_accesslog")\naccesslog.format = "%h %z"\n'
    )
    assert run("check", "-f", conf) == 6
    caught = capsys.readouterr().err
    assert f"{conf}:5:" in caught
    assert "%z" in caught


def test_standard_input(
    conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with conf.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run("check", "--print", "-f", "-") == 0
    assert "server.port = 8081" in capsys.readouterr().out


# -- as lighttpd ------------------------------------------------------------------------------


def test_syntax_ok(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-t", "-f", conf) == 0
    assert capsys.readouterr() == ("Syntax OK\n", "")
    assert run("-tt", "-m", "/lib", "-f", conf) == 0
    assert capsys.readouterr() == ("", "")
    assert run("-p", "-f", conf) == 0
    assert "server.port = 8081" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["-t", "-tt", "-p", "-D"])
def test_every_failure_is_255(
    option: str, world: World, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(option, "-f", bad) == 255
    assert f"{bad}:2:2: error" in capsys.readouterr().err


def test_a_missing_program_is_only_a_message_for_t(
    world: World, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf.write_text(conf.read_text() + NEEDS_A_PROGRAM)
    assert run("-t", "-f", conf) == 0
    caught = capsys.readouterr()
    assert caught.out == "Syntax OK\n"
    assert "/missing/program" in caught.err
    assert run("-D", "-f", conf) == 255
    assert run("check", "-f", conf) == 6
    assert run("start", "-f", conf) == 5
    assert "/missing/program" in capsys.readouterr().err
    assert world.calls == []


def test_start_as_lighttpd(world: World, conf: Path) -> None:
    assert run("-f", conf) == 0
    assert run("-f", conf) == 255  # it runs now
    assert run("-D", "-f", conf) == 255
    [(_, pid_file, foreground)] = world.calls
    assert not foreground
    assert pid_file.startswith(paths.run_dirs()[0])


# -- start ------------------------------------------------------------------------------------


def test_start(world: World, conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("start", "-f", conf) == 0
    assert capsys.readouterr() == ("started, pid 4711\n", "")
    world.pid = 0
    assert run("start", "-D", "-f", conf) == 0
    world.pid = 0
    assert run("start", "-q", "-f", conf) == 0
    assert capsys.readouterr() == ("", "")


def test_start_of_a_running_server(
    world: World, conf: Path, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.pid = 99
    assert run("start", "-f", conf) == 0
    assert "already running, pid 99" in capsys.readouterr().out
    assert run("start", "-f", bad) == 0
    assert run("start", "-D", "-f", conf) == 255
    assert capsys.readouterr().err == "forkd: already running, pid 99\n"
    assert world.calls == []


def test_start_that_comes_second(
    world: World, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose() -> int:
        raise AlreadyRunning(98)

    world.starts = lose
    assert run("start", "-f", conf) == 0
    assert run("start", "-D", "-f", conf) == 255
    assert capsys.readouterr().err == "forkd: already running, pid 98\n"


@pytest.mark.parametrize("code", [1, 4, 5, 6])
def test_start_failures_keep_their_code(
    world: World, conf: Path, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise StartError("bind 127.0.0.1:80: why", code)

    world.starts = fail
    assert run("start", "-f", conf) == code
    assert capsys.readouterr().err == "forkd: bind 127.0.0.1:80: why\n"
    assert run("-D", "-f", conf) == 255


def test_the_pid_file(world: World, conf: Path, tmp_path: Path) -> None:
    conf.write_text(conf.read_text() + 'server.pid-file = "/from/directive.pid"\n')
    run("start", "-f", conf)
    world.pid = 0
    run("start", "-f", conf, "--pid-file", tmp_path / "option.pid")
    assert [call[1] for call in world.calls] == [
        "/from/directive.pid", str(tmp_path / "option.pid"),
    ]  # fmt: skip


# -- stop and restart -------------------------------------------------------------------------


def test_stop(world: World, conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stop", "-f", conf) == 0
    assert capsys.readouterr().out == "not running\n"
    world.pid = 99
    assert run("stop", "-f", conf) == 0
    assert capsys.readouterr().out == "stopped\n"
    world.pid = 99
    assert run("stop", "-q", "--now", "-f", conf) == 0
    assert capsys.readouterr().out == ""
    assert [call[2] for call in world.calls if call[0] == "stop"] == [False, True]


def test_stop_does_not_need_a_good_configuration(world: World, bad: Path) -> None:
    world.pid = 99
    assert run("stop", "-f", bad) == 0
    assert world.pid == 0


@pytest.mark.parametrize(
    ("answer", "words", "patience"),
    [
        ({"ok": True, "graceful_timeout": 30}, (), 32),
        ({"ok": True}, (), 10),
        (Refused("does not answer"), (), 10),
        ({"ok": True, "graceful_timeout": 30}, ("--timeout", "3"), 3),
    ],
)
def test_stop_waits_for_what_the_server_grants(
    world: World, conf: Path, answer: Any, words: tuple[str, ...], patience: float
) -> None:
    world.pid = 99
    world.answers["status"] = answer
    assert run("stop", "-f", conf, *words) == 0
    assert world.calls[-1] == ("stop", patience, False)


def test_stop_that_is_refused(
    world: World, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise Refused("not allowed to signal the server", 4)

    world.pid, world.stops = 99, refuse
    assert run("stop", "-f", conf) == 4
    assert capsys.readouterr().err == "forkd: not allowed to signal the server\n"


def test_restart(world: World, conf: Path) -> None:
    world.pid = 99
    assert run("restart", "-f", conf) == 0
    assert [call[0] for call in world.calls] == ["status", "stop", "start"]
    world.pid, world.calls = 0, []
    assert run("restart", "-f", conf) == 0
    assert [call[0] for call in world.calls] == ["start"]


@pytest.mark.parametrize("action", ["restart", "try-restart"])
def test_restart_with_a_bad_file_keeps_it_running(
    world: World, bad: Path, conf: Path, action: str
) -> None:
    world.pid = 99
    assert run(action, "-f", bad) == 6
    conf.write_text(conf.read_text() + NEEDS_A_PROGRAM)
    assert run(action, "-f", conf) == 5
    assert world.pid == 99


def test_try_restart(world: World, conf: Path, bad: Path) -> None:
    assert run("try-restart", "-f", conf) == 0
    assert run("condrestart", "-f", bad) == 0
    assert world.calls == []
    world.pid = 99
    assert run("condrestart", "-f", conf) == 0
    assert [call[0] for call in world.calls] == ["status", "stop", "start"]


# -- reload and reopen ------------------------------------------------------------------------


def test_reload(world: World, conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.pid = 99
    world.answers["reload"] = {"ok": True, "generation": 3}
    assert run("reload", "-f", conf, "--timeout", "7") == 0
    assert world.calls == [("reload", 7.0)]
    assert capsys.readouterr().out == "reloaded, generation 3\n"


@pytest.mark.parametrize("action", ["reload", "reopen", "upgrade"])
def test_of_a_stopped_server(
    world: World, conf: Path, bad: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(action, "-f", conf) == 7
    assert run(action, "-f", bad) == 7
    assert "not running" in capsys.readouterr().err


def test_reload_of_a_bad_file_is_not_even_asked_for(
    world: World, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.pid = 99
    assert run("reload", "-f", bad) == 6
    assert f"{bad}:2:2: error" in capsys.readouterr().err
    assert world.calls == []


@pytest.mark.parametrize("code", [1, 6])
def test_reload_that_the_server_refuses(world: World, conf: Path, code: int) -> None:
    world.pid = 99
    world.answers["reload"] = Refused("why", code)
    assert run("reload", "-f", conf) == code


def test_what_came_by_standard_input_cannot_be_reloaded(
    world: World, conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.pid = 99
    with conf.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run("reload", "-f", "-") == 1
    assert "cannot be reloaded" in capsys.readouterr().err


# -- upgrade ----------------------------------------------------------------------------------


def test_upgrade(world: World, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.pid = 99
    world.answers["upgrade"] = {"ok": True, "generation": 4}
    assert run("upgrade", "-f", bad, "--timeout", "7") == 0  # the server judges for itself
    assert world.calls == [("upgrade", 7.0)]
    assert capsys.readouterr().out == "upgraded, generation 4\n"
    world.answers["upgrade"] = Refused("why", 6)
    assert run("upgrade", "-f", bad) == 6


@pytest.fixture
def left() -> Iterator[int]:
    """What a server would leave to this program."""
    fd = reexec.hold(b"state")
    yield fd
    os.close(fd)


@pytest.mark.parametrize("words", [("start",), ("restart",), ("-D",), ("-i", "9")])
def test_a_program_on_trial_starts_nothing(
    world: World, conf: Path, left: int, words: tuple[str, ...]
) -> None:
    assert run(*words, "-f", conf, "--preflight", left) == 0
    assert world.calls == [("try", b"state")]


def test_why_a_program_on_trial_would_not_do(
    world: World, conf: Path, bad: Path, left: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-D", "-f", bad, "--preflight", left) == 6  # not 255, though there is no action
    assert capsys.readouterr().err.startswith(f"{bad}:2:2: error")

    def fail() -> int:
        raise StartError("another format")

    world.starts = fail
    assert run("-D", "-f", conf, "--preflight", left) == 1
    assert capsys.readouterr().err == "forkd: another format\n"


@pytest.mark.parametrize(
    ("words", "in_foreground"), [(("start",), False), (("restart",), False), (("-D",), True)]
)
def test_a_program_behind_an_upgrade_goes_on(
    world: World,
    conf: Path,
    words: tuple[str, ...],
    in_foreground: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(reexec.VARIABLE, str(reexec.hold(b"state")))
    assert run(*words, "-f", conf) == 0
    assert world.calls == [("resume", b"state", in_foreground)]
    assert reexec.VARIABLE not in os.environ


def test_a_variable_that_says_nothing(
    world: World, conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(reexec.VARIABLE, "0")
    assert run("start", "-f", conf) == 1
    assert reexec.VARIABLE in capsys.readouterr().err
    assert world.calls == []


def test_force_reload(world: World, conf: Path) -> None:
    assert run("force-reload", "-f", conf) == 0
    assert [call[0] for call in world.calls] == ["start"]
    world.pid, world.calls = 99, []
    assert run("force-reload", "-f", conf) == 0
    assert [call[0] for call in world.calls] == ["reload"]
    world.calls = []
    world.answers["reload"] = Refused("cannot be reloaded")
    assert run("force-reload", "-f", conf) == 0
    assert [call[0] for call in world.calls] == ["status", "stop", "start"]


def test_force_reload_of_a_bad_file_keeps_it_running(
    world: World, conf: Path, bad: Path
) -> None:
    world.pid = 99
    assert run("force-reload", "-f", bad) == 6
    world.answers["reload"] = Refused("bad since", 6)
    assert run("force-reload", "-f", conf) == 6
    assert world.calls == []


def test_reopen(world: World, conf: Path) -> None:
    world.pid = 99
    assert run("reopen", "-f", conf) == 0
    assert run("reopen-logs", "-f", conf) == 0
    assert [call[0] for call in world.calls] == ["reopen", "reopen"]
    world.answers["reopen"] = Refused("log /x: no such folder")
    assert run("reopen", "-f", conf) == 1


# -- status -----------------------------------------------------------------------------------


STATUS = {
    "ok": True,
    "generation": 2,
    "uptime": 61.5,
    "workers": [{"pid": 1}, {"pid": 2}],
    "listeners": ["127.0.0.1:8081"],
    "totals": {"connections": 5, "tunnels": 3},
}


def test_status_of_a_running_server(
    world: World, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.pid = 99
    world.answers["status"] = STATUS
    assert run("status", "-f", conf) == 0
    line = "running, pid 99, generation 2, %s2 workers, 5 connections, 3 tunnels, up 62 s\n"
    assert capsys.readouterr().out == line % ""
    generations = [{"number": 1, "draining": 3.5}, {"number": 2, "draining": None}]
    world.answers["status"] = {**STATUS, "generations": generations}
    assert run("status", "-f", conf) == 0
    assert capsys.readouterr().out == line % "1 more draining, "
    assert run("status", "--json", "-f", conf) == 0
    details = json.loads(capsys.readouterr().out)
    assert (details["running"], details["pid"], details["tunnels"]) == (True, 99, 3)
    assert details["workers"] == STATUS["workers"]


def test_status_of_a_server_that_does_not_answer(
    world: World, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.pid = 99
    world.answers["status"] = Refused("permission denied", 4)
    assert run("status", "-f", conf) == 0
    assert capsys.readouterr().out == "running, pid 99 (permission denied)\n"


def test_status_of_a_dead_or_stopped_server(
    world: World, conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid_file = tmp_path / "x.pid"
    assert run("status", "-f", conf, "--pid-file", pid_file) == 3
    assert capsys.readouterr().out == f"not running ({pid_file})\n"
    pid_file.write_text("99\n")
    assert run("status", "-f", conf, "--pid-file", pid_file) == 1
    assert "pid file is left" in capsys.readouterr().out
    assert run("status", "--json", "-f", conf, "--pid-file", pid_file) == 1
    assert json.loads(capsys.readouterr().out) == {"running": False, "pid_file": str(pid_file)}


def test_status_that_cannot_be_told(
    world: World, conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Service) -> int:
        raise Refused("x.pid: Permission denied", 4)

    monkeypatch.setattr(Service, "pid", property(refuse))
    assert run("status", "-f", conf, "--pid-file", "/x.pid") == 4
    assert "Permission denied" in capsys.readouterr().err


def test_quiet_status(world: World, conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "-q", "-f", conf) == 3
    assert capsys.readouterr() == ("", "")


def test_names_are_resolved_for_a_listener(
    conf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look_up(host: str, *_: object, **__: object) -> list[Any]:
        if host == "good.example":
            return [(socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)),
                    (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]  # fmt: skip
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert run("check", "-f", conf, "-o", "server.bind=good.example") == 0
    assert run("check", "-f", conf, "-o", "server.bind=bad.example") == 6
    assert "Name or service not known" in capsys.readouterr().err
