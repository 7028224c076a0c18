"""Converters of ``cgi.limits``, ``proxy.forwarded`` and ``proxy.header`` (cgi.md 1, proxy.md 1)."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from .converters import (
    BadValue,
    Context,
    Converter,
    flag,
    number,
    scalar_pairs,
    text_list,
    text_pairs,
)
from .diagnostics import suggestion
from .model import CgiLimits, ProxyHeader
from .tree import ConfigList, Value

_LARGEST_SIGNAL = 64


def _signal(value: Value, context: Context) -> int:
    """The number of a signal that is given by number or name; 0 for none."""
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        if not 0 <= (wanted := int(value)) <= _LARGEST_SIGNAL:
            raise BadValue(f"expected a signal, got {wanted}")
        return wanted
    name = str(value).upper().removeprefix("SIG")
    found = signal.Signals.__members__.get(f"SIG{name}")
    if found is None:
        context.warn(f'"{value}" is no signal: taken for TERM')
        return signal.SIGTERM.value
    return found.value


_LIMITS: dict[str, tuple[str, Converter]] = {
    "read-timeout": ("read_timeout", number),
    "write-timeout": ("write_timeout", number),
    "tcp-fin-propagate": ("tcp_fin_propagate", _signal),
    "grace-timeout": ("grace_timeout", number),
    "max-processes": ("max_processes", number),
}


def cgi_limits(value: Value, context: Context) -> CgiLimits:
    """Keys compare without case; unknown ones are ignored, as in lighttpd."""
    limits: dict[str, Any] = {}
    for key, item in scalar_pairs(value, context):
        known = _LIMITS.get(key.lower())
        if known is None:
            context.warn(f'unknown limit "{key}" (ignored){suggestion(key, _LIMITS)}')
        else:
            field, convert = known
            limits[field] = _converted(key, item, convert, context)
    return CgiLimits(**limits)


_FORWARDED = ("for", "by", "proto", "host", "remote_user")


def forwarded(value: Value, context: Context) -> frozenset[str]:
    """The members that are switched on."""
    pairs = scalar_pairs(value, context)
    for key, _ in pairs:
        _require_known(key, _FORWARDED)
    return frozenset(key for key, item in pairs if _converted(key, item, flag, context))


_HEADER: dict[str, tuple[str, Callable[[Value, Context], object]]] = {
    "upgrade": ("upgrade", flag),
    "connect": ("connect", flag),
    "force-http10": ("force_http10", flag),
    "https-remap": ("https_remap", flag),
    "map-host-request": ("map_host_request", text_pairs),
    "map-host-response": ("map_host_response", text_pairs),
    "map-urlpath": ("map_urlpath", text_pairs),
    "map-urlpath-resp-host-include": ("resp_host_include", text_list),
    "map-urlpath-resp-host-exclude": ("resp_host_exclude", text_list),
}


def proxy_header(value: Value, context: Context) -> ProxyHeader:
    """All members anew: what *value* does not name is off, whatever an outer block has set."""
    if not isinstance(value, ConfigList) or not value.is_hash:
        raise BadValue('expected members, as in proxy.header = ( "upgrade" => "enable" )')
    members: dict[str, Any] = {}
    for key, item in value:
        _require_known(key or "", _HEADER)
        field, convert = _HEADER[key or ""]
        members[field] = _converted(key or "", item, convert, context)
    return ProxyHeader(**members)


def _require_known(key: str, known: Any) -> None:
    if key not in known:
        raise BadValue(f'unknown key "{key}"{suggestion(key, known)}')


def _converted(key: str, value: Value, convert: Converter, context: Context) -> Any:
    try:
        return convert(value, context)
    except BadValue as error:
        raise BadValue(f'"{key}": {error}', error.place) from None
