"""The evaluated tree in lighttpd's syntax: ``forkd check --print`` (config.md 15.9).

What is printed parses again to the same tree: same blocks with the same numbers, same keys in the
same order, same values.  Variables and includes are worked in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .diagnostics import ConfigRefused
from .model import Diagnostic
from .tree import Block, ConfigList, Evaluated, Place, Setting, Value

_WIDTH = 80
_INDENT = "  "


def show(evaluated: Evaluated) -> str:
    """The whole tree as text: Latin-1 like the values, so to be written as bytes.

    Raises ConfigRefused for a text that ends in a backslash: only the environment can bring one in,
    and no string of the language can say it.
    """
    printer = _Printer(evaluated.blocks)
    printer.settings(evaluated.blocks[0])
    for block in evaluated.blocks[1:]:
        printer.block(block)
    printer.close(0)
    return "".join(f"{line}\n" for line in printer.lines)


class _Printer:
    """Prints blocks in the order of their numbers, nested where that keeps the order.

    A block that is needed once more, because of a later one inside it or in its chain, is opened
    again: the same condition is the same block (config.md 9.1).
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.lines: list[str] = []
        self._blocks = blocks
        self._open: list[int] = []
        """The blocks that are open, outermost first, without the global one."""

    def settings(self, block: Block) -> None:
        for setting in block.settings.values():
            self._line(_assignment(setting, len(self._open)))

    def block(self, block: Block) -> None:
        around = self._around(block)
        depth = len(around)
        if block.previous and self._open[: depth + 1] == [*around, block.previous[-1]]:
            self.close(depth + 1)
            self._open.pop()
            self._line(f"}} else {_head(block)}")
            self._open.append(block.index)
        else:
            self._reach(around)
            self._begin(block)
        self.settings(block)

    def close(self, depth: int) -> None:
        """Close blocks until *depth* of them are open."""
        while len(self._open) > depth:
            self._open.pop()
            self._line("}")

    def _around(self, block: Block) -> list[int]:
        around: list[int] = []
        while block.parent:
            around.insert(0, block.parent)
            block = self._blocks[block.parent]
        return around

    def _reach(self, around: list[int]) -> None:
        """Make *around* the blocks that are open."""
        common = 0
        while self._open[common : common + 1] == around[common : common + 1] != []:
            common += 1
        self.close(common)
        for index in around[common:]:
            self._begin(self._blocks[index])

    def _begin(self, block: Block) -> None:
        """Open *block*, behind the branches before it, which are opened again empty."""
        start = ""
        for index in block.previous:
            self._line(f"{start}{_head(self._blocks[index])}")
            start = "} else "
        self._line(f"{start}{_head(block)}")
        self._open.append(block.index)

    def _line(self, text: str) -> None:
        self.lines.append(_INDENT * len(self._open) + text)


def _head(block: Block) -> str:
    condition = block.condition
    if condition is None:
        return "{"
    try:
        return f"{condition.field} {condition.op} {_string(condition.value)} {{"
    except ValueError as error:
        raise _unprintable(condition.place, error) from None


def _assignment(setting: Setting, depth: int) -> str:
    try:
        value = _short(setting.value)
        if len(value) + len(setting.name) + len(_INDENT) * depth > _WIDTH:
            value = "\n".join(_long(setting.value, _INDENT * depth))
    except ValueError as error:
        raise _unprintable(setting.place, error) from None
    return f"{setting.name} = {value}"


def _unprintable(place: Place, error: ValueError) -> ConfigRefused:
    return ConfigRefused(
        [Diagnostic("error", place.file, place.line, place.column, f"cannot be printed: {error}")]
    )


def _short(value: Value) -> str:
    """*value* on one line, apart from the newlines in its strings."""
    if isinstance(value, ConfigList):
        return "(" + ", ".join(_key(key) + _short(element) for key, element in value) + ")"
    return _string(value) if isinstance(value, str) else str(value)


def _long(value: Value, indent: str) -> Iterator[str]:
    """Lines of *value*, every element on lines of its own; the first line is not indented."""
    if not isinstance(value, ConfigList) or not len(value):
        yield _short(value)
        return
    yield "("
    inside = indent + _INDENT
    for key, element in value:
        lines = list(_long(element, inside))
        lines[0] = f"{inside}{_key(key)}{lines[0]}"
        lines[-1] += ","
        yield from lines
    yield f"{indent})"


def _key(key: str | None) -> str:
    return "" if key is None else f"{_string(key)} => "


def _string(text: str) -> str:
    if text.endswith("\\"):
        raise ValueError(f"a string cannot end in a backslash: {text}")
    return '"' + text.replace('"', '\\"') + '"'
