"""Configuration files in a folder of their own, and evaluated trees as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from forkd.config.diagnostics import ConfigRefused
from forkd.config.evaluate import evaluate_file
from forkd.config.model import Diagnostic
from forkd.config.tree import Block, ConfigList, Evaluated, Value


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write main.conf and files beside it (Latin-1), make that the working folder."""

    def write(config: str, files: Mapping[str, str] | None = None) -> Path:
        monkeypatch.chdir(tmp_path)
        for name, text in {**(files or {}), "main.conf": config}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("latin-1"))
        return tmp_path / "main.conf"

    return write


@pytest.fixture
def evaluate(write: Callable[..., Path]) -> Callable[..., Evaluated]:
    """The tree of a main.conf with this text."""

    def evaluate(config: str, files: Mapping[str, str] | None = None, **more: Any) -> Evaluated:
        write(config, files)
        return evaluate_file("main.conf", **more)

    return evaluate


@pytest.fixture
def findings(evaluate: Callable[..., Evaluated]) -> Callable[..., list[str]]:
    """Everything said about a main.conf with this text, as ``FILE:LINE:COL: severity: text``."""

    def found(*args: Any, **more: Any) -> list[str]:
        diagnostics: tuple[Diagnostic, ...]
        try:
            diagnostics = evaluate(*args, **more).diagnostics
        except ConfigRefused as refused:
            diagnostics = refused.diagnostics
        return [f"{d.file}:{d.line}:{d.column}: {d.severity}: {d.text}" for d in diagnostics]

    return found


def plain_value(value: Value) -> Any:
    """Lists, dicts, and ``{"#mixed": [[key, value], ...]}``, as in the vectors."""
    if not isinstance(value, ConfigList):
        return value
    if value.is_list:
        return [plain_value(element) for _, element in value]
    if value.is_hash:
        return {key: plain_value(element) for key, element in value}
    return {"#mixed": [[key, plain_value(element)] for key, element in value]}


def plain_settings(block: Block) -> dict[str, Any]:
    return {setting.name: plain_value(setting.value) for setting in block.settings.values()}


def plain_block(block: Block) -> dict[str, Any]:
    kind = "else if" if block.condition and block.previous else block.kind
    result = {
        "id": block.index,
        "parent": block.parent,
        "kind": kind,
        "values": plain_settings(block),
    }
    if condition := block.condition:
        result.update(field=condition.field, op=condition.op, value=condition.value)
    return result


@pytest.fixture
def plain() -> Callable[[Evaluated], dict[str, Any]]:
    """An evaluated tree in the form of the vectors."""

    def plain(evaluated: Evaluated) -> dict[str, Any]:
        result: dict[str, Any] = {"global": plain_settings(evaluated.blocks[0])}
        if blocks := [plain_block(block) for block in evaluated.blocks[1:]]:
            result["blocks"] = blocks
        return result

    return plain
