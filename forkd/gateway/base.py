"""What all gateways share: reaching a backend, serving a request there, opening a tunnel to it.

A gateway sees its worker as ``WorkerContext`` and nothing more of it.
"""

from __future__ import annotations

import errno
import logging
import time
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from math import inf
from secrets import token_bytes
from typing import Protocol

from gevent.event import AsyncResult

from ..address import Address
from ..certs import Contexts
from ..config.backend import BackendSpec, GatewayServer, Proc, Route
from ..config.model import Config, Limits
from ..errors import BackendBroken, MethodNotAllowed, NoBackend
from ..http.exchange import Exchange
from ..message import Head, Request
from ..metrics import Column
from ..net.connect import connect, connect_first
from ..net.port import FdPort, Port
from ..net.rated_port import MessageRate
from ..net.resolve import Resolver
from ..net.tls import connect_tls
from ..net.tunnel import start_tunnel
from ..net.tunnel_handle import TunnelHandle, TunnelTimes
from ..protocol.conversation import LocalRedirect
from ..protocol.handshake import check_accept, upgrade_request
from ..protocol.tunnel import BlindCodec, TunnelCodec
from ..scoreboard import Board
from . import xsendfile
from .balance import Balancer
from .body import RequestBody, receive
from .conversation import Backend, Conversation, Terms
from .link import Link, StaleConnection
from .outcome import Approved, LocalRedirected
from .policy import Upgrade, upgrade_mode
from .pool import Pool, may_use_kept
from .program import Programs
from .respond import respond
from .response_fields import presentable, variables
from .sharing import SharedConnections
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
    @property
    def programs(self) -> Programs: ...

    def raw_stderr(self, name: str) -> int:
        """The descriptor of the breakage log *name*."""
    @property
    def pool(self) -> Pool: ...
    @property
    def shared(self) -> SharedConnections: ...
    @property
    def resolver(self) -> Resolver: ...
    @property
    def tls(self) -> Contexts: ...


class Gateway(Protocol):
    """What ``gateway.GATEWAYS`` holds for each name: serves one exchange.

    The exchange's request says where the program is: ``physical``, ``decoded_path`` (its name in
    the URL) and ``path_info``.  Raises ForkdError, ClientGone, Outcome.
    """

    def __call__(
        self, exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
    ) -> None: ...


# -- one request at a backend -----------------------------------------------------------------


def serve(conversation: Conversation, exchange: Exchange, worker: WorkerContext) -> None:
    """Ask a backend and answer the client; when this returns, the exchange is finished or a tunnel.

    Raises ForkdError, ClientGone, Outcome; a response that has begun is the caller's to abort.
    """
    with receive(
        exchange,
        worker.config.server,
        needs_length=conversation.needs_length,
        is_wanted=not conversation.authorizes,
    ) as body:
        for sent in range(MAX_ATTEMPTS):
            try:
                _attempt(conversation, exchange, worker, body, fresh=sent > 0)
                return
            except StaleConnection as error:
                reason = error
        raise NoBackend(f"no backend takes the request: {reason}")


def _attempt(
    conversation: Conversation,
    exchange: Exchange,
    worker: WorkerContext,
    body: RequestBody,
    fresh: bool = False,
) -> None:
    with Link(conversation, exchange, conversation.connect(fresh)) as link:
        mode = _upgrade_mode(exchange.request, link.terms, worker)
        offered = _offered(exchange.request, mode)
        link.send(offered, body, mode is Upgrade.ALLOWED)
        head = link.head()
        if exchange.request.protocol:
            _check_connect(offered, head)
        if isinstance(head, LocalRedirect):
            link.done()
            raise LocalRedirected(head.target)
        if head.status == 101:
            _switch(conversation, exchange, worker, link, head, mode)
            return
        link.release_end()
        if conversation.authorizes and head.status == 200:
            link.discard()
            link.done()
            raise Approved(variables(head), link.terms.docroot)
        _answer(exchange, worker, link, head)


def _upgrade_mode(request: Request, terms: Terms, worker: WorkerContext) -> Upgrade:
    """Raises MethodNotAllowed."""
    with_body = worker.config.server.features.upgrade_with_request_body
    mode = upgrade_mode(request, terms.upgrade, with_body)
    if mode is Upgrade.REFUSED:
        raise MethodNotAllowed("CONNECT where no upgrade is allowed")
    return mode


def _offered(request: Request, mode: Upgrade) -> Request:
    """*request* as the backend is to see it."""
    if request.protocol:
        return upgrade_request(request, b64encode(token_bytes(16)).decode("ascii"))
    if mode is Upgrade.ALLOWED or "upgrade" not in request.fields:
        return request
    return request._replace(fields=request.fields.without("upgrade"))


def _check_connect(offered: Request, head: Head | LocalRedirect) -> None:
    """What may be told to the client of an extended CONNECT: to it, any 2xx is an open tunnel.

    Raises MethodNotAllowed, BackendBroken.
    """
    if isinstance(head, LocalRedirect) or 200 <= head.status < 300:
        raise MethodNotAllowed("the backend did not switch protocols")
    if head.switches_protocol:
        check_accept(offered, head)


def _answer(exchange: Exchange, worker: WorkerContext, link: Link, head: Head) -> None:
    """The response to an ordinary request: *head* and what follows, or the file that it names."""
    files = xsendfile.named_files(head, link.terms)
    if files:
        link.done()
        xsendfile.serve(exchange, head, files, link.terms, worker.config)
    else:
        respond(exchange, head, link, worker.config)


def _switch(
    conversation: Conversation,
    exchange: Exchange,
    worker: WorkerContext,
    link: Link,
    head: Head,
    mode: Upgrade,
) -> None:
    if mode is not Upgrade.ALLOWED or not head.switches_protocol:
        raise BackendBroken(f"{link.backend.name}: unexpected 101")
    greeting, unread = link.switch()
    times = tunnel_times(exchange.settings.limits, link.terms)
    codec = conversation.tunnel_codec()
    open_tunnel(
        exchange, presentable(head), link.backend, codec, times, worker, greeting, unread
    )
    link.handed_over()


@lru_cache(maxsize=256)
def tunnel_times(limits: Limits, terms: Terms) -> TunnelTimes:
    """The times of a tunnel; one value for all tunnels of the same settings."""
    return TunnelTimes(
        idle=limits.max_read_idle,
        write_idle=limits.max_write_idle,
        backend_read=terms.read_timeout,
        backend_write=terms.write_timeout,
    )


# -- reaching a backend -----------------------------------------------------------------------


def connect_any(
    server: GatewayServer,
    route: Route,
    request: Request,
    worker: WorkerContext,
    deadline: float = float("inf"),
    kept: Callable[[Proc], Port | None] | None = None,
) -> Backend:
    """Connect to a proc of *route*, trying others when one fails, until *deadline* (monotonic).

    *kept* may have a connection to a proc already, and raises OSError as a connect does.  Raises
    NoBackend, with Retry-After, when none can be had.
    """
    timeouts = 0
    last: Exception | None = None
    for _ in range(MAX_ATTEMPTS):
        proc = worker.balancer.choose(server, route, request)
        if proc is None:
            break
        lease = None
        try:
            idle = kept(proc) if kept is not None else None
            lease = worker.board.acquire(proc)
            worker.balancer.taken(proc)
            if idle is not None:
                return Backend(idle, str(proc), proc, lease, is_kept=True)
            port = connect_proc(proc, _time_for(proc, deadline), worker)
            return Backend(port, str(proc), proc, lease)
        except OSError as error:  # TimeoutError is one
            if lease is not None:
                lease.release()
            worker.balancer.avoid(proc)
            last = error
            log.warning("backend %s: %s", proc, error)
            timeouts += isinstance(error, TimeoutError)
            out_of_fds = error.errno in (errno.EMFILE, errno.ENFILE)
            if timeouts >= MAX_TIMEOUTS or out_of_fds or time.monotonic() >= deadline:
                break
        except BaseException:
            if lease is not None:
                lease.release()
            raise
    reason = f": {last}" if last else ""
    raise NoBackend(
        f"{server.name} {route.key!r}: no backend available{reason}",
        worker.balancer.retry_after(route),
    )


def connect_proc(proc: Proc, timeout: float, worker: WorkerContext) -> Port:
    """To *proc*, over TLS where it wants that; *timeout* in seconds, 0 for none."""
    begun = time.monotonic()
    port, tls = _connect_plain(proc, timeout, worker), proc.backend.tls
    if tls is None:
        return port
    left = max(begun + timeout - time.monotonic(), 0.001) if timeout else 0.0
    return connect_tls(port, worker.tls.client(tls), tls.name, left)


def _connect_plain(proc: Proc, timeout: float, worker: WorkerContext) -> FdPort:
    """A host that was configured by name may have moved, and may have several addresses."""
    name, known = proc.backend.host_name, proc.address
    if not name or proc.backend.is_spawned:
        return connect(known, timeout, proc.backend.takes_packets)
    hosts = worker.resolver.hosts(name, known.host, timeout)
    return connect_first([Address(host, known.port) for host in hosts], timeout)


def _time_for(proc: Proc, deadline: float) -> float:
    """Seconds for one connect, 0 for no limit."""
    limit = proc.backend.connect_timeout or float("inf")
    left = min(limit, deadline - time.monotonic())
    return 0.0 if left == float("inf") else max(left, 0.001)


class SocketConversation:
    """Half of a Conversation: the connection, of gateways that reach their backends by sockets.

    One connection per request, unless ``kept_connections`` says otherwise; the other half is
    ``begin``, and whatever differs here.
    """

    needs_length = True
    kept_seconds = inf
    """How long a connection may wait for another request."""
    is_exclusive = False
    """Whether a proc may serve so few connections that an idle one keeps others waiting."""

    def __init__(
        self, exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
    ) -> None:
        self.exchange = exchange
        self.server = server
        self.route = route
        self.worker = worker
        self.authorizes = bool(route.backends) and route.backends[0].mode == "authorizer"
        self._judge: Judge | None = None
        self._is_half_closed = False

    def kept_connections(self, spec: BackendSpec) -> int:
        """How many connections to one proc of *spec* may wait for another request."""
        return 0

    def kept(self, proc: Proc) -> Port | None:
        """A connection to *proc* that can take the request; None for a new one.  Raises OSError."""
        if may_use_kept(self.exchange.request):
            return self.worker.pool.take(proc)
        return self._none_kept(proc)

    def _none_kept(self, proc: Proc) -> Port | None:
        if self.is_exclusive:
            self.worker.pool.spare(proc)
        return None

    def connect(self, fresh: bool = False) -> Backend:
        backend = connect_any(
            self.server,
            self.route,
            self.exchange.request,
            self.worker,
            kept=self._none_kept if fresh else self.kept,
        )
        self._judge = judge_of(backend, self.worker)
        return backend

    def terms(self, backend: Backend) -> Terms:
        assert backend.proc is not None
        return Terms.of(backend.proc.backend)

    def half_close(self, backend: Backend) -> None:
        self._is_half_closed = True
        backend.port.write_eof()

    def ended_well(self, backend: Backend) -> bool:
        if self._judge is None:
            return True
        verdict: AsyncResult[bool] = AsyncResult()
        self._judge(verdict.set)
        return bool(verdict.get())

    def tunnel_codec(self) -> TunnelCodec:
        return BlindCodec()

    def done(self, backend: Backend, reusable: bool) -> None:
        assert backend.proc is not None
        is_open = reusable and not self._is_half_closed
        limit = self.kept_connections(backend.proc.backend) if is_open else 0
        if limit:
            self.worker.pool.keep(backend.proc, backend.port, limit, self.kept_seconds)
        else:
            backend.port.close()
        release(backend)

    def abort(self, backend: Backend, why: str) -> None:
        backend.port.abort(why)
        release(backend)


def release(backend: Backend) -> None:
    if backend.lease is not None:
        backend.lease.release()


def judge_of(backend: Backend, worker: WorkerContext) -> Judge | None:
    """Who tells how *backend* ended, where that can be known."""
    proc = backend.proc
    return Judge(worker.board, proc) if proc is not None and proc.backend.is_spawned else None


# -- a tunnel to it ---------------------------------------------------------------------------


def open_tunnel(
    exchange: Exchange,
    head: Head,
    backend: Backend,
    codec: TunnelCodec,
    times: TunnelTimes,
    worker: WorkerContext,
    greeting: bytes = b"",
    unread: bytes = b"",
    rate: MessageRate | None = None,
) -> None:
    """Answer the upgrade with *head* and let *codec* relay; the tunnel owns *backend* from here.

    *greeting* is the first that the client is sent; *unread* came from the backend for *codec*.
    """
    client, early, log_access = exchange.upgrade(head)
    record = _Record(exchange.request, backend, worker, log_access, len(early))
    log.info("tunnel %d: open, %s", record.number, record.name)
    tunnel = start_tunnel(
        client,
        backend.port,
        codec,
        times,
        record,
        early=early,
        unread=unread,
        greeting=greeting,
        judge=judge_of(backend, worker),
        rate=rate,
    )
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
        self.name = f"{request.remote} {request.path} to {backend.name}"
        self.number = worker.tunnels.number()
        self.is_over = False
        self._lease = backend.lease
        self._worker = worker
        self._log_access = log_access
        self._early = early
        self._started = time.monotonic()

    def __call__(self, tunnel: TunnelHandle) -> None:
        self.is_over = True
        if self._lease is not None:
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
