"""wstunnel: forkd ends the WebSocket, the backend sees the payload or messages (wstunnel.md).

There is no response head to wait for: the handshake is checked and answered here.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from secrets import token_hex

from ..config.backend import BackendSpec, GatewayServer, Route
from ..config.model import Limits, WsTunnelSettings
from ..errors import ClientGone, OriginRefused
from ..http.exchange import Exchange
from ..message import Request
from ..net.packet_port import PacketPort
from ..net.rated_port import MessageRate
from ..net.tunnel_handle import TunnelTimes
from ..protocol import handshake
from ..protocol.codecs import CodecSettings, make_codec
from ..protocol.deflate import DeflateParams, negotiate
from .base import WorkerContext, connect_any, open_tunnel, release
from .conversation import Backend
from .metadata import Tunnelled, introduction

log = logging.getLogger(__name__)

DEBUG_HANDSHAKES = 3  # wstunnel.debug (wstunnel.md 1)


def serve(
    exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
) -> None:
    """Complete the handshake and open the tunnel; raises ForkdError when it is refused.

    A bad handshake is refused before a backend is looked for.
    """
    request, wanted = exchange.request, exchange.settings.wstunnel
    try:
        handshake.check_request(request, wanted)
    except OriginRefused as refusal:
        log.warning("wstunnel %s %s: %s", request.remote, request.path, refusal)
        raise
    while exchange.read():
        pass  # a body has no meaning here
    deadline = time.monotonic() + (wanted.handshake_timeout or float("inf"))
    backend = connect_any(server, route, request, worker, deadline)
    try:
        if exchange.gone.is_set():
            raise ClientGone("left during the handshake")
        assert backend.proc is not None
        spec = backend.proc.backend
        deflate, extensions = _extensions(request, wanted)
        head = handshake.response_head(request, wanted, extensions)
        codec = make_codec(_codec_settings(request, wanted, backend, deflate))
        unique_id = token_hex(16)
        if server.debug >= DEBUG_HANDSHAKES:
            log.info(
                "wstunnel %s %s to %s: id %s, framing %s, extensions %r",
                request.remote,
                request.path,
                backend.name,
                unique_id,
                spec.framing or wanted.framing,
                extensions,
            )
        first = introduction(Tunnelled(exchange, route, spec, unique_id))
        if first:
            backend.port.write(first)
        times = tunnel_times(exchange.settings.limits, wanted, spec)
        open_tunnel(exchange, head, backend, codec, times, worker, rate=_rate(wanted))
    except BaseException:
        backend.port.abort("handshake failed")
        release(backend)
        raise


def _extensions(request: Request, wanted: WsTunnelSettings) -> tuple[DeflateParams | None, str]:
    """What was agreed on and the field that says so; None and "" for nothing."""
    offered = request.fields.get("sec-websocket-extensions")
    agreed = negotiate(offered, wanted.deflate) if wanted.deflate and offered else None
    return agreed or (None, "")


def _codec_settings(
    request: Request, wanted: WsTunnelSettings, backend: Backend, deflate: DeflateParams | None
) -> CodecSettings:
    assert backend.proc is not None
    spec = backend.proc.backend
    framing = spec.framing or wanted.framing
    max_message, max_frame = wanted.size_limits(framing)
    if isinstance(backend.port, PacketPort):
        max_message = min(max_message or backend.port.max_packet, backend.port.max_packet)
    return CodecSettings(
        framing=framing,
        binary=handshake.sends_binary(request, wanted),
        line_newline=spec.line_newline,
        max_message_size=max_message,
        max_frame_size=max_frame,
        deflate=deflate,
    )


def _rate(wanted: WsTunnelSettings) -> MessageRate | None:
    if not wanted.max_message_rate:
        return None
    return MessageRate(wanted.max_message_rate, closes=wanted.rate_action == "close")


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
