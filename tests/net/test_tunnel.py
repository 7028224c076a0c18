"""The tunnel over ports of lists: data, back-pressure, half-close, every way to end."""

from __future__ import annotations

import os
import zlib

import gevent
import pytest
from gevent import get_hub
from memory_port import HIGH_WATER, MemoryPort

from forkd.net.port import Peer
from forkd.net.tunnel import Tunnel, start_tunnel
from forkd.net.tunnel_handle import TunnelTimes
from forkd.protocol.codecs import CodecSettings, make_codec
from forkd.protocol.deflate import DeflateParams
from forkd.protocol.tunnel import MORE, BlindCodec, Buffer, End

TIMES = TunnelTimes(close=0.05)


class SayingCodec:
    """Upper-cases to the backend, lower-cases to the client; ``!`` from the client is answered,
    ``.`` from it ends the tunnel, ``CLOSE`` is said to it, and it owes a ``.``."""

    passes_reset = False
    end_of_input: bytes | None = None
    loss = b""

    def __init__(self) -> None:
        self.end: End | None = None
        self.peer_closed = False
        self.messages = (0, 0)
        self.pongs = 0

    def from_client(self, data: Buffer) -> tuple[bytes, bytes]:
        text = bytes(data)
        if b"." in text:
            self.peer_closed = True
            if self.end is None:
                self.end = End("client_close:1000", 1000)
                return b"CLOSE", text.partition(b".")[0].upper()
        if self.end is not None:
            return b"", b""
        return b"answer" * text.count(b"!"), text.upper()

    def from_backend(self, data: Buffer) -> tuple[bytes, bytes]:
        return bytes(data).lower(), b""

    def client_eof(self) -> tuple[bytes, bytes]:
        self.peer_closed = True
        self.end = self.end or End("client_eof")
        return b"", b""

    def backend_eof(self) -> tuple[bytes, bytes]:
        self.end = End("backend_eof", 1000, await_peer=True)
        return b"CLOSE", b""

    def ping(self) -> bytes:
        return b"PING"

    def close(self, code: int, reason: str) -> bytes:
        self.end = End(reason, code, await_peer=True)
        return f"CLOSE{code}".encode()


class Set:
    """A tunnel between two memory ports."""

    def __init__(self, codec=None, judge=None, early=b"", unread=b"", greeting=b"") -> None:
        self.client, self.backend = MemoryPort(), MemoryPort()
        self.over: list[str] = []
        self.tunnel = start_tunnel(
            self.client,
            self.backend,
            codec or SayingCodec(),
            TIMES,
            lambda tunnel: self.over.append(tunnel.reason),
            early=early,
            unread=unread,
            greeting=greeting,
            judge=judge,
        )

    def both_leave(self) -> None:
        self.client.finish()
        self.backend.finish()


def test_bytes_go_through_the_codec_both_ways():
    s = Set(early=b"early ", unread=b"UNREAD ")
    s.client.receive(b"hi!")
    s.backend.receive(b"THERE")
    assert s.backend.take() == b"EARLY HI!"
    assert s.client.take() == b"unread answerthere"
    assert s.tunnel.traffic.client_in == 3 and s.tunnel.traffic.backend_in == 5


def test_a_full_backend_pauses_the_client_only():
    s = Set()
    s.backend.blocked = True
    s.client.receive(b"x" * (HIGH_WATER + 1))
    assert s.client.paused and not s.backend.paused
    s.backend.receive(b"STILL")
    assert s.client.take() == b"still"
    s.backend.unblock()
    assert not s.client.paused
    assert len(s.backend.take()) == HIGH_WATER + 1


def test_a_full_client_pauses_both():
    s = Set()
    s.client.blocked = True
    s.backend.receive(b"x" * (HIGH_WATER + 1))
    assert s.backend.paused and s.client.paused
    s.client.unblock()
    assert not s.backend.paused and not s.client.paused


def test_answers_to_a_client_that_does_not_read_are_bounded():
    s = Set()
    s.client.blocked = True
    for _ in range(100):
        s.client.receive(b"!" * 1000)
    assert s.client.queued <= HIGH_WATER + 6000
    assert s.client.paused


def test_a_drain_resumes_only_whom_no_other_queue_holds():
    s = Set()
    s.backend.blocked = s.client.blocked = True
    s.client.receive(b"x" * (HIGH_WATER + 1))
    s.backend.receive(b"y" * (HIGH_WATER + 1))
    s.client.unblock()
    assert s.client.paused and not s.backend.paused  # the backend's queue still holds the client
    s.backend.unblock()
    assert not s.client.paused
    s.client.blocked = True
    s.backend.blocked = True
    s.client.receive(b"x" * (HIGH_WATER + 1))
    s.backend.receive(b"y" * (HIGH_WATER + 1))
    s.backend.unblock()
    assert s.client.paused and s.backend.paused
    s.client.unblock()
    assert not s.client.paused and not s.backend.paused


def test_a_blind_tunnel_half_closes_in_both_directions():
    s = Set(BlindCodec())
    s.client.receive_eof()
    assert s.backend.wrote_eof and not s.client.wrote_eof
    s.backend.receive(b"late answer")
    assert s.client.take() == b"late answer"
    s.backend.receive_eof()
    assert s.client.wrote_eof
    s.both_leave()
    assert s.over == ["client_eof"]


def test_a_blind_tunnel_outlives_its_backends_half_close():
    s = Set(BlindCodec())
    s.backend.receive_eof()
    assert s.client.wrote_eof
    s.client.receive(b"more")
    assert s.backend.take() == b"more"


def test_the_clients_close_is_answered_and_ends_the_backends_input():
    s = Set()
    s.client.receive(b"bye.")
    assert s.client.take() == b"CLOSE" and s.backend.take() == b"BYE"
    assert s.backend.wrote_eof and s.client.closing and s.backend.closing
    assert s.over == []
    s.both_leave()
    assert s.over == ["client_close:1000"]


def test_a_backend_at_its_end_waits_for_the_clients_answer():
    s = Set()
    s.backend.receive_eof()
    assert s.client.take() == b"CLOSE" and not s.client.closing
    s.client.receive(b"what came before it")
    assert s.backend.take() == b""
    s.client.receive(b".")
    assert s.client.closing
    s.both_leave()
    assert s.over == ["backend_eof"]


def test_a_client_that_never_answers_is_not_awaited_for_ever():
    s = Set()
    s.backend.receive_eof()
    with gevent.Timeout(5):
        while not s.client.closing:
            gevent.sleep(0.01)
    s.both_leave()
    assert s.over == ["backend_eof"]


def test_a_paused_client_is_read_again_for_its_answer():
    s = Set()
    s.client.blocked = True
    s.backend.receive(b"x" * (HIGH_WATER + 1))
    assert s.client.paused
    s.tunnel.close(1001, "stop")
    assert not s.client.paused


def test_a_client_that_leaves_without_a_word():
    s = Set()
    s.client.receive_eof()
    assert s.backend.wrote_eof and s.client.closing
    s.both_leave()
    assert s.over == ["client_eof"]


def test_a_reset_by_the_client():
    s = Set()
    s.client.abort("Connection reset by peer")
    assert s.backend.closing
    s.backend.finish()
    assert s.over == ["client_lost:Connection reset by peer"]


def test_a_reset_by_the_backend_is_1011():
    s = Set()
    s.backend.abort("Connection reset by peer")
    assert s.client.take() == b"CLOSE1011"
    s.client.receive(b".")
    s.client.finish()
    assert s.over == ["backend_lost:Connection reset by peer"]


@pytest.mark.parametrize("well, said", [(True, b"CLOSE"), (False, b"CLOSE1011")])
def test_the_judge_says_how_the_backends_end_is_meant(well, said):
    asked = []
    s = Set(judge=asked.append)
    s.backend.receive_eof()
    assert s.client.take() == b""
    asked[0](well)
    assert s.client.take() == said


def test_finish_ends_the_backends_input_and_delivers_its_last_words():
    s = Set()
    s.tunnel.finish()
    assert s.backend.wrote_eof
    s.client.receive(b"too late")
    s.backend.receive(b"LAST WORDS")
    s.backend.receive_eof()
    assert s.client.take() == b"last wordsCLOSE1001"
    s.client.receive(b".")
    s.both_leave()
    assert s.over == ["stop"]


def test_a_tunnel_of_ours_expires_with_a_close_frame():
    s = Set()
    s.tunnel.expire()
    s.tunnel.expire()
    assert s.client.take() == b"CLOSE1012" and s.backend.closing
    s.client.receive(b".")
    s.both_leave()
    assert s.over == ["drain"]


def test_a_blind_tunnel_that_expires_ends_the_backends_input_and_is_cut_later():
    s = Set(BlindCodec())
    s.tunnel.expire()
    s.tunnel.expire()
    assert s.backend.wrote_eof and not s.backend.closing
    s.backend.receive(b"last words")
    assert s.client.take() == b"last words"
    with gevent.Timeout(5):
        while not s.client.closing:
            gevent.sleep(0.005)
    assert s.backend.closing and s.tunnel.code == 1012
    s.both_leave()
    assert s.over == ["drain"]


def test_a_blind_tunnel_that_expires_is_over_when_its_backend_is():
    s = Set(BlindCodec())
    s.tunnel.expire()
    s.backend.receive_eof()
    assert s.client.closing
    s.both_leave()
    assert s.over == ["drain"]
    gevent.sleep(2 * TIMES.close)  # its timer has gone with it


def test_close_says_its_code_once():
    s = Set()
    s.tunnel.close(1001, "idle")
    s.tunnel.close(1011, "again")
    assert s.client.take() == b"CLOSE1001"
    assert s.tunnel.code == 1001
    s.client.receive(b".")
    s.both_leave()
    assert s.over == ["idle"]


def test_abort_cuts_both_ends():
    s = Set()
    s.tunnel.abort("write_idle")
    assert s.client.closed == "write_idle" and s.backend.closed == "write_idle"
    assert s.over == ["write_idle"]


def test_a_ping_goes_to_a_client_that_can_be_heard():
    s = Set()
    assert s.tunnel.ping() and s.client.take() == b"PING"
    s.client.blocked = True
    s.backend.receive(b"x" * (HIGH_WATER + 1))
    assert not s.tunnel.ping()


def test_an_end_in_the_early_bytes():
    s = Set(early=b"hello.")
    assert s.backend.take() == b"HELLO" and s.client.take() == b"CLOSE"
    s.both_leave()
    assert s.over == ["client_close:1000"]


def test_an_idle_tunnel_holds_no_greenlet_and_no_dict():
    s = Set()
    assert isinstance(s.tunnel, Tunnel) and not hasattr(s.tunnel, "__dict__")


# -- resets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["client", "backend"])
def test_a_reset_of_a_blind_tunnel_is_passed_on(end):
    s = Set(BlindCodec())
    one, other = (s.client, s.backend) if end == "client" else (s.backend, s.client)
    one.abort("Connection reset by peer")
    assert other.closed == "Connection reset by peer"
    assert s.over == [f"{end}_lost:Connection reset by peer"]


def test_a_client_that_is_lost_is_told_to_the_backend_where_there_are_words_for_it():
    codec = BlindCodec()
    codec.loss = b"ABORT"
    s = Set(codec)
    s.client.abort("reset")
    assert s.backend.take() == b"ABORT" and s.backend.closing and s.backend.closed is None


def test_a_greeting_comes_before_all_else():
    client, backend = MemoryPort(), MemoryPort()
    start_tunnel(
        client, backend, SayingCodec(), TIMES, lambda tunnel: None, unread=b"B", greeting=b"A"
    )
    assert client.take() == b"Ab"


def test_a_long_greeting_pauses_the_backend():
    client, backend = MemoryPort(), MemoryPort()
    client.blocked = True
    greeting = b"x" * (HIGH_WATER + 1)
    start_tunnel(client, backend, BlindCodec(), TIMES, lambda tunnel: None, greeting=greeting)
    assert backend.paused and client.paused
    client.unblock()
    assert not backend.paused and len(client.take()) == HIGH_WATER + 1


class FramingCodec(BlindCodec):
    """Tells its backend in the stream what others tell by the stream's end; an empty piece from the
    backend, ``|``, is the end of its direction."""

    end_of_input = b"<EOF>"
    loss = b"<ABORT>"

    def from_backend(self, data: Buffer) -> tuple[Buffer, Buffer]:
        text, bar, _ = bytes(data).partition(b"|")
        if bar:
            self.end = End("backend_eof", one_way=True)
        return text, b""


def test_a_framed_end_of_input_leaves_the_stream_open():
    s = Set(FramingCodec())
    s.client.receive(b"last")
    s.client.receive_eof()
    assert s.backend.take() == b"last<EOF>" and not s.backend.wrote_eof
    s.backend.receive(b"answer")
    assert s.client.take() == b"answer" and not s.client.closing


def test_finish_says_a_framed_end_of_input():
    s = Set(FramingCodec())
    s.tunnel.finish()
    assert s.backend.take() == b"<EOF>" and not s.backend.wrote_eof


def test_a_framed_end_of_the_backends_direction():
    s = Set(FramingCodec())
    s.backend.receive(b"bye|")
    assert s.client.take() == b"bye" and s.client.wrote_eof
    s.client.receive(b"more")
    assert s.backend.take() == b"more" and not s.backend.closing
    s.client.receive_eof()
    assert s.backend.take() == b"<EOF>" and s.backend.closing
    s.both_leave()
    assert s.over == ["backend_eof"]


def test_the_backend_is_told_that_nobody_listens():
    s = Set(FramingCodec())
    s.client.abort("Connection reset by peer")
    assert s.backend.take() == b"<ABORT>" and s.backend.closing
    s = Set(FramingCodec())
    s.tunnel.close(1001, "idle")
    assert s.backend.take() == b"<ABORT>" and s.backend.closing


def test_a_codec_that_is_over_before_it_begins():
    codec = FramingCodec()
    codec.end = End("backend_eof")
    s = Set(codec, early=b"early", greeting=b"hello")
    assert s.client.take() == b"hello" and s.client.closing and s.backend.closing
    s.both_leave()
    assert s.over == ["backend_eof"]


def test_a_client_that_is_lost_while_it_is_not_read():
    s = Set(BlindCodec())
    s.client.peer = Peer.LOST
    s.tunnel.look()
    assert s.client.closed is None  # it will be heard of
    s.backend.blocked = True
    s.client.receive(b"x" * (HIGH_WATER + 1))
    s.tunnel.look()
    assert s.client.closed == s.backend.closed == "connection lost"


# -- a codec that is not done with what the client has sent -------------------------------------


class TurnsCodec(SayingCodec):
    """Has ten bytes for the backend for each that it gets, and says them ten at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0

    def from_client(self, data: Buffer) -> tuple[bytes, bytes]:
        assert data or self.held
        self.held += len(data)
        self.held -= 1
        if self.held:
            self.end = MORE
        return b"", b"x" * 10


def rounds() -> None:
    """Let the loop go round a few times."""
    for _ in range(20):
        gevent.sleep(0.001)


def test_what_a_codec_holds_back_comes_in_the_loops_next_rounds():
    s = Set(TurnsCodec())
    s.client.receive(b"abc")
    assert s.backend.take() == b"x" * 10 and s.client.paused
    s.client.receive(b"de")  # waits behind that
    rounds()
    assert s.backend.take() == b"x" * 40 and not s.client.paused


def test_others_are_heard_between_the_turns_of_a_codec():
    s = Set(codec := TurnsCodec())
    other, signal = os.pipe()
    watcher = get_hub().loop.io(other, 1)
    held: list[int] = []

    def hear() -> None:
        held.append(codec.held)
        watcher.stop()

    watcher.start(hear)
    try:
        s.client.receive(b"a" * 100)
        os.write(signal, b"x")
        with gevent.Timeout(5):
            while s.client.paused:
                gevent.sleep(0.001)
        assert held[0] > 80
    finally:
        watcher.close()
        os.close(other)
        os.close(signal)


def test_what_a_codec_holds_back_waits_for_a_full_backend():
    s = Set(codec := TurnsCodec())
    s.backend.blocked = True
    s.client.receive(b"a" * HIGH_WATER)
    with gevent.Timeout(5):
        while s.backend.queued <= HIGH_WATER:
            gevent.sleep(0.001)
    rounds()
    assert HIGH_WATER < s.backend.queued <= HIGH_WATER + 10 and s.client.paused
    held = codec.held
    s.client.blocked = True
    s.backend.receive(b"y" * (HIGH_WATER + 1))
    s.backend.unblock()
    rounds()
    assert codec.held == held  # the client's queue holds it, too
    s.client.unblock()
    with gevent.Timeout(5):
        while s.client.paused:
            gevent.sleep(0.001)
    assert codec.held == 0 and len(s.backend.take()) == 10 * HIGH_WATER


def test_a_tunnel_that_ends_forgets_what_a_codec_holds_back():
    s = Set(TurnsCodec())
    s.client.receive(b"abc")
    s.tunnel.close(1001, "idle")
    s.backend.take()
    rounds()
    assert s.backend.take() == b"" and s.client.take() == b"CLOSE1001"


# -- a client that has said its last word -------------------------------------------------------


class LastWordCodec(SayingCodec):
    """``.`` from the client is its last word; it is answered behind the backend's."""

    last_word: End | None = None

    def from_client(self, data: Buffer) -> tuple[bytes, bytes]:
        if self.last_word:
            return b"", b""
        text, dot, _ = bytes(data).partition(b".")
        if dot:
            self.peer_closed = True
            self.last_word = End("client_close:1000", 1000)
            self.end = self.last_word._replace(after_backend=True)
        return b"", text.upper()

    def client_eof(self) -> tuple[bytes, bytes]:
        return (b"", b"") if self.last_word else super().client_eof()

    def backend_eof(self) -> tuple[bytes, bytes]:
        return self.close(1000, "backend_eof"), b""

    def close(self, code: int, reason: str) -> bytes:
        self.end = self.last_word or End(reason, code)
        return b"CLOSE%d" % self.end.code


def test_the_backends_last_answers_go_before_the_answer_to_a_close():
    s = Set(LastWordCodec())
    s.client.receive(b"hello.")
    assert s.backend.take() == b"HELLO" and s.backend.wrote_eof
    s.client.receive(b"late")
    s.client.receive_eof()
    s.backend.receive(b"ANSWER")
    assert s.client.take() == b"answer" and not s.client.closing
    s.backend.receive_eof()
    assert s.client.take() == b"CLOSE1000" and s.client.closing
    s.both_leave()
    assert s.over == ["client_close:1000"]


def test_a_backend_that_does_not_end_is_not_awaited_for_ever():
    s = Set(LastWordCodec())
    s.client.receive(b".")
    with gevent.Timeout(5):
        while not s.client.closing:
            gevent.sleep(0.01)
    assert s.client.take() == b"CLOSE1000" and s.backend.closing
    s.both_leave()
    assert s.over == ["client_close:1000"]


def test_a_backend_that_breaks_behind_a_close():
    s = Set(LastWordCodec())
    s.client.receive(b".")
    s.backend.abort("Connection reset by peer")
    assert s.client.take() == b"CLOSE1000"
    s.client.finish()
    assert s.over == ["client_close:1000"]


def test_a_client_that_leaves_behind_its_close():
    s = Set(LastWordCodec())
    s.client.receive(b".")
    s.client.abort("Connection reset by peer")
    s.backend.finish()
    assert s.over == ["client_close:1000"]


def test_a_stop_behind_a_close():
    s = Set(LastWordCodec())
    s.client.receive(b".")
    s.tunnel.finish()
    s.tunnel.close(1001, "stop")
    assert s.client.take() == b"CLOSE1000"
    s.both_leave()
    assert s.over == ["client_close:1000"]


def test_a_message_that_is_inflated_twice_waits_for_a_full_backend():
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    wire = stream.compress(bytes(16 << 20)) + stream.flush(zlib.Z_SYNC_FLUSH)
    raw = b"\xc2\xfe" + (len(wire) - 4).to_bytes(2) + bytes(4) + wire[:-4]
    s = Set(make_codec(CodecSettings("typed", deflate=DeflateParams())))
    s.backend.blocked = True
    s.client.receive(raw)
    with gevent.Timeout(30):
        while s.backend.queued <= HIGH_WATER:
            gevent.sleep(0.001)
    s.client.receive(b"\x82\x81\0\0\0\0.")  # waits behind that
    rounds()
    assert s.client.paused and s.backend.queued < 1 << 20
    s.backend.unblock()
    with gevent.Timeout(30):
        while s.client.paused:
            gevent.sleep(0.001)
    assert len(s.backend.take()) == 5 + (16 << 20) + 6
