"""forkd/protocol/fastcgi_request.py: a request, its response, and the tunnel after a 101."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.errors import BackendBroken, BadRequest, Refused, Truncated
from forkd.message import Fields, Head
from forkd.protocol.conversation import Complete, Event
from forkd.protocol.fastcgi import (
    ProtocolStatus,
    RecordDecoder,
    RecordType,
    Role,
    decode_pairs,
    encode_end,
    encode_record,
)
from forkd.protocol.fastcgi_request import FastCgiCodec, FastCgiEncoder, FastCgiParser
from forkd.protocol.tunnel import End

STEPS = (1, 5, 1 << 20)


def record(kind: RecordType, content: bytes = b"", request_id: int = 1) -> bytes:
    return encode_record(kind, request_id, content)


def out(content: bytes = b"") -> bytes:
    return record(RecordType.STDOUT, content)


def err(content: bytes = b"") -> bytes:
    return record(RecordType.STDERR, content)


def end(
    status: ProtocolStatus = ProtocolStatus.REQUEST_COMPLETE, app: int = 0, request_id: int = 1
) -> bytes:
    return encode_end(request_id, app, status)


# -- requests ---------------------------------------------------------------------------------


def kinds(data: bytes) -> list[tuple[int, int]]:
    return [(found.type, len(found.content)) for found in RecordDecoder().feed(data)]


def test_a_request_in_records() -> None:
    encoder = FastCgiEncoder([("CONTENT_LENGTH", "5"), ("A", "")], keep_conn=True)
    begin, params, last = RecordDecoder().feed(encoder.head())
    assert begin.type == RecordType.BEGIN_REQUEST
    assert bytes(begin.content[:3]) == bytes((0, Role.RESPONDER, 1))
    assert params.type == last.type == RecordType.PARAMS
    assert decode_pairs(params.content) == [(b"CONTENT_LENGTH", b"5"), (b"A", b"")]
    assert not last.content
    assert {found.request_id for found in (begin, params, last)} == {1}
    assert encoder.body(b"hello") == record(RecordType.STDIN, b"hello")
    assert not encoder.is_over
    assert encoder.end() == record(RecordType.STDIN)
    assert encoder.is_over


def test_an_authorizer_is_asked_in_its_role() -> None:
    begin, *_ = RecordDecoder().feed(FastCgiEncoder([], role=Role.AUTHORIZER).head())
    assert bytes(begin.content[:3]) == bytes((0, Role.AUTHORIZER, 0))


def test_long_params_take_several_records() -> None:
    environment = [(f"NAME_{n}", "x" * 1000) for n in range(200)]
    records = RecordDecoder().feed(FastCgiEncoder(environment).head())
    assert len(records) == 1 + 4 + 1
    params = b"".join(found.content for found in records[1:])
    assert decode_pairs(params) == [(n.encode(), v.encode()) for n, v in environment]


def test_long_bodies_take_several_records() -> None:
    encoder = FastCgiEncoder([])
    assert kinds(encoder.body(b"x" * 100_000)) == [(5, 65535), (5, 34465)]


def test_no_nul() -> None:
    with pytest.raises(BadRequest):
        FastCgiEncoder([("A", "b\0")])


# -- responses --------------------------------------------------------------------------------


class Run:
    """A parser that has been fed."""

    def __init__(self, data: bytes, step: int, **options: object) -> None:
        self.stderr = b""
        self.events: list[Event] = []
        self.body = b""
        self.parser = FastCgiParser(self._hear, **options)
        for at in range(0, len(data), step):
            piece = bytearray(data[at : at + step])
            for event in self.parser.feed(memoryview(piece)):
                if isinstance(event, (bytes, bytearray, memoryview)):
                    self.body += bytes(event)
                else:
                    self.events.append(event)
            piece[:] = b"?" * len(piece)

    def _hear(self, text: bytes) -> None:
        self.stderr += text


OK = b"A: b\n\n"
HEAD = Head(200, Fields([("A", "b")]))

# (records, events, body)
RESPONSES = [
    (out(OK + b"hello") + end(), [HEAD, Complete(False)], b"hello"),
    (out(OK[:2]) + out(OK[2:]) + out(b"hel") + out(b"lo") + out() + end(),
     [HEAD, Complete(False)], b"hello"),
    (out(OK) + out() + end(app=7), [HEAD, Complete(False)], b""),
    (out(b"Content-Length: 5\n\nhello and more") + end(),
     [Head(200, length=5), Complete(False)], b"hello"),
    (out(b"Content-Length: 0\n\n") + end(), [Head(200, length=0), Complete(False)], b""),
    (out(b"Status: 103\n\n") + out(OK) + end(), [Head(103), HEAD, Complete(False)], b""),
    # what is not for us
    (record(RecordType.UNKNOWN_TYPE, b"\x09" + bytes(7), 0)
     + record(RecordType.GET_VALUES_RESULT, b"", 0) + encode_record(77, 1, b"??")
     + record(RecordType.STDOUT, b"not mine", 2) + end(request_id=2) + record(RecordType.DATA, b"x")
     + out(OK) + end() + out(b"late") + end(), [HEAD, Complete(False)], b""),
]  # fmt: skip


@pytest.mark.parametrize(("data", "events", "body"), RESPONSES)
def test_responses(data: bytes, events: list[Event], body: bytes) -> None:
    for step in STEPS:
        run = Run(data, step)
        assert (run.events, run.body) == (events, body)


@pytest.mark.parametrize("keep_conn", [False, True])
def test_the_connection_is_reusable_when_that_was_agreed(keep_conn: bool) -> None:
    assert Run(out(OK) + end(), 99, keep_conn=keep_conn).events[-1] == Complete(keep_conn)


@pytest.mark.parametrize("more", [err(b"late"), out(b"of a second")[:9], b"\1", end()])
def test_a_connection_with_more_on_it_is_not_reusable(more: bytes) -> None:
    assert Run(out(OK) + end() + more, 999, keep_conn=True).events[-1] == Complete(False)


def test_stderr_is_heard_even_when_the_request_fails() -> None:
    for step in STEPS:
        run = Run(err(b"one\n") + out(OK) + err(b"two\n") + err() + end(), step)
        assert run.stderr == b"one\ntwo\n"
    heard: list[bytes] = []
    parser = FastCgiParser(heard.append)
    with pytest.raises(BackendBroken, match="without a reply, application status 3"):
        parser.feed(err(b"Traceback") + end(app=3))
    assert heard == [b"Traceback"]


@pytest.mark.parametrize(
    ("data", "error", "why"),
    [
        (end(ProtocolStatus.OVERLOADED), Refused, "overloaded"),
        (end(ProtocolStatus.CANT_MPX_CONN), Refused, "one request at a time"),
        (end(ProtocolStatus.UNKNOWN_ROLE), BackendBroken, "UNKNOWN_ROLE"),
        (encode_end(1, 0, 9), BackendBroken, "9"),  # type: ignore[arg-type]
        (end(), BackendBroken, "without a reply"),
        (out() + end(), BackendBroken, "without a reply"),
        (out(b"A: b\n") + end(), BackendBroken, "inside the header block"),
        (out(b"hello\n") + end(), BackendBroken, "no header field"),
        (out(b"Content-Length: 5\n\nhell") + end(), Truncated, "1 bytes short"),
        (out(OK) + record(RecordType.END_REQUEST, b"\0"), BackendBroken, "too short"),
        (b"Status: 200\n\n", BackendBroken, "version"),
    ],
)
def test_failures(data: bytes, error: type[Exception], why: str) -> None:
    for step in STEPS:
        with pytest.raises(error, match=why) as caught:
            Run(data, step)
        assert type(caught.value) is error


@pytest.mark.parametrize(
    ("data", "error", "why"),
    [
        (b"", BackendBroken, "without a reply"),
        (err(b"x"), BackendBroken, "without a reply"),
        (out(b"A: b\n"), BackendBroken, "inside the header block"),
        (out(OK), Truncated, "END_REQUEST"),
        (out(OK + b"hello"), Truncated, "END_REQUEST"),
        (out(b"Content-Length: 5\n\nhell"), Truncated, "short"),
    ],
)
def test_closed_without_end_request(data: bytes, error: type[Exception], why: str) -> None:
    parser = Run(data, 99).parser
    with pytest.raises(error, match=why) as caught:
        parser.eof()
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("data", "head_only"),
    [
        (out(b"Content-Length: 5\n\nhello"), False),
        (out(b"Transfer-Encoding: chunked\n\n0\r\n\r\n"), False),
        (out(OK + b"hello") + out(), False),
        (out(b"Status: 304\n\n"), False),
        (out(b"Content-Length: 5\n\n"), True),
    ],
)
def test_a_response_that_is_whole_without_end_request(data: bytes, head_only: bool) -> None:
    parser = Run(data, 99, head_only=head_only, keep_conn=True).parser
    assert parser.eof() == [Complete(False)]


# -- tunnels ----------------------------------------------------------------------------------

SWITCH = out(b"Status: 101\nUpgrade: websocket\n\n")
SWITCHED = Head(101, Fields([("Upgrade", "websocket")]))


def test_what_comes_with_the_101_goes_to_the_client_or_to_the_codec() -> None:
    glued = out(b"Status: 101\nUpgrade: websocket\n\none ")
    data = glued + err(b"heard") + out(b"two ") + out(b"three ")
    for cut in range(len(glued), len(data) + 1):
        for step in STEPS:
            run = Run(data[:cut], step)
            assert run.events == [SWITCHED]
            codec = run.parser.tunnel_codec()
            early = run.parser.after_switch()
            late, _ = codec.from_backend(data[cut:])
            assert early + bytes(late) == b"one two three "
            assert run.stderr == b"heard"
            assert codec.end is None


@pytest.mark.parametrize(
    ("data", "over"),
    [
        (b"", None),
        (out(b"x"), None),
        (out(), End("backend_eof", one_way=True)),
        (out(b"x") + out() + end(), End("backend_eof")),
        (end(app=9), End("backend_exit:9")),
    ],
)
def test_a_tunnel_that_ends_as_it_begins(data: bytes, over: End | None) -> None:
    run = Run(SWITCH + data, 1)
    assert run.parser.eof() == []
    assert run.parser.tunnel_codec().end == over


def test_client_bytes_become_stdin() -> None:
    codec = FastCgiCodec(print)
    assert codec.from_client(b"hello") == (b"", record(RecordType.STDIN, b"hello"))
    assert kinds(codec.from_client(b"x" * 70_000)[1]) == [(5, 65535), (5, 4465)]
    assert codec.client_eof() == (b"", b"")
    assert codec.end is None
    assert codec.end_of_input == record(RecordType.STDIN)
    assert codec.loss == record(RecordType.ABORT_REQUEST)


@given(
    st.lists(st.tuples(st.sampled_from([out, err]), st.binary(min_size=1, max_size=99))),
    st.integers(1, 50),
)
def test_backend_records_become_bytes(parts: list, step: int) -> None:
    stderr: list[bytes] = []
    codec = FastCgiCodec(stderr.append)
    data = b"".join(make(text) for make, text in parts) + end()
    body = b""
    for at in range(0, len(data), step):
        to_client, to_backend = codec.from_backend(data[at : at + step])
        body += bytes(to_client)
        assert not to_backend
    assert body == b"".join(text for make, text in parts if make is out)
    assert b"".join(stderr) == b"".join(text for make, text in parts if make is err)
    assert codec.end == End("backend_eof")


def test_the_end_of_stdout_is_half_an_end() -> None:
    codec = FastCgiCodec(print)
    assert bytes(codec.from_backend(out(b"last") + out() + out(b"no more"))[0]) == b"last"
    assert codec.end == End("backend_eof", one_way=True)
    codec.end = None  # as the tunnel does
    assert codec.from_backend(out() + out(b"no more")) == (b"", b"")
    assert codec.end is None
    codec.from_backend(end())
    assert codec.end == End("backend_eof")


def test_the_first_end_is_the_reason() -> None:
    codec = FastCgiCodec(print)
    codec.client_eof()
    codec.from_backend(out() + end())
    assert codec.end == End("client_eof")


@pytest.mark.parametrize("data", [b"garbage!", record(RecordType.END_REQUEST, b"short")])
def test_garbage_ends_the_tunnel(data: bytes) -> None:
    codec = FastCgiCodec(print)
    assert bytes(codec.from_backend(out(b"x"))[0]) == b"x"
    codec.from_backend(data)
    assert codec.end is not None and codec.end.reason.startswith("protocol_error:")


def test_closed_without_end_request_ends_the_tunnel() -> None:
    codec = FastCgiCodec(print)
    codec.backend_eof()
    assert codec.end is not None and codec.end.reason.startswith("backend_lost")


def test_the_server_ends_the_tunnel() -> None:
    codec = FastCgiCodec(print)
    assert codec.close(1001, "idle") == b""
    assert codec.end == End("idle", 1001)
