"""forkd/gateway/base.py, link.py, pump.py and respond.py: one request at one backend.

The client is a FakeExchange, the backend a MemoryPort that speaks CGI's response format.
"""

from __future__ import annotations

import gevent
import pytest
from fakes import FakeConfig, FakeExchange, make_request
from memory_port import HIGH_WATER, MemoryPort

from forkd.config.model import Features, Limits, RequestConfig, ServerSettings, StaticSettings
from forkd.errors import (
    BackendBroken,
    BackendTimeout,
    BadRequest,
    ClientGone,
    LengthRequired,
    MethodNotAllowed,
    NoBackend,
    RangeNotSatisfiable,
    Refused,
    Truncated,
)
from forkd.gateway import base
from forkd.gateway.base import MAX_ATTEMPTS
from forkd.gateway.conversation import Backend, Terms
from forkd.gateway.link import MAX_INTERIM
from forkd.gateway.outcome import Approved, LocalRedirected
from forkd.message import Fields
from forkd.protocol.cgi import CgiParser
from forkd.protocol.conversation import Complete, Stderr
from forkd.protocol.tunnel import BlindCodec

HEAD = b"Content-Type: text/plain\r\n\r\n"
UPGRADE = {"Connection": "upgrade", "Upgrade": "websocket"}
SWITCH = b"Status: 101\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"


class Encoder:
    """``<`` method, path and length ``>``, body in brackets, ``.`` for its end."""

    def __init__(self, request, length):
        upgrade = request.fields.get("upgrade")
        self._head = f"<{request.method} {request.path} {length}{upgrade and ' '}{upgrade}>"

    def head(self):
        return self._head.encode()

    def body(self, piece):
        return b"[%b]" % bytes(piece)

    def end(self):
        return b"."


class Parser(CgiParser):
    """CGI; Stderr for whatever comes in front of it in braces.  ``!`` says that the connection may
    be kept."""

    def feed(self, data):
        data = bytes(data)
        if data.startswith(b"{"):
            text, _, data = data[1:].partition(b"}")
            return [Stderr(text), *self.feed(data)]
        if bytes(data) == b"refused":
            raise Refused("not now")
        keeps = data.endswith(b"!")
        events = super().feed(data.removesuffix(b"!"))
        return [*events, Complete(True)] if keeps else events


class Talk:
    """A conversation with the *ports* of backends, one for each ``connect``."""

    def __init__(
        self,
        *ports,
        terms=None,
        needs_length=True,
        authorizes=False,
        kept=False,
        shared=False,
    ):
        self.ports = list(ports)
        self.needs_length = needs_length
        self.authorizes = authorizes
        self.ends_well = True
        self.calls: list[str] = []
        self.script: str | None = None
        self._terms = terms or Terms()
        self._kept = kept
        self._shared = shared

    def connect(self, fresh=False):
        self.calls.append("fresh" if fresh else "connect")
        port = self.ports[self.calls.count("fresh")]
        return Backend(port, "backend", None, None, self._kept and not fresh, self._shared)

    def terms(self, backend):
        return self._terms

    def begin(self, request, length, backend):
        parser = Parser(head_only=request.method == "HEAD", script=self.script)
        return Encoder(request, length), parser

    def half_close(self, backend):
        self.calls.append("half_close")

    def ended_well(self, backend):
        return self.ends_well

    def tunnel_codec(self):
        return BlindCodec()

    def done(self, backend, reusable):
        self.calls.append("done reusable" if reusable else "done")
        backend.port.close()

    def abort(self, backend, why):
        self.calls.append("abort")
        backend.port.abort(why)


class Row:
    def add(self, column, count): ...


class Board:
    mine = Row()


class Tunnels:
    def __init__(self):
        self.live = []

    def number(self):
        return 1

    def add(self, tunnel):
        self.live.append(tunnel)

    def discard(self, tunnel):
        self.live.remove(tunnel)


class Worker:
    def __init__(self, tmp_path, **server):
        server = ServerSettings(upload_dirs=(str(tmp_path),), **server)
        self.config = FakeConfig(server=server)
        self.board = Board()
        self.tunnels = Tunnels()


def settings(request_mode=0, response_mode=0, **static):
    limits = Limits(stream_request_body=request_mode, stream_response_body=response_mode)
    return RequestConfig(limits=limits, static=StaticSettings(**static))


class Run:
    """``serve`` in a greenlet of its own."""

    def __init__(self, tmp_path, talk=None, body=(), config=None, server=None, **request):
        self.port = MemoryPort()
        self.talk = talk or Talk()
        self.talk.ports = self.talk.ports or [self.port]
        self.port = self.talk.ports[0]
        method = request.pop("method", "POST" if body or "content_length" in request else "GET")
        if body and "content_length" not in request:
            request["content_length"] = sum(len(p) for p in body if isinstance(p, bytes))
        made = make_request("/app", method, **request)
        self.client = FakeExchange(made, config, [*body, b""] if body else ())
        self.worker = Worker(tmp_path, **(server or {}))
        self._greenlet = gevent.spawn(self._serve)
        settle()

    def _serve(self):
        try:
            base.serve(self.talk, self.client, self.worker)
        except (Exception, gevent.GreenletExit) as error:
            return error
        return None

    @property
    def is_over(self):
        return self._greenlet.dead

    def answer(self, *pieces, eof=True):
        for piece in pieces:
            self.port.receive(piece)
            settle()
        if eof:
            self.port.receive_eof()
            settle()
        return self

    def result(self):
        """What was raised, None for nothing."""
        with gevent.Timeout(5):
            return self._greenlet.get()

    def sent(self):
        return self.port.take()


def settle():
    """Everybody has done what can be done."""
    for _ in range(8):
        gevent.sleep(0)


@pytest.fixture
def run(tmp_path):
    return lambda *args, **named: Run(tmp_path, *args, **named)


# -- a whole exchange -------------------------------------------------------------------------


def test_request_and_response(run):
    r = run(body=[b"one", b"two"])
    assert r.sent() == b"<POST /app 6>[onetwo]."
    assert r.answer(b"Status: 201\r\nX-A: 1\r\n\r\nhel", b"lo").result() is None
    client = r.client
    assert (client.status, client.body, client.is_finished) == (201, b"hello", True)
    assert (client.field("x-a"), client.head.length) == ("1", 5)
    assert r.talk.calls == ["connect", "done"]
    assert not r.port.wrote_eof or r.port.closing


def test_a_program_is_told_the_end_of_its_input(run):
    r = run(Talk(terms=Terms(eof_after_body=True)))
    assert r.sent() == b"<GET /app 0>." and r.port.wrote_eof


def test_connection_that_may_be_kept(run):
    r = run().answer(HEAD + b"ok!", eof=False)
    assert r.result() is None
    assert r.talk.calls == ["connect", "done reusable"]


def test_connection_with_the_request_unfinished_is_not_kept(run):
    r = run(config=settings(1), content_length=9)
    r.answer(HEAD + b"ok!", eof=False)
    assert r.result() is None
    assert (r.client.body, r.talk.calls) == (b"ok", ["connect", "done"])


def test_interim_responses_are_passed_on(run):
    r = run().answer(b"Status: 103\r\nLink: x\r\n\r\n", HEAD + b"ok")
    assert r.result() is None
    assert [(h.status, h.fields.get("link")) for h in r.client.informed] == [(103, "x")]
    assert (r.client.status, r.client.body) == (200, b"ok")


def test_interim_responses_without_end(run):
    r = run().answer(b"Status: 103\r\nLink: x\r\n\r\n" * (MAX_INTERIM + 1), HEAD + b"ok")
    assert isinstance(r.result(), BackendBroken)
    assert len(r.client.informed) == MAX_INTERIM


def test_complaints_are_logged_by_line(run, caplog):
    assert run().answer(b"{one\ntwo}" + HEAD).result() is None
    assert "backend: stderr: one" in caplog.text and "backend: stderr: two" in caplog.text


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_responses_without_a_body(run, mode, method, status):
    r = run(method=method, config=settings(0, mode))
    r.answer(f"Status: {status}\r\nX: x\r\n\r\nbody".encode())
    assert r.result() is None
    assert (r.client.status, r.client.body, r.client.is_finished) == (status, b"", True)
    assert r.talk.calls == ["connect", "done"]


def test_connection_close_of_the_program_is_the_clients(run):
    r = run().answer(b"Connection: close\r\nX: x\r\n\r\n")
    assert r.result() is None
    assert not r.client.request.keep_alive


# -- streaming of the response ----------------------------------------------------------------


def test_buffered_response_waits_for_its_end(run):
    r = run().answer(HEAD + b"part", eof=False)
    assert not r.client.started
    assert r.answer(b"rest").result() is None
    assert (r.client.body, r.client.head.length) == (b"partrest", 8)


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_streamed_response_goes_out_at_once(run, mode):
    r = run(config=settings(0, mode)).answer(HEAD + b"part", eof=False)
    assert (r.client.body, r.client.head.length) == (b"part", None)
    assert r.answer(b"rest").result() is None
    assert r.client.body == b"partrest" and r.client.is_finished


def test_incremental_response_goes_out_at_once(run):
    r = run().answer(b"Incremental: ?1\r\nX: x\r\n\r\npart", eof=False)
    assert r.client.body == b"part"


@pytest.mark.parametrize(("mode", "is_paused"), [(0, False), (1, False), (2, True)])
def test_who_waits_for_a_slow_client(run, mode, is_paused):
    r = run(config=settings(0, mode), server={"upload_temp_file_size": 100_000})
    r.client.is_quick.clear()
    pieces = [bytes([65 + n]) * 50_000 for n in range(20)]
    r.answer(HEAD, *pieces, eof=False)
    assert r.port.paused is is_paused
    r.client.is_quick.set()
    r.port.receive_eof()
    assert r.result() is None
    assert r.client.body == b"".join(pieces)


def test_large_buffered_response_leaves_no_file(run, tmp_path):
    r = run(server={"upload_temp_file_size": 1 << 20})
    pieces = [bytes([n]) * 100_000 for n in range(30)]
    assert r.answer(HEAD, *pieces).result() is None
    assert r.client.body == b"".join(pieces)
    assert list(tmp_path.iterdir()) == []
    assert "send_file" in r.client.calls


# -- conditions and ranges of buffered responses ----------------------------------------------

ENTITY = b'ETag: "a"\r\nContent-Type: text/x\r\n\r\n0123456789'


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        ({}, 200, b"0123456789"),
        ({"Range": "bytes=2-4"}, 206, b"234"),
        ({"Range": "bytes=2-4", "If-Range": '"b"'}, 200, b"0123456789"),
        ({"If-None-Match": '"a"'}, 304, b""),
        ({"If-None-Match": '"b"'}, 200, b"0123456789"),
    ],
)
def test_conditions_and_ranges(run, fields, status, body):
    r = run(fields=fields).answer(ENTITY)
    assert r.result() is None
    assert (r.client.status, r.client.body) == (status, body)
    if status == 206:
        assert r.client.field("content-range") == "bytes 2-4/10"


def test_no_range_of_it(run):
    r = run(fields={"Range": "bytes=20-"}).answer(ENTITY)
    assert isinstance(r.result(), RangeNotSatisfiable)


def test_ranges_are_for_success_only_and_for_what_is_known(run):
    r = run(fields={"Range": "bytes=2-4"}).answer(b"Status: 404\r\n" + ENTITY)
    assert r.result() is None and r.client.status == 404 and len(r.client.body) == 10
    r = run(fields={"Range": "bytes=2-4"}, config=settings(0, 2)).answer(ENTITY)
    assert r.result() is None and r.client.status == 200


# -- streaming of the request -----------------------------------------------------------------


def test_buffered_request_waits_for_its_end(run):
    r = run(content_length=6)
    r.client.sends(b"one")
    settle()
    assert r.talk.calls == [] and r.sent() == b""
    r.client.sends(b"two", b"")
    settle()
    assert r.sent() == b"<POST /app 6>[onetwo]."


def test_buffered_request_of_unknown_length_has_one_at_its_end(run):
    r = run(content_length=None, body=[b"x" * 10])
    assert r.sent() == b"<POST /app 10>[xxxxxxxxxx]."


def test_large_buffered_request(run, tmp_path):
    pieces = [bytes([n]) * 40_000 for n in range(10)]
    r = run(body=pieces, server={"upload_temp_file_size": 100_000})
    assert r.sent().replace(b"][", b"") == b"<POST /app 400000>[" + b"".join(pieces) + b"]."
    assert r.answer(HEAD).result() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [1, 2])
def test_streamed_request_goes_out_at_once(run, mode):
    r = run(config=settings(mode), content_length=6)
    r.client.sends(b"one")
    settle()
    assert r.sent() == b"<POST /app 6>[one]"
    r.client.sends(b"two", b"")
    settle()
    assert r.sent() == b"[two]."


def test_streaming_a_body_of_unknown_length(run):
    r = run(config=settings(2), content_length=None)
    assert isinstance(r.result(), LengthRequired) and r.talk.calls == []
    r = run(Talk(needs_length=False), config=settings(2), content_length=None)
    assert r.sent() == b"<POST /app None>"


def test_incremental_request_goes_out_at_once(run):
    r = run(content_length=6, fields={"Incremental": "?1"})
    assert r.sent() == b"<POST /app 6>"


def test_upload_to_a_program_that_does_not_read_is_held_up(run):
    r = run(config=settings(2), content_length=1 << 30)
    r.port.blocked = True
    r.client.sends(*[b"x" * 16384] * 100)
    settle()
    assert r.client.taken < 3 * HIGH_WATER and r.port.queued < 3 * HIGH_WATER
    r.answer(HEAD + b"enough")
    assert r.result() is None
    assert (r.client.body, r.client.is_finished) == (b"enough", True)


def test_program_that_writes_much_before_it_reads(run):
    r = run(config=settings(2, 2), content_length=200_000)
    r.port.blocked = True
    r.client.sends(b"a" * 100_000)
    r.answer(HEAD, *[b"b" * 50_000] * 10, eof=False)
    assert len(r.client.body) == 500_000
    r.port.unblock()
    r.client.sends(b"c" * 100_000, b"")
    settle()
    assert r.port.take().endswith(b"c].")
    assert r.answer(b"end").result() is None


# -- failures (gateway.md 10) -----------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ([], BackendBroken),
        ([b"Status: 200\r\nX-"], BackendBroken),
        ([b"no head at all\r\n\r\n"], BackendBroken),
        ([b"Status: 99\r\n\r\n"], BackendBroken),
        ([b"Content-Length: 9\r\n\r\nshort"], Truncated),
        ([b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"], Truncated),
        ([SWITCH], BackendBroken),
        ([b"Status: 101\r\nX: no upgrade\r\n\r\n"], BackendBroken),
    ],
)
def test_bad_responses(run, mode, sent, error):
    r = run(config=settings(0, mode)).answer(*sent)
    result = r.result()
    assert type(result) is error and result.status == 502 and "backend" in str(result)
    assert r.talk.calls == ["connect", "abort"]
    assert not r.client.is_finished


def test_101_without_upgrade_field_where_one_is_allowed(run):
    r = run(Talk(terms=Terms(upgrade=True)), fields=UPGRADE)
    r.answer(b"Status: 101\r\nX: x\r\n\r\n")
    assert isinstance(r.result(), BackendBroken)


def test_reset_before_and_behind_the_head(run):
    r = run()
    r.port.abort("Connection reset by peer")
    assert isinstance(r.result(), BackendBroken)
    r = run(config=settings(0, 2)).answer(HEAD + b"part", eof=False)
    r.port.abort("Connection reset by peer")
    assert isinstance(r.result(), BackendBroken) and not r.client.is_finished


def test_reset_because_a_body_was_not_read_is_an_end(run):
    r = run(body=[b"body"]).answer(HEAD + b"all", eof=False)
    r.port.abort("Connection reset by peer")
    assert r.result() is None and r.client.body == b"all"


def test_a_death_does_not_look_like_an_end(run):
    for mode in (0, 1, 2):
        r = run(config=settings(0, mode))
        r.talk.ends_well = False
        r.answer(HEAD + b"part")
        assert isinstance(r.result(), Truncated) and not r.client.is_finished
    r = run()
    r.talk.ends_well = False
    assert r.answer(b"Content-Length: 3\r\n\r\nall").result() is None


def test_read_timeout(run):
    quick = Terms(read_timeout=0.02)
    r = run(Talk(terms=quick))
    result = r.result()
    assert isinstance(result, BackendTimeout) and result.status == 504
    r = run(Talk(terms=quick), config=settings(0, 2)).answer(HEAD + b"part", eof=False)
    assert isinstance(r.result(), BackendTimeout)
    assert r.client.body == b"part" and r.talk.calls == ["connect", "abort"]


def test_a_slow_client_is_no_read_timeout(run):
    r = run(Talk(terms=Terms(read_timeout=0.02)), config=settings(0, 2))
    r.client.is_quick.clear()
    r.answer(HEAD + b"part", eof=False)
    gevent.sleep(0.05)
    assert not r.is_over
    r.port.receive_eof()
    r.client.is_quick.set()
    assert r.result() is None


@pytest.mark.parametrize("body", [[b"small"], [b"large" * 40_000]])
def test_write_timeout(run, body):
    port = MemoryPort()
    port.blocked = True
    r = run(Talk(port, terms=Terms(write_timeout=0.02)), body=body)
    assert isinstance(r.result(), BackendTimeout)


def test_an_answer_that_has_come_is_better_than_a_write_timeout(run):
    port = MemoryPort()
    port.blocked = True
    r = run(Talk(port, terms=Terms(write_timeout=0.02)), body=[b"x" * 200_000])
    r.answer(b"Status: 413\r\nContent-Length: 2\r\n\r\nno", eof=False)
    assert r.result() is None and r.client.status == 413


def test_connect_failure_is_the_callers(run):
    talk = Talk()

    def connect(fresh=False):
        raise BackendTimeout("x")

    talk.connect = connect
    assert isinstance(run(talk).result(), BackendTimeout)


# -- kept connections -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eof", "reset", "already closed"])
def test_a_stale_connection_is_replaced_once(run, how):
    stale, fresh = MemoryPort(), MemoryPort()
    if how == "already closed":
        stale.abort("reset")
    r = run(Talk(stale, fresh, kept=True))
    if how == "eof":
        stale.receive_eof()
    elif how == "reset":
        stale.abort("reset")
    settle()
    assert fresh.take() == b"<GET /app 0>."
    fresh.receive(HEAD + b"ok")
    fresh.receive_eof()
    assert r.result() is None and r.client.body == b"ok"
    assert r.talk.calls == ["connect", "abort", "fresh", "done"]


def test_what_is_not_idempotent_or_has_begun_is_not_sent_twice(run):
    for sent, request in (
        (b"", {"body": [b"x"]}),
        (b"Status: 2", {}),
        (b"", {"method": "PUT", "content_length": 5, "config": settings(2)}),
    ):
        port = MemoryPort()
        r = run(Talk(port, kept=True), **request)
        if sent:
            port.receive(sent)
        port.receive_eof()
        assert isinstance(r.result(), BackendBroken), request
        assert r.talk.calls == ["connect", "abort"]


def test_a_shared_connection_that_ends_before_it_heard_of_the_request(run):
    for written, sent_again in ((False, True), (True, False)):
        dead, fresh = MemoryPort(), MemoryPort()
        dead.blocked = not written
        r = run(Talk(dead, fresh, shared=True), method="POST", body=[b"x"])
        dead.receive_eof()
        settle()
        assert fresh.take() == (b"<POST /app 1>[x]." if sent_again else b"")
        fresh.receive(HEAD + b"ok")
        fresh.receive_eof()
        assert (r.result() is None) is sent_again


def test_a_request_that_is_refused_is_sent_again_if_all_of_it_is_here(run):
    ports = [MemoryPort() for _ in range(MAX_ATTEMPTS)]
    r = run(Talk(*ports), method="POST", body=[b"x"])
    for port in ports[:-1]:
        port.receive(b"refused")
        settle()
    assert ports[-1].take() == b"<POST /app 1>[x]."
    ports[-1].receive(HEAD + b"ok")
    ports[-1].receive_eof()
    assert r.result() is None and r.client.body == b"ok"


def test_a_request_that_all_refuse(run):
    ports = [MemoryPort() for _ in range(MAX_ATTEMPTS)]
    r = run(Talk(*ports))
    for port in ports:
        port.receive(b"refused")
        settle()
    error = r.result()
    assert isinstance(error, NoBackend) and "not now" in str(error)


def test_a_request_is_not_sent_again_once_it_was_answered(run):
    port = MemoryPort()
    r = run(Talk(port))
    r.answer(HEAD + b"part", b"refused", eof=False)
    assert isinstance(r.result(), Refused)


def test_a_request_that_is_refused_while_it_comes(run):
    port = MemoryPort()
    r = run(Talk(port), method="PUT", content_length=5, config=settings(2))
    port.receive(b"refused")
    assert isinstance(r.result(), Refused)


# -- clients that leave -----------------------------------------------------------------------


def test_reset_of_the_client_ends_the_request(run):
    r = run()
    r.client.leaves(by_reset=True)
    assert isinstance(r.result(), ClientGone)
    assert r.talk.calls == ["connect", "abort"]


def test_half_close_of_the_client_changes_nothing(run):
    r = run()
    r.client.leaves(by_reset=False)
    assert r.answer(HEAD + b"ok").result() is None
    assert r.talk.calls == ["connect", "done"]


def test_half_close_is_told_where_configured(run):
    r = run(Talk(terms=Terms(fin_propagate=True)), config=settings(2), content_length=3)
    r.client.leaves(by_reset=False)
    settle()
    assert r.talk.calls == ["connect"]  # the body first
    r.client.sends(b"abc", b"")
    settle()
    assert r.talk.calls == ["connect", "half_close"]
    assert r.answer(HEAD).result() is None
    assert r.talk.calls == ["connect", "half_close", "done"]


@pytest.mark.parametrize("error", [BadRequest("bad chunk"), ClientGone("too slow")])
def test_what_is_wrong_with_the_body_ends_the_request(run, error):
    r = run(config=settings(2), content_length=9)
    r.client.sends(b"abc", error)
    assert r.result() is error
    assert r.talk.calls == ["connect", "abort"]


@pytest.mark.parametrize("mode", [1, 2])
def test_client_that_leaves_during_the_response(run, mode):
    r = run(config=settings(0, mode))
    r.client.leaves_after = 3
    r.answer(HEAD + b"more than that", eof=False)
    assert isinstance(r.result(), ClientGone)
    assert r.talk.calls == ["connect", "abort"]


# -- upgrades ---------------------------------------------------------------------------------


def upgrading(run, **more):
    return run(Talk(terms=Terms(upgrade=True)), fields=UPGRADE, **more)


def test_tunnel(run):
    r = upgrading(run)
    assert r.sent() == b"<GET /app 0 websocket>"  # and more may come: no end
    r.client.early = b"early "
    r.answer(SWITCH + b"glued ", eof=False)
    assert r.result() is None and r.client.status == 101
    assert r.client.field("sec-websocket-accept") == "x" and r.client.field("upgrade")
    client = r.client.port
    client.receive(b"from client")
    r.port.receive(b"from backend")
    assert r.sent() == b"early from client"
    assert client.take() == b"glued from backend"
    assert r.talk.calls == ["connect"] and len(r.worker.tunnels.live) == 1
    client.receive_eof()
    assert r.port.wrote_eof and not client.wrote_eof
    r.port.receive(b" rest")
    r.port.receive_eof()
    assert client.take() == b" rest" and client.wrote_eof
    client.finish()
    r.port.finish()
    assert r.worker.tunnels.live == []


def test_interim_before_the_switch(run):
    r = upgrading(run).answer(b"Status: 103\r\nX: x\r\n\r\n" + SWITCH, eof=False)
    assert r.result() is None
    assert [head.status for head in r.client.informed] == [103] and r.client.status == 101


def test_backend_that_ends_with_the_switch(run):
    r = upgrading(run)
    r.port.receive(SWITCH + b"bye")
    r.port.receive_eof()
    assert r.result() is None
    settle()
    assert r.client.port.take() == b"bye" and r.client.port.wrote_eof


def test_client_that_ended_before_the_switch(run):
    r = upgrading(run)
    r.client.early = b"all"
    r.client.leaves(by_reset=False)
    r.client.port.attach(BlindEnd())
    r.client.port.receive_eof()
    r.answer(SWITCH, eof=False)
    assert r.result() is None
    settle()
    assert r.sent().endswith(b"all") and r.port.wrote_eof


class BlindEnd:
    def on_eof(self): ...
    def on_close(self, why): ...


@pytest.mark.parametrize("end", ["client", "backend"])
def test_a_reset_is_a_reset_at_the_other_end(run, end):
    r = upgrading(run).answer(SWITCH, eof=False)
    one, other = r.client.port, r.port
    if end == "backend":
        one, other = other, one
    one.abort("reset")
    assert other.closed == "reset"


def test_another_answer_than_101(run):
    r = upgrading(run)
    r.sent()
    r.answer(b"Status: 403\r\nUpgrade: h3\r\n\r\nno", eof=False)
    assert r.sent() == b"."  # nothing will follow
    assert r.answer().result() is None
    assert (r.client.status, r.client.body, r.client.field("upgrade")) == (403, b"no", "")


def test_upgrade_that_is_not_allowed_is_not_offered(run):
    r = run(fields=UPGRADE)
    assert r.sent() == b"<GET /app 0>."


def test_upgrade_with_a_body(run):
    r = upgrading(run, body=[b"body"])
    assert r.sent() == b"<POST /app 4>[body]."
    features = Features(upgrade_with_request_body=True)
    r = upgrading(run, body=[b"body"], server={"features": features})
    assert r.sent() == b"<POST /app 4 websocket>[body]"
    r.answer(SWITCH, eof=False)
    r.client.port.receive(b"tunnel")
    assert r.sent() == b"tunnel"


def test_connect_where_no_upgrade_is_allowed(run):
    r = run(method="CONNECT", protocol="websocket", version="HTTP/2.0")
    assert isinstance(r.result(), MethodNotAllowed)
    assert r.talk.calls == ["connect", "abort"]


# -- answers that are none --------------------------------------------------------------------


def test_local_redirect(run):
    talk = Talk()
    talk.script = "/app"
    result = run(talk).answer(b"Location: /other?x\r\n\r\n").result()
    assert isinstance(result, LocalRedirected) and result.target == "/other?x"
    assert talk.calls == ["connect", "done"]


def test_authorizer_approves(run):
    talk = Talk(authorizes=True, terms=Terms(docroot="/d"))
    r = run(talk, content_length=5)
    assert r.sent() == b"<POST /app 0>."
    result = r.answer(b"Variable-USER: joe\r\nX-Other: x\r\n\r\nignored").result()
    assert isinstance(result, Approved)
    assert (result.environment, result.docroot) == ((("USER", "joe"),), "/d")
    assert not r.client.started and talk.calls == ["connect", "done"]


def test_authorizer_denies(run):
    r = run(Talk(authorizes=True)).answer(b"Status: 401\r\nX-A: 1\r\n\r\nno")
    assert r.result() is None
    assert (r.client.status, r.client.body, r.client.field("x-a")) == (401, b"no", "1")


def test_fields_that_are_not_for_the_client(run):
    head = (
        b"X-LIGHTTPD-KBytes-per-second: 9\r\nX-Sendfile: /etc/passwd\r\nHTTP2-Settings: x\r\n"
        b"Content-Type: application/javascript; charset=utf-8\r\n\r\n"
    )
    r = run(config=settings(range_requests=False)).answer(head)
    assert r.result() is None
    assert r.client.head.fields == Fields([("Content-Type", "text/javascript; charset=utf-8")])
