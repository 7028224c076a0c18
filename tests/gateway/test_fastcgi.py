"""forkd/gateway/fastcgi.py: what one request says, and what becomes of its connection."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeExchange, FakeWorker, make_request
from memory_port import MemoryPort

from forkd.address import Address
from forkd.config.backend import BackendSpec, GatewayServer, Proc, Route
from forkd.config.model import RequestConfig
from forkd.errors import Refused
from forkd.gateway.conversation import Backend
from forkd.gateway.fastcgi import FastCgi
from forkd.gateway.mux_port import MuxPort
from forkd.message import Request
from forkd.protocol.conversation import Complete
from forkd.protocol.fastcgi import (
    KEEP_CONN,
    ProtocolStatus,
    RecordDecoder,
    RecordType,
    Role,
    decode_pairs,
    encode_end,
    encode_record,
)

SPEC = BackendSpec("fastcgi", "/app/", "", Address("/run/app.sock"), check_local=False)
OK = encode_record(RecordType.STDOUT, 1, b"A: b\n\n") + encode_end(
    1, 0, ProtocolStatus.REQUEST_COMPLETE
)
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}


def fastcgi(request: Request, spec: BackendSpec = SPEC) -> FastCgi:
    route = Route("fastcgi", "/app/", (spec,))
    worker: Any = FakeWorker(None)
    exchange = FakeExchange(request, RequestConfig(document_root="/srv/www"))
    return FastCgi(exchange, GatewayServer("fastcgi", (route,)), route, worker)


def backend(spec: BackendSpec = SPEC) -> Backend:
    return Backend(MemoryPort(), "app", Proc(spec, 0, spec.address, 0))


def begun(request: Request, spec: BackendSpec = SPEC) -> tuple[int, int, dict[bytes, bytes]]:
    """(role, flags, variables)."""
    encoder, _ = fastcgi(request, spec).begin(request, request.content_length, backend(spec))
    begin, *params = RecordDecoder().feed(encoder.head())
    pairs = decode_pairs(b"".join(record.content for record in params))
    return begin.content[1], begin.content[2], dict(pairs)


def test_a_responder() -> None:
    role, flags, told = begun(make_request("/app/x?q", "POST", content_length=3))
    assert (role, flags) == (Role.RESPONDER, 0)
    assert told[b"CONTENT_LENGTH"] == b"3"
    assert told[b"SCRIPT_FILENAME"] == b"/srv/www/app/x"


def test_an_authorizer() -> None:
    spec = replace(SPEC, mode="authorizer", docroot="/auth")
    role, _, told = begun(make_request("/app/x", "POST", content_length=3), spec)
    assert role == Role.AUTHORIZER
    assert b"CONTENT_LENGTH" not in told
    assert told[b"SCRIPT_FILENAME"] == b"/auth/app/x"


def test_options_of_the_host() -> None:
    spec = replace(SPEC, broken_scriptfilename=True, strip_request_uri="/app")
    request = make_request("/app/x/y")._replace(decoded_path="/app/x", path_info="/y")
    told = begun(request, spec)[2]
    assert told[b"REQUEST_URI"] == b"/x/y"
    assert told[b"SCRIPT_FILENAME"] == b"/srv/www/app/x/y"


# (idle connections wanted, fields of the request, whether the connection is to be kept)
KEEPING: list[tuple[int, dict[str, str], bool]] = [
    (0, {}, False),
    (1, {}, True),
    (4, {"Accept": "x"}, True),
    (1, UPGRADE, False),
]


@pytest.mark.parametrize(("keep_conn", "fields", "keeps"), KEEPING)
def test_which_connections_are_kept(
    keep_conn: int, fields: dict[str, str], keeps: bool
) -> None:
    spec = replace(SPEC, keep_conn=keep_conn)
    request = make_request("/app/x", fields=fields)
    assert begun(request, spec)[1] == int(keeps)
    _, parser = fastcgi(request, spec).begin(request, 0, backend(spec))
    assert parser.feed(OK)[-1] == Complete(keeps)


def test_the_answer_to_head_is_never_short() -> None:
    request = make_request("/app/x", "HEAD")
    _, parser = fastcgi(request).begin(request, 0, backend())
    parser.feed(encode_record(RecordType.STDOUT, 1, b"Content-Length: 1\n\n"))
    assert parser.eof() == [Complete(False)]


def test_complaints_are_logged_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    request = make_request("/app/x")
    _, parser = fastcgi(request).begin(request, 0, backend())
    for text in (b"one\ntwo\n", b"three", b"four"):
        parser.feed(encode_record(RecordType.STDERR, 1, text))
    lines = [f"fastcgi app /app/x: stderr: {n}" for n in ("one", "two", "three", "four")]
    assert caplog.messages == lines


def test_the_tunnel_goes_on_where_the_response_stopped(caplog: pytest.LogCaptureFixture) -> None:
    request = make_request("/app/x", fields=UPGRADE)
    conversation = fastcgi(request)
    _, parser = conversation.begin(request, 0, backend())
    switch = encode_record(RecordType.STDOUT, 1, b"Status: 101\nUpgrade: websocket\n\n")
    record = encode_record(RecordType.STDOUT, 1, b"hello")
    parser.feed(switch + record[:10])
    codec = conversation.tunnel_codec()
    assert bytes(codec.from_backend(record[10:])[0]) == b"hello"
    codec.from_backend(encode_record(RecordType.STDERR, 1, b"still complaining"))
    assert caplog.messages == ["fastcgi app /app/x: stderr: still complaining"]


class Pool:
    def __init__(self) -> None:
        self.kept: list[tuple[str, int]] = []

    def keep(self, proc: Proc, port: MemoryPort, limit: int, seconds: float) -> None:
        assert seconds <= 1  # others wait for the proc meanwhile
        self.kept.append((proc.address.host, limit))


# (the protocol allows it, half-closed, what is kept)
ENDS = [(True, False, [("/run/app.sock", 2)]), (False, False, []), (True, True, [])]


@pytest.mark.parametrize(("reusable", "half_closed", "kept"), ENDS)
def test_what_becomes_of_the_connection(
    reusable: bool, half_closed: bool, kept: list[tuple[str, int]]
) -> None:
    spec = replace(SPEC, keep_conn=2)
    conversation = fastcgi(make_request("/app/x"), spec)
    worker: Any = FakeWorker(None)
    worker.pool = Pool()
    conversation.worker = worker
    used = backend(spec)
    if half_closed:
        conversation.half_close(used)
    conversation.done(used, reusable)
    assert worker.pool.kept == kept
    assert used.port.closing is not bool(kept)


# -- on a shared connection ---------------------------------------------------------------------


class Carrier:
    """A connection that lets go of everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: 0


def shared(number: int, spec: BackendSpec = SPEC) -> Backend:
    return Backend(MuxPort(Carrier(), number), "app", Proc(spec, 0, spec.address, 0))


@pytest.mark.parametrize("fields", [{}, UPGRADE])
def test_a_request_on_a_shared_connection_has_a_number_and_leaves_it_open(
    fields: dict[str, str],
) -> None:
    request = make_request("/app/x", fields=fields)
    encoder, parser = fastcgi(request).begin(request, 0, shared(7))
    records = RecordDecoder().feed(encoder.head() + encoder.end())
    assert {record.request_id for record in records} == {7}
    assert records[0].content[2] == KEEP_CONN
    assert parser.feed(OK) == []  # another's
    own = encode_record(RecordType.STDOUT, 7, b"A: b\n\n")
    assert len(parser.feed(own + encode_end(7, 0, ProtocolStatus.REQUEST_COMPLETE))) == 2


def test_a_shared_connection_is_not_kept_by_its_requests() -> None:
    spec = replace(SPEC, keep_conn=2, multiplex=9)
    conversation = fastcgi(make_request("/app/x"), spec)
    used = shared(7, spec)
    conversation.done(used, True)
    assert used.port.bytes_in == 0  # the worker has no pool: nobody asked for it


def test_an_overloaded_proc_is_avoided_and_no_other() -> None:
    avoided: list[Proc] = []
    for status, expected in ((ProtocolStatus.OVERLOADED, 1), (ProtocolStatus.CANT_MPX_CONN, 0)):
        avoided.clear()
        request = make_request("/app/x")
        conversation = fastcgi(request)
        worker: Any = conversation.worker
        worker.balancer = SimpleNamespace(avoid=avoided.append)
        used = backend()
        _, parser = conversation.begin(request, 0, used)
        with pytest.raises(Refused):
            parser.feed(encode_end(1, 0, status))
        conversation.abort(used, "refused")
        assert len(avoided) == expected
