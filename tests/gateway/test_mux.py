"""forkd/gateway/mux_connection.py, mux_port.py: requests that share a connection."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import gevent
import pytest
from memory_port import MemoryPort

from forkd.config.model import ServerSettings
from forkd.gateway import mux_connection, mux_port
from forkd.gateway.mux_connection import MuxConnection
from forkd.gateway.mux_port import MAX_IN_MEMORY, MuxPort
from forkd.net.port import HIGH_WATER, Nobody
from forkd.protocol.fastcgi import (
    ProtocolStatus,
    Record,
    RecordDecoder,
    RecordType,
    Role,
    encode_begin,
    encode_end,
    encode_record,
    encode_stream,
)
from forkd.protocol.fastcgi_mux import QUANTUM

STDIN, STDOUT = RecordType.STDIN, RecordType.STDOUT
PIECE = bytes(range(250)) * 200


class Owner:
    def __init__(self) -> None:
        self.said: list[str] = []

    def has_room(self) -> None:
        self.said.append("room")

    def cannot_share(self, why: str) -> None:
        self.said.append(why)

    def gone(self, connection: MuxConnection) -> None:
        self.said.append("gone")


class Ear(Nobody):
    """Hears one request; *slow*: pauses its port whenever something comes."""

    def __init__(self, port: MuxPort, slow: bool = False) -> None:
        self.port = port
        self.slow = slow
        self.heard = b""
        self.said: list[str] = []
        port.attach(self)

    def on_data(self, data: bytes) -> None:
        self.heard += data
        if self.slow:
            self.port.pause()

    def on_eof(self) -> None:
        self.said.append("eof")

    def on_drain(self) -> None:
        self.said.append("drain")

    def on_close(self, why: str) -> None:
        self.said.append(f"close {why}")


class Site:
    """A connection, and the application at its other end."""

    def __init__(self, idle: float = 60) -> None:
        self.socket = MemoryPort()
        self.owner = Owner()
        folder = tempfile.gettempdir()
        server = ServerSettings(upload_dirs=(folder,))
        self.connection = MuxConnection(self.socket, "app", self.owner, server, idle)
        self._decoder = RecordDecoder()

    def begin(self, slow: bool = False) -> Ear:
        """A request that the application has heard of."""
        ear = Ear(self.connection.open(), slow)
        ear.port.write(encode_begin(ear.port.number, Role.RESPONDER, True))
        self.sent()
        return ear

    def sent(self) -> list[Record]:
        return [
            Record(kind, number, bytes(content))
            for kind, number, content in self._decoder.feed(self.socket.take())
        ]

    def say(self, ear: Ear, data: bytes) -> None:
        self.socket.receive(encode_stream(STDOUT, ear.port.number, data))

    def end(self, ear: Ear, status: ProtocolStatus = ProtocolStatus.REQUEST_COMPLETE) -> bytes:
        record = encode_end(ear.port.number, 0, status)
        self.socket.receive(record)
        return record


def settle() -> None:
    """Let the loop call what waits."""
    for _ in range(3):
        gevent.sleep(0)


def until(done: Callable[[], object]) -> None:
    with gevent.Timeout(10):
        while not done():
            gevent.sleep(0.005)


@pytest.fixture
def site() -> Site:
    return Site()


def abort_of(ear: Ear) -> list[Record]:
    return [Record(RecordType.ABORT_REQUEST, ear.port.number, b"")]


# -- what comes ---------------------------------------------------------------------------------


def test_each_hears_its_own_records(site: Site) -> None:
    one, two = site.begin(), site.begin()
    site.say(two, b"for two")
    site.say(one, b"for one")
    end = site.end(two)
    assert one.heard == encode_stream(STDOUT, 1, b"for one")
    assert two.heard == encode_stream(STDOUT, 2, b"for two") + end
    assert two.port.is_over and not one.port.is_over
    assert two.port.bytes_in == len(two.heard)


def test_the_next_request_has_the_number_while_the_last_is_still_heard(site: Site) -> None:
    one = site.begin()
    begun: list[Ear] = []

    def begin(data: bytes) -> None:
        if not begun:
            begun.append(site.begin())

    one.on_data = begin  # type: ignore[method-assign]
    end = encode_end(1, 0, ProtocolStatus.REQUEST_COMPLETE)
    site.socket.receive(encode_record(STDOUT, 1, b"last") + end)
    [two] = begun
    assert two.port.number == 1 and two.heard == b""
    one.port.close()
    assert site.sent() == []  # nobody is aborted
    site.say(two, b"x")
    assert two.heard == encode_record(STDOUT, 1, b"x")


def test_what_a_slow_one_does_not_take_is_held_and_given_in_order(site: Site) -> None:
    slow, other = site.begin(slow=True), site.begin()
    count = 2 * MAX_IN_MEMORY // len(PIECE)
    for _ in range(count):
        site.say(slow, PIECE)
        site.say(other, b".")
    end = site.end(slow)
    assert slow.heard == encode_stream(STDOUT, 1, PIECE)
    assert other.heard == encode_stream(STDOUT, 2, b".") * count
    expected = encode_stream(STDOUT, 1, PIECE) * count + end

    def taken() -> bool:
        slow.port.resume()
        return slow.heard == expected

    until(taken)
    assert not site.socket.paused and "close" not in " ".join(slow.said)


def test_one_for_whom_too_much_is_held_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mux_port, "MAX_HELD", 1 << 20)
    slow, other = site.begin(slow=True), site.begin()
    for _ in range((1 << 20) // len(PIECE) + 2):
        site.say(slow, PIECE)
    [said] = slow.said
    assert said.startswith("close ") and "client" in said
    assert site.sent() == abort_of(slow)
    site.say(slow, b"late")
    site.say(other, b"x")
    assert other.heard
    assert site.connection.requests == 2
    site.owner.said.clear()
    site.end(slow)
    assert site.connection.requests == 1 and site.owner.said == ["room"]


def test_one_that_is_alone_is_waited_for(site: Site) -> None:
    slow = site.begin(slow=True)
    said = 0
    while not site.socket.paused:
        site.say(slow, PIECE)
        said += 1
    assert said * len(PIECE) < 2 * MAX_IN_MEMORY + len(PIECE)
    site.say(slow, b"waits in the socket")

    def taken() -> bool:
        slow.port.resume()
        return slow.heard.endswith(b"socket")

    until(taken)
    assert not site.socket.paused


@pytest.mark.parametrize("how", ["another", "close", "abort"])
def test_a_connection_that_waits_for_one_goes_on(site: Site, how: str) -> None:
    slow = site.begin(slow=True)
    while not site.socket.paused:
        site.say(slow, PIECE)
    assert site.connection.is_congested
    if how == "another":
        site.begin()
    elif how == "close":
        slow.port.close()
    else:
        slow.port.abort("why")
    assert not site.socket.paused and not site.connection.is_congested


def test_a_request_may_change_hands(site: Site) -> None:
    one = site.begin(slow=True)
    site.say(one, b"1")
    site.say(one, b"2")
    other = Ear(one.port)
    settle()
    assert other.heard == encode_record(STDOUT, 1, b"2")
    site.say(one, b"3")
    assert other.heard.endswith(b"3") and one.heard.endswith(b"1")


def test_a_listeners_bug_ends_its_request_alone(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = site.begin(), site.begin()

    def fail(data: bytes) -> None:
        raise RuntimeError("bug")

    one.on_data = fail  # type: ignore[method-assign]
    site.say(one, b"x")
    site.say(two, b"x")
    assert one.said == ["close internal error"] and two.heard
    assert "listener failed" in caplog.text


# -- what goes ----------------------------------------------------------------------------------


def test_what_is_written_goes_out_at_once_while_the_socket_takes_it(site: Site) -> None:
    one = site.begin()
    assert one.port.write(encode_record(STDIN, 1, b"x"))
    assert site.sent() == [(STDIN, 1, b"x")]
    assert one.port.queued == 0 and one.said == []


def test_the_full_socket_is_shared_fairly(site: Site) -> None:
    large, small = site.begin(), site.begin()
    site.socket.blocked = True
    upload = encode_stream(STDIN, 1, bytes(60_000))
    assert large.port.write(upload)
    assert large.port.write(upload)
    assert not large.port.write(upload)
    assert large.port.queued > HIGH_WATER
    assert small.port.write(encode_record(STDIN, 2, b"small"))
    site.socket.unblock()
    records = site.sent()
    assert [record.request_id for record in records].index(2) < 12
    assert all(len(record.content) <= QUANTUM for record in records)
    assert sum(len(r.content) for r in records if r.request_id == 1) == 180_000
    assert (large.said, small.said) == (["drain"], ["drain"])
    assert large.port.bytes_out > 180_000 and large.port.queued == 0


def test_who_writes_for_a_request_that_is_over_is_not_kept_waiting(site: Site) -> None:
    one, _ = site.begin(), site.begin()
    site.socket.blocked = True
    while one.port.write(encode_stream(STDIN, 1, bytes(60_000))):
        pass
    site.end(one)
    assert one.said == ["drain"] and one.port.queued == 0
    assert one.port.write(encode_record(STDIN, 1, b"more"))
    site.socket.unblock()
    sent = site.sent()
    assert all(record.content != b"more" for record in sent)


# -- the end of a request -----------------------------------------------------------------------


def test_closed_after_its_end(site: Site) -> None:
    one = site.begin()
    site.end(one)
    one.port.close()
    assert one.said == ["drain", "close "] and site.sent() == []


def test_closed_before_its_end_the_application_has_time_to_end_it(site: Site) -> None:
    one = site.begin()
    one.port.write(encode_record(STDIN, 1))
    one.port.close(5)
    site.say(one, b"not heard")
    assert one.said == [] and one.heard == b""
    site.end(one)
    assert one.said == ["close "]
    assert site.sent() == [(STDIN, 1, b"")]


def test_closed_and_not_ended_it_is_aborted(site: Site) -> None:
    one = site.begin()
    one.port.close(0.01)
    until(lambda: one.said)
    assert one.said == ["close "] and site.sent() == abort_of(one)
    assert site.begin().port.number == 2


def test_aborted(site: Site) -> None:
    one = site.begin()
    one.port.abort("the client left")
    one.port.abort("again")
    assert one.said == ["close the client left"] and site.sent() == abort_of(one)
    late = Ear(one.port)
    settle()
    assert late.said == ["close the client left"]


def test_aborted_before_the_application_heard_of_it(site: Site) -> None:
    site.begin()
    site.socket.blocked = True
    site.socket.write(b"")
    busy = site.begin()
    busy.port.write(encode_stream(STDIN, 2, bytes(100_000)))
    unheard = Ear(site.connection.open())
    unheard.port.write(encode_begin(3, Role.RESPONDER, True))
    assert unheard.port.bytes_out == 0
    unheard.port.abort("gone")
    site.socket.unblock()
    assert {record.request_id for record in site.sent()} == {2}
    assert site.connection.open().number == 3


# -- the end of the connection ------------------------------------------------------------------


def test_the_end_of_the_connection_is_everybodys(site: Site) -> None:
    one, slow = site.begin(), site.begin(slow=True)
    site.say(slow, b"1")
    site.say(slow, b"2")
    site.socket.receive_eof()
    settle()
    assert one.said == ["eof"] and slow.said == []
    slow.port.resume()
    settle()
    slow.port.resume()
    settle()
    assert slow.heard.endswith(b"2") and slow.said == ["eof"]
    again = Ear(one.port)
    settle()
    assert again.said == ["eof"]
    assert site.owner.said == ["gone"]
    one.port.abort("")
    slow.port.close()
    assert site.socket.closing


def test_the_loss_of_the_connection_is_everybodys(site: Site) -> None:
    one, two = site.begin(), site.begin()
    two.port.close()
    site.socket.abort("reset")
    assert one.said == ["close reset"] and two.said == ["close "]
    assert site.owner.said[0] == "gone"


def test_what_waited_when_the_connection_was_lost_has_not_been_heard_of(site: Site) -> None:
    one = site.begin()
    site.socket.blocked = True
    one.port.write(encode_stream(STDIN, 1, bytes(100_000)))
    waiting = Ear(site.connection.open())
    waiting.port.write(encode_begin(2, Role.RESPONDER, True))
    site.socket.queued = 0  # as a port is that has been closed
    site.socket.abort("reset")
    assert waiting.said == ["close reset"] and waiting.port.bytes_out == 0


def test_what_the_socket_refuses_has_not_been_heard_of(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = site.begin(), Ear(site.connection.open())
    monkeypatch.setattr(site.socket, "write", lambda data: True)  # and its end has yet to come
    two.port.write(encode_begin(2, Role.RESPONDER, True))
    assert two.port.bytes_out == 0 and one.port.bytes_out > 0


def test_what_is_no_fastcgi_ends_the_connection(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    one = site.begin()
    site.socket.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    assert one.said == ["close FastCGI: version 72"]
    assert site.owner.said[:2] == ["FastCGI: version 72", "gone"]
    assert "app: shared connection dropped" in caplog.text


def test_an_application_that_cannot_multiplex_is_known_before_the_request_hears_of_it(
    site: Site,
) -> None:
    one, two = site.begin(), site.begin()
    heard: list[str] = []
    two.on_data = lambda data: heard.extend(site.owner.said)  # type: ignore[method-assign]
    site.end(two, ProtocolStatus.CANT_MPX_CONN)
    assert heard == ["CANT_MPX_CONN"]
    site.say(one, b"goes on")
    assert one.heard


def test_retired_it_closes_after_the_last_request(site: Site) -> None:
    one, two = site.begin(), site.begin()
    site.connection.retire()
    site.connection.retire()
    assert site.owner.said == ["gone"]
    site.end(one)
    assert not site.socket.closing
    two.port.abort("left")
    assert site.socket.closing


def test_idle_it_closes_after_a_while() -> None:
    site = Site(idle=0.01)
    until(lambda: site.socket.closing)
    site = Site(idle=0.2)
    one = site.begin()
    gevent.sleep(0.3)
    assert not site.socket.closing
    site.end(one)
    until(lambda: site.socket.closing)


@pytest.mark.parametrize("said", [b"garbage", None])
def test_idle_and_readable_it_is_dead(site: Site, said: bytes | None) -> None:
    site.end(site.begin())
    if said is None:
        site.socket.receive_eof()
    else:
        site.socket.receive(said)
    assert "gone" in site.owner.said
    assert site.socket.closing or site.socket.closed is not None


def test_an_application_that_never_ends_an_aborted_request_loses_the_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mux_connection, "ABORT_TIME", 0.05)
    one = site.begin()
    one.port.abort("left")

    def babbling() -> bool:
        if not site.socket.closing:
            site.say(one, b"more")
        return site.socket.closing

    until(babbling)


def test_nothing_held_is_left_behind(site: Site) -> None:
    ears = [site.begin(slow=True) for _ in range(3)]
    for ear in ears:
        for _ in range(MAX_IN_MEMORY // len(PIECE) + 2):
            site.say(ear, PIECE)
    ears[0].port.abort("left")
    ears[1].port.close()
    site.socket.abort("reset")
    assert [ear.port._held for ear in ears] == [None] * 3
