"""From a configuration file to a Config, or to everything that is wrong with it.

The text has been evaluated (``evaluate``); here its settings get their meaning: which are live
(``vocabulary``), what their values are (``directives``), when they hold (``conditions``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

from .. import __version__
from ..address import Address
from ..message import os_path
from . import checks as outside
from . import ssl_settings
from .backend import BackendSpec
from .conditions import OTHERWISE, Branch, ConditionSet, Matcher, Surroundings, compile_condition
from .converters import BadValue, Context, Resolve
from .diagnostics import ConfigRefused, Findings
from .directives import DIRECTIVES, Directive
from .evaluate import evaluate_file
from .listeners import ListenText, listener_specs
from .model import (
    Config,
    Diagnostic,
    ListenerSpec,
    ProxyHeader,
    ServerSettings,
    compose,
    with_values,
)
from .ssl_settings import Inspect, uninspected
from .tls import BackendTls, CertificateFiles
from .tree import Block, Evaluated, Place, Setting
from .vocabulary import Vocabulary, opens_listener

Checks = Mapping[str, Callable[[Any], object]]
"""More checks, by directive: given the converted value, raise ValueError to refuse it."""

NO_CHECKS: Checks = MappingProxyType({})

_LOG_FIELDS = ("errorlog", "breakagelog", "access_log.filename")
_REFUSED = object()

HTTPS_PORT = 443  # of the main listener when it speaks TLS and has no other


def resolve_localhost(host: str, prefer_inet6: bool) -> str:
    """The one name that needs no resolver (RFC 6761 section 6.3)."""
    if host.lower() == "localhost":
        return "::1" if prefer_inet6 else "127.0.0.1"
    raise OSError("no resolver for names")


def load(
    path: str,
    *,
    text: bytes | None = None,
    overrides: Sequence[str] = (),
    strict: bool = False,
    checks: Checks = NO_CHECKS,
    resolve: Resolve = resolve_localhost,
    inspect: Inspect = uninspected,
) -> Config:
    """The configuration in the file *path*, or in *text* shown as *path*.

    *overrides* are ``KEY=VALUE``; *strict* makes warnings errors; *resolve* finds the addresses of
    names; *inspect* looks into the certificates that are in use.  Raises ConfigRefused (a
    ConfigError) with every diagnostic.
    """
    evaluated = evaluate_file(path, text=text, overrides=overrides)
    loader = _Loader(evaluated, checks, resolve, inspect)
    config = loader.config(path)
    diagnostics = _in_text_order((*evaluated.diagnostics, *loader.diagnostics()), evaluated)
    if strict:
        diagnostics = tuple(
            replace(found, severity="error") if found.severity == "warning" else found
            for found in diagnostics
        )
    if any(found.severity == "error" for found in diagnostics):
        raise ConfigRefused(diagnostics)
    return replace(config, diagnostics=diagnostics)


def _in_text_order(
    diagnostics: Iterable[Diagnostic], evaluated: Evaluated
) -> tuple[Diagnostic, ...]:
    files = {name: number for number, name in enumerate(evaluated.sources)}

    def position(found: Diagnostic) -> tuple[int, int, int]:
        return files.get(found.file, len(files)), found.line, found.column

    return tuple(sorted(diagnostics, key=position))


@dataclass(frozen=True, slots=True)
class _LiveBlock:
    block: Block
    settings: dict[str, tuple[Directive, Setting]]


class _Loader:
    """One pass over the blocks.  What is wrong is collected, and its setting left out."""

    def __init__(
        self, evaluated: Evaluated, checks: Checks, resolve: Resolve, inspect: Inspect
    ) -> None:
        self._sources = evaluated.sources
        self._findings = Findings(evaluated.sources)
        self._checks = checks
        self._resolve = cache(resolve)
        self._inspect = inspect
        self._backends: dict[BackendSpec, Place] = {}
        self._vocabulary = self._listed(evaluated.blocks[0])
        self._blocks = [
            _LiveBlock(block, self._vocabulary.live(block)) for block in evaluated.blocks
        ]
        self._global = self._converted(self._blocks[0], None)
        if self._global.get("tls.engine"):
            self._global.setdefault("server.port", HTTPS_PORT)
        self._server = _server_settings(self._global, self._vocabulary.modules)
        self._listen = ListenText(
            self._server.port, self._global.get("listener.use_ipv6", False), self._resolve
        )

    def diagnostics(self) -> tuple[Diagnostic, ...]:
        programs = outside.missing_programs(self._backends, self._sources)
        return (*self._findings.diagnostics, *programs)

    def config(self, path: str) -> Config:
        matchers = self._matchers()
        values = [self._global]
        values += [self._converted(live, matchers[live.block.index]) for live in self._blocks[1:]]
        requests = [_of_requests(own) for own in values]
        requests[0] = self._defaults() | requests[0]
        self._check_outside(values)
        self._check_tls(values)
        self._vocabulary.note_idle_modules()
        return Config(
            file=path if path == "-" else os.path.realpath(path),
            server=self._server,
            listeners=self._listeners(values),
            backends=tuple(self._backends),
            base=compose(requests[0], self._server.modules),
            conditions=self._conditions(matchers, requests),
            blocks=tuple(requests),
            log_files=_log_files(requests),
        )

    def _defaults(self) -> dict[str, Any]:
        """What holds until a block says otherwise, where the model cannot know it."""
        header = ProxyHeader(force_http10=self._server.features.proxy_force_http10)
        return {"server_tag": f"forkd/{__version__}", "proxy.header": header}

    def _listed(self, block: Block) -> Vocabulary:
        vocabulary = Vocabulary(self._findings)
        setting = block.settings.get("server.modules")
        if setting is not None:
            row = DIRECTIVES["server.modules"]
            names = self._value(row, setting, self._context(setting, block, None))
            vocabulary.list_modules(() if names is _REFUSED else names, setting.place)
        return vocabulary

    # Values

    def _context(self, setting: Setting, block: Block, matcher: Matcher | None) -> Context:
        return Context(
            setting,
            block.index,
            matcher,
            self._findings,
            self._resolve,
            self._backends,
            block.settings,
        )

    def _converted(self, live: _LiveBlock, matcher: Matcher | None) -> dict[str, Any]:
        """Values by field path."""
        values: dict[str, Any] = {}
        for row, setting in live.settings.values():
            context = self._context(setting, live.block, matcher)
            value = self._value(row, setting, context)
            if value is _REFUSED or not row.field:
                continue
            if row.field.endswith(".*"):
                prefix = row.field.removesuffix("*")
                values |= {prefix + name: item for name, item in value.items()}
            else:
                values[row.field] = value
        own = {name: setting for name, (_, setting) in live.settings.items()}
        ssl_settings.pair_certificate(values, own, self._findings)
        return values

    def _value(self, row: Directive, setting: Setting, context: Context) -> Any:
        """The converted value, or _REFUSED when an error was reported."""
        try:
            value = row.convert(setting.value, context)
            check = self._checks.get(row.name)
            if check is not None:
                check(value)
            return value
        except BadValue as error:
            context.error(str(error), error.place)
        except ValueError as error:
            context.error(str(error))
        return _REFUSED

    # Conditions

    def _matchers(self) -> dict[int, Matcher]:
        """By block; a condition that cannot be compiled is an error and holds always."""
        return {live.block.index: self._matcher(live.block) for live in self._blocks[1:]}

    def _matcher(self, block: Block) -> Matcher:
        condition = block.condition
        if condition is None:
            return OTHERWISE
        around = Surroundings(
            self._server.parse_options,
            self._listen.socket,
            lambda text: self._findings.warning(condition.place, text),
        )
        try:
            return compile_condition(condition.field, condition.op, condition.value, around)
        except ValueError as error:
            self._findings.error(condition.place, str(error))
            return OTHERWISE

    def _conditions(
        self, matchers: dict[int, Matcher], requests: Sequence[Mapping[str, Any]]
    ) -> ConditionSet:
        """Only of blocks that change something for a request, or that such a block depends on."""
        blocks = [live.block for live in self._blocks]
        needed: set[int] = set()
        for block in reversed(blocks[1:]):
            if requests[block.index] or block.index in needed:
                needed |= {block.index, block.parent or 0, *block.previous}
        return ConditionSet(
            Branch(block.index, block.parent or 0, block.previous, matchers[block.index])
            for block in blocks[1:]
            if block.index in needed
        )

    # Listeners

    def _listeners(self, values: Sequence[Mapping[str, Any]]) -> tuple[ListenerSpec, ...]:
        main = self._main_listener()
        sockets = [
            (address, own)
            for live, own in zip(self._blocks, values, strict=True)
            if opens_listener(live.block) and (address := self._socket_address(live.block))
        ]
        certificates = filter(None, map(ssl_settings.certificate_of, values))
        return listener_specs(
            main,
            self._global,
            sockets,
            tuple(dict.fromkeys(certificates)),
            is_implied=not self._server.bind,
        )

    def _main_listener(self) -> Address:
        if not self._server.bind and self._global.get("listener.use_ipv6"):
            setting = self._blocks[0].settings["server.use-ipv6"][1]
            self._findings.warning(
                setting.place,
                "server.use-ipv6: without server.bind this listens on [::] instead of IPv4",
            )
        try:
            return self._listen.bind(self._server.bind)
        except ValueError as error:
            place = self._place("server.bind")
            self._findings.error(place, f"server.bind: {error}")
            return Address("0.0.0.0", self._server.port)

    def _socket_address(self, block: Block) -> Address | None:
        assert block.condition is not None
        try:
            return self._listen.socket(block.condition.value)
        except ValueError:
            return None  # reported when the condition was compiled

    # Things outside

    def _check_outside(self, values: Sequence[Mapping[str, Any]]) -> None:
        own = {name: setting for name, (_, setting) in self._blocks[0].settings.items()}
        outside.check_identity(own, self._findings)
        outside.check_hosts(self._backends, self._server, self._findings)
        outside.check_chroot(self._server.chroot, self._place("server.chroot"), self._findings)
        for folder in self._global.get("server.upload_dirs", ()):
            self._check_folder("server.upload-dirs", folder, self._blocks[0])
        root = own.get("server.document-root")
        if root is None or root.value == "":
            self._findings.error(
                self._place("server.document-root"), "server.document-root is not set"
            )
        for live, values_of_block in zip(self._blocks, values, strict=True):
            if values_of_block.get("document_root"):
                folder = os_path(values_of_block["document_root"])
                self._check_folder("server.document-root", folder, live)

    def _check_folder(self, name: str, folder: str | bytes, live: _LiveBlock) -> None:
        place = live.settings[name][1].place
        outside.check_folder(name, folder, self._server.chroot, place, self._findings)

    def _check_tls(self, values: Sequence[Mapping[str, Any]]) -> None:
        """What listeners and backends say of TLS, and the files that they name."""
        blocks = tuple(zip(self._blocks, values, strict=True))
        listeners = [self._speaks_tls(live, own) for live, own in blocks]
        if any(listeners):
            for live, own in blocks:
                self._check_certificate(live, own)
        for backend, place in self._backends.items():
            if backend.tls is not None:
                self._look_into(backend.tls, f'{backend.gateway}.server: "{backend.key}"', place)

    def _speaks_tls(self, live: _LiveBlock, own: Mapping[str, Any]) -> bool:
        """Whether this is a listener's block, and the listener speaks TLS."""
        if live.block.index != 0 and not opens_listener(live.block):
            return False
        spec = ssl_settings.tls_spec({**self._global, **own}, ())
        if spec is None:
            return False
        for row, setting in live.settings.values():
            if row.field.startswith("tls."):
                ssl_settings.check_listener(spec, setting.place, self._findings)
                break
        return True

    def _check_certificate(self, live: _LiveBlock, own: Mapping[str, Any]) -> None:
        files = ssl_settings.certificate_of(own)
        if files is not None:
            place = live.settings["ssl.pemfile"][1].place
            blocks = [live.block for live in self._blocks]
            ssl_settings.check_choosable(live.block, blocks, place, self._findings)
            self._look_into(files, "ssl.pemfile", place)

    def _look_into(self, files: CertificateFiles | BackendTls, subject: str, place: Place) -> None:
        for problem in self._inspect(files):
            text = f"{subject}: {problem.text}"
            self._findings.add(problem.severity, place, text, problem.kind)

    def _place(self, name: str) -> Place:
        """Of global directive *name*; the beginning of the file when it is not set."""
        entry = self._blocks[0].settings.get(name)
        return entry[1].place if entry else self._blocks[0].block.place


def _server_settings(values: Mapping[str, Any], modules: tuple[str, ...]) -> ServerSettings:
    own = {
        path.removeprefix("server."): value
        for path, value in values.items()
        if path.startswith("server.")
    }
    own |= {name: values[name] for name in ("errorlog", "breakagelog") if name in values}
    settings: ServerSettings = with_values(ServerSettings(), own | {"modules": modules})
    return settings


def _of_requests(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that belong to a RequestConfig."""
    return {
        path: value
        for path, value in values.items()
        if not path.startswith(("server.", "listener.", "tls."))
    }


def _log_files(requests: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    named = (own[field] for own in requests for field in _LOG_FIELDS if own.get(field))
    return tuple(dict.fromkeys(named))
