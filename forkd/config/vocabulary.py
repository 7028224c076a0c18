"""Which directives are live: those of forkd, of the listed modules, in a scope that is theirs.

Decides for every setting of a configuration whether it is converted, warned about or refused
(config.md 11).
"""

from __future__ import annotations

from collections.abc import Iterable

from .converters import is_off
from .diagnostics import Findings, suggestion
from .directives import DIRECTIVES, Directive, Scope
from .directives import MODULES as OWN_MODULES
from .inventory import (
    CORE,
    IMPLICIT_MODULES,
    MODULE_OF,
    MODULES,
    OLD_MODULES,
    OLD_NAMES,
    OTHER_TLS_MODULES,
)
from .tree import Block, Place, Setting

_NAMES = {name.lower(): name for name in (*(row.name for row in DIRECTIVES.values()), *MODULE_OF)}


class Vocabulary:
    """The directives of one configuration."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._listed: dict[str, Place] = {}
        self._asked_for: set[str] = set()
        """Modules whose directives are used."""

    def list_modules(self, names: Iterable[str], place: Place) -> None:
        """Take in the value of ``server.modules``."""
        for name in names:
            current = OLD_MODULES.get(name, name)
            if current in MODULES:
                self._listed.setdefault(current, place)
            else:
                guess = suggestion(name if name.startswith("mod_") else f"mod_{name}", MODULES)
                self._findings.error(place, f'unknown module "{name}"{guess}')

    @property
    def modules(self) -> tuple[str, ...]:
        """The listed modules that forkd has, in order, without ``mod_``."""
        return tuple(
            name.removeprefix("mod_") for name in self._listed if name in OWN_MODULES
        )

    def note_idle_modules(self) -> None:
        """Say which listed modules forkd lacks; none of their directives is used."""
        for name, place in self._listed.items():
            if name not in OWN_MODULES and name not in self._asked_for:
                self._findings.note(place, f"{name} is not part of forkd; nothing here needs it")

    def live(self, block: Block) -> dict[str, tuple[Directive, Setting]]:
        """What *block* sets that counts, by the directive's lower-case name."""
        found = {}
        for name, setting in self._renamed(block).items():
            row = DIRECTIVES.get(name)
            if row is None:
                self._reject(name, setting)
            elif self._is_live(row, setting) and self._is_in_scope(row, setting, block):
                found[name] = (row, setting)
        return found

    def _renamed(self, block: Block) -> dict[str, Setting]:
        """The directives of *block*, old names replaced, without variables."""
        settings = {}
        for name, setting in block.settings.items():
            current = OLD_NAMES.get(name)
            if name.startswith("var."):
                continue
            if current is None:
                settings[name] = setting
                continue
            self._findings.warning(setting.place, f"{setting.name} is now called {current}")
            if current in block.settings or current in settings:
                self._findings.error(setting.place, f"{setting.name}: {current} is set here too")
            else:
                settings[current] = setting
        return settings

    def _is_live(self, row: Directive, setting: Setting) -> bool:
        if self._is_loaded(row.module):
            if row.module == "mod_openssl":
                self._asked_for |= set(OTHER_TLS_MODULES)
            return True
        self._warn_unlisted(row.module, setting)
        return False

    def _is_loaded(self, module: str) -> bool:
        return module in (CORE, *IMPLICIT_MODULES, *self._listed)

    def _is_in_scope(self, row: Directive, setting: Setting, block: Block) -> bool:
        allowed = (
            block.index == 0
            or row.scope is Scope.CONNECTION
            or (row.scope is Scope.SOCKET and opens_listener(block))
        )
        if not allowed:
            text = f"{setting.name} belongs to {row.scope.value}"
            if row.guards:
                self._findings.error(setting.place, text)
            else:
                self._findings.warning(setting.place, f"{text}: ignored")
        return allowed

    def _reject(self, name: str, setting: Setting) -> None:
        """A name without a row: lighttpd's, one of forkd's that does not exist, or anybody's."""
        module = MODULE_OF.get(name)
        if module is not None:
            self._reject_lacking(module, setting)
        elif name.startswith("forkd."):
            own = [row.name for row in DIRECTIVES.values() if row.name.startswith("forkd.")]
            hint = suggestion(name, own) or f"; known are {', '.join(own)}"
            self._findings.error(setting.place, f"unknown directive {setting.name}{hint}")
        else:
            hint = suggestion(name, _NAMES.values())
            self._findings.warning(
                setting.place, f"unknown directive {setting.name} (ignored){hint}"
            )

    def _reject_lacking(self, module: str, setting: Setting) -> None:
        readers = {module, *OTHER_TLS_MODULES} if module == "mod_openssl" else {module}
        if not any(map(self._is_loaded, readers)):
            self._warn_unlisted(module, setting)
        elif not is_off(setting.value):
            self._asked_for |= readers
            self._findings.error(setting.place, f"{setting.name} is not supported")

    def _warn_unlisted(self, module: str, setting: Setting) -> None:
        text = f"{setting.name} is ignored: it belongs to {module}, which is not in server.modules"
        if module in OWN_MODULES:
            text += f'; to have it obeyed: server.modules += ("{module}")'
        self._findings.warning(setting.place, text)


def opens_listener(block: Block) -> bool:
    """Whether *block* is a ``$SERVER["socket"] ==`` at top level."""
    condition = block.condition
    return (
        condition is not None
        and block.parent == 0
        and condition.field == '$SERVER["socket"]'
        and condition.op == "=="
    )
