"""forkd/unix/listen.py: whether somebody waits, on whatever descriptor."""

from __future__ import annotations

import fcntl
import resource
import socket

from forkd.unix import listen


def test_a_descriptor_above_1023_is_looked_at_too() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    low = socket.create_server(("127.0.0.1", 0))
    high = socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 1500))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with low, high:
        assert not listen.has_waiting(high)
        with socket.create_connection(low.getsockname()):
            assert listen.has_waiting(high)
            high.accept()[0].close()
            assert not listen.has_waiting(high)
