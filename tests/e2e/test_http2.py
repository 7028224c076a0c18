"""HTTP/2 on a running server: requests, and WebSockets through every gateway (RFC 8441)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from client_frames import BINARY, close, frame
from e2e.harness import REPOSITORY, Forkd, Server, free_port, wait_for
from e2e.rawhttp import Client
from e2e.sites import write_program
from echo_server import echo_server
from h2_client import FRAME, H2Client, Stream
from websockets.sync.server import serve

from forkd.protocol.h2_frames import ErrorCode

PROGRAMS = Path(__file__).parents[1] / "programs"
GATEWAYS = ["wstunnel", "proxy", "cgi", "scgi", "fastcgi"]
PATHS = {"wstunnel": "/ws/", "proxy": "/proxy/ws", "cgi": "/cgi/ws.py", "scgi": "/scgi/ws",
         "fastcgi": "/fastcgi/ws"}  # fmt: skip

CONFIG = """
server.modules = ( "mod_cgi", "mod_wstunnel", "mod_proxy", "mod_scgi", "mod_fastcgi",
                   "mod_accesslog" )
server.max-worker = 1
accesslog.filename = "@DIR@/access.log"
accesslog.format = "%m %U %>s %I %O"
forkd.http2-max-streams = 200
$HTTP["url"] =~ "^/cgi/" {{ cgi.assign = ( ".py" => "" ) cgi.upgrade = "enable" }}
wstunnel.server = ( "/ws/" => ( ( "host" => "127.0.0.1", "port" => {echo} ) ),
                    "/stall/" => ( ( "host" => "127.0.0.1", "port" => {stall} ) ) )
proxy.server = ( "/proxy/" => ( ( "host" => "127.0.0.1", "port" => {proxy} ) ) )
proxy.header = ( "upgrade" => "enable" )
scgi.server = ( "/scgi/" => ( ( "socket" => "@DIR@/scgi.sock", "check-local" => "disable",
    "bin-path" => "{python} {programs}/scgi_echo.py", "upgrade" => "enable", "max-procs" => 1 ) ),
  "/plain/" => ( ( "socket" => "@DIR@/plain.sock", "check-local" => "disable",
    "bin-path" => "{python} {programs}/scgi_echo.py", "max-procs" => 1 ) ) )
fastcgi.server = ( "/fastcgi/" => ( ( "socket" => "@DIR@/fcgi.sock", "check-local" => "disable",
    "bin-path" => "{python} {programs}/fastcgi_echo.py", "upgrade" => "enable",
    "max-procs" => 1 ) ) )
"""
ENV = """import base64, hashlib, os, sys
key = os.environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
accept = base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
if "wrong" in os.environ["QUERY_STRING"]:
    accept = "x"
print("Status: 101\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Accept: " + accept + "\\r\\n\\r")
for name, value in sorted(os.environ.items()):
    print(name + "=" + value)
"""


@contextmanager
def websocket_backend() -> Iterator[int]:
    """A WebSocket echo that speaks HTTP/1.1, for proxy."""

    def echo(connection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.socket.getsockname()[1]


@dataclass
class Site:
    server: Server
    stall: socket.socket
    """Listens for a tunnel, and takes nothing from it."""

    def client(self) -> H2Client:
        return H2Client(self.server.port)


@contextmanager
def site_with(forkd: Forkd) -> Iterator[Site]:
    with (
        echo_server(echo := free_port()),
        websocket_backend() as proxy,
        socket.create_server(("127.0.0.1", 0)) as stall,
    ):
        names = {"echo": echo, "proxy": proxy, "stall": stall.getsockname()[1]}
        text = CONFIG.format(python=sys.executable, programs=PROGRAMS, **names)
        server = forkd.start(text)
        (server.root / "static.bin").write_bytes(bytes(range(256)) * 4096)
        write_program(
            server.root / "cgi" / "ws.py",
            (REPOSITORY / "conf" / "samples" / "bin" / "ws_echo.py").read_text(),
        )
        write_program(server.root / "cgi" / "env.py", ENV)
        write_program(server.root / "cgi" / "echo.py", (PROGRAMS / "cgi_echo.py").read_text())
        yield Site(server, stall)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    forkd = Forkd(tmp_path_factory.mktemp("http2"))
    with site_with(forkd) as site:
        yield site
        problems = forkd.finish()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


# -- requests -----------------------------------------------------------------------------------


def test_curl_and_h2load_get_a_large_file(site: Site) -> None:
    url = f"http://127.0.0.1:{site.server.port}/static.bin"
    got = subprocess.run(
        ["curl", "-s", "--http2-prior-knowledge", "-w", "%{http_version}", url],
        capture_output=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    assert got == bytes(range(256)) * 4096 + b"2"
    said = subprocess.run(
        ["h2load", "-n", "100", "-c", "2", "-m", "10", url],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert "100 succeeded, 0 failed" in said


@pytest.mark.parametrize("size", [0, 1, 100_000, 400_000])
def test_a_body_goes_up_and_an_answer_comes_down(site: Site, size: int) -> None:
    with site.client() as client:
        body = os.urandom(size).hex()[:size].encode()
        field = [("content-length", str(size))]
        stream = client.finished(client.request("/cgi/echo.py", "POST", field, body))
        assert (stream.status, bytes(stream.data)) == (200, b"len=%d body=%s" % (size, body))


def test_a_reset_request_ends_alone(site: Site) -> None:
    with site.client() as client:
        kept = client.request("/scgi/stay?5")
        client.h2.reset_stream(kept.id, 8)
        client.flush()
        other = client.finished(client.request("/static.bin"))
        assert len(other.data) == 1 << 20


@pytest.mark.parametrize(("is_on", "version"), [("enable", b"2"), ("disable", b"1.1")])
def test_an_upgrade_to_h2c(forkd: Forkd, is_on: str, version: bytes) -> None:
    flags = f'server.feature-flags = ( "server.h2c" => "{is_on}" )'
    server = forkd.start(flags)
    (server.root / "a.txt").write_bytes(b"hello ")
    url = f"http://127.0.0.1:{server.port}/a.txt"
    got = subprocess.run(
        ["curl", "-s", "--http2", "-w", "%{http_version}", url, "--next", "-s", "--http2", url],
        capture_output=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    assert got == b"hello " + version + b"hello "


# -- WebSockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_messages_come_back(site: Site, gateway: str) -> None:
    with site.client() as client:
        stream = client.tunnel(PATHS[gateway])
        assert not {"upgrade", "connection", "sec-websocket-accept"} & set(stream.fields)
        for size in (1, 125, 126, 70_000):
            data = os.urandom(size) if gateway != "wstunnel" else b"x" * size
            stream.say(data)
            assert stream.hear(size) == data
        _close_cleanly(client, stream)


def _close_cleanly(client: H2Client, stream: Stream) -> None:
    """As Chromium does: the Close frame, and the end of the stream with it."""
    stream.send(close(1000), end=True)
    assert stream.hear_close() == 1000
    client.finished(stream)
    assert stream.ended and stream.reset is None


@pytest.mark.parametrize("gateway", ["cgi", "scgi", "fastcgi"])
def test_a_program_cannot_tell_the_versions_apart(site: Site, gateway: str) -> None:
    told = []
    if gateway == "cgi":
        with site.client() as client:
            stream = client.connect("/cgi/env.py?q=1")
            client.finished(stream)
            told.append(bytes(stream.data))
        with Client(("127.0.0.1", site.server.port)) as client:
            client.send(
                b"GET /cgi/env.py?q=1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            told.append(client.read_all().partition(b"\r\n\r\n")[2])
        first, second = (_variables(text) for text in told)
        assert len(first["HTTP_SEC_WEBSOCKET_KEY"]) == 24
        for one in (first, second):
            del one["REMOTE_PORT"], one["HTTP_SEC_WEBSOCKET_KEY"]
        assert first == second
        assert first["SCRIPT_FILENAME"] and first["DOCUMENT_ROOT"]
        assert first["REQUEST_METHOD"], first["SERVER_PROTOCOL"] == ("GET", "HTTP/1.1")


def _variables(text: bytes) -> dict[str, str]:
    lines = text.decode("latin-1").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_each_request_has_a_key_of_its_own(site: Site) -> None:
    keys = set()
    with site.client() as client:
        for _ in range(3):
            stream = client.finished(client.connect("/cgi/env.py"))
            keys.add(_variables(bytes(stream.data))["HTTP_SEC_WEBSOCKET_KEY"])
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/plain/ws", 405),
        ("/cgi/env.py?wrong", 502),
        ("/cgi/echo.py", 405),
        ("/scgi/missing", 404),
        ("/nothing", 404),
        ("/static.bin", 405),
    ],
)
def test_a_refused_tunnel(site: Site, path: str, status: int) -> None:
    with site.client() as client:
        stream = client.finished(client.connect(path))
        assert stream.status == status
        assert stream.ended
        assert client.finished(client.request("/static.bin")).status == 200


def test_end_of_stream_is_half_a_close(site: Site) -> None:
    """A blind tunnel: the backend hears the end, and what it says then still arrives."""
    with site.client() as client:
        stream = client.connect("/cgi/ws.py")
        client.answered(stream)
        stream.send(frame(BINARY, b"last words"), end=True)
        assert stream.hear(10) == b"last words"
        client.finished(stream)
        assert stream.ended and stream.reset is None


def test_a_reset_tunnel_resets_its_backend(site: Site) -> None:
    with site.client() as client:
        client.connect("/stall/")
        backend, _ = site.stall.accept()
        stream = client.streams[1]
        client.answered(stream)
        client.h2.reset_stream(stream.id, ErrorCode.CANCEL)
        client.flush()
        backend.settimeout(15)
        assert backend.recv(1) == b""
        backend.close()


def test_a_dead_backend_resets_its_tunnel_alone(site: Site) -> None:
    with site.client() as client:
        other = client.tunnel("/ws/")
        stream = client.connect("/stall/")
        backend, _ = site.stall.accept()
        client.answered(stream)
        backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        backend.close()
        assert stream.hear_close() == 1011
        other.say(b"alive")
        assert other.hear(5) == b"alive"


def test_one_stalled_tunnel_of_a_hundred(site: Site) -> None:
    """The other 99 keep going; whoever floods the stalled one is held up, not stored."""
    with site.client() as client:
        stalled = client.connect("/stall/")
        backend, _ = site.stall.accept()
        client.answered(stalled)
        others = [client.connect("/ws/") for _ in range(99)]
        for stream in others:
            assert client.answered(stream).status == 200
        worker = _worker(site.server)
        before = worker.memory_info().rss
        flood = frame(BINARY, bytes(8 << 20))
        sent = 0
        for turn in range(20):
            while (room := client.h2.local_flow_control_window(stalled.id)) and sent < len(flood):
                room = min(room, FRAME)
                client.h2.send_data(stalled.id, flood[sent : sent + room])
                sent += room
                client.flush()
            data = b"%04d" % turn * 64
            for stream in others:
                stream.say(data)
            for stream in others:
                assert stream.hear(256) == data
        assert 0 < sent < 6 << 20, sent
        assert worker.memory_info().rss - before < 4 << 20
        backend.close()


def test_a_stalled_reader_holds_up_nobody(site: Site) -> None:
    with site.client() as client:
        stalled = client.request("/static.bin")
        stalled.stalled = True
        tunnel = client.tunnel("/ws/")
        for _ in range(20):
            tunnel.say(b"x" * 1000)
            assert tunnel.hear(1000) == b"x" * 1000
        assert not stalled.is_over and len(stalled.data) == 65535


def _worker(server: Server) -> psutil.Process:
    return server.workers()[0]



def test_every_stream_is_in_the_access_log(site: Site) -> None:
    with site.client() as client:
        client.finished(client.request("/missing-in-log"))
        stream = client.tunnel("/ws/")
        stream.say(b"hello")
        stream.hear(5)
        _close_cleanly(client, stream)
    log = site.server.directory / "access.log"
    wait_for(lambda: "GET /missing-in-log 404" in log.read_text(), what="line of the request")
    wait_for(lambda: "CONNECT /ws/ 200" in log.read_text(), what="line of the tunnel")


# -- drains and stops ---------------------------------------------------------------------------


def test_a_reload_lets_tunnels_live_and_takes_no_more_streams(forkd: Forkd) -> None:
    with site_with(forkd) as site, site.client() as client:
        stream = client.tunnel("/ws/")
        site.server.process.send_signal(signal.SIGHUP)
        client.run_until(lambda: len(client.goaways) >= 2)
        assert client.goaways == [(0x7FFFFFFF, 0), (stream.id, 0)]
        stream.say(b"still here")
        assert stream.hear(10) == b"still here"
        _close_cleanly(client, stream)
        with pytest.raises(AssertionError, match="closed"):
            client.run_until(lambda: False)


def test_a_stop_says_1001(forkd: Forkd) -> None:
    with site_with(forkd) as site, site.client() as client:
        stream = client.tunnel("/ws/")
        idle = site.client()
        idle.finished(idle.request("/nothing"))  # it is no more one that waits to be accepted
        site.server.process.send_signal(signal.SIGINT)
        assert stream.hear_close() == 1001
        stream.send(close(1001), end=True)
        client.finished(stream)
        assert stream.reset is None
        with pytest.raises(AssertionError, match="closed"):
            idle.run_until(lambda: False)
        idle.close()
