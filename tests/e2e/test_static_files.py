"""Files through a real server: large ones, those that shrink, and what is left open behind them."""

from __future__ import annotations

import os

import pytest
from e2e.harness import Forkd, Server, wait_for
from e2e.rawhttp import Incomplete

BIG = os.urandom(1 << 20) * 24
PLAIN = """server.max-worker = 1
index-file.names = ("index.html")
server.max-keep-alive-idle = 60  # a client may have to look through a large answer first
"""


@pytest.fixture
def server(forkd: Forkd) -> Server:
    return forkd.start(PLAIN, files={"root/big.bin": BIG, "root/small.txt": b"12345\n"})


def test_a_large_file_arrives_whole_and_the_connection_stays(server: Server) -> None:
    with server.connect() as client:
        for _ in range(2):
            got = client.request("GET /big.bin HTTP/1.1\nHost: h\n\n")
            assert (got.status, got.body == BIG) == (200, True)
        got = client.request("GET /big.bin HTTP/1.1\nHost: h\nRange: bytes=5-9000000,-3\n\n")
        assert got.status == 206
        assert BIG[5:9000001] in got.body and BIG[-3:] in got.body
        assert client.request("GET /small.txt HTTP/1.1\nHost: h\n\n").body == b"12345\n"


def test_a_large_file_is_not_read_into_memory(server: Server) -> None:
    [worker] = server.workers()
    before = worker.memory_info().rss
    with server.connect() as client:
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        client.read(1000)
        assert worker.memory_info().rss - before < 4 << 20
        client.read(len(BIG) - 1000)


def test_a_file_that_shrinks_while_it_is_sent_never_looks_complete(server: Server) -> None:
    with server.connect() as client:
        client.send(b"GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        client.read(1000)
        os.truncate(server.root / "big.bin", 1 << 20)
        with pytest.raises(Incomplete):
            client.read(len(BIG))
    server.wait_log("response cut short")


def test_nothing_is_left_open(server: Server) -> None:
    [worker] = server.workers()
    server.get("/small.txt")
    before = worker.num_fds()
    os.mkfifo(server.root / "fifo")
    for path in ("/small.txt", "/big.bin", "/", "/fifo", "/small.txt/x", "/nope"):
        server.get(path)
        with server.connect() as client:  # leaves in the middle of it
            client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            client.read(20)
    wait_for(lambda: worker.num_fds() <= before, what="descriptors closed")


def test_a_client_that_stops_reading_holds_nobody_up(server: Server) -> None:
    with server.connect() as idle:
        idle.send(b"GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n")
        idle.read(20)
        assert server.get("/small.txt").body == b"12345\n"


def test_small_response_leaves_in_one_piece(server: Server) -> None:
    with server.connect() as client:
        client.send(b"GET /small.txt HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.socket.recv(65536).endswith(b"\r\n\r\n12345\n")
