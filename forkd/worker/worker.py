"""A worker: set-up after the fork, the wait, the end.

Three ways to end.  *Drain* (a reload): accept no more, finish what runs, tunnels live on until
they *expire*, each at a moment of its own.
*Finish* (a graceful stop): besides, idle connections close at once and tunnels get their end of
input.  *Stop*: Close 1001 to every tunnel, a second to flush, gone.
"""

from __future__ import annotations

import logging
import resource
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from random import randint
from typing import Any

import gevent
from gevent import get_hub
from gevent.event import Event

from .. import log as error_log
from ..accesslog import AccessLogs, Ended, Entry
from ..certs import ServerTls, hush_bad_names
from ..channel import (
    DRAIN,
    EXPIRE,
    FINISH,
    NEED,
    READY,
    REOPEN,
    SERVE,
    SPENT,
    STOP,
    WorkerStart,
    worker_count,
)
from ..config.model import AccessLogSettings, Config, ListenerSpec, ServerSettings
from ..errors import ClientGone
from ..gateway.balance import Balancer
from ..gateway.dispatch import handle
from ..gateway.pool import Pool
from ..gateway.sharing import SharedConnections
from ..http.connection import Service
from ..http.exchange import Exchange
from ..http.negotiate import refuse_plain, serve_connection
from ..message import ConnInfo
from ..metrics import Column, responses
from ..net.port import FdPort
from ..net.resolve import Resolver
from ..net.tls import HandshakeFailed, PlainText, secure
from ..scoreboard import WorkerState
from .accept import Acceptor, may_accept
from .orphan import GRACE, are_backends_left, end_backends, kill_backends
from .programs import ProgramSet
from .tunnels import TunnelSet
from .visitor import Visitor, address_of

log = logging.getLogger(__name__)

FLUSH_TIME = 1.0  # seconds that a stop leaves for what is queued
LAST_WORDS = 2.0  # seconds before the end of a graceful stop at which tunnels get Close 1001
HANDSHAKE_TIME = 10.0  # seconds for TLS; fewer where server.max-read-idle says so
LINGER_TIME = 5.0  # seconds that closing connections may still take at the end of a drain
EXPIRY_PACE = 0.1  # seconds from some tunnels that expire to the next
STALE = 5.0  # seconds without a tick after which another worker's numbers do not count
SPARE_FDS = 64  # descriptors that are not connections: logs, listeners, files being served
_READ = 1  # libev's EV_READ
_MAX_LOG_FDS = 253  # SCM_MAX_FD


def main(start: WorkerStart) -> int:
    """Run until drained or stopped; the exit status."""
    hush_bad_names()
    return Worker(start).run()


def serve_one(start: WorkerStart, visitor: Visitor) -> int:
    """Serve *visitor* alone, until he and all that has become of him are gone; the exit status."""
    hush_bad_names()
    return Worker(start).run_for(visitor)


class Worker:
    """Everything one worker process has; gateways see it as ``gateway.base.WorkerContext``."""

    def __init__(self, start: WorkerStart) -> None:
        self.config = start.config
        self.board = start.board
        self.row = start.board.mine
        self.tunnels = TunnelSet(self.row)
        self.programs = ProgramSet(start.board)
        self.balancer = Balancer(start.board, on_need=self._ask_for_procs)
        self.pool = Pool()
        self.shared = SharedConnections(
            start.board, start.config.server, worker_count(start.config)
        )
        self.resolver = Resolver()
        self.tls = start.tls
        self._logs = start.logs
        self._access_logs = AccessLogs(start.logs)
        self._service = Service(start.config, self._log_request, has_room=self._has_room)
        self._channel = start.channel
        self._name = f"worker {start.number} gen {start.generation}"
        self._greenlets: set[Any] = set()
        self._limit = connection_limit(start.config, len(start.listeners))
        self._is_full = False
        self._requests_left = requests_to_serve(start.config.server)
        self._leaving = Event()
        self._over = Event()
        self._swept = 0.0
        self._orphaned_at = 0.0
        self._expires_by = 0.0
        self._watchers: list[Any] = []  # a watcher that nobody holds stops
        self._acceptors = [
            Acceptor(sock, self._accepted_by(spec), self._is_my_turn, self._has_room)
            for spec, sock in start.listeners
        ]

    def run(self) -> int:
        self._watch(self.drain)
        self.row[Column.STATE] = WorkerState.READY
        self._channel.send(READY)
        self._leaving.wait()
        return self._end()

    def run_for(self, visitor: Visitor) -> int:
        self._watch(self.stop)
        self.row[Column.STATE] = WorkerState.READY
        spec = next(iter(self.config.listeners), ListenerSpec(visitor.local))
        info = ConnInfo(visitor.peer, visitor.local, spec.address)
        self._begin(visitor.open(), info, self.tls.server(spec))
        return self._end()

    def _end(self) -> int:
        self._await_empty()
        if self._orphaned_at:
            self._await_backends()
            self.programs.kill()
        self._access_logs.flush()
        log.info("%s: done", self._name)
        return 0

    def _watch(self, on_term: Callable[[], None]) -> None:
        loop = get_hub().loop
        self._swept = time.monotonic()
        self._start_watcher(loop.timer(1.0, 1.0), self._each_second)
        self._channel.setblocking(False)
        self._channel_watcher = loop.io(self._channel.fileno(), _READ)
        # Before all else that is ready: who comes behind a reload is not for the old workers, whose
        # backends may have given their addresses to others.
        self._channel_watcher.priority = loop.MAXPRI
        self._channel_watcher.start(self._hear_master)
        for number, act in (
            (signal.SIGTERM, on_term),
            (signal.SIGINT, on_term),
            (signal.SIGQUIT, self.stop),
            (signal.SIGUSR1, self._reopen_logs),
        ):
            self._start_watcher(loop.signal(number), act)

    def _start_watcher(self, watcher: Any, callback: Callable[[], None]) -> None:
        watcher.start(callback)
        self._watchers.append(watcher)

    # -- connections -----------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Client connections, with tunnels and the requests of HTTP/2."""
        return len(self._greenlets) + len(self.tunnels) + self._service.streams

    def _has_room(self) -> bool:
        if self.connections < self._limit:
            return True
        if not self._is_full:
            self._is_full = True
            log.warning("%s: sockets disabled, connection limit %d", self._name, self._limit)
        return False

    def _is_my_turn(self) -> bool:
        others = [
            row[Column.CONNECTIONS]
            for row in self.board.rows()
            if row.index != self.row.index
            and row[Column.STATE] == WorkerState.READY
            and row.age() < STALE
        ]
        return may_accept(self.connections, others)

    def _accepted_by(self, spec: ListenerSpec) -> Callable[[socket.socket, Any], None]:
        wildcard = spec.address.host in ("0.0.0.0", "::")
        tls = self.tls.server(spec)

        def accepted(sock: socket.socket, peer: Any) -> None:
            local = address_of(sock.getsockname()) if wildcard else spec.address
            self._begin(FdPort(sock), ConnInfo(address_of(peer), local, spec.address), tls)

        return accepted

    def _begin(self, port: FdPort, info: ConnInfo, tls: ServerTls | None) -> None:
        greenlet = gevent.spawn(self._serve, port, info, tls)
        self._greenlets.add(greenlet)
        greenlet.rawlink(self._connection_done)
        self.row.add(Column.ACCEPTED)
        self.row[Column.CONNECTIONS] = self.connections

    def _serve(self, port: FdPort, info: ConnInfo, tls: ServerTls | None) -> None:
        try:
            if tls is None:
                serve_connection(port, info, self._service, self._handle)
            else:
                self._serve_tls(port, info, tls)
        except Exception:
            log.exception("connection from %s: failed", info.peer)
            port.abort("internal error")

    def _serve_tls(self, port: FdPort, info: ConnInfo, tls: ServerTls) -> None:
        patience = min(HANDSHAKE_TIME, self.config.base.limits.max_read_idle)
        try:
            secured = secure(port, partial(tls.session, info), patience)
        except PlainText as found:
            refuse_plain(found.port, info, self._service)
        except (HandshakeFailed, TimeoutError) as error:
            level = logging.INFO if tls.spec.log_failures else logging.DEBUG
            log.log(level, "%s: %s", info.peer, error)
        else:
            info = tls.described(secured.session)
            serve_connection(secured, info, self._service, self._handle)

    def _handle(self, exchange: Exchange) -> None:
        handle(exchange, self)

    def _connection_done(self, greenlet: Any) -> None:
        self._greenlets.discard(greenlet)
        self._connection_ended()

    def _connection_ended(self) -> None:
        self.row[Column.CONNECTIONS] = self.connections
        if self._is_full and self.connections < self._limit:
            for acceptor in self._acceptors:
                acceptor.room()

    def raw_stderr(self, name: str) -> int:
        """The descriptor of the breakage log *name*."""
        return self._logs.fd(name)

    def _say_if_enabled(self) -> None:
        """Once a second: at the limit, every connection that ends makes room for one that waits."""
        if self._is_full and self.connections < self._limit:
            self._is_full = False
            log.info("%s: sockets enabled again", self._name)

    def _ask_for_procs(self) -> None:
        with suppress(OSError):  # the master is behind: it looks once a second anyway
            self._channel.send(NEED)

    def _ask_for_replacement(self) -> None:
        try:
            self._channel.send(SPENT)
        except OSError:
            self._requests_left = 1  # the master is behind: again after the next request

    def _log_request(self, settings: AccessLogSettings, entry: Entry | Ended) -> None:
        row = self.row
        row.add(Column.REQUESTS)
        row.add(responses(entry.status))
        row.add(Column.BYTES_IN, entry.bytes_in)
        row.add(Column.BYTES_OUT, entry.bytes_out)
        self._access_logs.write(settings, entry)
        self._requests_left -= 1
        if self._requests_left == 0:
            self._ask_for_replacement()

    # -- each second -----------------------------------------------------------------------------

    def _each_second(self) -> None:
        try:
            self.row.tick()
            elapsed = int(time.monotonic() - self._swept)
            if elapsed:
                self._swept += elapsed
                self.tunnels.sweep(elapsed)
            self._connection_ended()  # a tunnel may have ended
            self._say_if_enabled()
            self._access_logs.flush()
            error_log.flush()
        except Exception:  # the pass comes again; without it the worker would be taken for stuck
            log.exception("%s: a pass over the tunnels failed", self._name)

    # -- what the master says --------------------------------------------------------------------

    def _hear_master(self) -> None:
        try:
            said, fds, _, _ = socket.recv_fds(self._channel, 1, _MAX_LOG_FDS)
        except BlockingIOError:
            return
        except OSError:
            said, fds = b"", []
        try:
            if said == REOPEN:
                self._adopt_logs(fds)
            else:
                ORDERS[said](self)
        except Exception:  # were it not caught, gevent would never call us again
            log.exception("%s: %r of the master's failed", self._name, said)

    def _reopen_logs(self) -> None:
        """By a signal sent to this worker alone: it opens what it may itself."""
        self._access_logs.flush()
        self._logs.reopen()

    def _adopt_logs(self, fds: list[int]) -> None:
        self._access_logs.flush()
        try:
            self._logs.adopt(fds)
        except ValueError as error:
            log.error("%s: logs not reopened: %s", self._name, error)

    def serve(self) -> None:
        """Accept: what the generation needs is in place."""
        if not self._leaving.is_set():
            for acceptor in self._acceptors:
                acceptor.start()

    def drain(self) -> None:
        """Accept no more; leave when the last connection and the last tunnel have ended."""
        if self._leaving.is_set():
            return
        log.info("%s: draining, %d connections", self._name, self.connections)
        self.row[Column.STATE] = WorkerState.DRAINING
        self._service.drain()
        for acceptor in self._acceptors:
            acceptor.close()
        self.pool.close()
        self.shared.close()
        self._leaving.set()

    def expire(self) -> None:
        """End the tunnels, spread over a time: their clients come back at once."""
        self.drain()
        if not self._expires_by:
            self._expires_by = time.monotonic() + self.config.server.drain_spread
            self._start_watcher(get_hub().loop.timer(0.0, EXPIRY_PACE), self._expire_some)

    def _expire_some(self) -> None:
        left = self._expires_by - time.monotonic()
        self.tunnels.expire(EXPIRY_PACE / left if left > EXPIRY_PACE else 1.0)

    def finish(self) -> None:
        """Drain, and end what would not end by itself, politely."""
        self.drain()
        self._service.close_idle()
        self.tunnels.finish()  # a second time is nothing
        self.programs.finish()
        patience = self.config.server.features.graceful_shutdown_timeout - LAST_WORDS
        self._start_watcher(get_hub().loop.timer(max(patience, 0.0)), self.tunnels.close)

    def stop(self) -> None:
        """Cut what is left: Close 1001, a second to flush."""
        self.drain()
        if self._over.is_set():
            return
        self._over.set()
        self.row[Column.STATE] = WorkerState.STOPPING
        self.tunnels.close()
        self.programs.terminate()
        gevent.killall(list(self._greenlets), exception=_Stopped, block=False)

    def _orphaned(self) -> None:
        """The master is dead: nobody else ends the backends now (decisions 3)."""
        log.error("%s: the master is gone", self._name)
        self._channel_watcher.stop()  # at its end for ever
        self._orphaned_at = time.monotonic()
        end_backends(self.board)
        self.stop()

    def _await_backends(self) -> None:
        """They may have programs of their own to end: the bridges have."""
        deadline = self._orphaned_at + GRACE
        while are_backends_left(self.board) and time.monotonic() < deadline:
            gevent.sleep(0.02)
        kill_backends(self.board)

    # -- the end ---------------------------------------------------------------------------------

    def _await_empty(self) -> None:
        while (self.connections or self.programs) and not self._over.wait(0.05):
            pass
        deadline = time.monotonic() + (FLUSH_TIME if self._over.is_set() else LINGER_TIME)
        while FdPort.open_ports and time.monotonic() < deadline:
            if self._over.wait(0.02):
                deadline = min(deadline, time.monotonic() + FLUSH_TIME)
                gevent.sleep(0.02)
        self.tunnels.abort()


ORDERS: Mapping[bytes, Callable[[Worker], None]] = {
    SERVE: Worker.serve,
    DRAIN: Worker.drain,
    EXPIRE: Worker.expire,
    FINISH: Worker.finish,
    STOP: Worker.stop,
    b"": Worker._orphaned,
}
"""What the master says but REOPEN, which brings descriptors: see ``channel``."""


class _Stopped(ClientGone):
    """Thrown into a connection's greenlet by a stop."""


def requests_to_serve(server: ServerSettings) -> int:
    """After how many the worker is to be replaced; -1: never."""
    if not server.max_requests:
        return -1
    return server.max_requests + randint(0, server.max_requests_jitter)


def connection_limit(config: Config, listeners: int) -> int:
    """How many clients a worker takes: a tunnel needs two descriptors (core.md 1)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = max(1, (soft - SPARE_FDS - listeners) // 2)
    wanted = config.server.max_connections
    return min(wanted, possible) if wanted else possible
