"""Tunnels to programs that speak for themselves, through every gateway that relays them.

The same programs hang behind cgi, behind scgi by scgi-cgi, behind fastcgi by fcgi-cgi, and behind
proxy, whose other server is the same one.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from client_frames import BINARY, frame
from e2e.harness import REPOSITORY, Forkd, Server, is_alive, kill_all, wait_for
from e2e.rawhttp import Client, Response
from e2e.wsclient import echoes

GATEWAYS = ("cgi", "scgi", "fastcgi", "proxy")

CONFIG = """
server.max-worker = 1
server.max-read-idle = 600
server.stream-response-body = 2
server.modules = ("mod_alias", "mod_cgi", "mod_scgi", "mod_fastcgi", "mod_proxy")
alias.url = (
  "/cgi/" => "@DIR@/programs/", "/scgi/" => "@DIR@/programs/", "/fastcgi/" => "@DIR@/programs/"
)
$HTTP["url"] =^ "/cgi/" {{
  cgi.assign = ("" => "")
  cgi.upgrade = "enable"
  cgi.limits = ("grace-timeout" => 1)
}}
scgi.server = ("/scgi/" => ((
  "socket" => "@DIR@/scgi.sock", "bin-path" => "{bin}/scgi-cgi",
  "max-procs" => 1, "upgrade" => "enable"
)))
fastcgi.server = ("/fastcgi/" => ((
  "socket" => "@DIR@/fcgi.sock", "bin-path" => "{bin}/fcgi-cgi",
  "max-procs" => 1, "upgrade" => "enable"
)))
proxy.server = ("/proxy/" => (("host" => "127.0.0.1", "port" => @PORT@)))
proxy.header = ("upgrade" => "enable", "map-urlpath" => ("/proxy/" => "/cgi/"))
{more}
"""

SIZES = [0, 1, 125, 126, 2048, 65535, 65536, 16 << 20]


def start(forkd: Forkd, more: str = "") -> Server:
    programs = forkd.directory / "programs"
    programs.mkdir()
    shutil.copy(REPOSITORY / "tests" / "programs" / "switch.py", programs)
    shutil.copy(REPOSITORY / "conf" / "samples" / "bin" / "ws_echo.py", programs)
    return forkd.start(CONFIG.format(more=more, bin=REPOSITORY / "bin"))


@pytest.fixture(scope="module")
def server(shared_forkd: Forkd) -> Server:
    """For the tests that leave it as it was."""
    return start(shared_forkd)


def switch(server: Server, gateway: str, query: str, behind: bytes = b"") -> Client:
    """A connection on which the program was asked to switch; *behind* is sent in the same go."""
    client = server.connect()
    lines = "Host: a\r\nUpgrade: rules-free/1\r\nConnection: upgrade\r\n\r\n"
    client.send(f"GET /{gateway}/switch.py?{query} HTTP/1.1\r\n{lines}".encode() + behind)
    return client


def switched(server: Server, gateway: str, query: str, behind: bytes = b"") -> Client:
    client = switch(server, gateway, query, behind)
    answer = client.response()
    assert (answer.status, answer.field("Upgrade")) == (101, "rules-free/1")
    assert (answer.field("Connection") or "").lower() == "upgrade"
    return client


def programs(server: Server) -> list[psutil.Process]:
    return programs_in(server.directory)


def programs_in(directory: Path) -> list[psutil.Process]:
    """The programs that run; they do not inherit the mark by which the rest is found."""
    folder = str(directory / "programs")
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(folder in word for word in process.info["cmdline"] or ()) and is_alive(process)
    ]


@pytest.fixture(autouse=True)
def clean(tmp_path: Path) -> Iterator[None]:
    """What a failed test leaves behind is no burden to others."""
    yield
    kill_all(programs_in(tmp_path))


# --- messages


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_message_comes_back(server: Server, gateway: str, pieces: int, size: int) -> None:
    data = os.urandom(size)
    step = -(-size // pieces) or 1
    parts = [data[start : start + step] for start in range(0, size, step)] or [b""]
    messages = [data if pieces == 1 else parts, "Grüße"]
    assert echoes(server, f"/{gateway}/ws_echo.py", messages) == [data, "Grüße"]


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_message_sent_with_the_handshake_is_echoed(server: Server, gateway: str) -> None:
    lines = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    lines += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    request = f"GET /{gateway}/ws_echo.py HTTP/1.1\r\n{lines}".encode()
    with server.connect() as client:
        client.send(request + frame(BINARY, b"early\n\xff"))
        answer = client.response()
        assert answer.status == 101
        assert answer.field("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert client.read(9) == b"\x82\x07early\n\xff"


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_bytes_before_the_101_keep_their_order(server: Server, gateway: str) -> None:
    sent = [bytes([65 + number]) * 3000 + b"\n" for number in range(20)]
    with switch(server, gateway, "slow", sent[0]) as client:
        for piece in sent[1:]:
            client.send(piece)
        assert client.response().status == 101
        assert client.read(sum(map(len, sent))) == b"".join(sent)


# --- the end of one direction


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_clients_end_reaches_the_program_and_its_last_words_the_client(
    server: Server, gateway: str
) -> None:
    data = os.urandom(1 << 20)
    with switched(server, gateway, "cat") as client:
        sent = 0
        got = b""
        while sent < len(data):
            client.send(data[sent : sent + 65536])
            sent += 65536
            got += client.read(65536)
        client.send_eof()
        assert client.read_all() == b"bye"
        assert got == data


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_an_end_sent_with_the_request_is_an_end(server: Server, gateway: str) -> None:
    with switch(server, gateway, "cat", b"words") as client:
        client.send_eof()
        assert client.response().status == 101
        assert client.read_all() == b"wordsbye"


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_programs_end_reaches_the_client_and_the_rest_the_program(
    server: Server, gateway: str
) -> None:
    file = server.directory / f"rest-of-{gateway}"
    data = os.urandom(1 << 18)
    with switched(server, gateway, f"half={file}") as client:
        assert client.read_all() == b"half"
        client.send(data)
        client.send_eof()
        wait_for(lambda: file.exists() and file.stat().st_size == len(data), what="all of it")
    assert file.read_bytes() == data


# --- programs that die


@pytest.mark.parametrize("mode", ["die-before", "die-in-head"])
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_program_that_dies_before_its_answer_is_502(
    server: Server, gateway: str, mode: str
) -> None:
    with switch(server, gateway, mode) as client:
        assert client.response().status == 502
    with server.connect() as client:
        assert ask(client, gateway, mode).status == 502


def ask(client: Client, gateway: str, query: str) -> Response:
    return client.request(f"GET /{gateway}/switch.py?{query} HTTP/1.1\nHost: a\n\n")


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_program_that_dies_in_its_tunnel_ends_it(server: Server, gateway: str) -> None:
    with switched(server, gateway, "die-behind") as client:
        assert client.read_all() == b""
    with switched(server, gateway, "die-within") as client:
        client.send(b"x")
        assert client.read_all() == b""
    wait_for(lambda: not programs(server), what="no program left")


# --- nobody is left behind


def occupy(server: Server, mode: str) -> list[Client]:
    """A tunnel and a request that waits, at every gateway."""
    clients = [switched(server, gateway, mode) for gateway in GATEWAYS]
    for gateway in GATEWAYS:
        client = server.connect()
        client.send(f"GET /{gateway}/switch.py?{mode} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        clients.append(client)
    expected = 2 * len(clients) if mode == "stubborn" else len(clients)
    wait_for(lambda: len(programs(server)) == expected, what=f"{expected} programs")
    for client in clients[len(GATEWAYS) :]:
        assert client.socket.recv(1, socket.MSG_PEEK), "the head of an answer"
    return clients


def assert_none_left(server: Server) -> None:
    wait_for(lambda: not programs(server), 30, lambda: f"no program: {described(server)}")


def described(server: Server) -> list[str]:
    """What the programs that run were asked."""
    names = ("REQUEST_URI", "HTTP_UPGRADE", "HTTP_X_FORWARDED_FOR")
    return [
        " ".join(program.environ().get(name, "-") for name in names)
        for program in programs(server)
    ]


@pytest.fixture
def alone(forkd: Forkd) -> Server:
    """A server for one test."""
    return start(forkd)


@pytest.mark.parametrize("mode", ["deaf", "stubborn"])
def test_no_program_outlives_a_stop(alone: Server, mode: str) -> None:
    clients = occupy(alone, mode)
    alone.stop(deadline=30)
    assert_none_left(alone)
    for client in clients:
        client.close()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("mode", ["deaf", "stubborn"])
def test_no_program_outlives_its_client(forkd: Forkd, mode: str, reset: bool) -> None:
    """Without a reset a tunnel is left half-closed, and idle; a request that is answered is not."""
    server = start(forkd, "server.max-read-idle := 2")
    for client in occupy(server, mode):
        (abandon if reset else Client.close)(client)
    assert_none_left(server)


def abandon(client: Client) -> None:
    """Close with a reset."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("mode", ["deaf", "stubborn"])
def test_no_program_outlives_its_worker(alone: Server, forkd: Forkd, mode: str) -> None:
    forkd.allow_errors("worker .* died")
    clients = occupy(alone, mode)
    (worker,) = alone.workers()
    worker.kill()
    assert_none_left(alone)
    for client in clients:
        client.close()


def test_no_program_outlives_a_killed_master(alone: Server, forkd: Forkd) -> None:
    forkd.allow_errors("master")
    clients = occupy(alone, "deaf")
    processes = alone.processes()
    alone.master().kill()
    assert_none_left(alone)
    wait_for(lambda: not any(map(is_alive, processes)), what="all processes gone")
    for client in clients:
        client.close()


# --- back-pressure

GIBIBYTE = 1 << 30
ALLOWED = 8 << 20
"""Bytes by which a worker may grow for the eight connections of one test, two of which it serves
twice."""


def stalled(worker: psutil.Process) -> None:
    """Wait until the worker moves no bytes any more."""
    seen = [-1, -2]

    def still() -> bool:
        counters = worker.io_counters()
        seen.append(counters.write_chars + counters.read_chars)
        return seen[-1] == seen[-2] == seen[-3]

    wait_for(still, 30, "a stall")


def pss(process: psutil.Process) -> int:
    return int(process.memory_full_info().pss)


def warmed(server: Server) -> tuple[psutil.Process, int]:
    """The worker and its memory, when every gateway has been used."""
    for gateway in GATEWAYS:
        with switched(server, gateway, f"flood={4 << 20}") as client:
            assert len(client.read(4 << 20)) == 4 << 20
        with server.connect() as client:
            assert len(ask(client, gateway, f"flood={4 << 20}").body) == 4 << 20
    (worker,) = server.workers()
    return worker, pss(worker)


def test_a_client_that_never_reads_costs_no_memory(alone: Server) -> None:
    worker, before = warmed(alone)
    clients = [switch(alone, gateway, f"flood={GIBIBYTE}") for gateway in GATEWAYS]
    clients += [alone.connect() for _ in GATEWAYS]
    for gateway, client in zip(GATEWAYS, clients[len(GATEWAYS) :], strict=True):
        path = f"/{gateway}/switch.py?flood={GIBIBYTE}"
        client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    wait_for(lambda: len(programs(alone)) == len(clients), what="every program")
    stalled(worker)
    assert pss(worker) - before < ALLOWED
    for client in clients:
        client.close()


def test_a_program_that_never_reads_costs_no_memory(forkd: Forkd) -> None:
    server = start(forkd, "server.stream-request-body = 2")
    worker, before = warmed(server)
    clients = [switched(server, gateway, "deaf") for gateway in GATEWAYS]
    for gateway in GATEWAYS:
        client = server.connect()
        head = f"Host: a\r\nContent-Length: {GIBIBYTE}\r\n\r\n"
        client.send(f"POST /{gateway}/switch.py?deaf HTTP/1.1\r\n{head}".encode())
        clients.append(client)
    wait_for(lambda: len(programs(server)) == len(clients), what="every program")
    sent = [pushed(client) for client in clients]
    stalled(worker)
    assert max(sent) < 16 << 20, "what the kernel holds, and no more"
    assert pss(worker) - before < ALLOWED
    for client in clients:
        abandon(client)
    assert_none_left(server)


def pushed(client: Client) -> int:
    """How many bytes are taken from a client that sends as fast as it can, until none is."""
    client.socket.settimeout(1)
    piece = bytes(1 << 20)
    sent = 0
    while sent < GIBIBYTE:
        try:
            sent += client.socket.send(piece)
        except TimeoutError:
            break
    return sent
