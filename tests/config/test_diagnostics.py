"""forkd/config/diagnostics.py."""

from __future__ import annotations

import os

import pytest

from forkd.config.diagnostics import (
    ConfigRefused,
    Findings,
    legible,
    nearest,
    quoted,
    render,
    source_line,
    suggestion,
)
from forkd.config.model import Diagnostic
from forkd.config.tree import Place
from forkd.errors import ConfigError


def error(source: str, column: int, file: str = "f", line: int = 3) -> Diagnostic:
    return Diagnostic("error", file, line, column, "text", source)


def test_findings_carry_their_source_line_and_keep_order() -> None:
    sources = {"f": "one\rtwo\r\nthree"}
    findings = Findings(sources)
    findings.warning(Place("f", 2, 1), "w")
    assert not findings.failed
    sources["g"] = "later"
    findings.error(Place("g", 1, 2), "e")
    findings.note(Place("h", 7, 1), "n")
    findings.warning(Place("f", 2, 1), "w")
    assert findings.failed
    assert len(findings) == 3
    assert [(d.severity, d.file, d.text, d.source) for d in findings.diagnostics] == [
        ("warning", "f", "w", "two"),
        ("error", "g", "e", "later"),
        ("note", "h", "n", ""),
    ]


@pytest.mark.parametrize(("number", "line"), [(0, ""), (1, "a"), (2, ""), (3, "b"), (4, "")])
def test_source_line(number: int, line: str) -> None:
    assert source_line("a\n\nb", number) == line


@pytest.mark.parametrize(
    ("diagnostic", "lines"),
    [
        (error("a.b = ;", 7), ["f:3:7: error: text", "    a.b = ;", "          ^"]),
        (error("\ta.b\t= ;", 8), ["f:3:8: error: text", "    \ta.b\t= ;", "    \t   \t  ^"]),
        (error("a", 2), ["f:3:2: error: text", "    a", "     ^"]),
        (error("", 1), ["f:3:1: error: text"]),
        (error("", 0, line=0), ["f: error: text"]),
        # Columns count bytes, the caret counts characters.
        (error("\xc3\xa9 ;", 4), ["f:3:4: error: text", "    \u00e9 ;", "      ^"]),
    ],
)
def test_render(diagnostic: Diagnostic, lines: list[str]) -> None:
    assert render([diagnostic]).split("\n") == lines


@pytest.mark.parametrize("column", [1, 30, 100, 150, 200, 201])
def test_of_a_long_line_the_part_around_the_caret_is_shown(column: int) -> None:
    source = "".join(chr(33 + n % 90) for n in range(200))
    _, shown, caret = render([error(source, column)]).split("\n")
    assert len(shown) < 120
    assert f"{shown} "[caret.index("^")] == f"{source} "[column - 1]


def test_several_are_put_one_below_the_other() -> None:
    both = [error("x", 1), error("", 0, line=0)]
    refused = ConfigRefused(both)
    assert isinstance(refused, ConfigError)
    assert str(refused) == "f:3:1: error: text\n    x\n    ^\nf: error: text"
    assert refused.diagnostics == tuple(both)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("caf\xc3\xa9", "caf\u00e9"),
        ("caf\xe9", "caf\xe9"),
        ("\u20ac", "\u20ac"),
        (os.fsdecode(b"\xff"), "\\udcff"),
    ],
)
def test_legible(text: str, expected: str) -> None:
    assert legible(text) == expected


def test_quoted_is_one_short_line() -> None:
    assert quoted("a\r\nb") == '"a\\r\\nb"'
    assert len(quoted("x" * 100)) == 62


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("server.prot", "server.port"),
        ("Server.Document-Rot", "server.document-root"),
        ("server.bind", None),
        ("", None),
    ],
)
def test_nearest(name: str, expected: str | None) -> None:
    known = ["server.port", "server.document-root", "x"]
    assert nearest(name, known) == expected
    assert suggestion(name, known) == (f"; did you mean {expected}?" if expected else "")
