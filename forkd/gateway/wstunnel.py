"""wstunnel: forkd ends the WebSocket, the backend sees the payload (wstunnel.md).

There is no response head to wait for: the handshake is checked and answered here.
"""

from __future__ import annotations

import time
from functools import lru_cache

from ..config.model import BackendSpec, GatewayServer, Limits, Route, WsTunnelSettings
from ..errors import ClientGone
from ..http.exchange import Exchange
from ..net.tunnel import TunnelTimes
from ..protocol import handshake
from ..protocol.websocket import WebSocketCodec
from .base import WorkerContext, connect_any, open_tunnel, release


def serve(
    exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
) -> None:
    """Complete the handshake and open the tunnel; raises ForkdError when it is refused.

    A bad handshake is refused before a backend is looked for.
    """
    request, settings = exchange.request, exchange.settings
    handshake.check_request(request, settings.wstunnel)
    while exchange.read():
        pass  # a body has no meaning here
    deadline = time.monotonic() + (settings.wstunnel.handshake_timeout or float("inf"))
    backend = connect_any(server, route, request, worker, deadline)
    try:
        if exchange.gone.is_set():
            raise ClientGone("left during the handshake")
        codec = WebSocketCodec(
            binary=handshake.sends_binary(request, settings.wstunnel),
            max_message_size=settings.wstunnel.max_message_size,
            max_frame_size=settings.wstunnel.max_frame_size,
        )
        assert backend.proc is not None
        times = tunnel_times(settings.limits, settings.wstunnel, backend.proc.backend)
        head = handshake.response_head(request, settings.wstunnel)
        open_tunnel(exchange, head, backend, codec, times, worker)
    except BaseException:
        backend.port.abort("handshake failed")
        release(backend)
        raise


@lru_cache(maxsize=256)
def tunnel_times(limits: Limits, wstunnel: WsTunnelSettings, backend: BackendSpec) -> TunnelTimes:
    """The times of a tunnel; one value for all tunnels of the same settings."""
    return TunnelTimes(
        idle=limits.max_read_idle,
        write_idle=limits.max_write_idle,
        backend_read=backend.read_timeout,
        backend_write=backend.write_timeout,
        ping_interval=wstunnel.ping_interval,
        pong=wstunnel.pong_timeout,
        close=wstunnel.close_timeout,
    )
