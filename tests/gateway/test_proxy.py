"""forkd/gateway/proxy.py, and what of base.py is there for it: kept connections, hosts by name."""

from __future__ import annotations

import socket

import pytest
from fakes import FakeExchange, make_request
from memory_port import MemoryPort

from forkd.address import Address
from forkd.config.backend import BackendSpec, GatewayServer, Proc, Route
from forkd.config.model import ProxyHeader, ProxySettings, RequestConfig
from forkd.errors import MethodNotAllowed, NoBackend
from forkd.gateway import proxy
from forkd.gateway.conversation import Backend
from forkd.gateway.policy import claims
from forkd.gateway.pool import Pool
from forkd.gateway.proxy import Proxy
from forkd.net.port import FdPort

ADDRESS = Address("127.0.0.1", 1)


def spec_of(**changes):
    return BackendSpec("proxy", "", "label", ADDRESS, check_local=False, **changes)


class FakeLease:
    def __init__(self):
        self.released = 0

    def release(self):
        self.released += 1


class FakeBoard:
    def acquire(self, proc):
        return FakeLease()

    def deaths(self, proc):
        return 0


class FakeBalancer:
    def __init__(self, proc):
        self._proc = proc
        self.avoided = []

    def choose(self, server, route, request):
        return None if self.avoided else self._proc

    def taken(self, proc):
        pass

    def avoid(self, proc):
        self.avoided.append(proc)

    def retry_after(self, route):
        return 7


class FakeResolver:
    def __init__(self, *hosts):
        self._hosts = hosts
        self.asked = []

    def hosts(self, name, known, timeout):
        self.asked.append((name, known))
        return self._hosts


class Worker:
    def __init__(self, spec, *hosts, address=None):
        self.proc = Proc(spec, 0, address or spec.address, 0)
        self.board = FakeBoard()
        self.balancer = FakeBalancer(self.proc)
        self.resolver = FakeResolver(*hosts)
        self.pool = Pool()


def proxy_for(request, spec, settings=None, worker=None):
    config = RequestConfig(proxy=settings or ProxySettings())
    route = Route("proxy", "", (spec,))
    server = GatewayServer("proxy", (route,))
    return Proxy(FakeExchange(request, config), server, route, worker or Worker(spec))


def backend_of(spec, port=None):
    return Backend(port or MemoryPort(), "be", Proc(spec, 0, spec.address, 0), FakeLease())


@pytest.mark.parametrize(
    ("header", "host_upgrade", "host", "expected"),
    [
        (ProxyHeader(), False, "h", False),
        (ProxyHeader(upgrade=True), False, "h", True),
        (ProxyHeader(), True, "h", True),
        (ProxyHeader(force_http10=True), True, "h", False),
        (ProxyHeader(upgrade=True), False, "", False),
    ],
)
def test_upgrade_by_either_switch_but_not_in_http10(header, host_upgrade, host, expected):
    spec = spec_of(upgrade=host_upgrade)
    made = proxy_for(make_request(host=host), spec, ProxySettings(header=header))
    assert made.terms(backend_of(spec)).upgrade is expected


@pytest.mark.parametrize(
    ("host", "header", "expected"),
    [
        ("h", ProxyHeader(), False),
        ("", ProxyHeader(), True),
        ("h", ProxyHeader(force_http10=True), True),
    ],
)
def test_length_is_needed_where_there_are_no_chunks(host, header, expected):
    made = proxy_for(make_request(host=host), spec_of(), ProxySettings(header=header))
    assert made.needs_length is expected


def test_request_and_response_share_their_mapping():
    header = ProxyHeader(map_urlpath=(("/a", "/x"), ("/b", "/x")))
    spec = spec_of()
    request = make_request("/b/1?q", fields={"Content-Location": "/a/2"})
    made = proxy_for(request, spec, ProxySettings(header=header))
    encoder, parser = made.begin(request, 0, backend_of(spec))
    head = encoder.head()
    assert head.startswith(b"GET /x/1?q HTTP/1.1\r\nHost: www.example.org\r\n")
    assert b"\r\nContent-Location: /x/2\r\n" in head
    answer = parser.feed(b"HTTP/1.1 302 Found\r\nLocation: /x/3\r\nContent-Length: 0\r\n\r\n")
    assert answer[0].fields.get("location") == "/b/3"


def test_label_is_that_of_the_route():
    known = spec_of()
    named = BackendSpec("proxy", "", "other.example", ADDRESS, check_local=False)
    assert known == named
    made = proxy_for(make_request(), named, ProxySettings(replace_http_host=True))
    encoder, _ = made.begin(make_request(), 0, backend_of(known))
    assert b"\r\nHost: other.example\r\n" in encoder.head()


# -- kept connections -----------------------------------------------------------------------------


def kept(spec):
    """A worker that keeps one connection, and that."""
    worker, port = Worker(spec), MemoryPort()
    worker.pool.keep(worker.proc, port, 1)
    return worker, port


@pytest.mark.parametrize(
    ("method", "length", "expected"),
    [
        ("GET", 0, True),
        ("DELETE", 0, True),
        ("POST", 0, False),
        ("PUT", 1, False),
        ("PUT", None, False),
        ("PATCH", 0, False),
    ],
)
def test_kept_connection_takes_what_may_be_repeated(method, length, expected):
    spec = spec_of(keep_alive=1)
    worker, port = kept(spec)
    request = make_request("/", method, content_length=length)
    made = proxy_for(request, spec, worker=worker)
    if expected:
        backend = made.connect()
        assert (backend.port, backend.is_kept) == (port, True)
    else:
        with pytest.raises(NoBackend):  # nobody listens there
            made.connect()


def test_fresh_means_no_kept_connection():
    spec = spec_of(keep_alive=1)
    worker, _ = kept(spec)
    with pytest.raises(NoBackend):
        proxy_for(make_request(), spec, worker=worker).connect(fresh=True)


@pytest.mark.parametrize(
    ("keep_alive", "reusable", "expected"),
    [(0, True, False), (1, True, True), (1, False, False)],
)
def test_connection_is_kept_or_closed(keep_alive, reusable, expected):
    spec = spec_of(keep_alive=keep_alive)
    worker, backend = Worker(spec), backend_of(spec)
    proxy_for(make_request(), spec, worker=worker).done(backend, reusable)
    assert (worker.pool.take(worker.proc) is backend.port) is expected
    assert backend.port.closing is not expected
    assert backend.lease.released == 1


def test_connection_that_was_half_closed_is_not_kept():
    spec = spec_of(keep_alive=1)
    worker, backend = Worker(spec), backend_of(spec)
    made = proxy_for(make_request(), spec, worker=worker)
    made.half_close(backend)
    made.done(backend, True)
    assert worker.pool.take(worker.proc) is None


# -- hosts by name --------------------------------------------------------------------------------


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.2", 0)) as sock:
        yield sock


def connected(worker):
    """The peer that a request reaches."""
    before = FdPort.open_ports
    backend = proxy_for(make_request(), worker.proc.backend, worker=worker).connect()
    assert FdPort.open_ports == before + 1
    backend.port.abort("done")
    return backend


def test_all_addresses_of_a_name_are_tried(listener):
    port = listener.getsockname()[1]
    spec = spec_of(host_name="be.example", connect_timeout=5)
    address = Address("127.0.0.9", port)
    worker = Worker(spec, "127.0.0.3", "127.0.0.2", address=address)
    assert connected(worker).proc.address == address
    assert worker.resolver.asked == [("be.example", "127.0.0.9")]
    assert not worker.balancer.avoided


def test_name_of_a_program_that_is_started_here_is_not_asked_for(listener):
    spec = spec_of(host_name="localhost", bin_path=("x",))
    worker = Worker(spec, "127.0.0.3", address=Address(*listener.getsockname()))
    connected(worker)
    assert not worker.resolver.asked


# -- CONNECT --------------------------------------------------------------------------------------


def test_connect_is_for_proxy_only():
    servers = tuple(
        GatewayServer(name, (Route(name, "", (BackendSpec(name, "", "", ADDRESS),)),))
        for name in ("scgi", "fastcgi", "wstunnel", "proxy")
    )
    settings = RequestConfig(servers=servers)
    request = make_request("/", "CONNECT", path=":7", decoded_path=":7")
    assert [server.name for server, _ in claims(request, settings, False)] == ["proxy"]


def test_connect_is_off_unless_switched_on():
    exchange = FakeExchange(make_request("/", "CONNECT"), RequestConfig())
    route = Route("proxy", "", (spec_of(),))
    worker = Worker(spec_of())
    with pytest.raises(MethodNotAllowed):
        proxy.serve(exchange, GatewayServer("proxy", (route,)), route, worker)
    assert not worker.balancer.avoided  # no connect was tried
