"""Which gateway takes a request: pure decisions (gateway.md 3)."""

from __future__ import annotations

from ..config.model import GatewayServer, RequestConfig, Route
from ..message import Request


def find_route(
    request: Request, settings: RequestConfig
) -> tuple[GatewayServer, Route] | None:
    """The first gateway in the order of ``server.modules`` that claims *request*, and its route."""
    for server in settings.servers:
        if server.name == "wstunnel" and not request.wants_websocket:
            continue
        route = match_route(server, request.decoded_path)
        if route is not None:
            return server, route
    return None


def match_route(server: GatewayServer, path: str) -> Route | None:
    """The route for *path*: by ``map-extensions`` if one of its suffixes fits, else the first key
    in the order of the configuration that is a prefix (it begins with ``/``) or a suffix of it."""
    for suffix, key in server.map_extensions:
        if path.endswith(suffix):
            for route in server.routes:
                if route.key == key:
                    return route
    for route in server.routes:
        key = route.key
        if path.startswith(key) if key.startswith("/") else path.endswith(key):
            return route
    return None
