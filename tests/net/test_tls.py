"""forkd/net/tls.py over real sockets, against the ssl module's own client and server."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
from authority import Authority, Issued
from memory_port import MemoryPort

from forkd.net.blocking import BlockingPort
from forkd.net.port import HIGH_WATER, FdPort
from forkd.net.tls import RECORD, HandshakeFailed, PlainText, TlsPort, connect_tls, secure

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("localhost")


@pytest.fixture(scope="module")
def server_context(issued: Issued) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


class Listener:
    """Records what a port says."""

    def __init__(self, port: Any) -> None:
        self.data = bytearray()
        self.sizes: list[int] = []
        self.eof = 0
        self.drains = 0
        self.closed: list[str] = []
        port.attach(self)

    def on_data(self, data: memoryview) -> None:
        self.data += data
        self.sizes.append(len(data))

    def on_eof(self) -> None:
        self.eof += 1

    def on_drain(self) -> None:
        self.drains += 1

    def on_close(self, why: str) -> None:
        self.closed.append(why)


def until(condition: Callable[[], Any], deadline: float = 5.0) -> None:
    """Let the loop run until *condition* holds."""
    with gevent.Timeout(deadline):
        while not condition():
            gevent.sleep(0.001)


class Peer:
    """The other side: the ssl module over a socket of its own, moved by hand."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str | None) -> None:
        self.socket = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(
            self.incoming, self.outgoing, server_side=name is None, server_hostname=name
        )
        self.received = bytearray()
        self.ended = False
        self.piece = 1 << 20
        sock.setblocking(False)

    def shake_hands(self) -> None:
        while True:
            try:
                self.session.do_handshake()
                self.flush()
                return
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()

    def flush(self) -> None:
        """Send what is encrypted, ``piece`` bytes at a time."""
        data = self.outgoing.read()
        while data:
            try:
                data = data[self.socket.send(data[: self.piece]) :]
                if self.piece < 1000:
                    gevent.sleep(0)
            except BlockingIOError:
                gevent.sleep(0.001)

    def send(self, data: bytes) -> None:
        self.session.write(data)
        self.flush()

    def read(self, most: int = 1 << 30) -> bytes:
        """Everything that can be read now."""
        while len(self.received) < most:
            try:
                data = self.session.read(65536)
            except ssl.SSLWantReadError:
                if not self._receive():
                    break
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self.ended = True
                break
            self.received += data
        return bytes(self.received)

    def end(self) -> None:
        """close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self.session.unwrap()
        self.flush()

    def _fill(self) -> None:
        with gevent.Timeout(5):
            while not self._receive():
                gevent.sleep(0.001)

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return False
        if not data:
            if self.session.version() is None:
                raise EOFError("the socket ended during the handshake")
            return False
        self.incoming.write(data)
        return True


class Pair:
    """A TlsPort that serves, and its client."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, piece: int = 0) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.below = FdPort(ours)
        self.peer = Peer(theirs, client, "localhost")
        if piece:
            self.peer.piece = piece
        wrap = partial(server.wrap_bio, server_side=True)
        shaking = gevent.spawn(secure, self.below, wrap, 5.0)
        self.peer.shake_hands()
        self.port: TlsPort = shaking.get()

    def close(self) -> None:
        self.port.abort("test over")
        self.peer.socket.close()


Connect = Callable[..., Pair]


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def client_context(request: Any, authority: Authority) -> ssl.SSLContext:
    context = authority.client()
    context.minimum_version = context.maximum_version = request.param
    return context


@pytest.fixture
def connect(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> Iterator[Connect]:
    pairs: list[Pair] = []

    def make(piece: int = 0) -> Pair:
        pairs.append(Pair(server_context, client_context, piece))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close()


# Bytes


def test_bytes_go_both_ways(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.send(b"hello")
    until(lambda: heard.data == b"hello")
    assert pair.port.write(b"goodbye") is True
    until(lambda: pair.peer.read() == b"goodbye")
    assert (pair.port.bytes_in, pair.port.bytes_out, pair.port.queued) == (5, 7, 0)
    assert pair.port.session.version() == pair.peer.session.version()


def test_byte_by_byte(connect: Connect) -> None:
    pair = connect(piece=1)
    heard = Listener(pair.port)
    for word in (b"one", b"two", b"three"):
        pair.peer.send(word)
    until(lambda: heard.data == b"onetwothree")


def test_what_comes_with_the_end_of_the_handshake_is_not_lost(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """Finished, a request and close_notify in one piece, as clients do that know what they want."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer(theirs, client_context, "localhost")
    wrap = partial(server_context.wrap_bio, server_side=True)
    shaking = gevent.spawn(secure, FdPort(ours), wrap, 5.0)
    real_flush, peer.flush = peer.flush, lambda: None  # type: ignore[method-assign]
    while not shaking.ready():
        try:
            peer.session.do_handshake()
            break
        except ssl.SSLWantReadError:
            real_flush()
            peer._fill()
    is_new = peer.session.version() == "TLSv1.3"
    if is_new:  # in TLS 1.2 the server has the last word
        peer.session.write(b"x" * 100_000)
        with pytest.raises(ssl.SSLWantReadError):
            peer.session.unwrap()
    real_flush()
    port = shaking.get()
    if not is_new:
        peer.session.write(b"x" * 100_000)
        with pytest.raises(ssl.SSLWantReadError):
            peer.session.unwrap()
        real_flush()
    heard = Listener(port)
    assert heard.data == b""  # told from the loop, never from within attach
    until(lambda: heard.eof)
    assert heard.data == b"x" * 100_000
    port.abort("test over")
    theirs.close()


def test_a_burst_with_the_end_of_the_handshake(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    handshake, theirs = shaking(server_context)
    peer = Peer(theirs, client_context, "localhost")
    peer.shake_hands()
    sending = gevent.spawn(peer.send, b"x" * 1_000_000)
    heard = Listener(port := handshake.get())
    until(lambda: len(heard.data) == 1_000_000)
    sending.get()
    port.abort("test over")
    theirs.close()


@pytest.mark.parametrize("size", [RECORD, RECORD + 1, 300_000, 5_000_000])
def test_big_messages(connect: Connect, size: int) -> None:
    pair = connect()
    heard = Listener(pair.port)
    data = bytes(range(256)) * (size // 256 + 1)
    sending = gevent.spawn(pair.peer.send, data)
    until(lambda: len(heard.data) == len(data), 20)
    sending.get()
    assert heard.data == data
    pair.port.write(memoryview(data))
    until(lambda: len(pair.peer.read()) == len(data), 20)
    assert bytes(pair.peer.received) == data
    assert pair.port.bytes_out == len(data)


def test_an_empty_write_is_nothing(connect: Connect) -> None:
    pair = connect()
    Listener(pair.port)
    assert pair.port.write(b"") is True
    pair.port.write(b"x")
    until(lambda: pair.peer.read() == b"x")


# Back-pressure


def test_who_does_not_read_fills_the_queue_and_drains_it(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    written = 0
    while pair.port.write(b"x" * 4096):
        written += 4096
    written += 4096
    assert HIGH_WATER < pair.port.queued < 2 * HIGH_WATER
    taken = pair.port.bytes_out
    assert 0 < taken < written
    gevent.sleep(0.02)
    assert pair.port.bytes_out == taken  # nobody takes anything, so nothing moves
    pair.port.write(b"x")
    assert pair.port.bytes_out == taken
    until(lambda: len(pair.peer.read()) == written + 1)
    assert heard.drains == 1
    assert (pair.port.queued, pair.port.bytes_out) == (0, written + 1)


def test_what_is_paused_is_not_read(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.port.pause()
    pair.peer.send(b"later")
    gevent.sleep(0.02)
    assert not heard.data
    pair.port.resume()
    until(lambda: heard.data == b"later")


def test_reading_is_bounded_by_the_pause(connect: Connect) -> None:
    """The listener pauses at once: no more is decrypted than one read has brought."""
    pair = connect()

    class Pausing(Listener):
        def on_data(self, data: memoryview) -> None:
            super().on_data(data)
            pair.port.pause()

    heard = Pausing(pair.port)
    sending = gevent.spawn(pair.peer.send, b"x" * 3_000_000)
    until(lambda: heard.data)
    gevent.sleep(0.05)
    assert len(heard.sizes) == 1
    assert len(heard.data) <= 300_000
    while len(heard.data) < 3_000_000:
        pair.port.resume()
        seen = len(heard.data)
        until(lambda seen=seen: len(heard.data) > seen)
    sending.get()


def test_an_end_is_not_told_to_who_has_just_paused(connect: Connect) -> None:
    """It has come in one read with the last bytes."""
    pair = connect()

    class Pausing(Listener):
        def on_data(self, data: memoryview) -> None:
            super().on_data(data)
            pair.port.pause()

    pair.peer.session.write(b"the last")
    heard = Pausing(pair.port)
    pair.peer.end()
    until(lambda: heard.data)
    gevent.sleep(0.02)
    assert heard.eof == 0
    pair.port.resume()
    until(lambda: heard.eof == 1)


def test_a_blocking_port_keeps_to_its_limit(connect: Connect) -> None:
    pair = connect()
    port = BlockingPort(pair.port, looks=True)
    sending = gevent.spawn(pair.peer.send, b"y" * 2_000_000)
    until(lambda: port.pending >= HIGH_WATER)
    gevent.sleep(0.05)
    assert port.pending < HIGH_WATER + 300_000
    got = 0
    while got < 2_000_000:
        got += len(port.recv(5))
    sending.get()
    assert got == 2_000_000


def test_a_file_is_copied_in_pieces(connect: Connect, tmp_path: Path) -> None:
    pair = connect()
    port = BlockingPort(pair.port)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 8000)
    most = 0

    def send() -> None:
        with path.open("rb") as file:
            port.send_file(file.fileno(), 256, 1_000_000, 5)

    sending = gevent.spawn(send)
    with gevent.Timeout(10):
        while len(pair.peer.received) < 1_000_000:
            most = max(most, pair.port.queued)
            pair.peer.read(len(pair.peer.received) + 50_000)
            gevent.sleep(0)
    sending.get()
    assert bytes(pair.peer.received) == path.read_bytes()[256:1_000_256]
    assert most < 3 * HIGH_WATER


# The ends


def test_the_client_ends_first_and_goes_on_reading(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.send(b"question")
    pair.peer.end()
    until(lambda: heard.eof)
    assert heard.data == b"question"
    pair.port.write(b"answer")
    until(lambda: pair.peer.read() == b"answer")
    pair.port.write_eof()
    until(lambda: pair.peer.read() == b"answer" and pair.peer.ended)
    assert heard.eof == 1 and heard.closed == []


def test_we_end_first_and_go_on_reading(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.send(b"before ")
    until(lambda: heard.data)
    pair.port.write(b"all")
    pair.port.write_eof()
    pair.port.write_eof()
    until(lambda: pair.peer.read() == b"all" and pair.peer.ended)
    for word in (b"still ", b"speaking", b"x" * 100_000):
        pair.peer.send(word)
    until(lambda: len(heard.data) == len(b"before still speaking") + 100_000)
    assert heard.eof == 0 and heard.closed == []
    pair.peer.session.unwrap()
    pair.peer.flush()
    until(lambda: heard.eof)
    assert heard.closed == []


def test_we_end_while_half_a_record_has_come(connect: Connect) -> None:
    """decisions: close_notify with input pending would end both directions."""
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.session.write(b"z" * 10_000)
    record = pair.peer.outgoing.read()
    pair.peer.socket.send(record[:5000])
    gevent.sleep(0.01)
    pair.port.write_eof()
    until(lambda: pair.peer.read() == b"" and pair.peer.ended)
    pair.peer.socket.send(record[5000:])
    until(lambda: heard.data == b"z" * 10_000)
    assert heard.closed == []


def test_the_end_comes_behind_what_is_queued(connect: Connect) -> None:
    pair = connect()
    Listener(pair.port)
    written = 0
    while pair.port.write(b"x" * 4096):
        written += 4096
    pair.port.write_eof()
    assert pair.port.write(b"too late") is True
    until(lambda: len(pair.peer.read()) == written + 4096 and pair.peer.ended)


def test_the_socket_ends_without_close_notify(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.send(b"last")
    pair.peer.socket.shutdown(socket.SHUT_WR)
    until(lambda: heard.eof)
    assert heard.data == b"last" and heard.closed == []


def test_an_end_is_told_again_to_the_next_listener(connect: Connect) -> None:
    pair = connect()
    first = Listener(pair.port)
    pair.peer.end()
    until(lambda: first.eof)
    second = Listener(pair.port)
    assert second.eof == 0
    until(lambda: second.eof)
    assert (first.eof, second.eof) == (1, 1)


def test_close_flushes_and_waits_for_the_client(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.port.write(b"x" * 500_000)
    pair.port.close()
    pair.port.close()
    until(lambda: len(pair.peer.read()) == 500_000 and pair.peer.ended)
    assert heard.closed == []
    pair.peer.socket.close()
    until(lambda: heard.closed)
    assert heard.closed == [""]
    assert heard.eof == 0


def test_last_words_that_make_us_close_and_the_end_in_one_piece(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.session.write(b"goodbye")
    heard.on_data = lambda data: pair.port.close(60)  # type: ignore[method-assign]
    pair.peer.end()
    until(lambda: pair.peer.read() == b"" and pair.peer.ended)
    pair.peer.socket.close()
    until(lambda: heard.closed)
    assert heard.closed == [""]


def test_close_does_not_wait_for_ever(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.port.close(0.05)
    until(lambda: heard.closed)
    assert heard.closed == [""]


def test_abort_resets(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.port.abort("enough")
    assert heard.closed == ["enough"]
    late = Listener(pair.port)
    assert late.closed == []
    until(lambda: late.closed)
    assert late.closed == ["enough"] and heard.closed == ["enough"]
    assert pair.port.write(b"x") is True
    pair.port.write_eof()
    pair.port.close()


def test_what_is_no_tls_any_more_is_refused_with_an_alert(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.session.write(b"hello")
    record = bytearray(pair.peer.outgoing.read())
    record[-1] ^= 1
    pair.peer.socket.send(record)
    until(lambda: heard.closed)
    assert heard.closed == ["decryption failed or bad record mac"] and not heard.data
    gevent.sleep(0.01)
    with pytest.raises(ssl.SSLError, match="(?i)alert_bad_record_mac"):
        pair.peer.read()


def test_data_before_the_damage_is_handed_on(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.session.write(b"good")
    pair.peer.socket.send(pair.peer.outgoing.read() + b"\x17\x03\x03\x00\x20" + b"?" * 32)
    until(lambda: heard.closed)
    assert heard.data == b"good"


def test_data_behind_close_notify_is_dropped(connect: Connect) -> None:
    pair = connect()
    heard = Listener(pair.port)
    pair.peer.session.write(b"x")
    with pytest.raises(ssl.SSLWantReadError):
        pair.peer.session.unwrap()
    pair.peer.socket.send(pair.peer.outgoing.read() + b"garbage" * 100)
    until(lambda: heard.eof)
    assert heard.data == b"x" and heard.closed == []


def test_a_bug_of_the_listener_ends_this_port_alone(connect: Connect) -> None:
    pair = connect()

    class Broken(Listener):
        def on_data(self, data: memoryview) -> None:
            raise RuntimeError("a bug")

    heard = Broken(pair.port)
    pair.peer.send(b"x")
    until(lambda: heard.closed)
    assert heard.closed == ["internal error"]


# Over a port in memory: what real sockets do not do at will


@pytest.fixture
def in_memory(server_context: ssl.SSLContext, authority: Authority) -> tuple[MemoryPort, Any, Any]:
    """(the port below, the TlsPort, the client's session with its two buffers)."""
    below = MemoryPort()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    wrap = partial(server_context.wrap_bio, server_side=True)
    shaking = gevent.spawn(secure, below, wrap, 5.0)
    while not shaking.ready():
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        gevent.idle()
        if outgoing.pending:
            below.receive(outgoing.read())
        gevent.idle()
        incoming.write(below.take())
    return below, shaking.get(), (client, incoming, outgoing)


def test_data_that_comes_while_paused_waits(in_memory: Any) -> None:
    below, port, (client, _, outgoing) = in_memory
    heard = Listener(port)
    client.write(b"first")
    first = outgoing.read()
    client.write(b"second")
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    port._paused = True  # the port below does not know, as when it empties a broken socket
    below.receive(first)
    below.receive(outgoing.read())
    gevent.idle()
    assert not heard.data and not heard.eof
    port.resume()
    assert not heard.data
    gevent.idle()
    assert (bytes(heard.data), heard.eof) == (b"firstsecond", 1)


def test_answers_that_nobody_reads_stop_the_reading(in_memory: Any) -> None:
    """A client that asks for new keys again and again (RFC 8446 section 4.6.3) is read no further
    than its answers get away."""
    below, port, _ = in_memory
    heard = Listener(port)
    below.blocked = True
    port.write(b"x" * 2 * HIGH_WATER)
    port._outgoing.write(b"an answer")
    port.on_data(b"")
    assert below.paused
    below.unblock()
    assert heard.drains == 1 and not below.paused


# Handshakes


def shaking(
    server_context: ssl.SSLContext, timeout: float = 5.0
) -> tuple[Any, socket.socket]:
    """A handshake under way, and the client's socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wrap = partial(server_context.wrap_bio, server_side=True)
    return gevent.spawn(secure, FdPort(ours), wrap, timeout), theirs


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
def test_a_handshake_takes_its_time(server_context: ssl.SSLContext, sent: bytes) -> None:
    handshake, theirs = shaking(server_context, 0.05)
    theirs.send(sent)
    with pytest.raises(TimeoutError, match="TLS handshake after 0.05 s"):
        handshake.get(timeout=5)
    with pytest.raises(ConnectionResetError) if sent else pytest.raises(BaseException):  # noqa: B017
        if not theirs.recv(10):
            raise ConnectionResetError


def test_trickled_bytes_do_not_prolong_it(server_context: ssl.SSLContext) -> None:
    handshake, theirs = shaking(server_context, 0.1)
    hello = b"\x16\x03\x01\x02\x00" + b"\x01" * 600
    with gevent.Timeout(5):
        for at in range(len(hello)):
            if handshake.ready():
                break
            theirs.send(hello[at : at + 1])
            gevent.sleep(0.005)
    with pytest.raises(TimeoutError):
        handshake.get(timeout=5)
    theirs.close()


def test_the_client_leaves(server_context: ssl.SSLContext) -> None:
    handshake, theirs = shaking(server_context)
    theirs.close()
    with pytest.raises(HandshakeFailed, match="left"):
        handshake.get(timeout=5)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.0\r\n\r\n", b"PROPFIND /", b"x"])
def test_plain_text(server_context: ssl.SSLContext, sent: bytes) -> None:
    handshake, theirs = shaking(server_context)
    theirs.send(sent)
    with pytest.raises(PlainText) as caught:
        handshake.get(timeout=5)
    assert caught.value.port.recv(1) == sent
    caught.value.port.abort("test over")
    theirs.close()


def test_no_common_version_is_an_alert(issued: Issued, authority: Authority) -> None:
    new_only = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    new_only.load_cert_chain(issued.certificate, issued.key)
    new_only.minimum_version = ssl.TLSVersion.TLSv1_3
    handshake, theirs = shaking(new_only)
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="(?i)alert_protocol_version"):
        Peer(theirs, context, "localhost").shake_hands()
    with pytest.raises(HandshakeFailed, match="unsupported protocol"):
        handshake.get(timeout=5)
    theirs.close()


# Towards a server


class Serving:
    """A server by the ssl module, at the other end of ``port``."""

    def __init__(self, context: ssl.SSLContext) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.port = FdPort(ours)
        self.peer = Peer(theirs, context, None)


def connected(
    serving: Serving, context: ssl.SSLContext, name: str = "localhost", timeout: float = 5
) -> TlsPort:
    greenlet = gevent.spawn(connect_tls, serving.port, context, name, timeout)
    with suppress(ssl.SSLError, EOFError):
        serving.peer.shake_hands()
    port = greenlet.get(timeout=5)
    assert isinstance(port, TlsPort)
    return port


def test_we_ask(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    serving = Serving(server_context)
    port = connected(serving, client_context)
    heard = Listener(port)
    port.write(b"ping")
    until(lambda: serving.peer.read() == b"ping")
    serving.peer.send(b"pong")
    serving.peer.end()
    until(lambda: heard.eof)
    assert heard.data == b"pong" and heard.closed == []
    port.abort("test over")


def test_an_answer_without_its_end_is_not_whole(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    serving = Serving(server_context)
    heard = Listener(connected(serving, client_context))
    serving.peer.send(b"half")
    serving.peer.socket.close()
    until(lambda: heard.closed)
    assert heard.data == b"half" and heard.eof == 0
    assert heard.closed == ["TLS ended without close_notify"]


def test_the_wrong_name(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with pytest.raises(HandshakeFailed, match=r"not accepted.*other\.example"):
        connected(Serving(server_context), client_context, "other.example")


def test_the_wrong_authority(server_context: ssl.SSLContext, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(HandshakeFailed, match="not accepted: unable to get local issuer"):
        connected(Serving(server_context), stranger.client())


def test_a_server_that_says_nothing(client_context: ssl.SSLContext) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with pytest.raises(TimeoutError):
        connect_tls(FdPort(ours), client_context, "localhost", 0.05)
    theirs.close()


def test_a_server_that_speaks_no_tls(client_context: ssl.SSLContext) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.send(b"SSH-2.0-OpenSSH\r\n")
    with pytest.raises(HandshakeFailed, match="wrong version number"):
        connect_tls(FdPort(ours), client_context, "localhost", 5)
    theirs.close()


# Memory


class Counting:
    """A MemoryBIO that knows how much it has held at one time: it never gives that back."""

    def __init__(self, buffer: ssl.MemoryBIO) -> None:
        self.buffer = buffer
        self.most = 0

    @property
    def pending(self) -> int:
        self.most = max(self.most, self.buffer.pending)
        return self.buffer.pending

    def write(self, data: Any) -> int:
        return self.buffer.write(data)

    def read(self) -> bytes:
        self.most = max(self.most, self.buffer.pending)
        return self.buffer.read()


def test_a_burst_leaves_nothing_behind(
    server_context: ssl.SSLContext, authority: Authority
) -> None:
    incoming, outgoing = Counting(ssl.MemoryBIO()), Counting(ssl.MemoryBIO())
    session = server_context.wrap_bio(incoming.buffer, outgoing.buffer, server_side=True)
    to_client, from_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client().wrap_bio(to_client, from_client, server_hostname="localhost")
    for _ in range(3):
        for one in (client, session):
            with suppress(ssl.SSLWantReadError):
                one.do_handshake()
        incoming.write(from_client.read())
        to_client.write(outgoing.read())
    below = MemoryPort()
    port = TlsPort(below, session, incoming, outgoing)  # type: ignore[arg-type]
    heard = Listener(port)
    for _ in range(4):
        client.write(b"x" * 250_000)
        below.receive(from_client.read())
        port.write(b"y" * 250_000)
    assert len(heard.data) == 1_000_000 and len(heard.sizes) == 4
    assert len(below.take()) > 1_000_000
    overhead = 256  # of a record (RFC 8446 section 5.2)
    assert incoming.most <= RECORD + overhead
    assert outgoing.most <= RECORD + overhead
