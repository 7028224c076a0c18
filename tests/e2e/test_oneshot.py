"""The server that is nobody's server: one client on standard input, or an end when nobody comes."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from client_frames import TEXT, close, frame
from e2e.harness import COMMAND, Forkd, Server, wait_for

PROGRAMS = Path(__file__).parents[1] / "programs"

CONFIG = """
server.modules = ("mod_wstunnel", "mod_cgi")
cgi.assign = (".cgi" => "")
"""
TUNNEL = """
wstunnel.server = ("/ws/" => ((
  "socket" => "@DIR@/echo.sock", "bin-path" => "@DIR@/echo_stream.py", "max-procs" => 1
)))
"""
FILES = {
    "root/x": "a file",
    "root/hello.cgi": '#!/bin/sh\nprintf "Status: 200\\r\\n\\r\\nhello $REMOTE_ADDR"\n',
}
HANDSHAKE = (
    b"GET /ws/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def prepare(forkd: Forkd, more: str = "") -> Server:
    shutil.copy(PROGRAMS / "echo_stream.py", forkd.directory)
    return forkd.prepare(CONFIG + more, files=FILES)


def visit(
    forkd: Forkd, server: Server, stdin: socket.socket | int, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "-1", "-f", str(server.config)],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=forkd.environment(),
        cwd=forkd.directory,
    )


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(15)
    return ours, theirs


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_two_requests_on_one_socket(
    forkd: Forkd, pair: tuple[socket.socket, socket.socket]
) -> None:
    server = prepare(forkd)
    ours, theirs = pair
    process = visit(forkd, server, theirs)
    theirs.close()
    ours.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /hello.cgi HTTP/1.0\r\n\r\n")
    first, _, second = read_all(ours).partition(b"a file")
    assert first.startswith(b"HTTP/1.1 200") and second.startswith(b"HTTP/1.0 200")
    assert b"\r\n\r\nhello " in second
    ours.close()
    assert process.wait(15) == 0
    assert not server.pid_file.exists()


def test_a_pair_of_pipes(forkd: Forkd) -> None:
    server = prepare(forkd)
    process = visit(forkd, server, subprocess.PIPE, subprocess.PIPE)
    out, _ = process.communicate(b"GET /x HTTP/1.0\r\n\r\n", timeout=15)
    assert out.startswith(b"HTTP/1.0 200") and out.endswith(b"a file")
    assert process.returncode == 0


def test_a_file_is_no_client(forkd: Forkd) -> None:
    server = prepare(forkd)
    with server.config.open() as file:
        process = visit(forkd, server, file.fileno())
        _, said = process.communicate(timeout=15)
    assert process.returncode == 255
    assert b"-1: standard input is not a socket" in said


def test_a_tunnel_to_a_program_of_its_own(
    forkd: Forkd, pair: tuple[socket.socket, socket.socket]
) -> None:
    server = prepare(forkd, TUNNEL)
    ours, theirs = pair
    process = visit(forkd, server, theirs)
    theirs.close()
    ours.sendall(HANDSHAKE)
    assert ours.recv(4096).startswith(b"HTTP/1.1 101")
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2  # the keeper, and its program
    ours.sendall(frame(TEXT, b"hi"))
    assert ours.recv(100) == b"\x81\x02hi"
    ours.sendall(close(1000))
    ours.recv(100)
    ours.close()
    assert process.wait(15) == 0
    assert not any(one.is_running() for one in family)
    assert not list(forkd.directory.glob("echo.sock*"))


def test_a_program_that_cannot_be_started(
    forkd: Forkd, pair: tuple[socket.socket, socket.socket]
) -> None:
    server = prepare(forkd, TUNNEL)
    (forkd.directory / "echo_stream.py").write_text("#!/missing/interpreter\n")
    ours, theirs = pair
    process = visit(forkd, server, theirs)
    theirs.close()
    _, said = process.communicate(timeout=15)
    assert process.returncode == 255
    assert b"echo.sock-0: cannot start" in said
    ours.close()


def test_term_ends_it(forkd: Forkd, pair: tuple[socket.socket, socket.socket]) -> None:
    server = prepare(forkd, TUNNEL)
    ours, theirs = pair
    process = visit(forkd, server, theirs)
    theirs.close()
    ours.sendall(HANDSHAKE)
    assert ours.recv(4096).startswith(b"HTTP/1.1 101")
    process.send_signal(signal.SIGTERM)
    assert ours.recv(100) == b"\x88\x02\x03\xe9"  # Close 1001
    ours.close()
    assert process.wait(15) == 0


def test_it_stops_when_nobody_comes_any_more(forkd: Forkd) -> None:
    server = prepare(forkd, TUNNEL)
    server.launch([*COMMAND, "-D", "-i", "2", "-f", str(server.config)], daemon=False)
    server.wait_ready()
    assert server.process is not None
    with server.websocket() as client:
        client.send("x")
        assert client.recv(timeout=10) == "x"
        assert server.control("reload")["ok"]  # the tunnel is an old generation's now
        opened = time.monotonic()
        wait_for(lambda: time.monotonic() - opened > 3)
        assert server.process.poll() is None
        left = time.monotonic()
    assert server.process.wait(15) == 0
    assert time.monotonic() - left >= 2
    assert "server stopped after idle timeout" in server.error_log()
