"""Values of the configuration's text to Python values: the types of config.md 3.1.

A converter is called with the value and where it stands, and raises BadValue when the value is not
what its directive takes.  What it can mend it reports as a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..message import os_path
from ..uri import simplify_path
from .backend import BackendSpec
from .conditions import Finds, Matcher
from .diagnostics import Findings, quoted
from .tree import ConfigList, Place, Setting, Value

Resolve = Callable[[str, bool], str]
"""Host name and whether IPv6 is preferred to the text of its first address; raises OSError."""


class BadValue(ValueError):
    """A value that its directive does not take; ``place`` when it is not the whole value's."""

    def __init__(self, text: str, place: Place | None = None) -> None:
        super().__init__(text)
        self.place = place


@dataclass(frozen=True, slots=True)
class Context:
    """Where a value stands, and what else its meaning depends on."""

    setting: Setting
    block: int
    matcher: Matcher | None
    """The compiled condition of the block."""
    findings: Findings
    resolve: Resolve
    backends: dict[BackendSpec, Place] = field(default_factory=dict)
    """Every backend of the configuration so far, with the place that defined it."""
    beside: Mapping[str, Setting] = field(default_factory=dict)
    """All settings of the block, by name in lower case."""

    def warn(self, text: str, place: Place | None = None) -> None:
        self.findings.warning(place or self.setting.place, f"{self.setting.name}: {text}")

    def note(self, text: str, place: Place | None = None) -> None:
        self.findings.note(place or self.setting.place, f"{self.setting.name}: {text}")

    def error(self, text: str, place: Place | None = None) -> None:
        self.findings.error(place or self.setting.place, f"{self.setting.name}: {text}")

    @property
    def condition_groups(self) -> int:
        """How many groups ``%1`` and up can name in this block."""
        test = self.matcher.test if self.matcher else None
        return test.pattern.groups if isinstance(test, Finds) else 0


Converter = Callable[[Value, Context], Any]


def place_of(value: ConfigList, index: int) -> Place | None:
    """Where element number *index* stands, if that is known."""
    return value.places[index] if index < len(value.places) else None


def shown(value: Value) -> str:
    """*value* for a message."""
    if isinstance(value, ConfigList):
        return "a list" if value.is_list else "a hash"
    return quoted(value) if isinstance(value, str) else str(value)


def _expected(what: str, value: Value) -> BadValue:
    return BadValue(f"expected {what}, got {shown(value)}")


def is_off(value: Value) -> bool:
    """Whether *value* only switches its directive or option off."""
    if isinstance(value, ConfigList):
        return len(value) == 0
    return value in (0, "", "0") or str(value).lower() in ("disable", "disabled", "false")


# Scalars

_TRUE = ("enable", "enabled", "true", "1")
_FALSE = ("disable", "disabled", "false", "0")
_LARGEST = 2**31 - 1


def flag(value: Value, context: Context) -> bool:
    if isinstance(value, int):
        return value != 0
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise _expected('"enable" or "disable"', value)


def number(value: Value, context: Context) -> int:
    return _ranged(value, 0, _LARGEST, "a number")


def short(value: Value, context: Context) -> int:
    return _ranged(value, 0, 65535, "a number from 0 to 65535")


def within(low: int, high: int) -> Converter:
    """A converter for numbers from *low* to *high*."""

    def convert(value: Value, context: Context) -> int:
        return _ranged(value, low, high, f"a number from {low} to {high}")

    return convert


port = within(1, 65535)


def kilobytes(value: Value, context: Context) -> int:
    """A number of kB as bytes."""
    return number(value, context) * 1024


def _ranged(value: Value, low: int, high: int, what: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or not low <= value <= high:
        raise _expected(what, value)
    return value


def text(value: Value, context: Context) -> str:
    if not isinstance(value, str):
        raise BadValue(f'expected a string, as in {context.setting.name} = "..."')
    return value


def file_name(value: Value, context: Context) -> str:
    """An OS string."""
    return os.fsdecode(os_path(text(value, context)))


def absolute_file(value: Value, context: Context) -> str:
    """An OS string that names the same file in every process, wherever it stands."""
    name = file_name(value, context)
    return os.path.abspath(name) if name else ""


def octal(value: Value, context: Context) -> int | None:
    """File mode bits from an octal string; None for the empty one."""
    digits = text(value, context)
    if digits and not re.fullmatch("0?[0-7]{3}", digits):
        raise _expected('an octal mode such as "0660"', value)
    return int(digits, 8) if digits else None


def one_of(*words: str) -> Converter:
    """A converter for one of *words*."""

    def convert(value: Value, context: Context) -> str:
        if text(value, context) not in words:
            raise _expected(f"one of {', '.join(words)}", value)
        return text(value, context)

    return convert


def preferably(default: str, *others: str) -> Converter:
    """A converter for words of which lighttpd takes unknown ones for *default*."""

    def convert(value: Value, context: Context) -> str:
        word = text(value, context).lower()
        if word not in (default, *others):
            known = ", ".join((default, *others))
            context.warn(f"{shown(value)} is none of {known}: taken for {default}")
            return default
        return word

    return convert


# Lists and hashes


def text_list(value: Value, context: Context) -> tuple[str, ...]:
    if isinstance(value, ConfigList) and value.is_list:
        words = tuple(item for _, item in value if isinstance(item, str))
        if len(words) == len(value):
            return words
    raise BadValue(f'expected a list of strings, as in {context.setting.name} = ( "...", "..." )')


def text_list_or_text(value: Value, context: Context) -> tuple[str, ...]:
    """A list of strings; a string alone is read as a list of one."""
    if isinstance(value, str):
        context.warn(f"expected a list of strings; read as ( {shown(value)} )")
        return (value,)
    return text_list(value, context)


def text_list_or_none(value: Value, context: Context) -> tuple[str, ...] | None:
    """A list of strings; the empty one means: not set."""
    return text_list(value, context) or None


def full_text_list(value: Value, context: Context) -> tuple[str, ...]:
    """A list of strings of which none is empty."""
    words = text_list(value, context)
    if "" in words:
        raise BadValue("an empty string in the list")
    return words


def file_list(value: Value, context: Context) -> tuple[str, ...]:
    """A list of OS strings."""
    return tuple(os.fsdecode(os_path(word)) for word in text_list(value, context))


def folder_list(value: Value, context: Context) -> tuple[str, ...]:
    """A list of absolute paths, each without dot segments and with a slash at its end."""
    folders = text_list(value, context)
    for folder in folders:
        if not folder.startswith("/"):
            raise BadValue(f'"{folder}" does not begin with /')
    return tuple(simplify_path(f"{folder}/") for folder in folders)


def text_pairs(value: Value, context: Context) -> tuple[tuple[str, str], ...]:
    """A hash of strings, in order."""
    if isinstance(value, ConfigList):
        pairs = tuple(
            (key, item) for key, item in value if key is not None and isinstance(item, str)
        )
        if len(pairs) == len(value):
            return pairs
    raise BadValue(
        f'expected key => string pairs, as in {context.setting.name} = ( "..." => "..." )'
    )


def scalar_pairs(value: Value, context: Context) -> tuple[tuple[str, str | int], ...]:
    """A hash of strings and integers, in order."""
    if isinstance(value, ConfigList):
        pairs = tuple(
            (key, item)
            for key, item in value
            if key is not None and not isinstance(item, ConfigList)
        )
        if len(pairs) == len(value):
            return pairs
    raise BadValue(
        f'expected key => value pairs, as in {context.setting.name} = ( "..." => 1 )'
    )
