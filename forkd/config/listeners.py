"""server.bind, server.port and ``$SERVER["socket"] ==`` to the sockets to bind (core.md 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..address import INHERITED, Address, canonical, split_port
from .converters import Resolve
from .model import ListenerSpec
from .ssl_settings import tls_spec
from .tls import CertificateFiles

ANY_INET4, ANY_INET6 = "0.0.0.0", "::"

Values = Mapping[str, Any]
"""Converted values by field path; those of a listener begin with ``listener.`` or ``tls.``."""


class ListenText:
    """Reads the text of an address to listen on."""

    def __init__(self, default_port: int, prefer_inet6: bool, resolve: Resolve) -> None:
        self._default_port = default_port
        self._prefer_inet6 = prefer_inet6
        self._resolve = resolve

    def bind(self, text: str) -> Address:
        """The address of ``server.bind``: no port belongs to it.  Raises ValueError."""
        return _without_port(text) or Address(self._host(text), self._default_port)

    def socket(self, text: str) -> Address:
        """The address of ``$SERVER["socket"] == "text"`` (config.md 8.5).  Raises ValueError."""
        if place := _without_port(text):
            return place
        try:
            return Address(canonical(text), self._default_port)
        except ValueError:
            host, port = split_port(text)
        return Address(self._host(host), self._port(text, port))

    def _port(self, text: str, port: str) -> int:
        if not port and not text.endswith(":"):
            return self._default_port
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f'"{text}": the port must be a number from 1 to 65535')
        return int(port)

    def _host(self, host: str) -> str:
        if not host:
            return ANY_INET6 if self._prefer_inet6 else ANY_INET4
        try:
            return canonical(host)
        except ValueError:
            pass
        try:
            return canonical(self._resolve(host, self._prefer_inet6))
        except OSError as error:
            raise ValueError(f'cannot resolve "{host}": {error.strerror or error}') from None


def _without_port(text: str) -> Address | None:
    """A unix socket, or a socket that a service manager hands over by its name; None: neither."""
    if text == "/dev/stdin":
        raise ValueError(f'"{text}": standard input is no listener; "fd:NAME" names one inherited')
    if text == INHERITED:
        raise ValueError(f'"{text}": the name is missing')
    return Address(text) if text.startswith(("/", INHERITED)) else None


def listener_specs(
    main: Address,
    everywhere: Values,
    blocks: Iterable[tuple[Address, Values]],
    certificates: Sequence[CertificateFiles] = (),
    is_implied: bool = False,
) -> tuple[ListenerSpec, ...]:
    """The *main* listener and one for each socket block, each address once.

    A block's values override the global ones, *everywhere*, for its own listener.  *certificates*:
    all of the configuration.  *is_implied*: nothing but its absence named the main listener.
    """
    values: dict[Address, dict[str, Any]] = {}
    for address, own in blocks:
        values.setdefault(address, {}).update(own)
    is_implied = is_implied and main not in values
    values = {main: values.pop(main, {}), **values}
    return tuple(
        _spec(address, {**everywhere, **own}, certificates, is_implied and address == main)
        for address, own in values.items()
    )


def _spec(
    address: Address,
    values: Values,
    certificates: Sequence[CertificateFiles],
    is_implied: bool,
) -> ListenerSpec:
    default = ListenerSpec(address)
    set_v6only = values.get("listener.set_v6only", True)
    return ListenerSpec(
        address,
        backlog=values.get("listener.backlog") or default.backlog,
        v6only=set_v6only and not values.get("listener.v4mapped", False),
        socket_mode=values.get("listener.socket_mode"),
        defer_accept=values.get("listener.defer_accept", False),
        tls=tls_spec(values, certificates),
        is_implied=is_implied,
    )
