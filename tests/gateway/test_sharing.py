"""forkd/gateway/sharing.py: who is asked, who shares, and who waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
import pytest
from memory_port import MemoryPort

from forkd.address import Address
from forkd.config.backend import BackendSpec, Proc
from forkd.config.model import ServerSettings
from forkd.gateway import sharing
from forkd.gateway.mux_port import MAX_IN_MEMORY, MuxPort
from forkd.gateway.sharing import SharedConnections
from forkd.protocol.fastcgi import (
    ProtocolStatus,
    RecordType,
    encode_end,
    encode_pairs,
    encode_record,
    encode_stream,
)
from forkd.protocol.fastcgi_mux import encode_question
from forkd.scoreboard import ProcState

SPEC = BackendSpec("fastcgi", "/", "", Address("/run/app"), multiplex=65535)
SPAWNED = replace(SPEC, bin_path=("/bin/app",))


def answer(*values: str) -> bytes:
    names = (b"FCGI_MPXS_CONNS", b"FCGI_MAX_REQS", b"FCGI_MAX_CONNS")
    pairs = zip(names, (value.encode() for value in values), strict=False)
    return encode_record(RecordType.GET_VALUES_RESULT, 0, encode_pairs(pairs))


class Board:
    def __init__(self) -> None:
        self.died = 0
        self.leased = 0
        self.runs = 812
        self.how = ProcState.RUNNING

    def deaths(self, proc: Proc) -> int:
        return self.died

    def pid(self, proc: Proc) -> int:
        return self.runs

    def load(self, proc: Proc) -> int:
        return self.leased

    def state(self, proc: Proc) -> ProcState:
        return self.how


class Application:
    """Answers what it is asked on connections made to it; None says nothing."""

    def __init__(self, spec: BackendSpec = SPEC, workers: int = 1) -> None:
        self.proc = Proc(spec, 0, spec.address, 0)
        self.board = Board()
        board: Any = self.board
        self.shared = SharedConnections(board, ServerSettings(), workers)
        self.says: bytes | None = answer("1")
        self.error: OSError | None = None
        self.is_slow = False
        self.sockets: list[MemoryPort] = []
        self.asked = 0

    def connect(self) -> MemoryPort:
        if self.is_slow:
            gevent.sleep(0.02)
        if self.error is not None:
            raise self.error
        socket = MemoryPort()
        self.sockets.append(socket)
        write = socket.write

        def answering(data: bytes) -> bool:
            taken = write(data)
            if data == encode_question():
                self.asked += 1
                if self.says is not None:
                    gevent.spawn(socket.receive, self.says)
            return taken

        socket.write = answering  # type: ignore[method-assign]
        return socket

    def open(self, patience: float = 5) -> MuxPort | None:
        return self.shared.open(self.proc, self.connect, patience)


def until(done: Callable[[], object]) -> None:
    with gevent.Timeout(10):
        while not done():
            gevent.sleep(0.005)


def end(application: Application, port: MuxPort | None) -> None:
    assert port is not None
    record = encode_end(port.number, 0, ProtocolStatus.REQUEST_COMPLETE)
    port.write(encode_record(RecordType.BEGIN_REQUEST, port.number, bytes(8)))
    application.sockets[-1].receive(record)


def test_all_that_come_at_once_share_one_connection() -> None:
    app = Application()
    app.is_slow = True
    openers = [gevent.spawn(app.open) for _ in range(10)]
    ports = [opener.get() for opener in openers]
    assert [port.number for port in ports] == list(range(1, 11))
    assert (len(app.sockets), app.asked) == (1, 1)


def test_a_connect_that_fails_fails_for_all_that_waited() -> None:
    app = Application()
    app.is_slow, app.error = True, OSError(111, "refused")
    openers = [gevent.spawn(app.open) for _ in range(3)]
    for opener in openers:
        with pytest.raises(OSError, match="refused"):
            opener.get()
    app.error = None
    assert app.open() is not None


@pytest.mark.parametrize("says", [answer("0"), answer(), b"garbage...", None])
def test_who_does_not_multiplex_is_asked_once(
    says: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "ANSWER_TIME", 0.05)
    app = Application()
    app.says = says
    assert app.open() is app.open() is None
    assert app.asked == 1 and app.sockets[0].closing


def test_who_closes_does_not_multiplex() -> None:
    for how in ("receive_eof", "abort"):
        app = Application()
        app.says = None
        opener = gevent.spawn(app.open)
        until(lambda app=app: app.asked)  # type: ignore[misc]
        getattr(app.sockets[0], how)(*["reset"] * (how == "abort"))
        assert opener.get() is None and app.open() is None
        assert app.asked == 1


def test_who_has_yet_to_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "ANSWER_TIME", 0.05)
    app = Application(SPAWNED)
    app.says, app.board.how = None, ProcState.STARTING
    opener = gevent.spawn(app.open)
    gevent.sleep(0.2)
    assert not opener.dead
    app.sockets[0].receive(answer("1"))
    assert opener.get() is not None


@pytest.mark.parametrize(
    ("told", "workers", "is_shared"),
    [
        (answer("1", "9", "2"), 2, True),
        (answer("1", "9", "1"), 2, False),
        (answer("1", "1", "9"), 2, True),
        (answer("1"), 64, True),
    ],
)
def test_connections_must_do_for_all_workers(
    told: bytes, workers: int, is_shared: bool
) -> None:
    app = Application(workers=workers)
    app.says = told
    assert (app.open() is not None) is is_shared


def test_a_new_process_is_asked_anew_and_nobody_shares_with_the_old_one() -> None:
    app = Application(SPAWNED)
    old = app.open()
    app.board.died += 1
    app.says = answer("0")
    assert app.open() is None
    assert app.asked == 2
    assert not app.sockets[0].closing  # its request goes on
    assert old is not None
    old.abort("over")
    assert app.sockets[0].closing


def test_what_the_master_answers_for_a_program_is_not_the_programs_answer() -> None:
    app = Application(SPAWNED)
    app.says, app.board.runs = None, 0
    opener = gevent.spawn(app.open)
    until(lambda: app.asked)
    app.sockets[0].receive_eof()  # it is throttled
    assert opener.get() is None and app.open() is None
    app.says, app.board.runs = answer("1"), 813
    assert app.open() is not None and app.asked == 2


@pytest.mark.parametrize(("spec", "asked"), [(SPEC, 2), (SPAWNED, 1)])
def test_whose_deaths_nobody_counts_is_asked_anew_after_the_last_connection(
    spec: BackendSpec, asked: int
) -> None:
    app = Application(spec)
    port = app.open()
    assert port is not None
    port.abort("")
    app.sockets[0].receive_eof()
    assert app.open() is not None
    assert app.asked == asked and len(app.sockets) == 2


def test_a_connection_takes_so_many_the_pool_so_many_connections() -> None:
    app = Application(replace(SPEC, multiplex=2, pool=2))
    ports = [app.open() for _ in range(4)]
    assert [port.number for port in ports if port is not None] == [1, 2, 1, 2]
    assert len(app.sockets) == 2 and app.asked == 1
    with pytest.raises(TimeoutError, match="no room"):
        app.open(0.1)
    waiting = gevent.spawn(app.open)
    end(app, ports[3])
    assert waiting.get().number == 2


def test_a_busy_connection_is_left_for_another_where_the_pool_allows() -> None:
    app = Application(replace(SPEC, pool=2))
    busy = app.open()
    assert busy is not None
    app.sockets[0].blocked = True
    busy.write(encode_record(RecordType.BEGIN_REQUEST, 1, bytes(8)))
    other = app.open()
    assert other is not None and other.number == 1 and len(app.sockets) == 2
    app.sockets[1].blocked = True
    other.write(encode_record(RecordType.BEGIN_REQUEST, 1, bytes(8)))
    third = app.open()
    assert third is not None and third.number == 2 and len(app.sockets) == 2


def test_the_application_takes_so_many_requests_of_all_workers() -> None:
    app = Application()
    app.says = answer("1", "3")
    assert app.open() is not None
    app.board.leased = 3
    waiting = gevent.spawn(app.open)
    with pytest.raises(TimeoutError):
        app.open(0.1)
    app.board.leased = 2  # in another worker
    assert waiting.get() is not None


class Counted:
    """The lease of a request, as far as its board tells."""

    def __init__(self, board: Board) -> None:
        self.board, self.is_held = board, True
        board.leased += 1

    def release(self) -> None:
        self.board.leased -= self.is_held
        self.is_held = False


def left(app: Application, port: MuxPort | None) -> None:
    """Its client leaves."""
    assert port is not None
    lease: Any = Counted(app.board)
    port.keep(lease)
    port.abort("client left")


def test_requests_that_nobody_wants_count_until_their_end() -> None:
    app = Application()
    app.says = answer("1", "1")
    port = app.open()
    assert port is not None
    port.write(encode_record(RecordType.BEGIN_REQUEST, 1, bytes(8)))
    left(app, port)
    with pytest.raises(TimeoutError):
        app.open(0.1)
    end(app, port)
    assert app.board.leased == 0 and app.open() is not None


def test_requests_that_never_end_count_no_more() -> None:
    app = Application()
    left(app, app.open())
    assert app.board.leased == 0, "the application has not heard of it"
    for lose in (MemoryPort.receive_eof, lambda socket: socket.abort("lost")):
        port = app.open()
        assert port is not None
        port.write(encode_record(RecordType.BEGIN_REQUEST, port.number, bytes(8)))
        left(app, port)
        assert app.board.leased == 1
        lose(app.sockets[-1])
        assert app.board.leased == 0
        left(app, port)
        assert app.board.leased == 0, "it is too late to keep it"


def test_a_stalled_client_is_no_reason_to_miss_the_end_of_others() -> None:
    app = Application()
    app.says = answer("1", "2")
    gone, stalled = app.open(), app.open()
    assert gone is not None and stalled is not None
    gone.write(encode_record(RecordType.BEGIN_REQUEST, gone.number, bytes(8)))
    app.board.leased = 1
    left(app, gone)
    stalled.pause()
    flood = encode_stream(RecordType.STDOUT, stalled.number, bytes(MAX_IN_MEMORY + 1))
    app.sockets[0].receive(flood)
    end(app, gone)
    assert app.open() is not None


def test_who_cannot_share_after_all_frees_those_who_wait() -> None:
    app = Application()
    app.says = answer("1", "1")
    port = app.open()
    assert port is not None
    port.write(encode_record(RecordType.BEGIN_REQUEST, 1, bytes(8)))
    app.board.leased = 1
    begun = time.monotonic()
    waiting = gevent.spawn(app.open, 60)
    gevent.sleep(0)
    app.sockets[0].receive(encode_end(1, 0, ProtocolStatus.CANT_MPX_CONN))
    assert waiting.get() is None and app.open() is None
    assert time.monotonic() - begun < 30
    assert app.sockets[0].closing


def test_who_waits_while_the_process_is_started_anew_has_a_place_at_the_new_one() -> None:
    app = Application(replace(SPAWNED, multiplex=1))
    old = app.open()
    assert old is not None
    waiting = gevent.spawn(app.open, 60)
    gevent.sleep(0)
    app.board.died += 1
    new = waiting.get()
    assert new is not None and new.number == 1
    assert app.asked == 2 and len(app.sockets) == 2
    old.abort("")
    assert app.sockets[0].closing and not app.sockets[1].closing


def test_closed_it_opens_nothing() -> None:
    app = Application()
    port = app.open()
    app.shared.close()
    assert app.open() is None and not app.sockets[0].closing
    assert port is not None
    port.abort("")
    assert app.sockets[0].closing


def test_a_connection_that_ends_at_once_is_not_tried_for_ever() -> None:
    app = Application(SPAWNED)
    port = app.open()
    assert port is not None
    port.abort("")
    app.sockets[0].receive_eof()
    connect = app.connect

    def connect_and_lose() -> MemoryPort:
        socket = connect()
        gevent.spawn(socket.receive_eof)
        return socket

    app.connect = connect_and_lose  # type: ignore[method-assign]
    with pytest.raises(ConnectionResetError):
        app.open()
