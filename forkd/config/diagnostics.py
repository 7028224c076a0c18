"""Collecting and printing what was found about the configuration (config.md 12)."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Mapping

from ..errors import ConfigError
from .lexer import LINE_END
from .model import Diagnostic, Kind, Severity
from .tree import Place

_WINDOW = 96
"""Characters of a source line that are shown around the caret."""


class ConfigRefused(ConfigError):
    """The configuration is refused: ``diagnostics`` holds every finding, errors among them."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(render(self.diagnostics))


class Findings:
    """The diagnostics of one load, in the order in which they were found; none is kept twice."""

    def __init__(self, sources: Mapping[str, str] | None = None) -> None:
        """*sources*: text by file name, for the source lines; may grow while findings are added."""
        self._sources: Mapping[str, str] = {} if sources is None else sources
        self._found: dict[Diagnostic, None] = {}

    def error(self, place: Place, text: str) -> None:
        self.add("error", place, text)

    def warning(self, place: Place, text: str) -> None:
        self.add("warning", place, text)

    def note(self, place: Place, text: str) -> None:
        self.add("note", place, text)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(self._found)

    @property
    def failed(self) -> bool:
        """Whether an error is among them."""
        return any(found.severity == "error" for found in self._found)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, severity: Severity, place: Place, text: str, kind: Kind = "") -> None:
        source = source_line(self._sources.get(place.file, ""), place.line)
        found = Diagnostic(severity, place.file, place.line, place.column, text, source, kind)
        self._found.setdefault(found)


def source_line(text: str, number: int) -> str:
    """Line *number* of *text*, counted from 1; "" when it has no such line."""
    lines = LINE_END.split(text)
    return lines[number - 1] if 0 < number <= len(lines) else ""


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """``FILE:LINE:COL: error: text`` for each, with the source line and a caret below it.

    Readable text: Latin-1 that holds UTF-8 comes out decoded.  No newline at the end.
    """
    return "\n".join(_rendered(diagnostic) for diagnostic in diagnostics)


def _rendered(found: Diagnostic) -> str:
    where = f"{found.file}:{found.line}:{found.column}" if found.line else found.file
    lines = [f"{_printable(where)}: {found.severity}: {legible(found.text)}"]
    if found.source.strip():
        lines += _pointed_at(found.source, found.column)
    return "\n".join(lines)


def _pointed_at(source: str, column: int) -> tuple[str, str]:
    """The source line, or what fits around *column*, and the line with the caret."""
    before, after = source[: column - 1], source[column - 1 :]
    if len(source) > _WINDOW:
        before = _cut(before, before[-_WINDOW // 2 :], "... {}")
        after = _cut(after, after[: _WINDOW // 2], "{} ...")
    before = legible(before)
    # Tabs are repeated, so that the caret stands right whatever their width.
    blanks = "".join("\t" if char == "\t" else " " for char in before)
    return f"    {before}{legible(after)}", f"    {blanks}^"


def _cut(whole: str, part: str, marked: str) -> str:
    return whole if len(part) == len(whole) else marked.format(part)


def legible(text: str) -> str:
    """*text* for a person: bytes read as Latin-1 are decoded when they are UTF-8."""
    with contextlib.suppress(UnicodeError):  # real Latin-1 stays as it is
        text = text.encode("latin-1").decode()
    return _printable(text)


def _printable(text: str) -> str:
    """*text* without the surrogates that OS strings may hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def quoted(text: str) -> str:
    """*text* in double quotes on one line, cut when it is long."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    return '"' + shown.replace("\r", "\\r").replace("\n", "\\n") + '"'


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of *known* that *name* is most likely a slip of, or None."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=0.75)
    return by_folded[found[0]] if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` or nothing: to be put behind a message about *name*."""
    found = nearest(name, known)
    return f"; did you mean {found}?" if found else ""
