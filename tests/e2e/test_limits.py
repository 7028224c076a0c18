"""What a server does at its limits."""

from __future__ import annotations

import time

from e2e.harness import Forkd


def test_a_full_worker_takes_who_waits_and_says_so_once_a_second(forkd: Forkd) -> None:
    server = forkd.start("server.max-worker = 1\nserver.max-connections = 1\n")
    began = time.monotonic()
    clients = [server.connect() for _ in range(40)]
    for client in clients:
        with client:
            answer = client.request("GET / HTTP/1.1\nHost: h\nConnection: close\n\n")
            assert answer.status == 403
    server.wait_log("sockets enabled again")
    said = server.error_log().count("sockets disabled")
    assert 1 <= said <= 2 + time.monotonic() - began
