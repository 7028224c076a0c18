"""Converters of ``wstunnel.*`` and of the host options that go with it (wstunnel.md 1, 10)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

from .backend import BackendSpec, Framing, LineNewline, Metadata
from .converters import (
    BadValue,
    Context,
    Converter,
    flag,
    full_text_list,
    number,
    one_of,
    preferably,
    scalar_pairs,
    shown,
    within,
)
from .diagnostics import suggestion
from .model import RateAction, WsDeflate
from .tree import ConfigList, Place, Value

SEQPACKET = "seqpacket"

host_framing = one_of(*get_args(Framing))
line_newline = one_of(*get_args(LineNewline))
metadata = one_of(*get_args(Metadata))
rate_action = one_of(*get_args(RateAction))

_frame_word = preferably("text", "binary")
_TOKEN = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


def binary_frames(value: Value, context: Context) -> bool:
    return bool(_frame_word(value, context) == "binary")


def framing(value: Value, context: Context) -> dict[str, object]:
    """``wstunnel.framing``.  ``seqpacket`` is a kind of socket, so it is worked into the hosts of
    the same block (``framing_beside``) and sets nothing by itself."""
    word = host_framing(value, context)
    if word != SEQPACKET:
        return {"framing": word}
    if "wstunnel.server" not in context.beside:
        raise BadValue('no wstunnel.server in this block: "framing" => "seqpacket" in the host')
    return {}


def framing_beside(context: Context) -> str:
    """The framing of a host that does not say it, as far as its socket depends on it."""
    setting = context.beside.get("wstunnel.framing")
    return SEQPACKET if setting is not None and setting.value == SEQPACKET else ""


def subprotocols(value: Value, context: Context) -> tuple[str, ...]:
    """Names in the order of preference (RFC 6455 section 4.1, item 10)."""
    names = full_text_list(value, context)
    for index, name in enumerate(names):
        if not _TOKEN.fullmatch(name):
            raise BadValue(f"{shown(name)} is not the name of a subprotocol")
        if name in names[:index]:
            raise BadValue(f"{shown(name)} stands twice in the list")
        if name == "base64":
            raise BadValue('"base64" is not supported; "binary" does without it')
    return names


_DEFLATE: dict[str, tuple[str, Converter]] = {
    "level": ("level", within(1, 9)),
    # zlib has no compressor for a window of 256 bytes; it can inflate what another one made.
    "server-max-window-bits": ("server_max_window_bits", within(9, 15)),
    "client-max-window-bits": ("client_max_window_bits", within(8, 15)),
    "server-no-context-takeover": ("server_no_context_takeover", flag),
    "client-no-context-takeover": ("client_no_context_takeover", flag),
    "min-size": ("min_size", number),
    "memory-limit": ("memory_limit", number),
}


def deflate(value: Value, context: Context) -> WsDeflate | None:
    """A switch, or what is to differ from the defaults; None is off."""
    if not isinstance(value, ConfigList):
        return WsDeflate() if flag(value, context) else None
    changes = {}
    for key, item in scalar_pairs(value, context):
        if key not in _DEFLATE:
            raise BadValue(f"unknown key {shown(key)}{suggestion(key, _DEFLATE)}")
        field, convert = _DEFLATE[key]
        try:
            changes[field] = convert(item, context)
        except BadValue as error:
            raise BadValue(f'"{key}": {error}') from None
    return replace(WsDeflate(), **changes)


def check_host(
    backend: BackendSpec, says_newline: bool, place: Place, context: Context
) -> None:
    """What the framing of *backend* does not go with.  Raises BadValue."""
    if backend.takes_packets:
        if backend.gateway != "wstunnel":
            raise BadValue('"framing" => "seqpacket" is for wstunnel alone')
        if not backend.address.is_unix:
            raise BadValue('"framing" => "seqpacket" needs a unix "socket"')
        if backend.tls is not None:
            raise BadValue('"tls" is for streams, not for "framing" => "seqpacket"')
    if says_newline and backend.framing not in ("line", ""):
        text = f'option "line-newline" means nothing to "framing" => "{backend.framing}"'
        context.note(text, place)
