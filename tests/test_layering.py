"""Imports go down only: every import of every file against the table of layers."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import forkd

ROOT = Path(forkd.__file__).parent

# A unit is a package, or a module that lies in forkd/ itself.  It imports units of lower levels.
LEVELS = {
    "__init__": 0, "errors": 0, "message": 0, "address": 0, "uri": 0, "record": 0,
    "protocol": 1, "config": 1, "scoreboard": 1, "metrics": 1, "control": 1, "channel": 1,
    "certs": 1, "unix": 1, "log": 1, "logfile": 1, "accesslog": 1, "paths": 1, "stderr": 1,
    "net": 2,
    "http": 3,
    "hooks": 4,
    "gateway": 5,
    "worker": 6, "master": 6, "bridge": 6,
    "server": 7, "service": 7, "preflight": 7, "oneshot": 7,
    "actions": 8,
    "cli": 9,
    "__main__": 10,
}  # fmt: skip

# Neighbours of one level that may be imported all the same.
NEIGHBOURS = {
    "message": {"address"},
    "uri": {"errors"},
    "paths": {"unix"},
    "scoreboard": {"metrics", "config"},
    "certs": {"config"},
    "channel": {"certs", "config", "scoreboard", "log"},
    "log": {"logfile"},
    "accesslog": {"config", "log"},
    "server": {"preflight"},
    "oneshot": {"server"},
}

# Lower units that may not be imported all the same.
BARRED = {
    "unix": {"config", "protocol"},
    "hooks": {"net", "http", "protocol", "unix", "log", "scoreboard", "channel"},
    "master": {"net", "http", "hooks", "gateway", "protocol"},
    "actions": {"master", "worker"},
    "cli": {"master", "worker"},
}

# Other people's packages, and who may import them.
FOREIGN = {
    "gevent": {"net", "http", "gateway", "worker", "server", "bridge"},
    "h11": {"http", "protocol/http1", "server"},
    # Both do no I/O: h2 belongs with the codecs, whose table of errors its own would contradict.
    "h2": {"protocol/h2_quiet"},
    "hpack": {"protocol/h2_quiet"},
    "ssl": {"net/tls", "certs"},
    "click": {"cli", "actions"},
    "psutil": {"master/commands"},
    "regex": {"config"},
    "setproctitle": {"unix/proctitle"},
}

# What codecs and configuration do without.
NO_IO = {"socket", "ssl", "time", "gevent", "select", "selectors", "asyncio"}
PURE = {"protocol", "config", "hooks", "errors", "message", "address", "uri"}


def modules() -> list[str]:
    """Every module as a path below forkd/, without its suffix."""
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.rglob("*.py"))


def unit_of(module: str) -> str:
    return module.split("/")[0]


def imports(module: str) -> Iterator[tuple[str, str]]:
    """("forkd", unit) or ("", top-level package) of every import, wherever it stands."""
    path = (ROOT / module).with_suffix(".py")
    package = ["forkd", *module.split("/")[:-1]]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _target(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = [*base, *(node.module.split(".") if node.module else [])]
            if name == ["forkd"]:
                for alias in node.names:
                    is_unit = alias.name in LEVELS
                    yield "forkd", alias.name if is_unit else "__init__"
            else:
                yield _target(name)


def _target(name: list[str]) -> tuple[str, str]:
    if name[0] == "forkd":
        return "forkd", name[1] if len(name) > 1 else "__init__"
    return "", name[0]


def may_import(module: str, unit: str) -> bool:
    own = unit_of(module)
    if unit == own:
        return True
    if unit in BARRED.get(own, ()):
        return False
    return LEVELS[unit] < LEVELS[own] or unit in NEIGHBOURS.get(own, ())


def may_use(module: str, package: str) -> bool:
    users = FOREIGN.get(package)
    if users is None:
        return package in sys.stdlib_module_names
    return unit_of(module) in users or module in users


def test_every_unit_has_a_level() -> None:
    assert {unit_of(module) for module in modules()} <= set(LEVELS)


@pytest.mark.parametrize("module", modules())
def test_imports_go_down(module: str) -> None:
    found = {unit for kind, unit in imports(module) if kind == "forkd"}
    assert {unit for unit in found if not may_import(module, unit)} == set()


@pytest.mark.parametrize("module", modules())
def test_foreign_packages_stay_where_they_belong(module: str) -> None:
    found = {package for kind, package in imports(module) if not kind}
    assert {package for package in found if not may_use(module, package)} == set()


@pytest.mark.parametrize("module", [one for one in modules() if unit_of(one) in PURE])
def test_pure_modules_do_no_io(module: str) -> None:
    assert {package for kind, package in imports(module) if not kind} & NO_IO == set()


@pytest.mark.parametrize("module", modules())
def test_gevent_patches_nothing(module: str) -> None:
    assert "monkey" not in (ROOT / module).with_suffix(".py").read_text("utf-8")


def test_the_check_can_fail() -> None:
    assert not may_import("config/load", "unix")
    assert not may_import("unix/listen", "config")
    assert not may_import("master/master", "worker")
    assert not may_import("gateway/base", "worker")
    assert not may_use("master/loop", "gevent")
    assert not may_use("config/load", "yaml")
