"""Who takes a request, and on which terms: pure decisions (gateway.md 3, 13; upgrade.md 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum, IntEnum
from typing import Literal

from ..config.backend import GatewayServer, Route
from ..config.model import Limits, RequestConfig
from ..message import Head, Request, has_token

Mode = Literal["responder", "authorizer"]

ASKED_WITH_FILE = frozenset({"fastcgi", "scgi"})
"""Gateways that may be asked only when the file is known (``check-local``)."""


# -- which route ------------------------------------------------------------------------------


def claims(
    request: Request, settings: RequestConfig, is_approved: bool
) -> Iterator[tuple[GatewayServer, Route]]:
    """The gateways that claim the URL of *request*, in the order of ``server.modules``."""
    for server in settings.servers:
        if server.name == "wstunnel" and not request.wants_websocket:
            continue
        if server.name != "proxy" and request.method == "CONNECT" and not request.protocol:
            continue  # it is no question to a program
        route = claim(server, request.decoded_path, request.decoded_path, is_approved)
        if route is not None:
            yield server, route


def claim(server: GatewayServer, path: str, suffixed: str, is_approved: bool) -> Route | None:
    """The route of *server* for the URL path *path*; suffixes are compared with *suffixed*: that
    path too, or the file's when it is known.

    Authorizers come before responders, unless one has approved the request already.
    """
    modes: tuple[Mode, ...] = ("responder",) if is_approved else ("authorizer", "responder")
    for mode in modes:
        route = match_route(server, path, suffixed, mode)
        if route is not None:
            return route
    return None


def match_route(
    server: GatewayServer, path: str, suffixed: str | None = None, mode: Mode = "responder"
) -> Route | None:
    """The route for *path*: by ``map-extensions`` if one of its suffixes fits, else the first key
    in the order of the configuration that is a prefix (it begins with ``/``) or a suffix of it.

    It has the backends of one *mode*; without any it does not count.
    """
    name = path if suffixed is None else suffixed
    for suffix, key in server.map_extensions:
        if name.endswith(suffix):
            for route in server.routes:
                if route.key == key and (found := _of_mode(route, mode)):
                    return found
    for route in server.routes:
        key = route.key
        fits = path.startswith(key) if key.startswith("/") else name.endswith(key)
        if fits and (found := _of_mode(route, mode)):
            return found
    return None


def _of_mode(route: Route, mode: Mode) -> Route | None:
    """*route* with its backends of *mode*; None without one."""
    backends = tuple(backend for backend in route.backends if backend.mode == mode)
    if len(backends) == len(route.backends):
        return route if backends or mode == "responder" else None
    return replace(route, backends=backends) if backends else None


def without_file(route: Route) -> Route:
    """*route* with those of its backends that need no file to exist."""
    backends = tuple(backend for backend in route.backends if not backend.check_local)
    return route if len(backends) == len(route.backends) else replace(route, backends=backends)


def split_path(path: str, key: str) -> tuple[str, str]:
    """(SCRIPT_NAME, PATH_INFO) of *path* for a gateway that does not look at files: a prefix
    *key* may be continued to the next slash, a suffix says nothing."""
    slash = path.find("/", len(key)) if key.startswith("/") else -1
    return (path, "") if slash < 0 else (path[:slash], path[slash:])


# -- upgrades ---------------------------------------------------------------------------------


class Upgrade(Enum):
    """What becomes of a request to switch protocols."""

    IGNORED = "ignored"
    """An ordinary request: the backend does not see the field."""
    ALLOWED = "allowed"
    REFUSED = "refused"
    """405: an extended CONNECT cannot be anything else."""


def upgrade_mode(request: Request, allowed: bool, with_body: bool = False) -> Upgrade:
    """Whether *request* may become a tunnel, where its backend is *allowed* to switch.

    *with_body*: even when it has a body (the feature ``gw.upgrade-with-request-body``).
    """
    if request.protocol:
        return Upgrade.ALLOWED if allowed else Upgrade.REFUSED
    wanted = request.fields.get("upgrade")
    if (
        not wanted
        or not allowed
        or request.version != "HTTP/1.1"
        or "connection" not in request.fields
        or has_token(wanted, "h2c")
        or (request.content_length != 0 and not with_body)
    ):
        return Upgrade.IGNORED
    return Upgrade.ALLOWED


# -- streaming --------------------------------------------------------------------------------


class Streaming(IntEnum):
    """How a body passes (gateway.md 13)."""

    BUFFERED = 0
    """Not before it is whole."""
    SPOOLED = 1
    """At once; its sender is never held up."""
    DIRECT = 2
    """At once; its sender waits for its receiver."""


_STREAMING = tuple(Streaming)
_INCREMENTAL = "?1"  # a structured boolean (RFC 9651 section 3.3.6)


def _streaming(configured: int, incremental: str) -> Streaming:
    if incremental.strip(" \t") == _INCREMENTAL and not configured:
        return Streaming.DIRECT
    return _STREAMING[min(configured, 2)]


def request_streaming(request: Request, limits: Limits) -> Streaming:
    return _streaming(limits.stream_request_body, request.fields.get("incremental"))


def response_streaming(head: Head, limits: Limits) -> Streaming:
    return _streaming(limits.stream_response_body, head.fields.get("incremental"))
