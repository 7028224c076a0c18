"""The once-a-second pass: what a tunnel's counters did, and what follows."""

from __future__ import annotations

import pytest

from forkd.net.sweep import check
from forkd.net.tunnel_handle import Clocks, Traffic, TunnelTimes


class FakeTunnel:
    """Counters by hand; remembers what it was told."""

    def __init__(self, **times: float) -> None:
        self.times = TunnelTimes(**{"idle": 0, "write_idle": 0, **times})
        self.clocks = Clocks()
        self.counters = dict.fromkeys(Traffic._fields, 0)
        self.pongs = 0
        self.said: list[object] = []
        self.takes_pings = True
        self.looks = 0

    @property
    def traffic(self) -> Traffic:
        return Traffic(**self.counters)

    def ping(self) -> bool:
        if self.takes_pings:
            self.said.append("ping")
        return self.takes_pings

    def close(self, code: int, reason: str) -> None:
        self.said.append((code, reason))

    def abort(self, why: str) -> None:
        self.said.append(why)

    def look(self) -> None:
        self.looks += 1

    def passes(self, count: int, **grow: int) -> None:
        """*count* seconds, every counter in *grow* growing by as much in each."""
        for _ in range(count):
            for name, step in grow.items():
                self.counters[name] += step
            check(self, 1)


IDLE, READ, WRITE = (1001, "idle"), (1011, "backend_read_timeout"), (1011, "backend_write_timeout")


@pytest.mark.parametrize(
    "times, seconds, traffic, said",
    [
        ({"idle": 3}, 3, {}, []),
        ({"idle": 3}, 4, {}, [IDLE]),
        ({"idle": 3}, 9, {"client_in": 1}, []),
        ({"idle": 3}, 9, {"backend_in": 1}, []),  # in use in either direction
        ({"idle": 3}, 4, {"client_out": 1}, [IDLE]),  # our own pings do not count
        ({}, 1000, {}, []),  # 0: no limit
        ({"backend_read": 2}, 3, {"client_in": 1}, [READ]),
        ({"backend_read": 2}, 9, {"backend_in": 1}, []),
        ({"write_idle": 2}, 9, {}, []),  # nothing waits
    ],
)
def test_limits(times, seconds, traffic, said):
    tunnel = FakeTunnel(**times)
    tunnel.passes(seconds, **traffic)
    assert tunnel.said[:1] == said[:1]


def test_bytes_that_wait_for_the_client_and_do_not_move():
    tunnel = FakeTunnel(write_idle=2)
    tunnel.counters["client_queued"] = 5
    tunnel.passes(9, client_out=1)
    assert tunnel.said == []
    tunnel.passes(3)
    assert tunnel.said == ["write_idle"]


def test_a_client_for_whom_bytes_wait_is_slow_and_not_idle():
    tunnel = FakeTunnel(idle=3, write_idle=6)
    tunnel.counters["client_queued"] = 5
    tunnel.passes(6)  # what the system holds for it moves unseen
    assert tunnel.said == []
    tunnel.passes(1)
    assert tunnel.said == ["write_idle"]


def test_a_slow_backend_whose_queue_empties_is_not_idle():
    tunnel = FakeTunnel(idle=3)
    tunnel.counters["backend_queued"] = 5
    tunnel.passes(9, backend_out=1)
    assert tunnel.said == []
    tunnel.passes(4)
    assert tunnel.said == [IDLE]


def test_a_backend_that_is_not_read_for_a_slow_client_is_not_silent():
    tunnel = FakeTunnel(backend_read=2)
    tunnel.counters["client_queued"] = 5
    tunnel.passes(9, client_out=1)
    assert tunnel.said == []
    tunnel.counters["client_queued"] = 0
    tunnel.passes(3)
    assert tunnel.said == [READ]


def test_bytes_that_wait_for_the_backend_and_do_not_move():
    tunnel = FakeTunnel(backend_write=2)
    tunnel.counters["backend_queued"] = 5
    tunnel.passes(3)
    assert tunnel.said == [WRITE]


def test_pings_come_in_their_interval_and_answers_keep_the_tunnel():
    tunnel = FakeTunnel(ping_interval=2)
    for _ in range(10):
        tunnel.passes(1)
        tunnel.pongs = len(tunnel.said)
    assert tunnel.said == ["ping"] * 5


def test_a_missing_pong_ends_the_tunnel():
    tunnel = FakeTunnel(ping_interval=2)
    tunnel.passes(2)
    assert tunnel.said == ["ping"]
    tunnel.passes(4)
    assert (1001, "ping_timeout") not in tunnel.said
    tunnel.passes(1)
    assert tunnel.said[-1] == (1001, "ping_timeout")


def test_a_pong_may_come_late_while_something_comes():
    tunnel = FakeTunnel(ping_interval=1)
    tunnel.passes(20, client_in=1)
    assert (1001, "ping_timeout") not in tunnel.said
    tunnel.passes(4)
    assert tunnel.said[-1] == (1001, "ping_timeout")


def test_a_short_pong_timeout_counts_only_while_a_ping_is_unanswered():
    tunnel = FakeTunnel(ping_interval=10, pong=2)
    tunnel.passes(10)
    tunnel.pongs = 1
    tunnel.passes(9)
    assert tunnel.said == ["ping"]


def test_a_client_that_is_not_being_read_is_not_expected_to_answer():
    tunnel = FakeTunnel(ping_interval=2)
    tunnel.passes(2)
    tunnel.counters["backend_queued"] = 1 << 20
    tunnel.takes_pings = False
    tunnel.passes(20, backend_out=1)
    assert tunnel.said == ["ping"]


def test_a_client_that_is_not_read_is_looked_at():
    tunnel = FakeTunnel()
    tunnel.passes(3, backend_out=1)
    assert tunnel.looks == 0
    tunnel.counters["backend_queued"] = 5
    tunnel.passes(3)
    assert tunnel.looks == 3
