"""Configuration text to its evaluated tree (config.md 4-9.1).

Runs the statements of the main file and of every include, in order.  An error is recorded and the
name that it left without a value is remembered, so that no second error follows from the first.
Reads files only for includes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from .diagnostics import ConfigRefused, Findings, quoted, suggestion
from .include import IncludeError, find_files, limited, read_file, run_command
from .join import JoinError, add
from .lexer import BYTE_ORDER_MARK
from .parser import MAX_INTEGER, MAX_NESTING, parse, parse_expression
from .scopes import Scope, Scopes, dropped
from .syntax import (
    Assignment,
    Branch,
    Chain,
    Constant,
    Element,
    Expression,
    Gap,
    Global,
    Include,
    ListExpression,
    Reference,
    Statement,
    Sum,
)
from .tree import Block, Condition, ConfigList, Evaluated, Place, Setting, Value

__all__ = [
    "Block",
    "Condition",
    "ConfigList",
    "Evaluated",
    "Place",
    "Setting",
    "Value",
    "evaluate_file",
]

MAX_INCLUDES = 64
"""So deep may files include each other; one that includes itself gets there."""

_NAME = re.compile(r"[A-Za-z_.-][A-Za-z0-9._-]*")
_BARE_WORD = re.compile(r'(?!\d+$)[^"()]*')
_WORDS_FOR_BOOLEANS = frozenset(
    ("enable", "enabled", "disable", "disabled", "true", "false", "on", "off", "yes", "no")
)


def evaluate_file(
    path: str, *, text: bytes | None = None, overrides: Sequence[str] = ()
) -> Evaluated:
    """The tree of the file at *path* with every include.

    *text*, when given, is read in the file's stead (standard input, shown as *path*).  Each of
    *overrides*, ``KEY=VALUE``, is appended as ``KEY := VALUE``; a bare word is a string unless it
    names something that is set.  Raises ConfigRefused, a ConfigError, with everything found.
    """
    evaluator = _Evaluator(path)
    evaluator.main_file(path, text)
    for override in overrides:
        evaluator.override(os.fsencode(override).decode("latin-1"))
    if evaluator.findings.failed:
        raise ConfigRefused(evaluator.findings.diagnostics)
    return evaluator.result()


class _Failed(Exception):
    """A value cannot be had; without a text when that was said before."""

    def __init__(self, place: Place, text: str = "") -> None:
        super().__init__(text)
        self.place = place


class _Evaluator:
    def __init__(self, path: str) -> None:
        self.sources: dict[str, str] = {}
        self.findings = Findings(self.sources)
        self._folder = os.path.dirname(path)
        """Where relative includes start; "" for the working folder."""
        self._scopes = Scopes(self.findings, Place(path, 1, 1))
        self._depth = 0
        """Of includes."""
        self._too_deep = False
        """Whether that was too much once: then nothing is included any more."""
        self._blind = False
        """Whether text was lost that may have set anything: then an unset name proves nothing."""
        self._predefined: dict[str, Value] = {
            "var.pid": os.getpid(),
            "var.cwd": os.fsencode(os.getcwd()).decode("latin-1"),
        }

    # Files

    def main_file(self, path: str, text: bytes | None) -> None:
        try:
            data = read_file(path) if text is None else limited(text, path)
        except IncludeError as error:
            self.findings.error(Place(path, 0, 0), str(error))
            self._blind = True
        else:
            self._run_text(path, data, self._scopes.top)

    def override(self, override: str) -> None:
        """Append *override*, ``KEY=VALUE``, to the global scope."""
        key, equals, value = (part.strip() for part in override.partition("="))
        file, line = f"-o {key}", f"{key} := {value}"
        place = Place(file, 1, 1)
        self.sources[file] = line
        if not equals or not _NAME.fullmatch(key):
            self.findings.error(place, f"{quoted(override)} is not KEY=VALUE")
            return
        expression: Expression | None = Constant(value, place)
        if not _BARE_WORD.fullmatch(value) or self._is_set(value):
            # Blanks in the key's place, so that the columns are those of the line shown.
            expression = parse_expression(value.rjust(len(line)), file, self.findings)
        self._assign(Assignment(key, ":=", expression, place), self._scopes.top)

    def _is_set(self, name: str) -> bool:
        return _full_name(name).lower() in self._scopes.top.settings

    def result(self) -> Evaluated:
        return Evaluated(self._scopes.frozen(), self.findings.diagnostics, self.sources)

    def _run_text(self, name: str, data: bytes, scope: Scope, may_branch: bool = True) -> None:
        text = data.decode("latin-1")
        self.sources[name] = text.removeprefix(BYTE_ORDER_MARK)
        self._run(parse(text, name, self.findings), scope, may_branch)

    def _include(self, include: Include, scope: Scope, may_branch: bool) -> None:
        if self._too_deep:
            return
        found_before = len(self.findings)
        self._depth += 1
        try:
            operand = self._text(include.operand, scope, "what to include must be a string")
            for name, data in self._included(operand, include.shell):
                self._run_text(name, data, scope, may_branch)
        except _Failed:
            self._blind = True
            raise
        except IncludeError as error:
            self._blind = True
            raise _Failed(include.operand.place, str(error)) from None
        finally:
            self._depth -= 1
        if len(self.findings) > found_before:
            self.findings.note(include.place, f"{quoted(operand)} is included here")

    def _included(self, operand: str, shell: bool) -> Iterator[tuple[str, bytes]]:
        """Name and text of each file, or of the command."""
        if self._depth > MAX_INCLUDES:
            self._too_deep = True
            raise IncludeError(f"include nesting too deep: over {MAX_INCLUDES} levels")
        if not shell:
            for path in find_files(operand, self._folder):
                yield path, read_file(path)
        elif self.findings.failed:
            self._blind = True  # no command is run for a configuration that is refused anyway
        else:
            yield operand, run_command(operand, self._folder)

    # Statements

    def _run(self, statements: Iterable[Statement], scope: Scope, may_branch: bool) -> None:
        """*may_branch* is false inside ``global { }``."""
        for statement in statements:
            try:
                self._execute(statement, scope, may_branch)
            except _Failed as error:
                self._record(error)

    def _record(self, error: _Failed) -> None:
        if text := str(error):
            self.findings.error(error.place, text)

    def _execute(self, statement: Statement, scope: Scope, may_branch: bool) -> None:
        match statement:
            case Assignment():
                self._assign(statement, scope)
            case Include():
                self._include(statement, scope, may_branch)
            case Gap():
                self._blind = True
            case Global() | Chain() if not may_branch:
                raise _Failed(statement.place, "a global { ... } block may not hold other blocks")
            case Global():
                self._run(statement.body, self._scopes.top, may_branch=False)
            case Chain():
                self._chain(statement, scope)

    def _chain(self, chain: Chain, scope: Scope) -> None:
        if scope.depth >= MAX_NESTING:  # files that include each other may get there
            raise _Failed(chain.place, "blocks are nested too deep")
        previous: Scope | None = None
        for branch in chain.branches:
            previous = self._branch(branch, scope, previous)
            self._run(branch.body, previous, may_branch=True)

    def _branch(self, branch: Branch, scope: Scope, previous: Scope | None) -> Scope:
        if branch.broken:
            return dropped(scope, branch.place)
        try:
            condition = self._condition(branch, scope)
        except _Failed as error:
            self._record(error)
            return dropped(scope, branch.place)
        return self._scopes.open(scope, condition, branch.place, previous)

    def _condition(self, branch: Branch, scope: Scope) -> Condition | None:
        test = branch.test
        if test is None:
            return None
        value = self._value(test.value, scope)
        if not isinstance(value, str):
            raise _Failed(test.value.place, "the right side of a condition must be a string")
        return Condition(test.field, test.operator, value, test.place)

    # Assignments

    def _assign(self, assignment: Assignment, scope: Scope) -> None:
        name, place = _full_name(assignment.name), assignment.place
        key = name.lower()
        try:
            value = self._assigned(assignment, name, scope)
        except _Failed as error:
            self._record(error)
            scope.unknown.add(key)
            return
        known = scope.settings.get(key)
        scope.settings[key] = Setting(known.name if known else name, value, place)
        scope.unknown.discard(key)

    def _assigned(self, assignment: Assignment, name: str, scope: Scope) -> Value:
        """What the assignment makes of *name*."""
        key, place = name.lower(), assignment.place
        if key.startswith("env."):
            raise _Failed(place, f"the environment cannot be changed here: {name}")
        if key in self._predefined:
            raise _Failed(place, f"{name} is predefined and cannot be assigned")
        if assignment.value is None:
            raise _Failed(place)
        value = self._value(assignment.value, scope)
        if assignment.operator == "+=":
            return self._appended(key, value, assignment.value.place, scope)
        known = scope.settings.get(key)
        if known and assignment.operator == "=":
            raise _Failed(place, _duplicate(known, scope))
        return value

    def _appended(self, key: str, value: Value, place: Place, scope: Scope) -> Value:
        """*value* behind that of the nearest block that has one."""
        for around in scope.outwards():
            if key in around.unknown:
                raise _Failed(place)
            if known := around.settings.get(key):
                return self._add(known.value, value, place)
        return value

    # Values

    def _value(self, expression: Expression, scope: Scope) -> Value:
        match expression:
            case Constant():
                return expression.value
            case Reference():
                return self._lookup(expression, scope)
            case ListExpression():
                return self._list(expression, scope)
            case Sum():
                value = self._value(expression.terms[0], scope)
                for term in expression.terms[1:]:
                    value = self._add(value, self._value(term, scope), term.place)
                return value

    def _text(self, expression: Expression, scope: Scope, complaint: str) -> str:
        value = self._value(expression, scope)
        if isinstance(value, ConfigList):
            raise _Failed(expression.place, complaint)
        return str(value)

    def _add(self, left: Value, right: Value, place: Place) -> Value:
        try:
            value, repeated = add(left, right)
        except JoinError as error:
            raise _Failed(place, str(error)) from None
        for key in repeated:
            self.findings.note(place, f"key {quoted(key)} is there already, with the same value")
        if isinstance(value, int) and value > MAX_INTEGER:
            raise _Failed(place, f"integer out of range: at most {MAX_INTEGER}")
        return value

    def _list(self, expression: ListExpression, scope: Scope) -> ConfigList:
        elements: list[tuple[str | None, Value]] = []
        keys: set[str] = set()
        for element in expression.elements:
            key = self._key(element, scope)
            if key is not None and key.lower() in keys:
                raise _Failed(element.place, f"duplicate key {quoted(key)}")
            if key is not None:
                keys.add(key.lower())
            elements.append((key, self._value(element.value, scope)))
        return ConfigList(tuple(elements), tuple(e.place for e in expression.elements))

    def _key(self, element: Element, scope: Scope) -> str | None:
        if element.key is None:
            return None
        return self._text(element.key, scope, "the key of an element must be a string")

    def _lookup(self, reference: Reference, scope: Scope) -> Value:
        name, place = reference.name, reference.place
        if name.startswith("env."):
            return _environment(name.removeprefix("env."), place)
        key = _full_name(name).lower()
        for around in scope.outwards():
            if key in around.unknown:
                raise _Failed(place)
            if setting := around.settings.get(key):
                return setting.value
        if key in self._predefined:
            return self._predefined[key]
        raise _Failed(place, "" if self._blind else _undefined(name, scope))


def _full_name(name: str) -> str:
    return name if "." in name else f"var.{name}"


def _environment(name: str, place: Place) -> str:
    value = os.environb.get(name.encode("latin-1"))
    if value is None:
        raise _Failed(place, f"undefined environment variable: {name}")
    return value.decode("latin-1")


def _duplicate(known: Setting, scope: Scope) -> str:
    return (
        f"duplicate: {known.name} is already set in {scope} "
        f"({known.place.file}:{known.place.line}); ':=' replaces a value"
    )


def _undefined(name: str, scope: Scope) -> str:
    if name.lower() in _WORDS_FOR_BOOLEANS:
        return f'undefined variable: {name}; as a text it stands in double quotes: "{name}"'
    known = [setting.name for around in scope.outwards() for setting in around.settings.values()]
    if "." not in name:
        known = [full.removeprefix("var.") for full in known]
    return f"undefined variable: {name}{suggestion(name, known)}"
