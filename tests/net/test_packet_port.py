"""PacketPort over a real pair of sockets; what FdPort does already is tested there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import gevent
import pytest

from forkd.net.packet_port import PacketPort
from forkd.net.port import HIGH_WATER, READ_SIZE
from forkd.protocol.tunnel import Packets


class Listener:
    """Records what a port says."""

    def __init__(self, port: PacketPort) -> None:
        self.packets: list[bytes] = []
        self.said: list[str] = []
        port.attach(self)

    def on_data(self, data) -> None:
        self.packets.append(bytes(data))

    def on_eof(self) -> None:
        self.said.append("eof")

    def on_drain(self) -> None:
        self.said.append("drain")

    def on_close(self, why: str) -> None:
        self.said.append(f"close:{why}")


def until(condition, deadline: float = 10.0) -> None:
    """Let the loop run until *condition* holds."""
    with gevent.Timeout(deadline):
        while not condition():
            gevent.sleep(0.001)


class Pair:
    def __init__(self) -> None:
        ours, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.other.settimeout(10)
        self.port = PacketPort(ours)
        self.heard = Listener(self.port)

    def fill(self, packet: bytes) -> int:
        """How many of *packet* were written, the last of which is queued."""
        count = 0
        while not self.port.queued:
            self.port.write(packet)
            count += 1
        return count


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.port.abort("test over")
    made.other.close()


def test_every_packet_by_itself(pair: Pair) -> None:
    sent = [b"one", b"", b"\0" * 10_000, b"", b"", b"two"]
    for packet in sent:
        pair.other.send(packet)
    until(lambda: len(pair.heard.packets) == 6)
    assert pair.heard.packets == sent
    assert pair.port.bytes_in == 10_006
    assert pair.heard.said == []


def test_the_end_is_no_empty_packet(pair: Pair) -> None:
    pair.other.send(b"")
    pair.other.shutdown(socket.SHUT_WR)
    until(lambda: pair.heard.said)
    assert (pair.heard.packets, pair.heard.said) == ([b""], ["eof"])


def test_packets_are_written_as_packets_and_bytes_as_one(pair: Pair) -> None:
    assert pair.port.write(Packets((b"a", b"", b"bc")))
    assert pair.port.write(b"head")
    assert pair.port.write(memoryview(b"view"))
    assert [pair.other.recv(100) for _ in range(5)] == [b"a", b"", b"bc", b"head", b"view"]
    assert pair.port.bytes_out == 11


def test_the_largest_packet(pair: Pair) -> None:
    pair.port.write(b"x" * pair.port.max_packet)
    assert len(pair.other.recv(READ_SIZE)) == pair.port.max_packet
    pair.port.write(b"x" * (pair.port.max_packet + 1))
    until(lambda: pair.heard.said)
    pair.other.close()
    until(lambda: len(pair.heard.said) == 2)
    assert pair.heard.said == ["drain", "close:Message too long"]


def test_a_full_socket_queues_whole_packets(pair: Pair) -> None:
    packets = [bytes([number % 256]) * 1000 for number in range(pair.fill(b"\xff" * 1000))]
    queued = [b"", b"last", b""]
    assert pair.port.write(Packets(queued))
    received = [pair.other.recv(2000) for _ in packets[:-1]]
    assert set(received) == {b"\xff" * 1000}
    until(lambda: "drain" in pair.heard.said)
    assert [pair.other.recv(2000) for _ in range(4)] == [b"\xff" * 1000, b"", b"last", b""]
    assert (pair.port.queued, pair.heard.said) == (0, ["drain"])


def test_the_mark_and_empty_packets_that_count(pair: Pair) -> None:
    pair.fill(b"x" * 1000)
    assert not pair.port.write(b"y" * (HIGH_WATER + 1))
    before = pair.port.queued
    pair.port.write(Packets([b""] * 1000))
    assert pair.port.queued > before + 1000


def test_half_close_comes_behind_what_is_queued(pair: Pair) -> None:
    count = pair.fill(b"x" * 1000)
    pair.port.write_eof()
    received: list[bytes] = []

    def has_ended() -> bool:
        with suppress(BlockingIOError):
            received.append(pair.other.recv(2000))
        return received[-1:] == [b""]

    pair.other.setblocking(False)
    until(has_ended)
    assert received == [b"x" * 1000] * count + [b""]


def test_a_packet_that_is_longer_than_a_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forkd.net.packet_port._VIEW", memoryview(bytearray(1000)))
    pair.other.send(b"x" * 1001)
    until(lambda: pair.heard.said)
    assert pair.heard.said == ["close:packet of more than 1000 bytes"]
    assert pair.heard.packets == []


def test_the_other_side_is_gone(pair: Pair) -> None:
    pair.port.pause()
    pair.other.close()
    assert pair.port.write(Packets((b"a", b"b")))
    until(lambda: pair.heard.said and pair.heard.said[-1].startswith(("close", "eof")))
    assert pair.port.queued == 0
