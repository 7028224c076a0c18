"""The once-a-second pass over a worker's tunnels: time-outs and pings.

No timer for each tunnel and no clock for each message: a pass compares byte counters with those
of the pass before.  A limit of N seconds therefore acts within N … N + 1.
"""

from __future__ import annotations

from collections.abc import Iterable

from .port import HIGH_WATER
from .tunnel_handle import CLOSE_GOING_AWAY, CLOSE_INTERNAL, Clocks, Traffic, TunnelHandle

_NEW = Traffic(0, 0, 0, 0, 0, 0)


def sweep(tunnels: Iterable[TunnelHandle], elapsed: int) -> None:
    """Check every tunnel; *elapsed* whole seconds have passed since the pass before."""
    for tunnel in list(tunnels):
        check(tunnel, elapsed)


def check(tunnel: TunnelHandle, elapsed: int) -> None:
    """Advance the clocks of *tunnel*, ping it when due, end it when a limit is reached."""
    clocks, times, now = tunnel.clocks, tunnel.times, tunnel.traffic
    last, clocks.last = clocks.last or _NEW, now
    _advance(clocks, last, now, elapsed)
    if times.ping_interval:
        _ping(tunnel, clocks, last, now, elapsed)
    if clocks.backend_stuck:
        tunnel.look()
    if 0 < times.idle < clocks.idle:
        tunnel.close(CLOSE_GOING_AWAY, "idle")
    elif 0 < times.write_idle < clocks.client_stuck:
        tunnel.abort("write_idle")
    elif 0 < times.backend_read < clocks.backend_quiet:
        tunnel.close(CLOSE_INTERNAL, "backend_read_timeout")
    elif 0 < times.backend_write < clocks.backend_stuck:
        tunnel.close(CLOSE_INTERNAL, "backend_write_timeout")


def _advance(clocks: Clocks, last: Traffic, now: Traffic, elapsed: int) -> None:
    from_client = now.client_in != last.client_in
    from_backend = now.backend_in != last.backend_in
    to_client = now.client_out != last.client_out
    to_backend = now.backend_out != last.backend_out
    # In use in either direction is not idle; that it is our own pings that go out does not count.
    # While bytes wait for the client the backend is not read: write_idle says how long they may.
    emptying = to_backend and last.backend_queued
    in_use = from_client or from_backend or now.client_queued or emptying
    clocks.idle = 0 if in_use else clocks.idle + elapsed
    is_heard = not now.client_queued  # gateway.md 11: a slow client is not the backend's silence
    clocks.backend_quiet = clocks.backend_quiet + elapsed if is_heard and not from_backend else 0
    stuck = now.client_queued and not to_client
    clocks.client_stuck = clocks.client_stuck + elapsed if stuck else 0
    stuck = now.backend_queued and not to_backend
    clocks.backend_stuck = clocks.backend_stuck + elapsed if stuck else 0


def _ping(
    tunnel: TunnelHandle, clocks: Clocks, last: Traffic, now: Traffic, elapsed: int
) -> None:
    interval = tunnel.times.ping_interval
    pongs = tunnel.pongs
    if pongs != clocks.pongs:
        clocks.pongs = pongs
        clocks.pong = None
    elif clocks.pong is not None and max(now.client_queued, now.backend_queued) <= HIGH_WATER:
        # Behind messages that it has sent, and that come slowly, its pong comes late.
        clocks.pong = clocks.pong + elapsed if now.client_in == last.client_in else 0
        if clocks.pong > (tunnel.times.pong or 2 * interval):
            tunnel.close(CLOSE_GOING_AWAY, "ping_timeout")
            return
    clocks.ping += elapsed
    if clocks.ping >= interval and tunnel.ping():
        clocks.ping = 0
        if clocks.pong is None:
            clocks.pong = 0
