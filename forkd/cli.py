"""The command line: ``forkd [options] ACTION``, and lighttpd's options where there is no action.

What there is stands in three tables, ``ACTIONS``, ``OPTIONS`` and ``EXIT_CODES``; forkd(8) is
checked against them.  What an action does is in ``actions``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from . import __version__, actions
from .actions import DEFAULT_FILE, Call, Exit, NotStartable, StatusExit, complain
from .errors import ConfigError, StartError
from .service import Refused
from .unix import reexec

EXIT_CODES: Mapping[Exit, str] = {
    Exit.OK: "done, or there was nothing to do",
    Exit.FAILED: "failed: the message says why",
    Exit.USAGE: "the command line is wrong",
    Exit.NOT_ALLOWED: "permission denied",
    Exit.MISSING: "a program or certificate that the server needs is missing",
    Exit.BAD_CONFIG: "the configuration is missing or bad",
    Exit.NOT_RUNNING: "the server is not running",
    Exit.NO_START: "any failure of a call without an action, as lighttpd; "
    "in the foreground also: already running",
}


STATUS_EXIT_CODES: Mapping[StatusExit, str] = {
    StatusExit.RUNNING: "running",
    StatusExit.DEAD: "dead, and its pid file is left",
    StatusExit.STOPPED: "not running",
    StatusExit.UNKNOWN: "cannot be told: permission denied",
}


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
    Action("start", actions.start, "check, bind, become a daemon, wait until the workers accept"),
    Action("stop", actions.stop, "stop gracefully, in the end by force", ("now",)),
    Action("restart", actions.restart, "check; when that is fine stop, then start", ("now",)),
    Action(
        "try-restart", actions.try_restart, "restart, but only when running", ("now",),
        ("condrestart",),
    ),
    Action("reload", actions.reload, "check, then go over to the new configuration without a gap"),
    Action("upgrade", actions.upgrade, "let the program on disk take over, in the same process"),
    Action("force-reload", actions.force_reload, "reload; restart where that is refused"),
    Action("reopen", actions.reopen, "open all log files anew", aliases=("reopen-logs",)),
    Action("status", actions.status, "say in one line how the server is", ("as_json",)),
    Action(
        "check", actions.check, "find out whether the configuration is good", ("print_tree",),
        ("configtest",),
    ),
)  # fmt: skip

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
    click.Option(
        ["-i", "idle"], metavar="N", type=click.IntRange(min=1),
        help="stop when there was no connection for N seconds",
    ),
    _flag("-1", "one_shot", text="serve the one client on standard input"),
    click.Option(
        ["--preflight"], metavar="FD", type=int, hidden=True,
        help="say whether this program could go on where FD says that a server is",
    ),
    _flag("-v", "--version", text="print the version"),
    _flag("-V", "features", text="print the version and the features"),
    _flag("-h", "--help", text="print this"),
)  # fmt: skip

_OF_NO_ACTION = {"test", "print_parsed", "idle", "one_shot"}


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
    _check_usage(given, words)
    call = Call(given, in_lighttpd_style=not words)
    if given["preflight"] is not None:
        return actions.try_upgrade(call, given["preflight"])
    if (left := _left_behind()) is not None:
        return actions.resume(call, left)
    if not words:
        return _without_action(call, given)
    return _BY_NAME[words[0]].run(call)


def _left_behind() -> bytes | None:
    try:
        return reexec.take(os.environ)
    except (OSError, ValueError) as error:
        raise StartError(f"{reexec.VARIABLE}: {error}") from None


def _without_action(call: Call, given: Mapping[str, Any]) -> int:
    """What lighttpd does with its options (admin.md 1)."""
    if not given["file"]:
        raise click.UsageError("No configuration available. Try using -f option.")
    if given["test"] or given["print_parsed"]:
        return actions.test(call)
    if given["one_shot"]:
        return actions.serve_one(call)
    return actions.start(call)


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
    from . import preflight

    return "\n".join((f"forkd/{__version__}", *(f"  {line}" for line in preflight.features())))


def _check_usage(given: Mapping[str, Any], words: Sequence[str]) -> None:
    if len(given["file"]) > 1:
        raise click.UsageError("-f may be given once only")
    for override in given["overrides"]:
        if "=" not in override:
            raise click.UsageError(f"-o {override}: KEY=VALUE is expected")
    action = _action(words)
    if action is None:
        alien = _OF_ONE_ACTION
    else:
        alien = (_OF_ONE_ACTION | _OF_NO_ACTION) - set(action.options)
    for option in OPTIONS:
        if option.name in alien and given[option.name]:
            what = "a call without an action" if action is None else action.name
            raise click.UsageError(f"{option.opts[-1]} does not go with {what}")


def _action(words: Sequence[str]) -> Action | None:
    if not words:
        return None
    if len(words) > 1:
        raise click.UsageError(f"one action is expected, not {' '.join(words)}")
    action = _BY_NAME.get(words[0])
    if action is None:
        raise click.UsageError(f"unknown action {words[0]}; forkd -h lists those there are")
    return action


command = _Command(
    "forkd",
    callback=dispatch,
    params=[click.Argument(["words"], nargs=-1, metavar="[ACTION]"), *OPTIONS],
    add_help_option=False,
    help="Pre-fork server that puts any Unix program behind WebSocket and HTTP.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, ``sys.argv`` by default; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _stand_somewhere()
    status = _run(words)
    return Exit.NO_START if status and not has_action(words) else status


def _stand_somewhere() -> None:
    """In ``/`` where our folder is gone: nothing relative to that is found either."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir("/")


def _run(words: list[str]) -> int:
    """The one place where what went wrong becomes a message and an exit status."""
    try:
        return int(command.main(words, prog_name="forkd", standalone_mode=False) or Exit.OK)
    except click.ClickException as error:
        complain(error.format_message())
        return Exit.USAGE
    except ConfigError as error:
        click.echo(str(error), err=True)
        return Exit.MISSING if isinstance(error, NotStartable) else Exit.BAD_CONFIG
    except (StartError, Refused) as error:
        complain(str(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, BrokenPipeError):
        return Exit.FAILED


def has_action(words: list[str]) -> bool:
    """Whether *words*, which may be wrong otherwise, hold an action; if not, exit as lighttpd."""
    if any(word in _BY_NAME or word == "--preflight" for word in words):
        return True
    try:
        context = command.make_context(
            "forkd", list(words), resilient_parsing=True, ignore_unknown_options=True
        )
    except click.ClickException:
        return False
    return any(not word.startswith("-") for word in context.params["words"] or ())
