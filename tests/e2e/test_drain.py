"""Workers that others have replaced: their tunnels live on, and end when they are told to."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import Forkd, Server, wait_for
from h2_client import H2Client
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

PROGRAMS = Path(__file__).parents[1] / "programs"

CONFIG = """
server.max-worker = {workers}
server.modules = ("mod_wstunnel", "mod_cgi")
wstunnel.server = ("/ws/" => ((
  "socket" => "@DIR@/echo.sock", "bin-path" => "@DIR@/echo_stream.py", "max-procs" => 1
)))
cgi.assign = (".py" => "")
cgi.upgrade = "enable"
{more}
"""


def start(forkd: Forkd, more: str = "", workers: int = 1) -> Server:
    shutil.copy(PROGRAMS / "echo_stream.py", forkd.directory)
    (forkd.directory / "root").mkdir()
    shutil.copy(PROGRAMS / "switch.py", forkd.directory / "root")
    return forkd.start(CONFIG.format(more=more, workers=workers), files={"root/x": "x"})


def reload(server: Server, more: str = "") -> None:
    server.config.write_text(server.config.read_text() + more + "\n")
    assert server.control("reload")["ok"]


def echoes(client: ClientConnection) -> bool:
    client.send("here")
    return client.recv(timeout=10) == "here"


def closed(client: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=30)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


def generations(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.status()["generations"]
    return found


def states(server: Server) -> list[str]:
    return sorted(one["state"] for one in server.status()["workers"])


def test_tunnels_end_at_the_deadline_of_the_newest_configuration(forkd: Forkd) -> None:
    server = start(forkd, "forkd.drain-spread = 1", workers=2)
    clients = [server.websocket(legacy=True) for _ in range(20)]
    program = server.connect()
    program.send(
        b"GET /switch.py?cat HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    )
    assert program.response().status == 101
    h2 = H2Client(server.port)
    stream = h2.tunnel("/ws/")
    wait_for(lambda: generations(server)[0]["tunnels"] == 22)
    begun = time.monotonic()
    reload(server, "forkd.drain-timeout = 1")
    assert all(map(echoes, clients))
    old, new = generations(server)
    assert (old["number"], old["workers"], old["tunnels"], new["tunnels"]) == (1, 2, 22, 0)
    assert old["draining"] >= 0 and new["draining"] is None
    assert closed(clients[0]) == 1012
    assert time.monotonic() - begun >= 1
    assert {closed(client) for client in clients[1:]} == {1012}
    assert stream.hear_close() == 1012
    h2.close()
    assert program.read_all() == b"bye"  # it was told by the end of its input
    program.close()
    server.wait_log("generation 1: gone")


def test_the_oldest_generation_gives_way(forkd: Forkd) -> None:
    server = start(forkd, "forkd.max-generations = 2\nforkd.drain-spread = 0")
    with server.websocket() as first:
        assert echoes(first)
        reload(server)
        with server.websocket() as second:
            assert echoes(first) and echoes(second)
            reload(server)
            assert closed(first) == 1012
            assert echoes(second)
            server.wait_log("generation 1: gone")
            assert [one["number"] for one in generations(server)] == [2, 3]


def test_a_spent_worker_is_replaced_and_keeps_its_tunnel(forkd: Forkd) -> None:
    server = start(forkd, "forkd.max-requests = 10\nforkd.max-requests-jitter = 5")
    (first,) = server.workers()
    with server.websocket() as tunnel:
        asked = 0
        while server.error_log().count("spent, is replaced") < 3:
            assert server.get("/x").status == 200
            asked += 1
        assert asked >= 30
        wait_for(lambda: states(server) == ["draining", "ready"])
        assert first in server.workers()
        assert echoes(tunnel)
    wait_for(lambda: states(server) == ["ready"])
    assert first not in server.workers()
    assert server.status()["totals"]["requests"] == asked + 1
