"""The command line: ``forkd [options] ACTION``, and lighttpd's options where there is no action.

What there is stands in three tables, ``ACTIONS``, ``OPTIONS`` and ``EXIT_CODES``; forkd(8) is
checked against them.  What an action does to a server is in ``service``, how one comes to life in
``server``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from . import __version__, paths
from .errors import ConfigError, StartError
from .service import Refused, Service, State

if TYPE_CHECKING:
    from .config.model import Config

DEFAULT_FILE = "/etc/forkd/forkd.conf"
GRACEFUL_TIMEOUT = 8.0  # server.graceful-shutdown-timeout where the server cannot be asked
STOP_MARGIN = 2.0  # seconds that a stop waits beyond it
ASK_TIMEOUT = 5.0  # seconds for an answer that needs no work
RELOAD_TIMEOUT = 75.0  # seconds: 30 to load, 30 until the new workers are ready, and some more


class Exit(IntEnum):
    """Exit status of every action but ``status`` (LSB; admin.md 17)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_IMPLEMENTED = 3
    NOT_ALLOWED = 4
    MISSING = 5
    BAD_CONFIG = 6
    NOT_RUNNING = 7
    NO_START = 255


EXIT_CODES: Mapping[Exit, str] = {
    Exit.OK: "done, or there was nothing to do",
    Exit.FAILED: "failed: the message says why",
    Exit.USAGE: "the command line is wrong",
    Exit.NOT_IMPLEMENTED: "the action is known but not implemented",
    Exit.NOT_ALLOWED: "permission denied",
    Exit.MISSING: "a program or certificate that the server needs is missing",
    Exit.BAD_CONFIG: "the configuration is missing or bad",
    Exit.NOT_RUNNING: "the server is not running",
    Exit.NO_START: "any failure of a call without an action, as lighttpd; "
    "in the foreground also: already running",
}


class StatusExit(IntEnum):
    """Exit status of ``status`` (LSB)."""

    RUNNING = 0
    DEAD = 1
    STOPPED = 3
    UNKNOWN = 4


STATUS_EXIT_CODES: Mapping[StatusExit, str] = {
    StatusExit.RUNNING: "running",
    StatusExit.DEAD: "dead, and its pid file is left",
    StatusExit.STOPPED: "not running",
    StatusExit.UNKNOWN: "cannot be told: permission denied",
}


class Call:
    """One command line, understood.  The configuration is loaded when it is first needed."""

    def __init__(self, given: Mapping[str, Any], in_lighttpd_style: bool) -> None:
        files: Sequence[str] = given["file"]
        self.file = files[0] if files else DEFAULT_FILE
        self.pid_file: str = given["pid_file"]
        self.strict: bool = given["strict"]
        self.timeout: float | None = given["timeout"]
        self.quiet: bool = given["quiet"]
        self.foreground: bool = given["foreground"]
        self.overrides: tuple[str, ...] = given["overrides"]
        self.now: bool = given["now"]
        self.as_json: bool = given["as_json"]
        self.print_tree: bool = given["print_tree"]
        self.in_lighttpd_style = in_lighttpd_style

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
        from . import server  # not for a command that needs no configuration: it takes a while

        return server.load(self.file, self.text, self.overrides, self.strict)

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

    def show_findings(self) -> None:
        """Warnings and notes of the configuration, on standard error."""
        from . import server

        if self.config.diagnostics and not self.quiet:
            click.echo(server.render(self.config), err=True)


# -- actions ----------------------------------------------------------------------------------


def start(call: Call) -> int:
    pid = call.service.pid
    if pid:
        return _already_running(call, pid)
    call.show_findings()
    from . import server

    return server.start(
        call.config,
        server.Options(
            call.identity, call.service.pid_file, call.foreground, call.overrides, call.strict
        ),
    )


def _already_running(call: Call, pid: int) -> int:
    if not (call.foreground or call.in_lighttpd_style):
        call.say(f"already running, pid {pid}")
        return Exit.OK
    complain(f"already running, pid {pid}")
    return Exit.NO_START


def stop(call: Call) -> int:
    if call.service.stop(_patience(call), call.now):
        call.say("stopped")
    else:
        call.say("not running")
    return Exit.OK


def _patience(call: Call) -> float:
    """Seconds from TERM to QUIT: what the server itself grants its clients, and some more."""
    if call.timeout is not None:
        return call.timeout
    graceful: Any = GRACEFUL_TIMEOUT
    if call.service.pid and not call.now:
        try:
            graceful = call.service.ask("status", ASK_TIMEOUT).get("graceful_timeout", graceful)
        except Refused:
            pass  # it does not answer, so it must be stopped all the more
    return float(graceful) + STOP_MARGIN


def restart(call: Call) -> int:
    _check(call)
    if call.service.stop(_patience(call), call.now):
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
    _check(call)
    call.show_findings()
    answer = call.service.ask("reload", _timeout(call, RELOAD_TIMEOUT))
    call.say(f"reloaded, generation {answer.get('generation', '?')}")
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
    _check(call)
    call.show_findings()
    if call.print_tree:
        _print_tree(call)
    else:
        call.say(f"{call.file}: fine")
    return Exit.OK


def _check(call: Call) -> None:
    """Everything that can be found out without starting.  Raises ConfigError."""
    from . import server

    problems = server.problems(call.config)
    if problems:
        raise ConfigError("\n".join(f"{call.file}: error: {problem}" for problem in problems))


def _print_tree(call: Call) -> None:
    from . import server

    click.echo(server.tree(call.file, call.text, call.overrides), nl=False)


def _timeout(call: Call, default: float) -> float:
    return default if call.timeout is None else call.timeout


# -- status -----------------------------------------------------------------------------------


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
    for text, key in _STATUS_WORDS:
        value = details.get(key)
        if value is not None:
            number = len(value) if isinstance(value, list) else value
            words.append(text % number)
    return ", ".join(words)


_STATUS_WORDS = (
    ("generation %s", "generation"),
    ("%s workers", "workers"),
    ("%s connections", "connections"),
    ("%s tunnels", "tunnels"),
    ("up %.0f s", "uptime"),
)


# -- tables -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action:
    """One word of the command line."""

    name: str
    run: Callable[[Call], int]
    summary: str
    options: tuple[str, ...] = ()
    """Those that mean something to this action alone."""
    aliases: tuple[str, ...] = ()


ACTIONS: tuple[Action, ...] = (
    Action("start", start, "check, bind, become a daemon, wait until the workers accept"),
    Action("stop", stop, "stop gracefully, in the end by force", ("now",)),
    Action("restart", restart, "check; when that is fine stop, then start", ("now",)),
    Action(
        "try-restart", try_restart, "restart, but only when running", ("now",), ("condrestart",)
    ),
    Action("reload", reload, "check, then go over to the new configuration without a gap"),
    Action("force-reload", force_reload, "reload; restart where that is refused"),
    Action("reopen", reopen, "open all log files anew", aliases=("reopen-logs",)),
    Action("status", status, "say in one line how the server is", ("as_json",)),
    Action(
        "check", check, "find out whether the configuration is good", ("print_tree",),
        ("configtest",),
    ),
)  # fmt: skip

UNIMPLEMENTED = ("upgrade",)
"""Actions that forkd(8) reserves."""

_BY_NAME = {name: action for action in ACTIONS for name in (action.name, *action.aliases)}
_OF_ONE_ACTION = {name for action in ACTIONS for name in action.options}


def _flag(*names: str, text: str) -> click.Option:
    return click.Option(names, is_flag=True, help=text)


OPTIONS: tuple[click.Option, ...] = (
    click.Option(
        ["-f", "--file"], metavar="FILE", multiple=True,
        help=f"the configuration; - is standard input  [with an action: {DEFAULT_FILE}]",
    ),
    click.Option(
        ["--pid-file"], metavar="FILE", default="", help="instead of the one FILE names, or RUN's"
    ),
    _flag("--strict", text="warnings about the configuration are errors"),
    click.Option(
        ["--timeout"], metavar="S", type=click.FloatRange(min=0),
        help="seconds to wait for the server, instead of what is usual for the action",
    ),
    _flag("-q", "--quiet", text="print nothing but errors"),
    _flag("-D", "--foreground", text="stay in the foreground"),
    click.Option(
        ["-o", "overrides"], metavar="KEY=VALUE", multiple=True,
        help="as if KEY := VALUE stood at the end of FILE",
    ),
    _flag("--now", text="stop, restart: cut connections instead of finishing them"),
    _flag("--json", "as_json", text="status: everything, as one JSON object"),
    _flag("--print", "print_tree", text="check: the configuration as it was understood"),
    click.Option(["-t", "test"], count=True, help="check FILE; -tt: thoroughly and silently"),
    _flag("-p", "print_parsed", text="print the configuration as it was understood"),
    click.Option(["-m", "modules"], metavar="DIR", help="ignored, for lighttpd's sake"),
    click.Option(["-i", "idle"], metavar="N", help="not supported"),
    _flag("-1", "one_shot", text="not supported"),
    _flag("-v", "--version", text="print the version"),
    _flag("-V", "features", text="print the version and the features"),
    _flag("-h", "--help", text="print this"),
)  # fmt: skip

NOT_SUPPORTED = {"one_shot": "-1 (one request on standard input)", "idle": "-i (idle limit)"}
_LIGHTTPD_ONLY = {"test": "-t", "print_parsed": "-p", "modules": "-m"}


# -- without an action ------------------------------------------------------------------------


def _without_action(call: Call, given: Mapping[str, Any]) -> int:
    """What lighttpd does with these options (admin.md 1)."""
    if not given["file"]:
        raise click.UsageError("No configuration available. Try using -f option.")
    if given["test"] or given["print_parsed"]:
        return _test(call, given)
    return start(call)


def _test(call: Call, given: Mapping[str, Any]) -> int:
    call.show_findings()
    if given["print_parsed"]:
        _print_tree(call)
    elif given["test"] == 1:
        call.say("Syntax OK")
    return Exit.OK


# -- from words to a call ---------------------------------------------------------------------


class _Command(click.Command):
    """One command with the actions as a section of its help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Actions"):
            formatter.write_dl(
                [(", ".join((a.name, *a.aliases)), a.summary) for a in ACTIONS]
            )
        super().format_options(ctx, formatter)


def dispatch(**given: Any) -> int:
    words: tuple[str, ...] = given["words"]
    informed = _inform(given)
    if informed is not None:
        return informed
    for name, text in NOT_SUPPORTED.items():
        if given[name]:
            raise click.UsageError(f"{text} is not supported")
    _check_usage(given, words)
    call = Call(given, in_lighttpd_style=not words)
    if not words:
        return _without_action(call, given)
    return _BY_NAME[words[0]].run(call)


def _inform(given: Mapping[str, Any]) -> int | None:
    if given["help"]:
        click.echo(command.get_help(click.get_current_context()))
    elif given["features"]:
        click.echo(features())
    elif given["version"]:
        click.echo(f"forkd/{__version__}")
    else:
        return None
    return Exit.OK


def features() -> str:
    """What ``-V`` prints."""
    from . import server

    return "\n".join([f"forkd/{__version__}", *(f"  {line}" for line in server.features())])


def _check_usage(given: Mapping[str, Any], words: Sequence[str]) -> None:
    if len(given["file"]) > 1:
        raise click.UsageError("-f may be given once only")
    for override in given["overrides"]:
        if "=" not in override:
            raise click.UsageError(f"-o {override}: KEY=VALUE is expected")
    action = _action(words)
    meant = action.options if action is not None else ()
    for name in _OF_ONE_ACTION - set(meant):
        if given[name]:
            raise click.UsageError(f"{_option(name)} does not go with {words or ['no action']}")
    for name, option in _LIGHTTPD_ONLY.items():
        if given[name] and action is not None and name != "modules":
            raise click.UsageError(f"{option} does not go with {action.name}")


def _action(words: Sequence[str]) -> Action | None:
    if not words:
        return None
    if len(words) > 1:
        raise click.UsageError(f"one action is expected, not {' '.join(words)}")
    action = _BY_NAME.get(words[0])
    if action is None:
        if words[0] in UNIMPLEMENTED:
            raise Refused(f"{words[0]} is not implemented", Exit.NOT_IMPLEMENTED)
        raise click.UsageError(f"unknown action {words[0]}; forkd -h lists those there are")
    return action


def _option(name: str) -> str:
    return next(option.opts[0] for option in OPTIONS if option.name == name)


command = _Command(
    "forkd",
    callback=dispatch,
    params=[click.Argument(["words"], nargs=-1, metavar="[ACTION]"), *OPTIONS],
    add_help_option=False,
    help="Pre-fork server that puts any Unix program behind WebSocket and HTTP.",
)


def complain(text: str) -> None:
    """*text* on standard error."""
    click.echo(f"forkd: {text}", err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, ``sys.argv`` by default; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    status = _run(words)
    return Exit.NO_START if status and not has_action(words) else status


def _run(words: list[str]) -> int:
    """The one place where what went wrong becomes a message and an exit status."""
    try:
        return int(command.main(words, prog_name="forkd", standalone_mode=False) or Exit.OK)
    except click.ClickException as error:
        complain(error.format_message())
        return Exit.USAGE
    except ConfigError as error:
        click.echo(str(error), err=True)
        return Exit.BAD_CONFIG
    except (StartError, Refused) as error:
        complain(str(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, BrokenPipeError):
        return Exit.FAILED


def has_action(words: list[str]) -> bool:
    """Whether *words*, which may be wrong otherwise, hold an action; if not, exit as lighttpd."""
    try:
        context = command.make_context(
            "forkd", list(words), resilient_parsing=True, ignore_unknown_options=True
        )
    except click.ClickException:
        return any(word in _BY_NAME for word in words)
    return any(not word.startswith("-") for word in context.params["words"] or ())
