"""Requests and tunnels that share a FastCGI connection, and applications that have other habits."""

from __future__ import annotations

import hashlib
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e.harness import REPOSITORY, Forkd, Server, wait_for
from e2e.rawhttp import Client, Incomplete, Response
from h2_client import H2Client

PROGRAM = Path(__file__).parents[1] / "programs" / "fastcgi_mux.py"

CONFIG = """
server.modules += ("mod_fastcgi")
server.max-worker = {workers}
server.stream-request-body = 1
server.stream-response-body = 1
fastcgi.server = ("/" => ((
    "socket" => "@DIR@/app.sock",
    "bin-path" => "{python} {program}",
    "bin-environment" => ("EVENTS" => "@DIR@/events", {environment}),
    "check-local" => "disable", "max-procs" => {procs}, "upgrade" => "enable", {options}
)))
"""

SHARED = '"multiplex" => "auto"'

Start = Callable[..., Server]


@pytest.fixture
def start(forkd: Forkd) -> Start:
    def start(
        options: str = SHARED, workers: int = 1, procs: int = 1, **environment: object
    ) -> Server:
        return forkd.start(
            CONFIG.format(
                python=sys.executable,
                program=PROGRAM,
                options=options,
                workers=workers,
                procs=procs,
                environment=", ".join(f'"{k}" => "{v}"' for k, v in environment.items()),
            )
        )

    return start


def diary(server: Server, first: str) -> list[list[str]]:
    """The entries that begin with the word *first*."""
    path = server.directory / "events"
    lines = path.read_text().splitlines() if path.exists() else []
    return [words for words in map(str.split, lines) if words[0] == first]


def place(response: Response) -> tuple[str | None, str | None]:
    """(connection, number) of a request."""
    assert response.status == 200, response
    return response.field("X-Connection"), response.field("X-Request")


def quiet(server: Server) -> Client:
    """The client of a request that is under way until it leaves."""
    before = len(diary(server, "quiet"))
    client = server.connect()
    client.send(b"GET /quiet HTTP/1.1\r\nHost: h\r\n\r\n")
    wait_for(lambda: len(diary(server, "quiet")) > before, what="the request has begun")
    return client


def leave(client: Client) -> None:
    """With a reset: whoever only ends its direction may still be listening."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def switched(client: Client, path: str) -> None:
    ask = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
    client.send(ask.encode())
    assert client.response().status == 101


# -- sharing ------------------------------------------------------------------------------------


def test_fifty_tunnels_and_fifty_requests_on_one_connection(start: Start) -> None:
    """One client has stopped reading, one sends 64 MiB: the others do not notice."""
    server = start()
    size = 64 << 20
    with ExitStack() as stack:
        tunnels = [stack.enter_context(server.websocket("/ws")) for _ in range(49)]
        deaf = stack.enter_context(server.connect())
        switched(deaf, f"/flood?{4 << 20}")
        uploader = stack.enter_context(server.connect(60))
        head = f"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n"
        answers: list[Response] = []

        def upload() -> None:
            uploader.send(head.encode())
            for _ in range(size >> 20):
                uploader.send(bytes(1 << 20))
            answers.append(uploader.response())

        thread = threading.Thread(target=upload)
        thread.start()
        clients = [stack.enter_context(server.connect()) for _ in range(50)]
        [worker] = server.workers()
        memory = []
        rounds = 0
        while thread.is_alive() or rounds < 3:
            for number, tunnel in enumerate(tunnels):
                tunnel.send(f"{rounds} {number}")
            for client in clients:
                client.send(b"GET /env HTTP/1.1\r\nHost: h\r\n\r\n")
            for client in clients:
                assert place(client.response())[0] == "1"
            for number, tunnel in enumerate(tunnels):
                assert tunnel.recv() == f"{rounds} {number}"
            memory.append(worker.memory_full_info().uss)
            rounds += 1
        thread.join()
        assert answers[0].text == f"{size} {hashlib.sha1(bytes(size)).hexdigest()}"
        assert max(memory) < 40 << 20
        assert deaf.read(4 << 20) == bytes(range(256)) * (4 << 20 >> 8)
    assert diary(server, "accept") == [["accept", "1"]]
    assert len(diary(server, "asked")) == 1


def test_streams_of_http2_share_one_too(start: Start) -> None:
    server = start()
    with H2Client(server.port) as client:
        tunnels = [client.tunnel("/ws") for _ in range(20)]
        for number, tunnel in enumerate(tunnels):
            tunnel.say(b"%02d" % number)
        requests = [client.request("/env") for _ in range(20)]
        assert {client.finished(request).status for request in requests} == {200}
        assert [tunnel.hear(2) for tunnel in tunnels] == [b"%02d" % n for n in range(20)]
        client.h2.reset_stream(tunnels[4].id)
        client.flush()
        wait_for(lambda: diary(server, "abort") == [["abort", "5"]], what="one is aborted")
        tunnels[5].say(b"alive")
        assert tunnels[5].hear(5) == b"alive"
    assert diary(server, "accept") == [["accept", "1"]]


def test_a_client_for_whom_too_much_waits_is_cut(start: Start) -> None:
    server = start()
    with server.connect() as deaf, server.websocket("/ws") as tunnel:
        switched(deaf, f"/flood?{64 << 20}")
        wait_for(lambda: diary(server, "abort"), what="the flood is stopped")
        tunnel.send("still here")
        assert tunnel.recv() == "still here"
        server.wait_log("tunnel 2: closed, .* backend_lost:.* client that does not take them")
        with pytest.raises((OSError, Incomplete)):
            deaf.read(64 << 20)


def test_a_slow_reader_that_is_alone_is_waited_for(start: Start) -> None:
    server = start()
    size = 64 << 20
    with server.connect(60) as deaf:
        switched(deaf, f"/flood?{size}")
        wait_for(lambda: diary(server, "begin"), what="the flood has begun")
        got = 0
        while got < size:
            got += len(deaf.read(1 << 20))
    assert got == size and diary(server, "abort") == []


def test_numbers_are_dense_and_used_again(start: Start) -> None:
    server = start()
    first, second = quiet(server), quiet(server)
    assert place(server.get("/env")) == ("1", "3")
    leave(first)
    wait_for(lambda: diary(server, "abort") == [["abort", "1"]], what="the application is told")
    wait_for(lambda: place(server.get("/env")) == ("1", "1"), what="the number is free")
    leave(second)


def test_a_connection_without_requests_is_closed_after_a_while(start: Start) -> None:
    server = start(SHARED + ', "pool-idle" => 1')
    assert place(server.get("/env")) == place(server.get("/env")) == ("1", "1")
    wait_for(lambda: diary(server, "end"), what="the connection is closed")
    assert place(server.get("/env")) == ("2", "1")
    assert len(diary(server, "asked")) == 1


def test_a_connection_has_its_share_and_the_pool_its_connections(start: Start) -> None:
    server = start('"multiplex" => 2, "pool" => 2')
    clients = [quiet(server) for _ in range(4)]
    begun = sorted(words[1:3] for words in diary(server, "begin"))
    assert begun == [["1", "1"], ["1", "2"], ["2", "1"], ["2", "2"]]
    for client in clients:
        leave(client)


def test_no_more_requests_than_the_application_takes(start: Start) -> None:
    server = start(REQUESTS=2)
    first, second = quiet(server), quiet(server)
    with ExitStack() as stack:
        waiting = [stack.enter_context(server.connect()) for _ in range(5)]
        for client in waiting:
            client.send(b"GET /env HTTP/1.1\r\nHost: h\r\n\r\n")
        leave(first)
        assert {place(client.response()) for client in waiting} == {("1", "1")}
    leave(second)


def test_what_is_aborted_counts_until_the_application_ends_it(start: Start) -> None:
    server = start(HABIT="deaf")

    def load() -> int:
        (backend,) = server.status()["backends"]
        return int(backend["load"])

    leave(quiet(server))
    wait_for(lambda: diary(server, "abort"), what="the application is told")
    assert load() == 1
    wait_for(lambda: not load(), what="the connection is given up")


def test_of_too_few_connections_no_worker_takes_all(start: Start) -> None:
    server = start(workers=2, CONNECTIONS=1)
    assert place(server.get("/env"))[1] == "1"
    server.wait_log("app.sock-0: takes 1 connections, and there are 2 workers")
    assert diary(server, "begin")[0][3] == "closes"


# -- other habits -------------------------------------------------------------------------------


@pytest.mark.parametrize("habit", ["single", "silent", "unknown", "close", "garbage"])
def test_applications_that_take_one_at_a_time(start: Start, habit: str) -> None:
    server = start(HABIT=habit)
    client = quiet(server)
    assert place(server.get("/env")) == ("3", "1")
    with server.websocket("/ws") as tunnel:
        tunnel.send(b"x")
        assert tunnel.recv() == b"x"
    leave(client)
    assert len(diary(server, "asked")) == 1
    assert {words[3] for words in diary(server, "begin")} == {"closes"}


def test_without_the_option_nobody_is_asked(start: Start) -> None:
    server = start('"multiplex" => 0')
    assert place(server.get("/env")) == ("1", "1")
    assert place(server.get("/env")) == ("2", "1")
    assert diary(server, "asked") == []


def test_an_application_that_refuses_to_share_after_all(start: Start) -> None:
    server = start(HABIT="cant")
    first = quiet(server)
    assert place(server.get("/env", "DELETE")) == ("2", "1")
    server.wait_log("app.sock-0: no more multiplexed: CANT_MPX_CONN")
    with server.websocket("/ws") as tunnel:
        tunnel.send("x")
        assert tunnel.recv() == "x"
    assert [words[1:] for words in diary(server, "begin")] == [
        ["1", "1", "keeps"], ["1", "2", "keeps"], ["2", "1", "closes"], ["3", "1", "closes"],
    ]  # fmt: skip
    leave(first)
    wait_for(lambda: diary(server, "abort"), what="the first is where it was")


def test_an_overloaded_application_is_left_for_another(start: Start) -> None:
    server = start(SHARED + ', "disable-time" => 60', procs=2, HABIT="full")
    refused = server.get("/env")
    assert refused.status == 503
    assert int(refused.field("Retry-After") or 0) > 1
    assert len(diary(server, "begin")) == 2  # each was asked once
    assert server.get("/env").status == 503
    assert len(diary(server, "begin")) == 2


def test_what_is_no_record_ends_all_requests_of_the_connection(start: Start) -> None:
    server = start()
    client = quiet(server)
    assert server.get("/break").status == 502
    with pytest.raises(Incomplete):
        client.response()
    server.wait_log("app.sock-0: no more multiplexed: FastCGI: version")
    assert place(server.get("/env")) == ("2", "1")


# -- ends ---------------------------------------------------------------------------------------


def test_a_program_that_dies(start: Start, forkd: Forkd) -> None:
    """Tunnels and begun responses are cut; the next program is asked again."""
    server = start()
    forkd.allow_errors("app.sock-0: ended")
    client = quiet(server)
    with server.connect() as tunnel:
        switched(tunnel, "/raw")
        tunnel.send(b"x")
        assert tunnel.read(1) == b"x"
        assert server.get("/die").status == 502
        with pytest.raises(OSError):
            assert tunnel.read_all() == b""
            raise OSError("cut without a reset")
    with pytest.raises(Incomplete):
        client.response()
    wait_for(lambda: server.get("/env").status == 200, what="a new program")
    assert len(diary(server, "asked")) == 2
    server.wait_log("tunnel 1: closed, .* backend_(lost|died)")


def test_a_reload_leaves_tunnels_alone(start: Start, forkd: Forkd) -> None:
    server = start()
    with server.connect() as tunnel:
        switched(tunnel, "/raw")
        assert forkd.run("reload", "-f", str(server.config)).returncode == 0
        assert place(server.get("/env")) == ("2", "1")
        tunnel.send(b"still here")
        assert tunnel.read(10) == b"still here"
    wait_for(lambda: ["end", "1"] in diary(server, "end"), what="its connection is closed")


# -- behind fcgi-cgi ----------------------------------------------------------------------------

BRIDGE = """
server.modules += ("mod_fastcgi")
server.max-worker = 1
fastcgi.server = ("/" => ((
    "socket" => "@DIR@/app.sock", "bin-path" => "{program} -c 20",
    "check-local" => "disable", "max-procs" => 1, "upgrade" => "enable", "multiplex" => "auto"
)))
"""
COUNT = '#!/bin/sh\nprintf "Content-Type: text/plain\\n\\n"\nwc -c\n'


def test_programs_behind_fcgi_cgi_share_a_connection(forkd: Forkd) -> None:
    echo = (REPOSITORY / "conf" / "samples" / "bin" / "ws_echo.py").read_bytes()
    files = {"root/echo": echo, "root/count": COUNT}
    server = forkd.start(BRIDGE.format(program=REPOSITORY / "bin" / "fcgi-cgi"), files=files)
    with ExitStack() as stack:
        tunnels = [stack.enter_context(server.websocket("/echo")) for _ in range(8)]
        for number, tunnel in enumerate(tunnels):
            tunnel.send(str(number))
        with server.connect() as client:
            head = b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"
            client.send(head + bytes(1_000_000))
            assert client.response().text == "1000000\n"
        assert [tunnel.recv() for tunnel in tunnels] == [str(n) for n in range(8)]
        [bridge] = server.backends()
        sockets = [end for end in bridge.net_connections("unix") if end.laddr]
        assert len(sockets) == 2, sockets  # one of them listens
