"""Blocks while they are being filled: what is visible in them, and which are one and the same.

config.md 6 (scope of names) and 9.1 (numbering, merging, chains).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .diagnostics import Findings, quoted
from .tree import Block, Condition, Place, Setting


@dataclass(eq=False, slots=True)
class Scope:
    """One block."""

    index: int | None
    """None: read for its errors, and dropped, because its condition is broken."""
    parent: Scope | None
    condition: Condition | None
    place: Place
    previous: Scope | None = None
    """The branch before it in its chain."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """By full name in lower case."""
    unknown: set[str] = field(default_factory=set)
    """Names whose value was lost to an error."""
    branches: dict[tuple[str, ...], Scope] = field(default_factory=dict)
    """The blocks inside, by identity."""

    def outwards(self) -> Iterator[Scope]:
        """This block and those around it: where names are looked up."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    @property
    def depth(self) -> int:
        """Blocks around it."""
        return sum(1 for _ in self.outwards()) - 1

    @property
    def number(self) -> int:
        assert self.index is not None, "a dropped block has no number"
        return self.index

    def __str__(self) -> str:
        if self.parent is None:
            return "global"
        if self.condition is None:
            return f"{self.parent} / else"
        condition = self.condition
        return f"{self.parent} / {condition.field} {condition.op} {quoted(condition.value)}"


class Scopes:
    """All blocks of one configuration."""

    def __init__(self, findings: Findings, place: Place) -> None:
        self._findings = findings
        self.top = Scope(0, None, None, place)
        self._all = [self.top]

    def open(
        self, parent: Scope, condition: Condition | None, place: Place, previous: Scope | None
    ) -> Scope:
        """The block inside *parent* with *condition*: a new one, or the one that has it already.

        *previous* is the branch before it in its chain, and *condition* None for a final ``else``.
        """
        if parent.index is None or (previous and previous.index is None):
            return dropped(parent, place)
        identity = _identity(condition, previous)
        same = parent.branches.get(identity)
        if same is not None:
            return self._reopen(same, place, previous)
        scope = Scope(len(self._all), parent, condition, place, previous)
        parent.branches[identity] = scope
        self._all.append(scope)
        return scope

    def _reopen(self, same: Scope, place: Place, previous: Scope | None) -> Scope:
        """lighttpd's rules, with a word where they may surprise."""
        first = f"the block of {same.place.file}:{same.place.line}"
        if previous is None:
            if same.previous is not None:
                self._findings.warning(place, f"this adds to {first}, which is an 'else' branch")
        elif same.number <= previous.number:
            self._findings.error(
                place, f"unreachable: this 'else' has the condition of {first}, which stands before"
            )
            return dropped(previous, place)
        elif same.previous is not previous:
            self._findings.warning(place, f"{first} becomes a branch of this chain")
            same.previous = previous
        return same

    def frozen(self) -> tuple[Block, ...]:
        return tuple(_block(scope) for scope in self._all)


def dropped(parent: Scope, place: Place) -> Scope:
    """A block that is read only for the errors in it."""
    return Scope(None, parent, None, place)


def _identity(condition: Condition | None, previous: Scope | None) -> tuple[str, ...]:
    """What two blocks inside one block must have in common to be one and the same."""
    if condition is None:
        return ("else", "" if previous is None else str(previous.index))
    folds = condition.field.startswith("$REQUEST_HEADER[")  # field names have no case
    field_name = condition.field.lower() if folds else condition.field
    return (field_name, condition.op, condition.value)


def _block(scope: Scope) -> Block:
    before = scope.previous
    previous = () if before is None else (*_block(before).previous, before.number)
    return Block(
        index=scope.number,
        parent=None if scope.parent is None else scope.parent.index,
        kind="global" if scope.parent is None else "else" if scope.condition is None else "if",
        condition=scope.condition,
        previous=previous,
        settings=scope.settings,
        place=scope.place,
    )
