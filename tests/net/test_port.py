"""FdPort and BlockingPort over real sockets."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator

import gevent
import pytest

from forkd.errors import ClientGone
from forkd.net.blocking import BlockingPort
from forkd.net.port import HIGH_WATER, FdPort


class Listener:
    """Records what a port says."""

    def __init__(self, port: FdPort) -> None:
        self.data = bytearray()
        self.eof = 0
        self.drains = 0
        self.closed: list[str] = []
        port.attach(self)

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_eof(self) -> None:
        self.eof += 1

    def on_drain(self) -> None:
        self.drains += 1

    def on_close(self, why: str) -> None:
        self.closed.append(why)


def until(condition, deadline: float = 5.0) -> None:
    """Let the loop run until *condition* holds."""
    with gevent.Timeout(deadline):
        while not condition():
            gevent.sleep(0.001)


@pytest.fixture
def pair() -> Iterator[tuple[FdPort, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    port = FdPort(ours)
    yield port, theirs
    port.abort("test over")
    theirs.close()


def read_available(sock: socket.socket, most: int = 1 << 30) -> bytes:
    """Everything that can be read now."""
    sock.setblocking(False)
    out = bytearray()
    try:
        while len(out) < most and (piece := sock.recv(65536)):
            out += piece
    except BlockingIOError:
        pass
    return bytes(out)


def fill(port: FdPort) -> int:
    """Write until the port is over its mark; the bytes written."""
    written = 0
    while True:
        written += 4096
        if not port.write(b"x" * 4096):
            return written


def test_data_and_eof_arrive(pair):
    port, theirs = pair
    heard = Listener(port)
    theirs.sendall(b"hello")
    until(lambda: heard.data)
    theirs.shutdown(socket.SHUT_WR)
    until(lambda: heard.eof)
    assert bytes(heard.data) == b"hello"
    assert port.bytes_in == 5
    assert heard.closed == []


def test_pause_keeps_bytes_in_the_kernel(pair):
    port, theirs = pair
    heard = Listener(port)
    port.pause()
    theirs.sendall(b"later")
    gevent.sleep(0.02)
    assert not heard.data
    port.resume()
    until(lambda: heard.data == b"later")


def test_write_goes_out_at_once(pair):
    port, theirs = pair
    Listener(port)
    assert port.write(memoryview(b"abc")) is True
    assert theirs.recv(10) == b"abc"
    assert port.bytes_out == 3


def test_a_full_port_says_so_and_drains_in_order(pair):
    port, theirs = pair
    heard = Listener(port)
    written = fill(port)
    assert port.queued > HIGH_WATER
    port.write(b"tail")
    got = bytearray()
    with gevent.Timeout(5):
        while len(got) < written + 4:
            got += read_available(theirs)
            gevent.sleep(0.001)
    assert bytes(got) == b"x" * written + b"tail"
    until(lambda: heard.drains)
    assert heard.drains == 1 and port.queued == 0


def test_write_eof_comes_after_what_is_queued(pair):
    port, theirs = pair
    Listener(port)
    written = fill(port)
    port.write_eof()
    got = bytearray()
    theirs.setblocking(False)
    with gevent.Timeout(5):
        while True:
            try:
                piece = theirs.recv(65536)
            except BlockingIOError:
                gevent.sleep(0.001)
                continue
            if not piece:
                break
            got += piece
    assert len(got) == written


def test_close_flushes_discards_input_and_ends_at_eof(pair):
    port, theirs = pair
    heard = Listener(port)
    port.write(b"bye")
    port.close(linger=5)
    theirs.sendall(b"ignored")
    assert theirs.recv(10) == b"bye"
    assert theirs.recv(10) == b""
    assert heard.closed == []
    theirs.close()
    until(lambda: heard.closed)
    assert heard.closed == [""] and not heard.data


def test_a_pause_does_not_hold_up_a_close(pair):
    port, theirs = pair
    heard = Listener(port)
    port.close(linger=60)
    port.pause()
    theirs.close()
    until(lambda: heard.closed)


def test_close_gives_up_after_linger(pair):
    port, _theirs = pair
    heard = Listener(port)
    port.close(linger=0.05)
    until(lambda: heard.closed)
    assert heard.closed == [""]


def test_close_at_eof_still_delivers_the_queue(pair):
    port, theirs = pair
    heard = Listener(port)
    theirs.shutdown(socket.SHUT_WR)
    until(lambda: heard.eof)
    written = fill(port)
    port.close(linger=5)
    got = bytearray()
    with gevent.Timeout(5):
        while not heard.closed:
            got += read_available(theirs)
            gevent.sleep(0.001)
    got += read_available(theirs)
    assert len(got) == written


def test_abort_tells_why_and_resets():
    server = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(server.getsockname())
    ours, _ = server.accept()
    ours.setblocking(False)
    heard = Listener(port := FdPort(ours))
    port.abort("because")
    assert heard.closed == ["because"]
    with pytest.raises(ConnectionResetError):
        theirs.recv(10)
    server.close()


def test_a_reset_by_the_other_side_is_a_reason():
    server = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(server.getsockname())
    ours, _ = server.accept()
    ours.setblocking(False)
    heard = Listener(FdPort(ours))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    until(lambda: heard.closed)
    assert heard.closed == ["Connection reset by peer"]
    server.close()


def test_a_failed_write_still_hears_what_came_before(pair):
    port, theirs = pair
    heard = Listener(port)
    port.pause()
    theirs.sendall(b"last words")
    theirs.close()
    assert port.write(b"anybody?") is True
    until(lambda: heard.closed)
    assert bytes(heard.data) == b"last words"
    assert heard.closed == ["Broken pipe"]


def test_an_exception_of_a_listener_ends_the_port_alone(pair, caplog):
    port, theirs = pair

    class Failing(Listener):
        def on_data(self, data: bytes) -> None:
            raise RuntimeError("its own bug")

    heard = Failing(port)
    theirs.sendall(b"x")
    until(lambda: heard.closed)
    assert heard.closed == ["internal error"]
    assert "its own bug" in caplog.text


# -- the greenlet's view ------------------------------------------------------------------------


def test_recv_gives_what_came_then_eof(pair):
    port, theirs = pair
    blocking = BlockingPort(port)
    theirs.sendall(b"abc")
    assert blocking.recv(5) == b"abc"
    theirs.close()
    assert blocking.recv(5) == b""
    assert blocking.gone.is_set()


def test_recv_times_out(pair):
    blocking = BlockingPort(pair[0])
    with pytest.raises(TimeoutError):
        blocking.recv(0.02)


def test_recv_after_a_reset_raises(pair):
    port, _theirs = pair
    blocking = BlockingPort(port)
    port.abort("cut")
    with pytest.raises(ClientGone, match="cut"):
        blocking.recv(5)


def test_read_ahead_is_bounded(pair):
    port, theirs = pair
    BlockingPort(port)
    theirs.setblocking(False)
    sent = 0
    for _ in range(1000):
        try:
            sent += theirs.send(b"x" * 65536)
        except BlockingIOError:
            gevent.sleep(0.001)
    assert port.bytes_in <= HIGH_WATER + 256 * 1024


def test_send_waits_only_over_the_mark(pair):
    port, theirs = pair
    blocking = BlockingPort(port)
    total = 4 << 20
    sender = gevent.spawn(blocking.send, b"y" * total, 5)
    got = 0
    with gevent.Timeout(10):
        while got < total - HIGH_WATER:
            got += len(read_available(theirs))
            gevent.sleep(0)
    sender.get(timeout=5)


def test_send_times_out_without_progress(pair):
    port, _theirs = pair
    blocking = BlockingPort(port)
    with pytest.raises(TimeoutError):
        while True:
            blocking.send(b"z" * 65536, 0.05)


def test_send_file_needs_no_memory(pair):
    port, theirs = pair
    blocking = BlockingPort(port)
    with tempfile.TemporaryFile() as file:
        os.truncate(file.fileno(), 8 << 20)
        sender = gevent.spawn(blocking.send_file, file.fileno(), 100, (8 << 20) - 100, 5)
        got = 0
        with gevent.Timeout(10):
            while got < (8 << 20) - 100:
                got += len(read_available(theirs))
                gevent.sleep(0)
        sender.get(timeout=5)
    assert port.queued == 0


def test_send_file_of_a_shortened_file_is_eof(pair):
    port, theirs = pair
    blocking = BlockingPort(port)
    with tempfile.TemporaryFile() as file:
        file.write(b"short")
        file.flush()
        with pytest.raises(EOFError):
            blocking.send_file(file.fileno(), 0, 10, 5)
    assert theirs.recv(10) == b"short"


def test_detach_hands_over_what_was_not_received(pair):
    port, theirs = pair
    blocking = BlockingPort(port)
    theirs.sendall(b"head")
    assert blocking.recv(5) == b"head"
    theirs.sendall(b"early")
    until(lambda: port.bytes_in == 9)
    same, unread = blocking.detach()
    heard = Listener(same)
    theirs.sendall(b"late")
    until(lambda: heard.data)
    assert (same, unread, bytes(heard.data)) == (port, b"early", b"late")


# -- two greenlets, interruptions, peers that leave unheard -----------------------------------


def test_one_greenlet_receives_while_another_sends(pair):
    port, theirs = pair
    blocking = BlockingPort(port)
    data = b"x" * (4 << 20)
    sender = gevent.spawn(blocking.send, data, 5)
    receiver = gevent.spawn(blocking.recv, 5)
    gevent.sleep(0)
    theirs.sendall(b"hello")
    assert receiver.get(timeout=5) == b"hello"
    assert not sender.dead
    got = 0
    theirs.setblocking(False)
    with gevent.Timeout(5):
        while got < len(data):
            gevent.sleep(0)
            got += len(read_available(theirs))
    sender.get(timeout=5)


def test_whoever_waits_is_interrupted_behind_what_has_come(pair):
    port, theirs = pair
    blocking = BlockingPort(port)
    receiver = gevent.spawn(blocking.recv, float("inf"))
    gevent.sleep(0)
    error = ValueError("x")
    blocking.interrupt(error)
    blocking.interrupt(KeyError("the first counts"))
    with pytest.raises(ValueError):
        receiver.get(timeout=5)
    theirs.sendall(b"late")
    until(lambda: blocking.pending)
    assert blocking.recv(1) == b"late"
    for call in (lambda: blocking.recv(1), lambda: blocking.send(b"x", 1)):
        with pytest.raises(ValueError):
            call()


def test_another_greenlet_may_close_the_port_under_a_waiting_one(pair):
    blocking = BlockingPort(pair[0])
    receiver = gevent.spawn(blocking.recv, 5)
    gevent.sleep(0)
    blocking.abort("enough")
    with pytest.raises(ClientGone, match="enough"):
        receiver.get(timeout=5)


def test_an_end_that_came_before_is_told_to_the_next_listener(pair):
    port, theirs = pair
    first = Listener(port)
    theirs.shutdown(socket.SHUT_WR)
    until(lambda: first.eof)
    second = Listener(port)
    until(lambda: second.eof)
    port.abort("over")
    assert (first.eof, second.eof, second.closed) == (1, 1, ["over"])
    third = Listener(port)
    until(lambda: third.closed)
    assert third.closed == ["over"]


@pytest.mark.parametrize("how", ["half-close", "reset"])
def test_a_peer_that_leaves_is_noticed_while_it_is_not_read(monkeypatch, how):
    monkeypatch.setattr("forkd.net.blocking.LOOK", 0.01)
    listener = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    ours.setblocking(False)
    blocking = BlockingPort(FdPort(ours), looks=True)
    theirs.sendall(b"x" * (HIGH_WATER + 1))
    until(lambda: blocking.pending > HIGH_WATER)
    assert not blocking.gone.is_set()
    if how == "reset":
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        until(lambda: blocking.closed_why)
    else:
        theirs.shutdown(socket.SHUT_WR)
        until(blocking.gone.is_set)
        assert blocking.closed_why is None
    blocking.abort("test over")
    theirs.close()
