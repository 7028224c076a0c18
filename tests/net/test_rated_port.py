"""RatedPort over a MemoryPort: what is over the rate waits, or ends the tunnel."""

from __future__ import annotations

import gevent
import pytest
from client_frames import PING, TEXT, frame
from memory_port import MemoryPort

from forkd.net.rated_port import MessageRate, RatedPort

MESSAGES = [frame(TEXT, str(number).encode()) for number in range(20)]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Listener:
    def __init__(self) -> None:
        self.data = b""
        self.said: list[str] = []

    def on_data(self, data) -> None:
        self.data += bytes(data)

    def on_eof(self) -> None:
        self.said.append("eof")

    def on_drain(self) -> None:
        self.said.append("drain")

    def on_close(self, why: str) -> None:
        self.said.append(f"close:{why}")


class Rated:
    """A port for five messages a second, and a clock that stands still unless it is told."""

    def __init__(self, closes: bool = False, early: bytes = b"") -> None:
        self.below, self.heard, self.clock = MemoryPort(), Listener(), Clock()
        self.port = RatedPort(self.below, MessageRate(5, closes), early, self.clock)
        self.port.attach(self.heard)

    def until_heard(self, count: int) -> None:
        with gevent.Timeout(10):
            while self.heard.data != b"".join(MESSAGES[:count]):
                gevent.sleep(0.001)

    def wait(self, seconds: float) -> None:
        """That long on its clock; its timers have run."""
        self.clock.now += seconds
        self.port._stop_timer()
        self.port._wait(0.0)
        gevent.sleep(0.01)


def test_what_is_within_the_rate_goes_by_at_once():
    rated = Rated()
    rated.below.receive(b"".join(MESSAGES[:5]))
    rated.until_heard(5)
    assert not rated.below.paused
    rated.clock.now = 0.4
    rated.below.receive(b"".join(MESSAGES[5:7]))
    rated.until_heard(7)
    assert rated.port._timer is None


def test_what_is_over_it_waits_and_nothing_more_is_read():
    rated = Rated()
    rated.below.receive(b"".join(MESSAGES[:8]))
    rated.until_heard(5)
    assert rated.below.paused
    assert rated.port.bytes_in == len(rated.heard.data)
    rated.below.receive(MESSAGES[8])
    rated.wait(0.2)
    rated.until_heard(6)
    rated.wait(0.4)
    rated.until_heard(8)
    rated.wait(0.2)
    rated.until_heard(9)
    assert not rated.below.paused


def test_time_goes_by_itself():
    below, heard = MemoryPort(), Listener()
    rated = RatedPort(below, MessageRate(50))
    rated.attach(heard)
    below.receive(b"".join(MESSAGES * 3))
    with gevent.Timeout(10):
        while heard.data != b"".join(MESSAGES * 3):
            gevent.sleep(0.01)
    assert not below.paused


def test_parts_of_messages_and_pings_cost_nothing():
    rated = Rated()
    rated.below.receive(frame(PING, b"") * 100)
    rated.below.receive(frame(TEXT, b"a" * 100_000, fin=False))
    assert len(rated.heard.data) == 600 + 100_014
    assert rated.port._timer is None


def test_the_end_comes_behind_what_waits():
    rated = Rated()
    rated.below.receive(b"".join(MESSAGES[:7]))
    rated.port.on_eof()
    assert rated.heard.said == []
    rated.wait(0.4)
    rated.until_heard(7)
    assert rated.heard.said == ["eof"]


def test_the_end_waits_for_the_end_of_a_pause():
    rated = Rated()
    rated.below.receive(b"".join(MESSAGES[:7]))
    rated.port.on_eof()
    rated.heard.on_data = lambda data: rated.port.pause()
    rated.wait(1)
    assert rated.heard.said == []
    rated.port.resume()
    rated.wait(0)
    assert rated.heard.said == ["eof"]
    idle = Rated()
    idle.port.pause()
    idle.port.on_eof()
    assert idle.heard.said == []
    idle.port.resume()
    idle.wait(0)
    assert idle.heard.said == ["eof"]


def test_who_is_paused_hears_nothing_when_its_time_comes():
    rated = Rated()
    rated.below.receive(b"".join(MESSAGES[:7]))
    rated.port.pause()
    rated.wait(1)
    rated.until_heard(5)
    rated.port.resume()
    rated.until_heard(7)


def test_a_pause_while_something_is_handed_on():
    rated = Rated()
    rated.heard.on_data = lambda data: rated.port.pause()
    rated.below.receive(b"".join(MESSAGES[:3]))
    assert rated.below.paused
    rated.port.resume()
    assert not rated.below.paused


def test_what_came_early_counts():
    rated = Rated(early=b"".join(MESSAGES[:6]))
    rated.until_heard(5)
    assert rated.port.bytes_in == -len(MESSAGES[5])  # whoever had it before has counted it
    rated.wait(0.2)
    rated.until_heard(6)
    assert rated.port.bytes_in == 0


@pytest.mark.parametrize("together", [True, False])
def test_too_much_ends_the_tunnel(together: bool):
    rated = Rated(closes=True)
    excess: list[str] = []
    rated.port.on_excess = lambda: excess.append("excess")
    for piece in [b"".join(MESSAGES[:6])] if together else MESSAGES[:6]:
        rated.below.receive(piece)
    assert rated.heard.data == b"".join(MESSAGES[:5])
    assert excess == ["excess"]
    rated.below.resume()
    rated.below.receive(MESSAGES[6])
    assert excess == ["excess"]


def test_a_port_that_closes_forgets_what_waits():
    rated = Rated()
    rated.below.receive(b"".join(MESSAGES[:8]))
    rated.port.abort("over")
    assert rated.heard.said == ["close:over"]
    assert rated.port._timer is None
