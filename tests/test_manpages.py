"""The manual pages say what the tables in the code say: nothing is left out, nothing is made up."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from forkd import accesslog, cli
from forkd.config import directives, hosts, meanings, model
from forkd.config.directives import DIRECTIVES, Directive, Scope
from forkd.config.tls import TlsSpec
from forkd.master import commands
from forkd.master.master import SIGNALS
from forkd.uri import ParseOptions

FOLDER = Path(__file__).parents[1] / "man"
PAGES = [FOLDER / "forkd.8", FOLDER / "forkd.conf.5"]

TYPES = {
    "boolean": ("flag",),
    "short": ("short", "port", "within", "verify_depth"),
    "integer": ("number", "kilobytes"),
    "string": (
        "text",
        "file_name",
        "absolute_file",
        "octal",
        "one_of",
        "preferably",
        "balance",
        "binary_frames",
        "framing",
    ),
    "strings": (
        "text_list",
        "file_list",
        "folder_list",
        "text_list_or_text",
        "text_list_or_none",
        "full_text_list",
        "subprotocols",
    ),
    "hash": ("text_pairs", "alias_pairs", "rule_set", "header_fields", "mime_types", "tls_policy"),
    "values": (
        "scalar_pairs",
        "feature_flags",
        "parse_options",
        "cgi_limits",
        "forwarded",
        "deflate",
    ),
    "members": ("proxy_header",),
    "hosts": ("routes_of",),
}
TYPE_OF = {converter: name for name, converters in TYPES.items() for converter in converters}

SCOPES = {Scope.SERVER: "server", Scope.SOCKET: "socket", Scope.CONNECTION: "request"}


def page(name: str) -> str:
    return (FOLDER / name).read_text()


def section(name: str, title: str) -> str:
    """The source of one section (``.Sh``) or subsection (``.Ss``) of a page."""
    found = re.search(rf"^\.S[hs] {re.escape(title)}$(.*?)(?=^\.Sh |\Z)", page(name), re.M | re.S)
    assert found, f"{name} has no section {title}"
    return found[1]


def items(text: str, macro: str) -> dict[str, str]:
    """First word to the rest of its line, of every list item that begins with *macro*."""
    return dict(re.findall(rf"^\.It {macro} (\S+) ?(.*)$", text, re.M))


ENTRY = re.compile(r"Pq (\w+) , (?:(\w+) , )?(.*)")

DOCUMENTED = {
    name.lower(): found.groups()
    for name, rest in items(section("forkd.conf.5", "DIRECTIVES"), "Ic").items()
    if (found := ENTRY.fullmatch(rest))
}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_are_well_formed(path: Path) -> None:
    mandoc = shutil.which("mandoc")
    assert mandoc, "mandoc is not installed; bin/test without arguments installs it"
    found = subprocess.run([mandoc, "-T", "lint", str(path)], capture_output=True, text=True)
    assert [line for line in found.stdout.splitlines() if not HARMLESS.search(line)] == []


HARMLESS = re.compile("referenced manual not found|possible typo in section name")


def test_every_directive_is_documented_and_no_other() -> None:
    assert sorted(DOCUMENTED) == sorted(DIRECTIVES)


@pytest.mark.parametrize("row", DIRECTIVES.values(), ids=lambda row: row.name)
def test_type_scope_and_default_of_a_directive(row: Directive) -> None:
    kind, scope, default = DOCUMENTED[row.name.lower()]
    assert kind == TYPE_OF[converter_name(row.convert)]
    assert scope == SCOPES[row.scope]
    said = default_text(row)
    if said is not None and kind != "string":
        assert default == said


def converter_name(converter: Any) -> str:
    """The function's name, or that of the function that made it."""
    return str(getattr(converter, "func", converter).__qualname__.split(".")[0])


def default_text(row: Directive) -> str | None:
    """How the page writes the default, where it is a plain value: a word, or a number but 0."""
    value = default_of(row.field)
    if isinstance(value, bool):
        return "enable" if value else "disable"
    if isinstance(value, int | float) and value:
        divisor = 1024 if converter_name(row.convert) == "kilobytes" else 1
        return f"{value / divisor:g}" if value < 100_000 else str(int(value))
    return None


def default_of(path: str) -> Any:
    """The default of a field of the model, by its dotted path; None where it has no such field."""
    first, _, rest = path.partition(".")
    value: Any = model.RequestConfig()
    if first == "server":
        value, path = model.ServerSettings(), rest
    elif first == "tls":
        value, path = TlsSpec(), rest
    for name in path.split("."):
        if not is_dataclass(value) or name not in {field.name for field in fields(value)}:
            return None
        value = getattr(value, name)
    return value


def test_every_host_option_is_documented_and_no_other() -> None:
    documented = items(section("forkd.conf.5", "HOST OPTIONS"), "Cm")
    assert sorted(documented) == sorted(hosts._OPTIONS)


def test_every_feature_flag_is_documented() -> None:
    documented = items(section("forkd.conf.5", "FEATURE FLAGS"), "Cm")
    unused = {"server.h2proto", "server.h2c"}  # accepted, and nothing to switch yet
    known = {*meanings._FLAGS, meanings._TRAILERS} - unused
    assert sorted(documented) == sorted(known)


def test_every_parse_option_is_documented() -> None:
    names = {field.name.replace("_", "-") for field in fields(ParseOptions)}
    text = section("forkd.conf.5", "Requests").split("server.http-parseopts ")[1]
    documented = re.findall(r"^\.Li (\S+) [,.]$", text.split("\n.It ")[0], re.M)
    assert sorted(documented) == sorted(names)


def test_every_module_is_documented() -> None:
    text = section("forkd.conf.5", "MODULES")
    assert {name for name in directives.MODULES if not re.search(rf"\b{name}\b", text)} == set()


def test_every_code_of_the_access_log_is_documented_and_no_other() -> None:
    tags = re.findall(r"^\.It (Li .*)$", section("forkd.conf.5", "ACCESS LOG"), re.M)
    documented = set(re.findall(r"%(?:>|\{.*?\})?([A-Za-z])", "\n".join(tags)))
    assert documented == set(accesslog.CODES)


def test_every_action_is_documented_and_no_other() -> None:
    text = section("forkd.8", "ACTIONS")
    assert list(items(text, "Cm")) == [action.name for action in cli.ACTIONS]
    for action in cli.ACTIONS:
        for alias in action.aliases:
            assert f".Cm {alias}\nis another name for it" in text


def test_every_control_command_is_documented_and_no_other() -> None:
    documented = items(section("forkd.8", "CONTROL SOCKET"), "Cm")
    assert sorted(documented) == sorted(commands.COMMANDS)


def test_every_signal_is_documented_and_no_other() -> None:
    lines = re.findall(r"^\.It (Dv .*)$", section("forkd.8", "SIGNALS"), re.M)
    documented = {word for line in lines for word in re.findall(r"\b[A-Z12]{3,}\b", line)}
    assert documented == {signal.Signals(number).name.removeprefix("SIG") for number in SIGNALS}


def test_every_option_is_documented() -> None:
    lines = re.findall(r"\bFl (.*)$", page("forkd.8"), re.M)
    documented = {word.split()[0] for line in lines for word in line.split(" , ")}
    given = {name.removeprefix("-") for option in cli.OPTIONS for name in option.opts}
    assert given - documented == set()


def test_exit_codes_are_those_of_the_command() -> None:
    text = section("forkd.8", "EXIT STATUS")
    actions, status = text.split(".Cm status :")
    assert set(numbers(actions)) == set(cli.EXIT_CODES) - {255}
    assert set(numbers(status)) == set(cli.STATUS_EXIT_CODES)


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"^\.It (\d+)$", text, re.M)]
