"""The evaluated configuration: blocks of settings, every value with its place in the text.

What ``evaluate`` makes and what directives, conditions and ``show`` read.  Text is the bytes of the
file read as Latin-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .model import Diagnostic


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands.  Line and column count from 1; a tab is one column."""

    file: str
    """As shown to the admin."""
    line: int
    column: int


NOWHERE = Place("", 0, 0)


@dataclass(frozen=True, slots=True)
class ConfigList:
    """A list, a hash or a mixture: (key, value) pairs in order, the key None for list elements."""

    elements: tuple[tuple[str | None, Value], ...] = ()
    places: tuple[Place, ...] = field(default=(), compare=False, repr=False)
    """Where each element stands; NOWHERE for all when not given."""

    def __post_init__(self) -> None:
        if len(self.places) != len(self.elements):
            object.__setattr__(self, "places", (NOWHERE,) * len(self.elements))

    @property
    def is_list(self) -> bool:
        """Whether no element has a key; so is the empty one."""
        return all(key is None for key, _ in self.elements)

    @property
    def is_hash(self) -> bool:
        """Whether every element has a key; so is the empty one."""
        return all(key is not None for key, _ in self.elements)

    def __len__(self) -> int:
        return len(self.elements)

    def __iter__(self) -> Iterator[tuple[str | None, Value]]:
        return iter(self.elements)


Value: TypeAlias = str | int | ConfigList


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a block with its final value."""

    name: str
    """As written where it was first set, a variable with its ``var.``."""
    value: Value
    place: Place
    """Of the name in the statement that had the last word."""


@dataclass(frozen=True, slots=True)
class Condition:
    """``$FIELD["NAME"] OP "VALUE"``, not yet checked nor compiled."""

    field: str
    """Canonical text, ``$HTTP["host"]``; the names as written."""
    op: str
    value: str
    place: Place


@dataclass(frozen=True, slots=True)
class Block:
    """One scope.  Number 0 is the global one; the others are numbered by first appearance."""

    index: int
    parent: int | None
    kind: Literal["global", "if", "else"]
    condition: Condition | None
    """None for the global block and a final ``else``."""
    previous: tuple[int, ...]
    """Earlier branches of its chain, first to last."""
    settings: Mapping[str, Setting]
    """By full name in lower case (``var.x`` for variables), in the order of first assignment."""
    place: Place = NOWHERE
    """Of its condition where it first stands."""


@dataclass(frozen=True)
class Evaluated:
    """All blocks, in number order, and what was found on the way."""

    blocks: tuple[Block, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    """Warnings and notes."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Text of every file that was read, by the name that places carry: for the caret lines."""
