"""What all gateways share: reaching a backend, and opening a tunnel to it.

A gateway sees its worker as ``WorkerContext`` and nothing more of it.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..config.model import Config, GatewayServer, Proc, Route
from ..errors import NoBackend
from ..http.exchange import Exchange
from ..message import Head, Request
from ..metrics import Column
from ..net.connect import connect
from ..net.port import Port
from ..net.tunnel import TunnelHandle, TunnelTimes, start_tunnel
from ..protocol.tunnel import TunnelCodec
from ..scoreboard import Board, Lease
from .balance import Balancer
from .verdict import Judge

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 6  # connects for one request, each to a proc chosen anew (gateway.md 10)
MAX_TIMEOUTS = 2  # of these, how many may time out


class Tunnels(Protocol):
    """The live tunnels of a worker."""

    def number(self) -> int:
        """A number for the next tunnel, unique in this worker."""

    def add(self, tunnel: TunnelHandle) -> None:
        """Look after *tunnel*: time-outs, pings, drain."""

    def discard(self, tunnel: TunnelHandle) -> None:
        """It is over."""


class WorkerContext(Protocol):
    """What a gateway may ask of the worker that it runs in."""

    @property
    def config(self) -> Config: ...
    @property
    def board(self) -> Board: ...
    @property
    def balancer(self) -> Balancer: ...
    @property
    def tunnels(self) -> Tunnels: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """A fresh connection to *proc*, counted by *lease*."""

    port: Port
    proc: Proc
    lease: Lease


def connect_any(
    server: GatewayServer,
    route: Route,
    request: Request,
    worker: WorkerContext,
    deadline: float = float("inf"),
) -> Backend:
    """Connect to a proc of *route*, trying others when one fails, until *deadline* (monotonic).

    Raises NoBackend, with Retry-After, when none can be had.
    """
    timeouts = 0
    last: Exception | None = None
    for _ in range(MAX_ATTEMPTS):
        proc = worker.balancer.choose(server, route, request)
        if proc is None:
            break
        lease = worker.board.acquire(proc)
        try:
            return Backend(connect(proc.address, _time_for(proc, deadline)), proc, lease)
        except OSError as error:  # TimeoutError is one
            lease.release()
            worker.balancer.avoid(proc)
            last = error
            log.warning("backend %s: %s", proc, error)
            timeouts += isinstance(error, TimeoutError)
            out_of_fds = error.errno in (errno.EMFILE, errno.ENFILE)
            if timeouts >= MAX_TIMEOUTS or out_of_fds or time.monotonic() >= deadline:
                break
        except BaseException:
            lease.release()
            raise
    reason = f": {last}" if last else ""
    raise NoBackend(
        f"{server.name} {route.key!r}: no backend available{reason}",
        worker.balancer.retry_after(route),
    )


def _time_for(proc: Proc, deadline: float) -> float:
    """Seconds for one connect, 0 for no limit."""
    limit = proc.backend.connect_timeout or float("inf")
    left = min(limit, deadline - time.monotonic())
    return 0.0 if left == float("inf") else max(left, 0.001)


def open_tunnel(
    exchange: Exchange,
    head: Head,
    backend: Backend,
    codec: TunnelCodec,
    times: TunnelTimes,
    worker: WorkerContext,
) -> None:
    """Answer the upgrade with *head* and let *codec* relay; the tunnel owns *backend* from here."""
    client, early, log_access = exchange.upgrade(head)
    record = _Record(exchange.request, backend, worker, log_access, len(early))
    log.info("tunnel %d: open, %s", record.number, record.name)
    judge = Judge(worker.board, backend.proc) if backend.proc.backend.is_spawned else None
    tunnel = start_tunnel(client, backend.port, codec, times, record, early=early, judge=judge)
    if not record.is_over:  # what came early may have ended it already
        worker.tunnels.add(tunnel)


class _Record:
    """Called when its tunnel is over: lease, counters, the line in the error log, the access
    line."""

    __slots__ = (
        "_early",
        "_lease",
        "_log_access",
        "_started",
        "_worker",
        "is_over",
        "name",
        "number",
    )

    def __init__(
        self,
        request: Request,
        backend: Backend,
        worker: WorkerContext,
        log_access: Callable[[int, int], None],
        early: int,
    ) -> None:
        """*early*: bytes that the client had sent before its port was the tunnel's."""
        self.name = f"{request.remote} {request.path} to {backend.proc}"
        self.number = worker.tunnels.number()
        self.is_over = False
        self._lease = backend.lease
        self._worker = worker
        self._log_access = log_access
        self._early = early
        self._started = time.monotonic()

    def __call__(self, tunnel: TunnelHandle) -> None:
        self.is_over = True
        self._lease.release()
        self._worker.tunnels.discard(tunnel)
        traffic = tunnel.traffic
        client_in = self._early + traffic.client_in
        from_client, from_backend = tunnel.messages
        row = self._worker.board.mine
        row.add(Column.MESSAGES_FROM_CLIENT, from_client)
        row.add(Column.MESSAGES_FROM_BACKEND, from_backend)
        log.info(
            "tunnel %d: closed, %s, %s after %.1f s, from client %d bytes %d messages, "
            "from backend %d bytes %d messages",
            self.number,
            self.name,
            tunnel.reason,
            time.monotonic() - self._started,
            client_in,
            from_client,
            traffic.backend_in,
            from_backend,
        )
        self._log_access(client_in, traffic.client_out)


class Gateway(Protocol):
    """What ``gateway.GATEWAYS`` holds for each name: serves one exchange."""

    def __call__(
        self, exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
    ) -> None: ...


