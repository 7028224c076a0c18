"""One server with all five gateways, in the clear on one port and by TLS on another, and every way
in which the HTTP/2 tests look at it."""

from __future__ import annotations

import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from authority import Authority, Issued
from client_frames import close
from e2e.harness import Forkd, Server, free_port
from echo_server import echo_server
from h2_client import H2Client, Stream

PROGRAMS = Path(__file__).parents[1] / "programs"

GATEWAYS = ("wstunnel", "proxy", "cgi", "scgi", "fastcgi")
RELAYS = GATEWAYS[1:]
"""Those that answer ordinary requests too, all with the same application (echo_app)."""

FILE = bytes(range(256)) * 4096
"""What /static.bin is."""

CONFIG = """
server.modules = ( "mod_cgi", "mod_wstunnel", "mod_proxy", "mod_scgi", "mod_fastcgi", "mod_setenv",
                   "mod_openssl", "mod_accesslog" )
server.max-worker = 1
server.max-read-idle = 600
accesslog.filename = "@DIR@/access.log"
accesslog.format = "%m %U %>s %I %O"
forkd.http2-max-streams = 200
ssl.pemfile = "@DIR@/own.pem"
ssl.privkey = "@DIR@/own.key"
$SERVER["socket"] == "127.0.0.1:{tls}" {{ ssl.engine = "enable" }}
$HTTP["host"] == "other.example" {{
  ssl.pemfile = "@DIR@/other.pem"
  ssl.privkey = "@DIR@/other.key"
}}
wstunnel.server = ( "/ws/" => (( "host" => "127.0.0.1", "port" => {echo} )),
                    "/stall/" => (( "host" => "127.0.0.1", "port" => {stall} )),
                    "/say/" => {say} )
$HTTP["url"] =~ "^/say/" {{ wstunnel.frame-type = "binary" }}
proxy.server = ( "/proxy/" => {proxy} )
proxy.header = ( "upgrade" => "enable" )
$HTTP["url"] =~ "^/cgi/" {{
  cgi.assign = ( ".py" => "" )
  cgi.upgrade = "enable"
  cgi.limits = ( "grace-timeout" => 1 )
  setenv.add-environment = ( "EVENTS" => "@DIR@/events.cgi" )
}}
scgi.server = ( "/scgi/" => {scgi}, "/plain/" => {plain} )
fastcgi.server = ( "/fastcgi/" => {fastcgi} )
"""
UPGRADE = '"upgrade" => "enable"'
PROGRAM = """((
    "host" => "127.0.0.1", "port" => {port}, "bin-path" => "{python} {programs}/{name}.py",
    "bin-environment" => ( "EVENTS" => "@DIR@/events" ),
    "check-local" => "disable", "max-procs" => 1, {more}
  ))"""
"""On TCP, where a reset is not the same as an end."""

APPLICATION = f"""#!{sys.executable} -IS
import sys
sys.dont_write_bytecode = True
sys.path.append({str(PROGRAMS)!r})
import cgi_app
"""

SECURITY = pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])


def path_of(gateway: str, action: str = "ws") -> str:
    """Where *gateway* has the *action* of echo_app; wstunnel only echoes."""
    if gateway == "wstunnel":
        return "/ws/"
    return f"/cgi/app.py/{action}" if gateway == "cgi" else f"/{gateway}/{action}"


@dataclass
class Site:
    forkd: Forkd
    server: Server
    tls_port: int
    authority: Authority
    own: Issued
    """Its certificate for localhost."""
    other: Issued
    """That for other.example."""
    stall: socket.socket
    """Listens for a tunnel below /stall/."""

    def url(self, path: str, tls: bool = True) -> str:
        return f"https://localhost:{self.tls_port}{path}" if tls else f"{self.server.url}{path}"

    def client(self, tls: bool = False) -> H2Client:
        if not tls:
            return H2Client(self.server.port)
        context = self.authority.client()
        context.set_alpn_protocols(["h2"])
        client = H2Client(self.tls_port, context)
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.selected_alpn_protocol() == "h2"
        return client

    def secured(self, name: str = "localhost", alpn: str = "http/1.1") -> ssl.SSLSocket:
        """A connection by TLS on which nothing has been said."""
        context = self.authority.client()
        context.set_alpn_protocols([alpn])
        plain = socket.create_connection(("127.0.0.1", self.tls_port), 15)
        return context.wrap_socket(plain, server_hostname=name)

    def worker(self) -> psutil.Process:
        [worker] = self.server.workers()
        return worker

    def events(self, gateway: str) -> list[str]:
        """What the programs behind *gateway* have noted."""
        path = self.server.directory / ("events.cgi" if gateway == "cgi" else "events")
        return path.read_text().splitlines() if path.exists() else []

    def forget_events(self) -> None:
        for path in self.server.directory.glob("events*"):
            path.unlink()


def program(name: str, port: int, more: str = "") -> str:
    """A program that forkd starts, as a host in the configuration."""
    return PROGRAM.format(port=port, python=sys.executable, programs=PROGRAMS, name=name, more=more)


def free_ports(count: int) -> list[int]:
    """As many different ones."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


@contextmanager
def site_with(forkd: Forkd) -> Iterator[Site]:
    """A running server."""
    clear, tls, *others = free_ports(7)
    authority = Authority(forkd.directory / "authority")
    own, other = authority.issue("localhost"), authority.issue("other.example")
    with echo_server(0) as echo, socket.create_server(("127.0.0.1", 0)) as stall:
        install(forkd, own, "own")
        install(forkd, other, "other")
        config = CONFIG.format(
            tls=tls,
            echo=echo.getsockname()[1],
            stall=stall.getsockname()[1],
            say=program("say", others[0]),
            proxy=program("http_echo", others[1]),
            scgi=program("scgi_echo", others[2], UPGRADE),
            plain=program("scgi_echo", others[3]),
            fastcgi=program("fastcgi_echo", others[4], UPGRADE),
        )
        files: dict[str, str | bytes] = {"root/static.bin": FILE, "root/cgi/app.py": APPLICATION}
        server = forkd.start(config, files=files, port=clear)
        yield Site(forkd, server, tls, authority, own, other, stall)


@contextmanager
def shared_site(factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For a fixture of module scope; fails when the server leaves a process or error behind."""
    forkd = Forkd(factory.mktemp("http2"))
    with site_with(forkd) as site:
        try:
            yield site
        finally:
            problems = forkd.finish()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def install(forkd: Forkd, issued: Issued, name: str) -> None:
    """Put a certificate where the configuration looks for it."""
    shutil.copy(issued.certificate, forkd.directory / f"{name}.pem")
    shutil.copy(issued.key, forkd.directory / f"{name}.key")


def close_cleanly(client: H2Client, stream: Stream) -> None:
    """As Chromium does: the Close frame, and the end of the stream with it."""
    stream.send(close(1000), end=True)
    assert stream.hear_close() == 1000
    client.finished(stream)
    assert stream.ended and stream.reset is None


def variables(text: bytes) -> dict[str, str]:
    """What echo_app says to /env and /tell."""
    lines = text.decode("latin-1").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def pss(process: psutil.Process) -> int:
    """Bytes of memory that are its own, and its part of what it shares."""
    return int(process.memory_full_info().pss)
