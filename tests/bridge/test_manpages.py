"""scgi-cgi(1) and fcgi-cgi(1) are well formed and say what the command lines say."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from forkd.bridge import bridge, cli, connection, run

FOLDER = Path(__file__).parents[2] / "man"
PAGES = {"scgi-cgi": cli.scgi_main, "fcgi-cgi": cli.fcgi_main}

HARMLESS = re.compile("referenced manual not found|outdated mandoc.db")

both = pytest.mark.parametrize("name", PAGES)


def page(name: str) -> str:
    return (FOLDER / f"{name}.1").read_text()


def options_of(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """All options that ``-h`` tells of."""
    with pytest.raises(SystemExit):
        PAGES[name](["-h"])
    return set(re.findall(r"(?<![\w-])-{1,2}\w[\w-]*", capsys.readouterr().out))


@both
def test_well_formed(name: str) -> None:
    mandoc = shutil.which("mandoc")
    assert mandoc, "mandoc is not installed; bin/test without arguments installs it"
    command = [mandoc, "-T", "lint", str(FOLDER / f"{name}.1")]
    found = subprocess.run(command, capture_output=True, text=True)
    assert [line for line in found.stdout.splitlines() if not HARMLESS.search(line)] == []


@both
def test_every_option_is_documented_and_no_other(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = re.findall(r"^\.It Fl (.*)$", page(name), re.M)
    words = [word.split()[0] for line in lines for word in line.split(" , ")]
    assert sorted(f"-{word}" for word in words) == sorted(options_of(name, capsys))


@both
def test_signals_statuses_and_the_default(name: str) -> None:
    text = page(name)
    (signals,) = re.findall(r"^\.It Dv (SIG.*)$", text, re.M)
    assert signals.split(" , ") == [number.name for number in bridge.SIGNALS]
    assert f"; {cli.MAX_CONNECTIONS} without this option" in text
    statuses = {int(status) for status in re.findall(r"^\.It ([45]\d\d)$", text, re.M)}
    assert statuses == set(connection._PHRASES) - ({400} if name == "scgi-cgi" else set())
    assert run.GRACE == 1  # "A second later"
