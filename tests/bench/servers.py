"""The servers that are compared, in front of the same programs, each on a port of its own.

Everything lies in one temporary folder: programs, sockets, configurations, logs.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

COMMON = """
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.max-fds = 20000
server.max-connections = 8000
server.max-keep-alive-requests = 60000
server.max-read-idle = 600
"""

ECHO = """
server.modules = ("mod_wstunnel")
wstunnel.server = ("" => (("socket" => "{folder}/echo.sock")))
wstunnel.frame-type = "{frame_type}"
"""

H2 = """
server.modules = ("mod_wstunnel", "mod_proxy")
server.feature-flags = ("server.h2proto" => "enable", "server.h2c" => "enable")
$HTTP["url"] =~ "^/relayed" {{
    proxy.server = ("" => (("socket" => "{folder}/ws.sock")))
    proxy.header = ("upgrade" => "enable")
}} else {{
    wstunnel.server = ("" => (("socket" => "{folder}/echo.sock")))
    wstunnel.frame-type = "binary"
}}
"""

TLS = """
ssl.engine = "enable"
ssl.pemfile = "{folder}/127.0.0.1.both"
"""

HAPROXY = """
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s unix@{folder}/ws.sock
"""

LIGHTTPD = 'server.errorlog = "{folder}/lighttpd.log"\n'

ONE_WORKER = 'server.max-worker = 1\nserver.pid-file = "{folder}/forkd.pid"\n'

FORKD = [sys.executable, "-m", "forkd", "-D", "-f"]


class CannotStart(Exception):
    """A program that is needed is missing or does not come up; the text says which and why."""


@dataclass(frozen=True)
class Subject:
    """A running server: its name in the tables, its port, its process with all descendants, and
    the path to ask for."""

    name: str
    port: int
    pid: int
    path: str = "/"


@contextmanager
def workshop(*programs: str) -> Iterator[Path]:
    """A folder with *programs* (C files beside this one) built in it."""
    with tempfile.TemporaryDirectory(prefix="forkd-bench-") as name:
        folder = Path(name)
        for program in programs:
            _compile(HERE / f"{program}.c", folder / program)
        yield folder


@contextmanager
def tunnels(folder: Path, binary: bool) -> Iterator[list[Subject]]:
    """Both servers as tunnels to the echo program."""
    frame_type = "binary" if binary else "text"
    echo = [str(folder / "echo_backend"), f"{folder}/echo.sock"]
    with _running(echo, folder), subjects(folder, ECHO, frame_type=frame_type) as servers:
        yield servers


@contextmanager
def tunnels_over_h2(folder: Path) -> Iterator[list[Subject]]:
    """Who ends the WebSocket: lighttpd and forkd; who relays it: forkd and HAProxy."""
    echo = [str(folder / "echo_backend"), f"{folder}/echo.sock"]
    echo_ws = [str(folder / "echo_backend"), "--ws", f"{folder}/ws.sock"]
    with (
        _running(echo, folder),
        _running(echo_ws, folder),
        subjects(folder, H2) as servers,
        _serving("haproxy", [_installed("haproxy"), "-f"], HAPROXY, folder) as haproxy,
    ):
        lighttpd, forkd = servers
        relays = (replace(forkd, name="forkd relays"), replace(haproxy, name="haproxy relays"))
        yield [lighttpd, forkd, *(replace(server, path="/relayed") for server in relays)]


@contextmanager
def forkd_over_tls(folder: Path) -> Iterator[Subject]:
    """forkd alone, with a certificate for 127.0.0.1 from *folder*."""
    echo = [str(folder / "echo_backend"), f"{folder}/echo.sock"]
    config = COMMON + ONE_WORKER + H2 + TLS
    with _running(echo, folder), _serving("forkd", FORKD, config, folder) as server:
        yield server


@contextmanager
def subjects(folder: Path, config: str, **values: str) -> Iterator[list[Subject]]:
    """lighttpd and forkd with one worker, serving *config*; ended on the way out."""
    lighttpd = [_installed("lighttpd"), "-D", "-f"]
    with (
        _serving("lighttpd", lighttpd, COMMON + LIGHTTPD + config, folder, **values) as one,
        _serving("forkd", FORKD, COMMON + ONE_WORKER + config, folder, **values) as other,
    ):
        yield [one, other]


@contextmanager
def _serving(
    name: str, command: list[str], config: str, folder: Path, **values: str
) -> Iterator[Subject]:
    """*command* with the file that *config* has become, once its port can be reached."""
    port = _free_port()
    file = folder / f"{name}.conf"
    file.write_text(config.format(folder=folder, port=port, **values))
    with _running([*command, str(file)], folder) as process:
        _wait_for_port(name, port, process, folder)
        yield Subject(name, port, process.pid)


def _installed(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise CannotStart(f"{name} is not installed")
    return found


def _compile(source: Path, target: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotStart("a C compiler is not installed")
    subprocess.run([compiler, "-O2", "-o", str(target), str(source)], check=True)


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (folder / "output.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_port(
    name: str, port: int, process: subprocess.Popen[bytes], folder: Path, deadline: float = 15
) -> None:
    end = time.monotonic() + deadline
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise CannotStart(f"{name} does not serve:\n{(folder / 'output.log').read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
