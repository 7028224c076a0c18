"""mod_proxy in front of servers that others have written: nginx, lighttpd, wsgiref."""

from __future__ import annotations

import gzip
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.harness import Forkd, Server, free_port, wait_for
from e2e.http_backend import HttpBackend, Peer
from e2e.rawhttp import Incomplete

BIG = os.urandom(1 << 16) * 320  # 20 MiB

NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid @DIR@/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path @DIR@/nginx-body;
  client_max_body_size 0;
  types { text/plain txt; text/html html; }
  gzip on;
  gzip_types text/plain;
  gzip_http_version 1.1;
  server {
    listen 127.0.0.1:@BEHIND@;
    root @ROOT@;
    dav_methods PUT DELETE;
    create_full_put_path on;
    autoindex on;
    location = /status { stub_status; }
  }
}
"""

LIGHTTPD = """
server.modules = ( "mod_dirlisting", "mod_wstunnel" )
server.document-root = "@ROOT@"
server.bind = "127.0.0.1"
server.port = @BEHIND@
server.pid-file = "@DIR@/lighttpd.pid"
dir-listing.activate = "enable"
mimetype.assign = ( ".txt" => "text/plain", ".html" => "text/html" )
wstunnel.server = ( "/ws/" => (( "socket" => "@DIR@/echo.sock" )) )
wstunnel.frame-type = "binary"
"""

CONFIG = """
server.modules = ( "mod_proxy" )
server.max-worker = 1
proxy.header = ( "upgrade" => "enable" )
proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => @BEHIND@, "keep-alive" => 4 )) )
$HTTP["query-string"] =~ "stream=1" {
  server.stream-request-body = 1
  server.stream-response-body = 1
}
$HTTP["query-string"] =~ "stream=2" {
  server.stream-request-body = 2
  server.stream-response-body = 2
}
"""

MODES = ("stream=0", "stream=1", "stream=2")


@contextmanager
def running(command: Sequence[str], forkd: Forkd, port: int) -> Iterator[None]:
    """Somebody else's server, from when it listens to the end of the block."""
    with (forkd.directory / "behind.output").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=forkd.environment(),
        )
    try:
        wait_for(lambda: listens(process, port), what=f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(10)


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Site:
    name: str
    server: Server
    root: Path


COMMANDS = {
    "nginx": (NGINX, ("/usr/sbin/nginx", "-p", "@DIR@", "-c", "@DIR@/behind.conf")),
    "lighttpd": (LIGHTTPD, ("/usr/sbin/lighttpd", "-D", "-f", "@DIR@/behind.conf")),
}


@contextmanager
def site_in_front_of(name: str, directory: Path) -> Iterator[Site]:
    forkd = Forkd(directory)
    behind = free_port()
    config, command = COMMANDS[name]
    forkd.write("behind.conf", config.replace("@BEHIND@", str(behind)))
    root = directory / "root"
    (root / "folder").mkdir(parents=True)
    (root / "page.html").write_text("<p>page</p>\n")
    (root / "text.txt").write_text("text " * 10_000)
    (root / "big").write_bytes(BIG)
    try:
        with running([forkd.fill(word) for word in command], forkd, behind):
            server = forkd.start(CONFIG.replace("@BEHIND@", str(behind)))
            yield Site(name, server, root)
    finally:
        problems = forkd.finish()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture(scope="module", params=COMMANDS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with site_in_front_of(request.param, tmp_path_factory.mktemp(request.param)) as site:
        yield site


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_in_front_of("nginx", tmp_path_factory.mktemp("nginx")) as site:
        yield site


@pytest.mark.parametrize("mode", MODES)
def test_files(site: Site, mode: str) -> None:
    page = site.server.get(f"/page.html?{mode}")
    assert (page.status, page.text) == (200, "<p>page</p>\n")
    assert (page.field("Server") or "").startswith(site.name)
    assert page.field("Content-Type") == "text/html"
    assert site.server.get(f"/big?{mode}").body == BIG
    assert site.server.get(f"/none?{mode}").status == 404
    head = site.server.get(f"/big?{mode}", "HEAD")
    assert (head.status, head.field("Content-Length"), head.body) == (200, str(len(BIG)), b"")


@pytest.mark.parametrize("mode", MODES)
def test_conditions_and_ranges_are_the_servers(site: Site, mode: str) -> None:
    etag = site.server.get("/page.html").field("ETag")
    assert etag
    assert site.server.get(f"/page.html?{mode}", If_None_Match=etag).status == 304
    part = site.server.get(f"/big?{mode}", Range="bytes=100-199")
    assert (part.status, part.body) == (206, BIG[100:200])
    assert part.field("Content-Range") == f"bytes 100-199/{len(BIG)}"
    assert site.server.get(f"/big?{mode}", Range="bytes=99999999-").status == 416


@pytest.mark.parametrize("mode", MODES)
def test_listing_and_redirect(site: Site, mode: str) -> None:
    assert "page.html" in site.server.get(f"/?{mode}").text
    moved = site.server.get(f"/folder?{mode}")
    assert moved.status == 301
    assert f"/folder/?{mode}" in (moved.field("Location") or "")


def test_many_requests_on_one_connection(site: Site) -> None:
    with site.server.connect() as client:
        for number in range(50):
            mode = MODES[number % 3]
            answer = client.request(f"GET /page.html?{mode} HTTP/1.1\nHost: h\n\n")
            assert answer.text == "<p>page</p>\n"


@pytest.mark.parametrize("mode", MODES)
def test_coding_is_between_client_and_server(nginx: Site, mode: str) -> None:
    answer = nginx.server.get(f"/text.txt?{mode}", Accept_Encoding="gzip")
    assert answer.field("Content-Encoding") == "gzip"
    assert gzip.decompress(answer.body) == b"text " * 10_000
    assert (answer.field("Transfer-Encoding") == "chunked") is (mode != "stream=0")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_upload(nginx: Site, mode: str, is_chunked: bool) -> None:
    body = BIG[: 5 << 20]
    head = f"PUT /up/loaded?{mode} HTTP/1.1\r\nHost: h\r\n"
    if is_chunked:
        data = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
        data += b"%x\r\n%b\r\n" % (len(body), body) + b"0\r\n\r\n"
    else:
        data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with nginx.server.connect() as client:
        client.send(data)
        assert client.response().status in (201, 204)
        assert client.request(f"DELETE /up/loaded?{mode} HTTP/1.1\nHost: h\n\n").status == 204
        client.send(data)
        assert client.response().status == 201
    assert (nginx.root / "up" / "loaded").read_bytes() == body
    nginx.server.get("/up/loaded", "DELETE")


def test_connections_are_used_again(nginx: Site) -> None:
    def accepted() -> int:
        found = re.search(r"\n (\d+) \d+ (\d+)", nginx.server.get("/status").text)
        assert found is not None
        return int(found[1])

    before = accepted()
    for _ in range(30):
        assert nginx.server.get("/page.html").status == 200
    assert accepted() == before


def echoing(peer: Peer) -> None:
    while data := peer.socket.recv(1 << 16):
        peer.send(data)


def test_tunnel_through_lighttpd(tmp_path: Path) -> None:
    with HttpBackend(str(tmp_path / "echo.sock")) as backend:
        backend.script = echoing
        with site_in_front_of("lighttpd", tmp_path) as site:
            check_echo(site.server)


def check_echo(server: Server) -> None:
    with server.websocket("/ws/", subprotocols=["binary"]) as client:
        for size in (1, 125, 126, 65_536):
            client.send(bytes(size))
            got = b""
            while len(got) < size:
                got += bytes(client.recv(timeout=20))
            assert got == bytes(size)


# -- a WSGI program, spawned ----------------------------------------------------------------------

WSGI = """#!/usr/bin/env python3
import os, socket, sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/die":
        return dying()
    if path == "/long":
        return (b"x" * 100000 for _ in range(20))
    return [f"{environ['REQUEST_METHOD']} {path} {len(body)}".encode()]

def dying():
    yield b"x" * 100000
    os._exit(3)

class Handler(WSGIRequestHandler):
    def log_message(self, *args):
        pass
    def address_string(self):
        return "client"

class Server(WSGIServer):
    def __init__(self):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=0)
        self.server_name, self.server_port = "app", 80
        self.setup_environ()
    def get_request(self):
        connection, _ = self.socket.accept()
        return connection, ("", 0)

server = Server()
server.set_app(app)
server.serve_forever()
"""

SPAWNED = """
server.modules = ( "mod_proxy" )
server.max-worker = 1
proxy.server = ( "" => ((
  "socket" => "@DIR@/app.sock", "bin-path" => "@DIR@/app.py", "min-procs" => 1, "max-procs" => 1
)) )
$HTTP["query-string"] =~ "stream" { server.stream-response-body = 2 }
"""


def test_wsgi_program(forkd: Forkd) -> None:
    server = forkd.start(SPAWNED, files={"app.py": WSGI})
    assert server.get("/a/b").text == "GET /a/b 0"
    with server.connect() as client:
        answer = client.request("POST /p HTTP/1.1\nHost: h\nContent-Length: 5\n\nhello")
        assert answer.text == "POST /p 5"
        chunked = "POST /p HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"
        assert client.request(chunked).text == "POST /p 3"
    for query in ("", "?stream"):
        assert server.get(f"/long{query}").body == b"x" * 2_000_000


def test_program_that_dies_in_its_answer_is_noticed(forkd: Forkd) -> None:
    """Only the end of the connection delimits it, so it could look whole."""
    forkd.allow_errors("app.sock")
    server = forkd.start(SPAWNED, files={"app.py": WSGI})
    assert server.get("/die").status == 502
    wait_for(lambda: server.get("/a").status == 200, what="respawned")
    with server.connect() as client, pytest.raises(Incomplete):
        client.request("GET /die?stream HTTP/1.1\nHost: h\n\n")
