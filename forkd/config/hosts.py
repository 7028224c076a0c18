"""``<gateway>.server``: exts and their hosts to Routes and BackendSpecs (gateway.md 1, 2)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..address import Address, canonical, numbered
from .backend import BackendSpec, Route
from .converters import (
    BadValue,
    Context,
    Converter,
    absolute_file,
    file_name,
    flag,
    folder_list,
    is_off,
    number,
    octal,
    place_of,
    port,
    preferably,
    short,
    shown,
    text,
    text_list,
    text_pairs,
    within,
)
from .diagnostics import quoted, suggestion
from .tls import BackendTls
from .tree import ConfigList, Place, Value
from .wstunnel import check_host, framing_beside, host_framing, line_newline, metadata

MAX_SOCKET_PATH = 105  # bytes, as in lighttpd: sun_path less the -N of a proc
MAX_LABEL = 128  # bytes
MAX_MULTIPLEX = 65535  # request ids of FastCGI
HTTPS_PORT = 443  # of a host that is reached over TLS and has no other


Authorizers = Literal["taken", "refused", "meaningless"]


@dataclass(frozen=True, slots=True)
class Traits:
    """How one gateway reads the options that all of them take."""

    takes_check_local: bool
    """Whether a file may have to exist below the document root before the backend is asked."""
    authorizers: Authorizers
    """What ``"mode" => "authorizer"`` is."""
    idle: frozenset[str]
    """Options that change nothing here."""
    takes_shell: bool = False
    """Whether a bin-path with blanks is the shell's to read."""


_DEFAULT_PROCS = {"min_procs": 4, "max_procs": 4}

_FASTCGI_ONLY = {
    "broken-scriptfilename", "strip-request-uri", "keep-conn", "multiplex", "pool", "pool-idle",
}  # fmt: skip
_FILE_OPTIONS = {"check-local", "docroot", "fix-root-scriptname"}
_MESSAGE_OPTIONS = {"framing", "line-newline", "metadata"}

TRAITS = {
    "fastcgi": Traits(True, "taken", frozenset({"keep-alive", *_MESSAGE_OPTIONS})),
    "scgi": Traits(
        True,
        "meaningless",
        frozenset({"keep-alive", *_FASTCGI_ONLY, *_MESSAGE_OPTIONS}),
        takes_shell=True,
    ),
    "proxy": Traits(
        False, "refused", frozenset({*_FASTCGI_ONLY, *_FILE_OPTIONS, *_MESSAGE_OPTIONS})
    ),
    "wstunnel": Traits(
        False,
        "refused",
        frozenset({"keep-alive", "x-sendfile", "allow-x-send-file", "x-sendfile-docroot"})
        | _FASTCGI_ONLY
        | _FILE_OPTIONS,
    ),
}


@dataclass(frozen=True, slots=True)
class Option:
    """A host option and the field of BackendSpec that it sets."""

    convert: Converter
    field: str


def _program(value: Value, context: Context) -> tuple[str, ...]:
    """argv: split at every single blank, without quoting (gateway.md 6)."""
    command = file_name(value, context)
    return tuple(re.split("[ \t]", command)) if command else ()


def _prefix(value: Value, context: Context) -> str:
    return text(value, context).removesuffix("/")


_mode_word = preferably("responder", "authorizer")


def _mode(value: Value, context: Context) -> str:
    word: str = "responder" if value == "" else _mode_word(value, context)
    return word


def _count(value: Value, context: Context) -> int:
    """A number; a switch stands for one."""
    if isinstance(value, str) and not value.isdigit():
        return int(flag(value, context))
    return short(value, context)


RESOURCES = frozenset({
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "sigpending", "stack",
})  # fmt: skip
"""What setrlimit(2) limits, in lower case."""
UNLIMITED = -1
_LIMITS = re.compile(r"([0-9]{1,18}|unlimited)(?::([0-9]{1,18}|unlimited))?")


def _folder(value: Value, context: Context) -> str:
    name = file_name(value, context)
    if name and not name.startswith("/"):
        raise BadValue(f"{quoted(name)} does not begin with /")
    return name


def _rlimits(value: Value, context: Context) -> tuple[tuple[str, int, int], ...]:
    """(name, soft, hard) of each."""
    if not isinstance(value, ConfigList) or not value.is_hash:
        raise BadValue('expected name => limit pairs, as in ( "nofile" => 1024 )')
    return tuple((name or "", *_rlimit(name or "", limit)) for name, limit in value)


def _rlimit(name: str, value: Value) -> tuple[int, int]:
    if name not in RESOURCES:
        raise BadValue(f"no limit is named {quoted(name)}{suggestion(name, RESOURCES)}")
    found = _LIMITS.fullmatch(str(value))
    if found:
        soft, hard = _amount(found[1]), _amount(found[2] or found[1])
        if hard == UNLIMITED or UNLIMITED < soft <= hard:
            return soft, hard
    raise BadValue(f'{name}: expected a number, "unlimited" or "soft:hard", got {shown(value)}')


def _amount(word: str) -> int:
    return UNLIMITED if word == "unlimited" else int(word)


def _multiplex(value: Value, context: Context) -> int:
    """How many requests may share a connection; "auto": as many as the application takes."""
    if value == "auto":
        return MAX_MULTIPLEX
    try:
        return short(value, context)
    except BadValue:
        raise BadValue(f'expected "auto" or a number up to {MAX_MULTIPLEX}') from None


_OPTIONS = {
    "host": Option(text, "host"),
    "port": Option(port, "port"),
    "socket": Option(file_name, "socket"),
    "listen-backlog": Option(number, "listen_backlog"),
    "bin-path": Option(_program, "bin_path"),
    "kill-signal": Option(within(1, 64), "kill_signal"),
    "check-local": Option(flag, "check_local"),
    "mode": Option(_mode, "mode"),
    "docroot": Option(text, "docroot"),
    "min-procs": Option(short, "min_procs"),
    "max-procs": Option(within(1, 65535), "max_procs"),
    "max-load-per-proc": Option(short, "max_load_per_proc"),
    "idle-timeout": Option(short, "idle_timeout"),
    "disable-time": Option(short, "disable_time"),
    "bin-environment": Option(text_pairs, "bin_environment"),
    "bin-copy-environment": Option(text_list, "bin_copy_environment"),
    "user": Option(text, "user"),
    "group": Option(text, "group"),
    "umask": Option(octal, "umask"),
    "socket-mode": Option(octal, "socket_mode"),
    "cwd": Option(_folder, "cwd"),
    "rlimits": Option(_rlimits, "rlimits"),
    "broken-scriptfilename": Option(flag, "broken_scriptfilename"),
    "strip-request-uri": Option(_prefix, "strip_request_uri"),
    "fix-root-scriptname": Option(flag, "fix_root_scriptname"),
    "x-sendfile": Option(flag, "x_sendfile"),
    "allow-x-send-file": Option(flag, "x_sendfile"),
    "x-sendfile-docroot": Option(folder_list, "x_sendfile_docroot"),
    "tcp-fin-propagate": Option(flag, "tcp_fin_propagate"),
    "connect-timeout": Option(number, "connect_timeout"),
    "read-timeout": Option(number, "read_timeout"),
    "write-timeout": Option(number, "write_timeout"),
    "upgrade": Option(flag, "upgrade"),
    "keep-alive": Option(short, "keep_alive"),
    "keep-conn": Option(_count, "keep_conn"),
    "multiplex": Option(_multiplex, "multiplex"),
    "pool": Option(within(1, 65535), "pool"),
    "pool-idle": Option(within(1, 65535), "pool_idle"),
    "framing": Option(host_framing, "framing"),
    "line-newline": Option(line_newline, "line_newline"),
    "metadata": Option(metadata, "metadata"),
    "tls": Option(flag, "tls"),
    "tls-name": Option(text, "tls_name"),
    "tls-ca-file": Option(absolute_file, "tls_ca_file"),
}
_OF_PROGRAMS = ("user", "group", "umask", "socket-mode", "cwd", "rlimits")
"""Options that mean nothing to a host that runs elsewhere."""


def routes_of(gateway: str) -> Converter:
    """The converter of ``<gateway>.server``."""

    def convert(value: Value, context: Context) -> tuple[Route, ...]:
        if not isinstance(value, ConfigList) or not value.is_hash:
            raise BadValue(_shape(gateway))
        hosts = _Hosts(gateway, context)
        return tuple(
            Route(gateway, key or "", tuple(hosts.read(key or "", hosts_value, place)))
            for (key, hosts_value), place in _with_places(value, context.setting.place)
        )

    return convert


def _shape(gateway: str) -> str:
    return (
        f"expected exts with lists of hosts, as in {gateway}.server = "
        '( "/ext" => ( ( "host" => "127.0.0.1", "port" => 9000 ) ) )'
    )


def _with_places(
    value: ConfigList, default: Place
) -> Iterator[tuple[tuple[str | None, Value], Place]]:
    for index, element in enumerate(value):
        yield element, place_of(value, index) or default


class _Hosts:
    """Reads the hosts of one directive; what is wrong goes to the context, host by host."""

    def __init__(self, gateway: str, context: Context) -> None:
        self._gateway = gateway
        self._traits = TRAITS[gateway]
        self._context = context

    def read(self, key: str, value: Value, place: Place) -> Iterator[BackendSpec]:
        """The usable hosts of ext *key*."""
        if not isinstance(value, ConfigList):
            self._context.error(_shape(self._gateway), place)
            return
        for (label, options), host_place in _with_places(value, place):
            try:
                backend = self._backend(key, label or "", options, host_place)
                yield self._registered(backend, host_place)
            except BadValue as error:
                self._context.error(f'"{key}": {error}', error.place or host_place)

    def _backend(self, key: str, label: str, options: Value, place: Place) -> BackendSpec:
        if not isinstance(options, ConfigList) or not options.is_hash:
            raise BadValue("each host is a list of its own: ( ( ... ), ( ... ) )")
        if len(label) > MAX_LABEL:
            raise BadValue(f"the label is longer than {MAX_LABEL} bytes")
        values = self._values(options, place)
        self._settle_tls(values, place)
        if not values.get("multiplex") and values.keys() & {"pool", "pool_idle"}:
            self._context.note('"pool", "pool-idle": nothing without "multiplex"', place)
        address = self._address(values)
        if self._gateway == "wstunnel":
            values.setdefault("framing", framing_beside(self._context))
        backend = BackendSpec(self._gateway, key, label, address, **_DEFAULT_PROCS | values)
        check_host(backend, "line_newline" in values, place, self._context)
        return self._checked(backend, place)

    def _values(self, options: ConfigList, place: Place) -> dict[str, Any]:
        """Field values of the options given; the first one that is wrong is raised."""
        values: dict[str, Any] = {}
        for (name, value), option_place in _with_places(options, place):
            option = _OPTIONS.get(name or "")
            if option is None:
                self._unknown(name or "", value, option_place)
                continue
            try:
                values[option.field] = option.convert(value, self._context)
            except BadValue as error:
                raise BadValue(f'"{name}": {error}', option_place) from None
            if name in self._traits.idle and not is_off(value):
                text = f'option "{name}" means nothing to {self._gateway}'
                self._context.note(text, option_place)
        return values

    def _unknown(self, name: str, value: Value, place: Place) -> None:
        hint = suggestion(name, _OPTIONS)
        self._context.warn(f'unknown host option "{name}" (ignored){hint}', place)

    def _settle_tls(self, values: dict[str, Any], place: Place) -> None:
        """``tls`` and what belongs to it become one value; it has a port of its own."""
        is_on, host = values.pop("tls", False), values.get("host", "")
        name, ca_file = values.pop("tls_name", ""), values.pop("tls_ca_file", "")
        if host.startswith("https://"):
            raise BadValue(f'write "host" => {quoted(host[8:])}, "tls" => "enable"')
        if not is_on:
            if name or ca_file:
                self._context.warn('"tls-name", "tls-ca-file": nothing without "tls"', place)
            return
        if values.get("bin_path"):
            raise BadValue('"tls" is for hosts that run elsewhere, not for a bin-path')
        is_unix = "socket" in values or host.startswith("/")
        if not is_unix:
            values.setdefault("port", HTTPS_PORT)
        elif not name:
            raise BadValue('"tls" over a unix socket needs "tls-name"')
        values["tls"] = BackendTls(name or host or "127.0.0.1", ca_file)

    def _address(self, values: dict[str, Any]) -> Address:
        """Takes host, port and socket out of *values*; a name that was resolved stays in them."""
        host, socket = values.pop("host", ""), values.pop("socket", "")
        at_port = values.pop("port", None)
        if host.startswith("/") and not socket:
            host, socket = "", host
        if socket:
            if host or at_port is not None:
                raise BadValue("either host and port or socket, not both")
            return _socket_address(socket)
        if not host and not values.get("bin_path"):
            raise BadValue("needs host or socket or bin-path")
        at_port = 80 if at_port is None else at_port
        try:
            return Address(canonical(host or "127.0.0.1"), at_port)
        except ValueError:
            values["host_name"] = host
            return Address(self._resolved(host), at_port)

    def _resolved(self, host: str) -> str:
        try:
            return canonical(self._context.resolve(host, False))
        except OSError as error:
            why = error.strerror or error
            raise BadValue(f"cannot resolve host {quoted(host)}: {why}") from None

    def _checked(self, backend: BackendSpec, place: Place) -> BackendSpec:
        """*backend* with what its gateway forces, and what goes without saying."""
        if not self._traits.takes_check_local:
            backend = replace(backend, check_local=False)
        if backend.mode == "authorizer":
            backend = self._authorizer(backend, place)
        self._warn_of_idle_options(backend, place)
        if not backend.is_spawned:
            return replace(backend, min_procs=1, max_procs=1)
        if not backend.bin_path[0]:
            raise BadValue('"bin-path" begins with a blank')
        if self._traits.takes_shell and len(backend.bin_path) > 1:
            command = f"exec {' '.join(backend.bin_path)}"  # a tab is a blank to it
            backend = replace(backend, bin_path=("/bin/sh", "-c", command))
        if backend.address.port + backend.max_procs - 1 > 65535:
            raise BadValue(f"the ports of {backend.max_procs} procs would go beyond 65535")
        return replace(backend, min_procs=min(backend.min_procs, backend.max_procs))

    def _warn_of_idle_options(self, backend: BackendSpec, place: Place) -> None:
        if not backend.is_spawned:
            for name in _OF_PROGRAMS:
                if getattr(backend, _OPTIONS[name].field) not in ("", None, ()):
                    self._context.warn(f'option "{name}" means nothing without bin-path', place)
        elif backend.socket_mode is not None and not backend.address.is_unix:
            self._context.warn('option "socket-mode" is for unix sockets', place)

    def _authorizer(self, backend: BackendSpec, place: Place) -> BackendSpec:
        text = f'"mode" => "authorizer" is not possible with {self._gateway}'
        if self._traits.authorizers == "refused":
            raise BadValue(text)
        if self._traits.authorizers == "taken":
            return backend
        self._context.warn(f'"{backend.key}": {text}: taken for responder', place)
        return replace(backend, mode="responder")

    def _registered(self, backend: BackendSpec, place: Place) -> BackendSpec:
        """*backend*, or the one of this gateway that it is another name for (gateway.md 2)."""
        known = self._context.backends
        if not backend.is_spawned:
            known.setdefault(backend, place)
            return backend
        for other in known:
            if not other.is_spawned or not _addresses(other) & _addresses(backend):
                continue
            first = f"{known[other].file}:{known[other].line}"
            same = (other.gateway, other.address, other.bin_path)
            if same != (backend.gateway, backend.address, backend.bin_path):
                raise BadValue(f"{backend.address} is taken by another bin-path, at {first}")
            if backend != other:
                self._context.warn(f"the same backend as at {first}: the options there hold", place)
            return other
        known[backend] = place
        return backend


def _socket_address(path: str) -> Address:
    if not path.startswith("/"):
        raise BadValue(f"socket {quoted(path)}: not an absolute path")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise BadValue(f"socket path longer than {MAX_SOCKET_PATH} bytes")
    return Address(path)


def _addresses(backend: BackendSpec) -> set[Address]:
    """Of all its procs; of a unix socket the path stands for them."""
    if backend.address.is_unix:
        return {backend.address}
    return {numbered(backend.address, number) for number in range(backend.max_procs)}
