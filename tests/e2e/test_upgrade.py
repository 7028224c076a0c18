"""Upgrade in place: the program on disk takes over in the same process, and nobody notices."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from client_frames import BINARY, frame
from e2e.harness import COMMAND, DEADLINE, REPOSITORY, Forkd, Server, is_alive, wait_for
from e2e.rawhttp import Client
from e2e.visitors import Visitors
from h2_client import H2Client
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

PROGRAMS = Path(__file__).parents[1] / "programs"
CONFIG = f"""
server.modules = ( "mod_wstunnel", "mod_proxy" )
server.max-worker = 2
server.errorlog = "@DIR@/error.log"
wstunnel.server = ( "/ws/" => ( ( "socket" => "@DIR@/ws.sock", "max-procs" => 2, "min-procs" => 2,
    "bin-path" => "{sys.executable} {PROGRAMS}/echo_stream.py" ) ) )
proxy.server = ( "/proxy/" => ( ( "socket" => "@DIR@/proxy.sock", "max-procs" => 1,
    "bin-path" => "{sys.executable} {PROGRAMS}/http_switch.py" ) ) )
proxy.header = ( "upgrade" => "enable" )
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of this test's own, to be changed under a server that runs."""
    folder = tmp_path / "release" / "forkd"
    shutil.copytree(REPOSITORY / "forkd", folder)
    return folder


def start(forkd: Forkd, program: Path, **options: Any) -> Server:
    env = {"PYTHONPATH": str(program.parent)}
    server = forkd.start(CONFIG, env=env, **options)
    (server.root / "x").write_text("served")
    return server


def upgrade(forkd: Forkd, server: Server) -> subprocess.CompletedProcess[str]:
    return forkd.run("upgrade", "-f", str(server.config), timeout=90)


UPGRADE = (
    b"GET /proxy/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@contextmanager
def proxied_tunnel(server: Server) -> Iterator[Client]:
    """To a backend that sends every byte back as it is."""
    with server.connect() as client:
        client.send(UPGRADE)
        assert client.response().status == 101
        yield client


def talk(tunnel: ClientConnection, text: str = "hello") -> None:
    tunnel.send(text)
    assert tunnel.recv(timeout=DEADLINE) == text


@contextmanager
def tunnels(server: Server) -> Iterator[Callable[[], None]]:
    """One of each kind; the function sends something through all of them, there and back."""
    with (
        server.websocket("/ws/") as ws,
        proxied_tunnel(server) as proxied,
        H2Client(server.port) as client,
    ):
        stream = client.tunnel("/ws/")

        def talk_on_each() -> None:
            talk(ws)
            proxied.send(frame(BINARY, b"hello"))
            assert proxied.read(len(frame(BINARY, b"hello"))) == frame(BINARY, b"hello")
            stream.say(b"hello")
            assert stream.hear(5) == b"hello"

        talk_on_each()
        yield talk_on_each


def procs(server: Server) -> list[tuple[str, int, int, int]]:
    return [
        (one["address"], one["pid"], one["starts"], one["deaths"])
        for one in server.status()["backends"]
    ]


def lasting(server: Server) -> dict[str, Any]:
    """What a refused upgrade leaves as it was."""
    status = server.status()
    workers = [(one["pid"], one["generation"], one["state"]) for one in status["workers"]]
    return {"pid": status["pid"], "workers": workers, "procs": procs(server)}


def kill_a_proc(server: Server) -> None:
    """The last one, and wait for the next in its place."""
    address, pid, starts, _ = procs(server)[-1]
    psutil.Process(pid).kill()
    wait_for(
        lambda: [one for one in procs(server) if one[:1] + one[2:3] == (address, starts + 1)]
    )


def test_nobody_notices_an_upgrade(forkd: Forkd, program: Path) -> None:
    server = start(forkd, program, daemon=True)
    pid = server.pid
    forkd.allow_errors("died before serving")
    kill_a_proc(server)  # so that there is something to remember
    before, visitors = procs(server), Visitors(server)
    with tunnels(server) as talk_on_each, visitors.coming():
        done = upgrade(forkd, server)
        assert (done.returncode, done.stdout) == (0, "upgraded, generation 2\n"), done
        talk_on_each()
        uptime = server.status()["uptime"]
        server.master().send_signal(signal.SIGUSR2)
        wait_for(lambda: server.status()["generation"] == 3, DEADLINE * 3)
        talk_on_each()
        seen = visitors.served
        wait_for(lambda: visitors.served > seen + 5)
        status = server.status()
        assert status["totals"]["requests"] > seen  # those that other generations had
        assert (server.pid, status["pid"], procs(server)) == (pid, pid, before)
        assert status["uptime"] > uptime
        assert status["totals"]["tunnels"] == 3
        assert sum(one["load"] for one in status["backends"]) == 3
        assert {one["generation"] for one in status["workers"] if one["tunnels"]} == {1}
    assert visitors.problems == []
    wait_for(lambda: {one["generation"] for one in server.status()["workers"]} == {3})
    server.stop()
    assert not server.pid_file.exists()
    assert not server.control_socket.exists()
    assert list(server.directory.glob("*.sock*")) == []


def test_what_was_taken_over_is_looked_after(forkd: Forkd, program: Path) -> None:
    server = start(forkd, program)
    before = procs(server)
    old_workers = server.workers()
    with server.websocket() as tunnel, proxied_tunnel(server) as proxied:
        assert upgrade(forkd, server).returncode == 0
        kill_a_proc(server)
        (_, pid, starts, deaths), *others = reversed(procs(server))
        assert (starts, deaths) == (2, 1)
        assert list(reversed(others)) == before[:-1]
        assert "FORKD_STATE" not in psutil.Process(pid).environ()
        assert proxied.read_all() == b""  # its backend it was
        proxied.close()
        log = server.directory / "error.log"
        log.rename(server.directory / "error.log.1")
        server.control("reopen")
        talk(tunnel)
        tunnel.close()
        wait_for(lambda: re.search(r"tunnel \d+: closed, .* /ws/ to", log.read_text()))
        wait_for(lambda: not any(map(is_alive, old_workers)))
        with server.websocket() as another:
            assert server.control("reload")["generation"] == 3
            talk(another)
            processes = server.processes()
            server.master().send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as ended:
                another.recv(timeout=DEADLINE)
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.code == 1001
    assert server.wait_gone(processes) == 0


def test_what_is_refused_changes_nothing(forkd: Forkd, program: Path) -> None:
    server = start(forkd, program)
    before = lasting(server)
    forkd.allow_errors("upgrade: ")
    with tunnels(server) as talk_on_each:
        good = server.config.read_text()
        server.config.write_text(good + "nonsense\n")
        refused = upgrade(forkd, server)
        assert refused.returncode == 6
        assert f"{server.config}:" in refused.stderr
        server.config.write_text(good)
        (program / "master" / "loop.py").write_text("import no_such_module\n")
        refused = upgrade(forkd, server)
        assert refused.returncode == 1
        assert "No module named 'no_such_module'" in refused.stderr
        assert lasting(server) == before
        talk_on_each()
    assert "Traceback" in server.error_log()
    assert server.get("/x").body == b"served"


def test_a_stop_that_comes_in_between_is_not_lost(forkd: Forkd, program: Path) -> None:
    server = start(forkd, program)
    processes = server.processes()
    server.master().send_signal(signal.SIGUSR2)
    server.wait_log("becomes the program on disk")
    server.master().send_signal(signal.SIGTERM)
    assert server.wait_gone(processes) == 0
    assert "server stopped" in server.error_log()
    assert not server.pid_file.exists()


def test_the_configuration_may_change_with_the_program(forkd: Forkd, program: Path) -> None:
    server = start(forkd, program, daemon=True)
    before = {address: pid for address, pid, *_ in procs(server)}
    version = program / "__init__.py"
    version.write_text(version.read_text().replace("__version__ = ", "__version__ = 'new ' + "))
    text = server.config.read_text()
    text = text.replace('"max-procs" => 1', '"max-procs" => 1, "kill-signal" => 2')
    path = server.directory / "more.sock"
    server.config.write_text(f'{text}\n$SERVER["socket"] == "{path}" {{ }}\n')
    with tunnels(server) as talk_on_each:
        assert upgrade(forkd, server).returncode == 0
        talk_on_each()
        status = server.status()
        assert status["version"].startswith("new ")
        assert str(path) in status["listeners"]
        assert path.is_socket()
    kept = [one for one in procs(server) if "ws.sock" in one[0]]
    assert [pid for _, pid, *_ in kept] == [before[address] for address, *_ in kept]
    proxy = str(server.directory / "proxy.sock-0")
    wait_for(lambda: [one[1] for one in procs(server) if one[0] == proxy] != [before[proxy]])


def test_a_program_whose_workers_fail_leaves_the_old_ones(forkd: Forkd, program: Path) -> None:
    server = start(forkd, program)
    flaw = server.directory / "flaw"
    flaw.touch()
    with (program / "worker" / "worker.py").open("a") as file:
        file.write(
            "\n\ndef fail_or_not(start, main=main):\n"
            f"    return 7 if __import__('os').path.exists({str(flaw)!r}) else main(start)\n\n\n"
            "main = fail_or_not\n"
        )
    forkd.allow_errors("reload: ", "died")
    with tunnels(server) as talk_on_each:
        failed = upgrade(forkd, server)
        assert failed.returncode == 1
        assert "died before it was ready, status 7" in failed.stderr
        assert server.status()["generation"] == 1
        talk_on_each()
        assert server.get("/x").body == b"served"
        flaw.unlink()
    old = {one["pid"] for one in server.status()["workers"] if one["generation"] == 1}
    psutil.Process(min(old)).kill()  # it cannot be replaced alone
    server.wait_log("is of another program")
    wait_for(lambda: server.status()["generation"] > 1, DEADLINE * 3)
    assert server.get("/x").body == b"served"


def test_a_service_manager_and_its_sockets_stay(forkd: Forkd, program: Path) -> None:
    env = {
        "PYTHONPATH": str(program.parent),
        "NOTIFY_SOCKET": str(forkd.directory / "notify"),
        "WATCHDOG_USEC": "60000000",
    }
    config = (
        'server.bind = "fd:web"\nserver.max-worker = 1\n'
        'server.modules = ("mod_cgi")\ncgi.assign = (".cgi" => "")\n'
    )
    show = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'; env\n"
    server = forkd.prepare(config, env=env, files={"root/x": "served", "root/env.cgi": show})
    activate = (sys.executable, str(PROGRAMS / "activate.py"), f"web=127.0.0.1:{server.port}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(env["NOTIFY_SOCKET"])
        manager.settimeout(DEADLINE)
        server.launch([*activate, "--", *COMMAND, "-D", "-f", str(server.config)], daemon=False)
        server.wait_ready()
        assert upgrade(forkd, server).returncode == 0
        said = [manager.recv(4096).decode().split("=1")[0] for _ in range(7)]
        starts, reloads = ["READY", "WATCHDOG"], ["RELOADING", "READY"]
        assert said == [*starts, *(reloads[:1] + starts), *reloads]
    variables = server.get("/env.cgi").body.decode().splitlines()
    theirs = ("NOTIFY_", "WATCHDOG_", "LISTEN_", "FORKD_STATE")
    assert variables and not [one for one in variables if one.startswith(theirs)]
    assert server.get("/x").body == b"served"
    assert server.control("reload")["generation"] == 3
    assert server.get("/x").body == b"served"
