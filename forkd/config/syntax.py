"""The syntax tree: what the parser makes of one file (config.md 2).

Nothing is looked up or joined here.  A node whose text was broken stays in the tree, marked, so
that one error does not bring others with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .tree import Place


@dataclass(frozen=True, slots=True)
class Constant:
    value: str | int
    place: Place


@dataclass(frozen=True, slots=True)
class Reference:
    """A name as written."""

    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class Element:
    key: Expression | None
    value: Expression
    place: Place


@dataclass(frozen=True, slots=True)
class ListExpression:
    elements: tuple[Element, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Sum:
    """Two or more terms, joined from left to right."""

    terms: tuple[Expression, ...]
    place: Place


Expression: TypeAlias = Constant | Reference | ListExpression | Sum


@dataclass(frozen=True, slots=True)
class Assignment:
    name: str
    operator: Literal["=", ":=", "+="]
    value: Expression | None
    """None: not understood."""
    place: Place


@dataclass(frozen=True, slots=True)
class Include:
    operand: Expression
    shell: bool
    """Whether the operand is a command (``include_shell``)."""
    place: Place


@dataclass(frozen=True, slots=True)
class Global:
    body: tuple[Statement, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Test:
    """The condition of a branch."""

    field: str
    operator: str
    value: Expression
    place: Place


@dataclass(frozen=True, slots=True)
class Branch:
    test: Test | None
    """None for a final ``else``."""
    body: tuple[Statement, ...]
    place: Place
    broken: bool = False
    """Whether its head was not understood."""


@dataclass(frozen=True, slots=True)
class Chain:
    branches: tuple[Branch, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch that was not understood; it may have set anything."""

    place: Place


Statement: TypeAlias = Assignment | Include | Global | Chain | Gap
