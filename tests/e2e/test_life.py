"""What happens to clients while processes come and go."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from e2e.harness import COMMAND, DEADLINE, Forkd, Server, is_alive, wait_for
from e2e.rawhttp import Client
from e2e.visitors import Visitors
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

PROGRAMS = Path(__file__).parents[1] / "programs"

CONFIG = """
server.max-worker = {workers}
server.modules = ("mod_wstunnel", "mod_cgi")
wstunnel.server = ("/ws/" => ((
  "socket" => "@DIR@/echo.sock", "bin-path" => "@DIR@/echo_stream.py",
  "max-procs" => {procs}, "min-procs" => {procs}
)))
cgi.assign = (".cgi" => "")
{more}
"""
PATIENT = """#!/bin/sh
while [ ! -e @DIR@/go ]; do sleep 0.02; done
printf 'Content-Type: text/plain\\r\\n\\r\\nat last'
"""


def prepare(forkd: Forkd, more: str = "", workers: int = 2, procs: int = 1) -> Server:
    shutil.copy(PROGRAMS / "echo_stream.py", forkd.directory)
    config = CONFIG.format(more=more, workers=workers, procs=procs)
    return forkd.prepare(config, files={"root/x": "a file", "root/patient.cgi": PATIENT})


def start(forkd: Forkd, more: str = "", workers: int = 2, procs: int = 1) -> Server:
    server = prepare(forkd, more, workers, procs)
    server.launch([*COMMAND, "-D", "-f", str(server.config)], daemon=False)
    server.wait_ready()
    return server


def close_code(client: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=DEADLINE)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


# -- reload -------------------------------------------------------------------------------------


def test_no_visitor_notices_a_reload(forkd: Forkd) -> None:
    server = start(forkd)
    visitors = Visitors(server)
    with server.websocket() as tunnel, visitors.coming():
        for number in range(4):
            assert server.control("reload")["ok"]
            seen = visitors.served
            wait_for(lambda seen=seen: visitors.served > seen + 5)
            tunnel.send(str(number))
            assert tunnel.recv(timeout=DEADLINE) == str(number)
    assert visitors.problems == []


# -- signals ------------------------------------------------------------------------------------


def test_a_rotation_of_the_logs_touches_nobody(forkd: Forkd) -> None:
    server = start(
        forkd,
        'server.errorlog = "@DIR@/error.log"\naccesslog.filename = "@DIR@/access.log"\n'
        'server.modules += ("mod_accesslog")',
    )
    log, asked, visitors = forkd.directory / "access.log", 0, Visitors(server)
    with server.connect() as kept, server.websocket() as tunnel, visitors.coming():
        for number in (signal.SIGUSR1, signal.SIGHUP):
            log.rename(f"{log}.{number}")
            server.master().send_signal(number)
            seen = visitors.served
            wait_for(lambda seen=seen: log.exists() and visitors.served > seen + 5)
            assert kept.request("GET /x HTTP/1.1\nHost: a\n\n").status == 200
            asked += 1
            tunnel.send("x")
            assert tunnel.recv(timeout=DEADLINE) == "x"
    assert visitors.problems == []
    server.stop()
    lines = "".join(file.read_text() for file in forkd.directory.glob("access.log*")).splitlines()
    assert sum('"GET /x HTTP/1.1" 200 ' in line for line in lines) == visitors.served + asked
    assert len(lines) == visitors.served + asked + 1  # the tunnel
    assert all(line.startswith("127.0.0.1 ") for line in lines)


def test_workers_more_and_fewer_and_none(forkd: Forkd) -> None:
    server = start(forkd)
    for number, count in (("TTIN", 3), ("TTIN", 4), ("TTOU", 3), ("TTOU", 2), ("TTOU", 1)):
        server.master().send_signal(signal.Signals[f"SIG{number}"])
        wait_for(lambda count=count: len(ready(server)) == len(server.workers()) == count)
    server.master().send_signal(signal.SIGTTOU)
    server.wait_log("1 workers, no change possible")
    server.master().send_signal(signal.SIGWINCH)
    wait_for(lambda: server.workers() == [])
    server.master().send_signal(signal.SIGHUP)
    assert server.get("/x").status == 200
    wait_for(lambda: len(server.workers()) == 2)


def ready(server: Server) -> list[int]:
    return [one["pid"] for one in server.status()["workers"] if one["state"] == "ready"]


# -- stop ---------------------------------------------------------------------------------------


@contextmanager
def three_clients(server: Server) -> Iterator[tuple[Client, Client, ClientConnection]]:
    """One idle on a connection that is kept, one that waits for an answer, one with a tunnel."""
    with server.connect() as idle, server.connect() as waiting, server.websocket() as tunnel:
        assert idle.request("GET /x HTTP/1.1\nHost: a\n\n").status == 200
        waiting.send(b"GET /patient.cgi HTTP/1.1\r\nHost: a\r\n\r\n")
        tunnel.send("x")
        assert tunnel.recv(timeout=DEADLINE) == "x"
        wait_for(lambda: server.status()["totals"]["cgi_programs"] == 1)
        yield idle, waiting, tunnel


def test_term_is_polite_to_each(forkd: Forkd) -> None:
    server = start(forkd)
    with three_clients(server) as (idle, waiting, tunnel):
        server.master().send_signal(signal.SIGTERM)
        assert idle.read_all() == b""
        assert close_code(tunnel) == 1001
        (forkd.directory / "go").touch()
        answer = waiting.response()
        assert (answer.status, answer.body) == (200, b"at last")
        assert answer.field("Connection") == "close"
    assert server.process is not None and server.process.wait(DEADLINE) == 0


def test_quit_is_short_with_each(forkd: Forkd) -> None:
    server = start(forkd)
    with three_clients(server) as (idle, waiting, tunnel):
        processes = server.processes()
        server.master().send_signal(signal.SIGQUIT)
        assert idle.read_all() == b""
        assert close_code(tunnel) == 1001
        with suppress(ConnectionResetError):
            assert b"at last" not in waiting.read_all()
        assert server.wait_gone(processes) == 0


def test_nobody_else_in_the_callers_group_is_signalled(forkd: Forkd) -> None:
    server = prepare(forkd)
    command = f'sleep 600 & echo $! >bystander; exec "$@" -D -f {server.config}'
    server.launch(["sh", "-c", command, "sh", *COMMAND], daemon=False)
    server.wait_ready()
    forkd.allow_errors("worker .* died")
    bystander = psutil.Process(int((forkd.directory / "bystander").read_text()))
    assert os.getpgid(bystander.pid) == os.getpgid(server.pid)
    assert server.control("reload")["ok"]
    server.workers()[-1].kill()
    wait_for(lambda: len(server.workers()) == 2)
    server.master().send_signal(signal.SIGTERM)
    assert server.process is not None and server.process.wait(DEADLINE) == 0
    assert is_alive(bystander)
    bystander.kill()


# -- death --------------------------------------------------------------------------------------


def test_stuck_workers_leave_a_trace_or_are_killed(forkd: Forkd) -> None:
    server = start(forkd, "forkd.worker-timeout = 1")
    forkd.allow_errors("stuck, no sign of life", "died, signal")
    wakes, sleeps = server.workers()
    wakes.suspend()
    sleeps.suspend()
    server.wait_log(f"pid {wakes.pid}: stuck, no sign of life for 1 s; aborted")
    wakes.resume()  # it gets what it could not get before
    server.wait_log(f"pid {wakes.pid}: died, signal 6")
    assert "Fatal Python error: Aborted" in server.error_log()
    assert server.get("/x").status == 200
    server.wait_log(f"pid {sleeps.pid}: died, signal 9")
    wait_for(lambda: len(server.status()["workers"]) == 2)


def test_a_killed_server_can_be_started_again(forkd: Forkd) -> None:
    server = prepare(forkd)
    arguments = ("-f", str(server.config))
    assert forkd.run("start", *arguments).returncode == 0
    processes = server.processes()
    killed = server.pid
    psutil.Process(killed).kill()
    wait_for(lambda: not any(map(is_alive, processes)))
    assert forkd.run("status", *arguments).returncode == 1
    assert forkd.run("start", *arguments).returncode == 0
    assert server.pid != killed
    assert forkd.run("status", *arguments).returncode == 0
    assert server.get("/x").status == 200
    assert forkd.run("stop", *arguments).returncode == 0


def test_the_master_keeps_nothing_of_the_dead(forkd: Forkd) -> None:
    server = start(forkd, workers=10, procs=10)
    forkd.allow_errors("worker .* died", "backend .* died")
    master = server.master()

    def kill_all() -> None:
        victims = [*server.workers(), *server.backends()]
        assert len(victims) == 20
        # Who dies young is replaced later.
        wait_for(lambda: all(old_enough(victim) for victim in victims))
        for victim in victims:
            victim.kill()
        wait_for(lambda: not {*victims} & {*server.workers(), *server.backends()})
        wait_for(all_there)

    def all_there() -> bool:
        status = server.status()
        backends = [one for one in status["backends"] if one["pid"]]
        workers = [one for one in status["workers"] if one["state"] == "ready"]
        return len(workers) == len(backends) == 10

    kill_all()
    descriptors, memory = master.num_fds(), master.memory_info().rss
    kill_all()
    wait_for(lambda: master.num_fds() <= descriptors)
    assert master.memory_info().rss < memory + (1 << 20)


def old_enough(process: psutil.Process) -> bool:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    return uptime - ticks / os.sysconf("SC_CLK_TCK") > 1.2


# -- who accepts ----------------------------------------------------------------------------------


def test_tunnels_spread_evenly_and_a_new_worker_is_not_alone(forkd: Forkd) -> None:
    server = start(forkd, workers=4)
    forkd.allow_errors("worker .* died")
    tunnels = [tunnel(server) for _ in range(400)]
    wait_for(lambda: server.status()["totals"]["tunnels"] == 400)
    counts = [one["tunnels"] for one in server.status()["workers"]]
    assert len(counts) == 4 and min(counts) >= 80, counts
    victim = server.workers()[0]
    victim.kill()
    wait_for(lambda: victim not in server.workers() and len(server.workers()) == 4)
    wait_for(lambda: all(one["state"] == "ready" for one in server.status()["workers"]))
    before = requests(server)
    for _ in range(10):
        clients = [server.connect() for _ in range(40)]
        for client in clients:
            client.send(b"GET /x HTTP/1.0\r\n\r\n")
        for client in clients:
            assert client.response().status == 200
            client.close()
    wait_for(lambda: (requests(server) - before).total() == 400)
    new = server.workers()[-1].pid
    assert (requests(server) - before)[new] < 360
    for sock in tunnels:
        sock.close()


def tunnel(server: Server) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    sock.sendall(
        b"GET /ws/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert sock.recv(4096).startswith(b"HTTP/1.1 101")
    return sock


def requests(server: Server) -> Counter[int]:
    """Answered so far, by each worker."""
    return Counter({one["pid"]: one["requests"] for one in server.status()["workers"]})


# -- a full disk ----------------------------------------------------------------------------------


def test_a_full_disk_stops_no_server(forkd: Forkd) -> None:
    # By a variable: the device gives bytes without end to whoever reads what the log has.
    logs = 'var.full = "/dev/full"\nserver.errorlog = var.full\naccesslog.filename = var.full\n'
    server = start(forkd, logs + 'server.modules += ("mod_accesslog")')
    for _ in range(3):
        assert server.get("/x").status == 200
    assert server.control("reload")["ok"]
    assert server.get("/x").status == 200
