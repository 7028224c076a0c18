"""wstunnel on a running server: real clients, real backends, every way to end."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import struct
from pathlib import Path

import psutil
import pytest
from client_frames import TEXT, close, frame
from e2e.harness import Forkd, Server, wait_for
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

Message = str | bytes

PROGRAMS = Path(__file__).parent.parent / "programs"

CONFIG = """
server.document-root = "@DIR@"
server.bind = "127.0.0.1"
server.port = @PORT@
server.max-worker = {workers}
server.modules = ("mod_wstunnel", "mod_accesslog")
accesslog.filename = "@DIR@/access.log"
wstunnel.server = (
  "/echo/" => (( "socket" => "@DIR@/echo.sock", "bin-path" => "@DIR@/echo_stream.py", "max-procs" => 1 )),
  "/say/" => (( "socket" => "@DIR@/say.sock", "bin-path" => "@DIR@/say.py", "max-procs" => 1 )),
  "/gone/" => (( "socket" => "@DIR@/nobody.sock" )) )
{more}
"""  # noqa: E501

SIZES = [0, 1, 125, 126, 2048, 65535, 65536, 16 << 20]


def start(forkd: Forkd, more: str = "", workers: int = 1) -> Server:
    for name in ("echo_stream.py", "say.py"):
        shutil.copy(PROGRAMS / name, forkd.directory / name)
    return forkd.start(CONFIG.format(more=more, workers=workers))


def read_stream(client: ClientConnection, size: int) -> bytes:
    """*size* bytes, whatever frames they come in."""
    out = bytearray()
    while len(out) < size:
        message = client.recv(timeout=30)
        out += message.encode() if isinstance(message, str) else message
    return bytes(out)


def closed(client: ClientConnection) -> tuple[int, str]:
    """Read until the server closes; (code, reason)."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.recv(timeout=30)
    assert caught.value.rcvd is not None, "closed without a Close frame"
    return caught.value.rcvd.code, caught.value.rcvd.reason


# -- messages -----------------------------------------------------------------------------------


async def echo(server: Server, message: Message | list[Message], size: int) -> bytes:
    """What comes back for *message*: *size* bytes, whatever frames they come in, read meanwhile.

    An empty message behind it leaves the tunnel usable.
    """
    out = bytearray()

    async def read(size: int) -> None:
        while len(out) < size:
            piece = await asyncio.wait_for(client.recv(), 30)
            out.extend(piece.encode() if isinstance(piece, str) else piece)

    async with connect(
        f"ws://127.0.0.1:{server.port}/echo/", compression=None, max_size=None, proxy=None
    ) as client:
        reader = asyncio.create_task(read(size))
        await client.send(message)
        await reader
        await client.send("" if isinstance(message, str) else b"")
        await client.send("still usable")
        await read(size + 12)
    assert out[size:] == b"still usable"
    return bytes(out[:size])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pieces", [1, 3])
def test_text_comes_back(forkd: Forkd, size: int, pieces: int) -> None:
    server = start(forkd)
    text = ("grüße€𝄞" * (size // 8 + 1)).encode()[:size].decode(errors="ignore")
    step = -(-len(text) // pieces) or 1
    parts: list[Message] = [text[n : n + step] for n in range(0, len(text), step)] or [""]
    message = text if pieces == 1 else parts
    assert asyncio.run(echo(server, message, len(text.encode()))) == text.encode()


@pytest.mark.parametrize("size", SIZES)
def test_binary_comes_back(forkd: Forkd, size: int) -> None:
    server = start(forkd, 'wstunnel.frame-type = "binary"')
    data = os.urandom(size)
    assert asyncio.run(echo(server, data, size)) == data


def test_the_type_of_frames_is_the_servers_or_the_subprotocols(forkd: Forkd) -> None:
    server = start(forkd)
    with server.websocket("/echo/") as client:
        client.send(b"binary in")
        assert client.recv(timeout=10) == "binary in"
    with server.websocket("/echo/", subprotocols=["chat", "binary"]) as client:
        assert client.subprotocol == "binary"
        client.send("text in")
        assert client.recv(timeout=10) == b"text in"


# -- refusals -----------------------------------------------------------------------------------

HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest.mark.parametrize(
    "path, change, status",
    [
        ("/echo/", {}, 101),
        ("/echo/", {"Sec-WebSocket-Version": "8"}, 426),
        ("/echo/", {"Sec-WebSocket-Version": None}, 426),
        ("/echo/", {"Sec-WebSocket-Key": None}, 400),
        ("/echo/", {"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
        ("/echo/", {"Origin": "http://www.example.com"}, 101),
        ("/strict/echo/", {"Origin": "http://www.example.com"}, 101),
        ("/strict/echo/", {"Origin": "http://example.com"}, 403),
        ("/strict/echo/", {}, 400),
        ("/echo/", {"Upgrade": None}, 404),  # not claimed: an ordinary request
        ("/echo/", {"Connection": "keep-alive"}, 404),
        ("/gone/", {"Sec-WebSocket-Version": "8"}, 426),  # before a backend is looked for
        ("/gone/", {}, 503),
    ],
)
def test_handshakes(forkd: Forkd, path: str, change: dict[str, str | None], status: int) -> None:
    server = start(
        forkd,
        '$HTTP["url"] =^ "/strict/" { wstunnel.origins = ("example.com")\n'
        'wstunnel.server = ("/strict/echo/" => (("socket" => "@DIR@/echo.sock",\n'
        '"bin-path" => "@DIR@/echo_stream.py", "max-procs" => 1))) }',
    )
    fields = {**HANDSHAKE, **change}
    answer = server.get(path, **{name: value for name, value in fields.items() if value})
    assert answer.status == status
    if status == 426:
        assert answer.field("sec-websocket-version") == "13"
        assert answer.field("upgrade") == "websocket"
    if status == 503:
        assert int(answer.field("retry-after") or 0) >= 1
    if status == 101:
        assert answer.field("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# -- ends ---------------------------------------------------------------------------------------


def test_the_clients_code_comes_back_and_is_logged(forkd: Forkd) -> None:
    server = start(forkd)
    with server.websocket("/echo/") as client:
        client.send("x")
        client.recv(timeout=10)
        client.close(4321, "enough")
        assert client.close_code == 4321
    found = server.wait_log(r"tunnel \d+: closed, .* client_close:4321 after [\d.]+ s, .*messages")
    assert "from client" in found.group(0) and "1 messages" in found.group(0)
    wait_for(lambda: server.access_log(), 10)
    (line,) = server.access_log()
    assert '"GET /echo/ HTTP/1.1" 101' in line


def test_what_comes_with_the_handshake_is_counted_too(forkd: Forkd) -> None:
    server = start(forkd)
    key = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
    early = frame(TEXT, b"early") + close(1000)
    server.raw(f"GET /echo/ HTTP/1.1\r\nHost: h\r\n{key}\r\n".encode() + early)
    server.wait_log(rf"closed, .* from client {len(early)} bytes 1 messages")


def test_a_backend_that_ends_is_1000(forkd: Forkd) -> None:
    server = start(forkd)
    with server.websocket("/say/") as client:
        client.send("bytes 676f6f64\n")
        assert client.recv(timeout=10) == "good"
        assert closed(client)[0] == 1000
    server.wait_log("closed, .* backend_eof after")


def test_a_backend_that_exits_well_is_1000_badly_1011(forkd: Forkd) -> None:
    server = start(forkd)
    forkd.allow_errors("backend .*say")
    for status, code in ((0, 1000), (3, 1011)):
        with server.websocket("/say/") as client:
            client.send(f"exit {status}\n")
            assert closed(client)[0] == code


def test_a_killed_backend_is_1011_and_new_tunnels_wait_for_the_next(forkd: Forkd) -> None:
    server = start(forkd)
    forkd.allow_errors("backend .*echo")
    (backend,) = [p for p in server.backends() if "echo_stream" in " ".join(p.cmdline())]
    wait_for(lambda: server.status()["uptime"] > 2, 10)  # one that dies young looks like a loop
    with server.websocket("/echo/") as client:
        client.send("x")
        client.recv(timeout=10)
        backend.kill()
        assert closed(client)[0] == 1011
        with server.websocket("/echo/") as other:
            other.send("again")
            assert other.recv(timeout=10) == "again"
    server.wait_log("closed, .* backend_died after")


def test_invalid_utf8_from_the_backend_is_1011(forkd: Forkd) -> None:
    server = start(forkd)
    with server.websocket("/say/") as client:
        client.send("bytes 6f6bff\n")
        assert client.recv(timeout=10) == "ok"
        assert closed(client)[0] == 1011


def test_a_character_cut_by_a_read_comes_whole(forkd: Forkd) -> None:
    server = start(forkd)
    with server.websocket("/echo/") as client:
        for half in ("€".encode()[:2], "€".encode()[2:]):
            client.send(half)
        assert client.recv(timeout=10) == "€"


def test_idle_is_1001(forkd: Forkd) -> None:
    server = start(forkd, "server.max-read-idle = 1")
    with server.websocket("/echo/") as client:
        assert closed(client)[0] == 1001
    server.wait_log("closed, .* idle after")


def test_a_tunnel_in_use_in_one_direction_is_not_idle(forkd: Forkd) -> None:
    server = start(forkd, "server.max-read-idle = 2\nserver.max-write-idle = 2")
    with server.websocket("/say/") as client:
        client.send("mute\n")
        for _ in range(10):
            client.send("x")
            with pytest.raises(TimeoutError):
                client.recv(timeout=0.5)
        client.close()
        assert client.close_code == 1000


def test_pings_keep_a_silent_client_and_a_missing_pong_ends_it(forkd: Forkd) -> None:
    server = start(forkd, "wstunnel.ping-interval = 1\nwstunnel.pong-timeout = 1")
    with server.websocket("/echo/") as client:
        with pytest.raises(TimeoutError):
            client.recv(timeout=4)
        client.send("alive")
        assert client.recv(timeout=10) == "alive"
    with server.connect() as silent:
        lines = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
        silent.send(f"GET /echo/ HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
        data = silent.read_all()
    assert b"\x89\x04ping" in data
    assert data.endswith(b"\x88\x02" + struct.pack(">H", 1001))
    server.wait_log("closed, .* ping_timeout after")


def test_a_client_that_resets_ends_the_backends_connection(forkd: Forkd) -> None:
    server = start(forkd)
    client = server.websocket("/echo/", legacy=True)
    client.send("x")
    client.recv(timeout=10)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()
    server.wait_log("closed, .* client_lost:Connection reset by peer after")


def test_a_stop_is_1001_and_the_backends_last_words_come(forkd: Forkd) -> None:
    server = start(forkd)
    pid = server.pid
    with server.websocket("/say/") as client:
        client.send("hold\n")
        assert client.recv(timeout=10) == "held"
        psutil.Process(pid).terminate()
        assert client.recv(timeout=10) == "bye"
        assert closed(client)[0] == 1001
    server.stop()


# -- load ---------------------------------------------------------------------------------------


def pss(process: psutil.Process) -> int:
    return int(process.memory_full_info().pss)


def test_a_client_that_never_reads_costs_no_memory(forkd: Forkd) -> None:
    server = start(forkd, 'wstunnel.frame-type = "binary"')
    (worker,) = server.workers()
    with server.websocket("/say/") as warm:
        warm.send(f"flood {4 << 20}\n")
        read_stream(warm, 4 << 20)
    before = pss(worker)
    with server.connect() as client:
        lines = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
        client.send(f"GET /say/ HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
        command = f"flood {1 << 30}\n".encode()
        client.send(bytes((0x82, 0x80 | len(command), 0, 0, 0, 0)) + command)
        wait_for(lambda: server.status()["totals"]["tunnels"] == 1, 10)
        stable = [0, 0]

        def stalled() -> bool:
            stable.append(worker.io_counters().write_chars)
            return stable[-1] == stable[-2] == stable[-3]

        wait_for(stalled, 20)
        assert pss(worker) - before < 1 << 20


def test_2000_idle_tunnels_have_no_greenlets_and_little_memory(forkd: Forkd) -> None:
    resource_limit()
    server = start(forkd, 'server.max-read-idle = 600\nwstunnel.frame-type = "binary"')
    (worker,) = server.workers()
    clients = [open_raw(server) for _ in range(100)]
    wait_for(lambda: server.status()["totals"]["tunnels"] == 100, 30)
    before = pss(worker)
    clients += [open_raw(server) for _ in range(2000)]
    wait_for(lambda: server.status()["totals"]["tunnels"] == 2100, 60)
    row = server.status()["workers"][0]
    assert row["connections"] == row["tunnels"] == 2100  # a greenlet would be a connection more
    grown = (pss(worker) - before) / 2000
    for client in clients:
        client.close()
    assert grown < 2800, f"{grown:.0f} bytes a tunnel"


def resource_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))


def open_raw(server: Server) -> socket.socket:
    """A tunnel without a client library behind it."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    lines = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
    sock.sendall(f"GET /echo/ HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
    assert sock.recv(4096).startswith(b"HTTP/1.1 101")
    return sock


# -- workers ------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_the_others_tunnels_live(forkd: Forkd) -> None:
    server = start(forkd, workers=2)
    forkd.allow_errors("worker .* died")
    before = {worker.pid for worker in server.workers()}
    clients = [server.websocket("/echo/", legacy=True) for _ in range(12)]
    victim = server.workers()[0]
    victim.kill()
    wait_for(lambda: len({w.pid for w in server.workers()} - {victim.pid}) == 2, 10)
    assert len({w.pid for w in server.workers()} & before) == 1
    alive = 0
    for client in clients:
        try:
            client.send("x")
            alive += client.recv(timeout=10) == "x"
        except ConnectionClosed:
            pass
        client.socket.close()
    assert 0 < alive < 12
    with server.websocket("/echo/") as client:
        client.send("new")
        assert client.recv(timeout=10) == "new"


def test_long_tunnels_spread_over_the_workers(forkd: Forkd) -> None:
    server = start(forkd, workers=4)
    clients = [open_raw(server) for _ in range(200)]
    wait_for(lambda: server.status()["totals"]["tunnels"] == 200, 20)
    counts = [row["tunnels"] for row in server.status()["workers"]]
    for client in clients:
        client.close()
    assert len(counts) == 4 and min(counts) >= 40, counts


def test_a_backend_that_does_not_end_is_not_awaited_until_the_last_moment(forkd: Forkd) -> None:
    flags = 'server.feature-flags = ("server.graceful-shutdown-timeout" => 3)'
    server = start(forkd, flags)
    forkd.allow_errors("backend .*say")
    with server.websocket("/say/") as client:
        client.send("deaf\n")
        wait_for(lambda: server.status()["totals"]["tunnels"] == 1, 10)
        psutil.Process(server.pid).terminate()
        assert closed(client)[0] == 1001
        server.stop()


def test_a_stop_ends_the_tunnels_of_a_generation_that_drains(forkd: Forkd) -> None:
    server = start(forkd)
    with server.websocket("/echo/") as client:
        client.send("x")
        client.recv(timeout=10)
        assert server.control("reload")["ok"]
        client.send("still here")
        assert client.recv(timeout=10) == "still here"
        psutil.Process(server.pid).terminate()
        assert closed(client)[0] == 1001
        server.stop()
