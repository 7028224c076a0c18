"""What each action of the command line does (admin.md 13).

An action is given a ``Call`` and answers with its exit status.  What goes wrong is raised, as
ConfigError, StartError or Refused, and becomes a message in ``cli``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from . import paths
from .errors import ConfigError
from .service import Refused, Service, State
from .unix import activation, reexec, signals
from .unix.notify import Notifier
from .unix.pidfile import AlreadyRunning
from .unix.reexec import CommandLine

if TYPE_CHECKING:
    from . import server
    from .config.model import Config

DEFAULT_FILE = "/etc/forkd/forkd.conf"
GRACEFUL_TIMEOUT = 8.0  # server.graceful-shutdown-timeout where the server cannot be asked
STOP_MARGIN = 2.0  # seconds that a stop waits beyond it
ASK_TIMEOUT = 5.0  # seconds for an answer that needs no work
INIT = 1  # the first process of a system or a container
UPGRADE_TIMEOUT = 180.0  # seconds: 30 to try the program, a reload before it, another behind it
RELOAD_TIMEOUT = 75.0  # seconds: 30 to load, 30 until the new workers are ready, and some more


class Exit(IntEnum):
    """Exit status of every action but ``status`` (LSB; admin.md 17)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_ALLOWED = 4
    MISSING = 5
    BAD_CONFIG = 6
    NOT_RUNNING = 7
    NO_START = 255


class StatusExit(IntEnum):
    """Exit status of ``status`` (LSB)."""

    RUNNING = 0
    DEAD = 1
    STOPPED = 3
    UNKNOWN = 4


class NotStartable(ConfigError):
    """Nothing is wrong with the configuration but that programs it names are missing."""


class Call:
    """One command line, understood.  The configuration is loaded when it is first needed."""

    def __init__(self, given: Mapping[str, Any], in_lighttpd_style: bool) -> None:
        files: Sequence[str] = given["file"]
        self.file = files[0] if files else DEFAULT_FILE
        self.pid_file: str = given["pid_file"]
        self.strict: bool = given["strict"]
        self.timeout: float | None = given["timeout"]
        self.quiet: bool = given["quiet"]
        # Who detached in the first process of a container would end that.
        self.foreground: bool = given["foreground"] or os.getpid() == INIT
        self.overrides: tuple[str, ...] = given["overrides"]
        self.now: bool = given["now"]
        self.idle_limit: float = given["idle"] or 0
        self.as_json: bool = given["as_json"]
        self.print_tree: bool = given["print_tree"] or given["print_parsed"]
        self.silent: bool = given["test"] > 1
        self.in_lighttpd_style = in_lighttpd_style
        self._has_warned = False

    @cached_property
    def text(self) -> bytes | None:
        """The configuration when it comes by standard input."""
        return sys.stdin.buffer.read() if self.file == paths.STDIN else None

    @cached_property
    def identity(self) -> paths.Identity:
        return paths.identity(self.file, self.text)

    @cached_property
    def config(self) -> Config:
        """Loaded and checked.  Raises ConfigError."""
        from . import preflight  # not for a command that needs no configuration: it takes a while

        return preflight.load(self.file, self.text, self.overrides, self.strict)

    @cached_property
    def service(self) -> Service:
        """The server that is meant, by ``--pid-file``, by the name of FILE, or by its content."""
        return Service(
            paths.find_pid_file(
                self.identity, self.pid_file, self._directive, lambda path: Service(path).pid > 0
            )
        )

    def _directive(self) -> str:
        try:
            return self.config.server.pid_file
        except ConfigError:
            return ""  # whoever needs the configuration will say what is wrong with it

    def say(self, text: str) -> None:
        if not self.quiet:
            click.echo(text)

    def checked(self) -> Config:
        """The configuration, found good, its warnings said once.  Raises ConfigError."""
        from . import preflight

        if self.config.diagnostics and not self.quiet and not self._has_warned:
            click.echo(preflight.findings(self.config), err=True)
        self._has_warned = True
        return self.config

    def startable(self) -> Config:
        """As ``checked``; raises NotStartable where only programs are missing."""
        from . import preflight

        try:
            return self.checked()
        except preflight.ProgramMissing as missing:
            raise NotStartable(str(missing)) from None


def start(call: Call) -> int:
    if os.getpid() == INIT:
        # And for the init of a container no signal has a default.
        signals.end_on(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    # Before anything is started that would take them for its own.
    inherited, notifier = activation.take(os.environ), Notifier.take(os.environ)
    pid = call.service.pid
    if pid:
        return _already_running(call, pid)
    from . import server

    config = call.startable()
    options = replace(
        _server_options(call),
        pid_file=paths.pid_file_for(call.identity, call.pid_file, config.server.pid_file),
        inherited=inherited,
        notifier=notifier,
    )
    try:
        status = server.start(config, options)
    except AlreadyRunning as error:  # since we looked
        return _already_running(call, error.pid)
    if not call.foreground:
        call.say(f"started, pid {Service(options.pid_file).pid}")
    return status


def _server_options(call: Call) -> server.Options:
    """Whatever *call* alone tells."""
    from . import preflight, server

    return server.Options(
        call.identity,
        pid_file="",
        foreground=call.foreground,
        load=preflight.loader(call.file, call.overrides, call.strict),
        idle_limit=call.idle_limit,
        command=CommandLine.own(),
    )


def resume(call: Call, left: bytes) -> int:
    """Behind an upgrade, in the same process: go on where the program before has *left*."""
    notifier = Notifier.take(os.environ)
    from . import server

    return server.resume(left, replace(_server_options(call), notifier=notifier))


def try_upgrade(call: Call, state: int) -> int:
    """Before an upgrade, beside the server: could this program go on where *state* says?"""
    if call.file == paths.STDIN:
        raise Refused("a server whose configuration came by standard input cannot be upgraded")
    from . import server

    server.try_out(reexec.read(state))
    _ = call.config
    return Exit.OK


def _already_running(call: Call, pid: int) -> int:
    if not (call.foreground or call.in_lighttpd_style):
        call.say(f"already running, pid {pid}")
        return Exit.OK
    complain(f"already running, pid {pid}")
    return Exit.NO_START


def stop(call: Call) -> int:
    call.say("stopped" if _stop(call) else "not running")
    return Exit.OK


def _stop(call: Call) -> bool:
    service = call.service
    if not service.stop(_patience(call), call.now):
        return False
    paths.remove_link(call.identity, service.pid_file)  # a killed server has left it
    return True


def _patience(call: Call) -> float:
    """Seconds from TERM to QUIT: what the server itself grants its clients, and some more."""
    if call.timeout is not None:
        return call.timeout
    graceful: Any = GRACEFUL_TIMEOUT
    if call.service.pid and not call.now:
        with suppress(Refused):  # it does not answer: all the more it must be stopped
            graceful = call.service.ask("status", ASK_TIMEOUT).get("graceful_timeout", graceful)
    return float(graceful) + STOP_MARGIN


def restart(call: Call) -> int:
    call.startable()
    if _stop(call):
        call.say("stopped")
    return start(_again(call))


def _again(call: Call) -> Call:
    """*call* with what it knew of the stopped server forgotten: the pid file may be another now."""
    call.__dict__.pop("service", None)
    return call


def try_restart(call: Call) -> int:
    if call.service.pid:
        return restart(call)
    call.say("not running")
    return Exit.OK


def reload(call: Call) -> int:
    if not call.service.pid:
        complain("not running")
        return Exit.NOT_RUNNING
    if call.file == paths.STDIN:
        raise Refused("a configuration from standard input cannot be reloaded")
    call.checked()
    answer = call.service.ask("reload", _timeout(call, RELOAD_TIMEOUT))
    call.say(f"reloaded, generation {answer.get('generation', '?')}")
    return Exit.OK


def upgrade(call: Call) -> int:
    if not call.service.pid:
        complain("not running")
        return Exit.NOT_RUNNING
    answer = call.service.ask("upgrade", _timeout(call, UPGRADE_TIMEOUT))
    call.say(f"upgraded, generation {answer.get('generation', '?')}")
    return Exit.OK


def force_reload(call: Call) -> int:
    if not call.service.pid:
        return start(call)
    try:
        return reload(call)
    except Refused as refusal:
        if refusal.exit_code != Exit.FAILED:
            raise
        complain(f"{refusal}; restarting")
    return restart(call)


def reopen(call: Call) -> int:
    if not call.service.pid:
        complain("not running")
        return Exit.NOT_RUNNING
    call.service.ask("reopen", _timeout(call, ASK_TIMEOUT * 2))
    call.say("logs reopened")
    return Exit.OK


def check(call: Call) -> int:
    call.checked()
    if call.print_tree:
        _print_tree(call)
    else:
        call.say(f"{call.file}: fine")
    return Exit.OK


def _print_tree(call: Call) -> None:
    from . import preflight

    click.echo(preflight.tree(call.file, call.text, call.overrides), nl=False)


def _timeout(call: Call, default: float) -> float:
    return default if call.timeout is None else call.timeout


def status(call: Call) -> int:
    try:
        found = call.service.state
    except Refused as refusal:
        complain(str(refusal))
        return StatusExit.UNKNOWN
    details: dict[str, Any] = {"running": found is State.RUNNING}
    if found is State.RUNNING:
        details["pid"] = call.service.pid
        try:
            details |= call.service.ask("status", _timeout(call, ASK_TIMEOUT))
            details |= details.get("totals", {})
        except Refused as refusal:
            details["error"] = str(refusal)
    details["pid_file"] = call.service.pid_file
    if call.as_json:
        click.echo(json.dumps(details, indent=2))
    else:
        call.say(status_line(found, details))
    return _STATUS_OF[found]


_STATUS_OF = {
    State.RUNNING: StatusExit.RUNNING,
    State.DEAD: StatusExit.DEAD,
    State.STOPPED: StatusExit.STOPPED,
}


def status_line(state: State, details: Mapping[str, Any]) -> str:
    """What ``status`` says in one line."""
    if state is not State.RUNNING:
        return f"{state.value} ({details['pid_file']})"
    words = [f"running, pid {details['pid']}"]
    if "error" in details:
        return f"{words[0]} ({details['error']})"
    older = [one for one in details.get("generations", ()) if one["draining"] is not None]
    details = {**details, "draining": older or None}
    for text, key in _STATUS_WORDS:
        value = details.get(key)
        if value is not None:
            number = len(value) if isinstance(value, list) else value
            words.append(text % number)
    return ", ".join(words)


_STATUS_WORDS = (
    ("generation %s", "generation"),
    ("%s more draining", "draining"),
    ("%s workers", "workers"),
    ("%s connections", "connections"),
    ("%s tunnels", "tunnels"),
    ("up %.0f s", "uptime"),
)


def test(call: Call) -> int:
    """lighttpd's -t and -tt: a program that is missing is worth a message only."""
    from . import preflight

    try:
        call.checked()
    except preflight.ProgramMissing as missing:  # only a message, as lighttpd has it
        click.echo(str(missing), err=True)
    if call.print_tree:
        _print_tree(call)
    elif not call.silent:
        call.say("Syntax OK")
    return Exit.OK


def serve_one(call: Call) -> int:
    """lighttpd's -1: the client on standard input."""
    from . import oneshot

    if call.file == paths.STDIN:
        raise Refused("-1: standard input is the client's, and cannot be the configuration")
    return oneshot.serve(call.startable())


def complain(text: str) -> None:
    """*text* on standard error."""
    click.echo(f"forkd: {text}", err=True)
