"""forkd/http/h1.py: one connection's backlog of work does not keep the worker from the others."""

from __future__ import annotations

from typing import Any

import gevent

from forkd.http.exchange import Exchange
from forkd.message import Head

HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


class Turns:
    """Another connection: counts how often the loop came to it, a thousand times at most."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self) -> None:
        gevent.spawn(self._take)

    def _take(self) -> None:
        for _ in range(1000):
            self.count += 1
            gevent.sleep(1e-6)


def test_pipelined_requests_are_taken_in_turns(connect: Any) -> None:
    turns, seen = Turns(), []

    def handler(exchange: Exchange) -> None:
        seen.append(turns.count)
        exchange.respond(Head(204))
        exchange.finish()

    client = connect(handler)
    turns.begin()
    client.send(HEAD * 10)
    assert len(set(seen)) == 10


def test_thousands_of_tiny_chunks_are_taken_in_turns(connect: Any) -> None:
    turns, seen = Turns(), set()

    def handler(exchange: Exchange) -> None:
        while exchange.read():
            seen.add(turns.count)
        exchange.respond(Head(204))
        exchange.finish()

    client = connect(handler)
    turns.begin()
    answer = client.send(CHUNKED + b"1\r\nA\r\n" * 20_000 + b"0\r\n\r\n" + HEAD)
    assert answer.count(b"HTTP/1.1 204") == 2
    assert len(seen) >= 7  # of 120 kB, 16 at a time
