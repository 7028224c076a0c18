"""forkd/gateway/scgi.py: what one request says, in either protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeExchange, FakeWorker, make_request
from memory_port import MemoryPort

from forkd.address import Address
from forkd.config.backend import BackendSpec, GatewayServer, Proc, Route
from forkd.config.model import RequestConfig
from forkd.errors import BadRequest, HeadTooLarge
from forkd.gateway.conversation import Backend
from forkd.gateway.scgi import Scgi
from forkd.message import Head, Request
from forkd.protocol.conversation import Complete
from forkd.protocol.tunnel import BlindCodec
from forkd.protocol.uwsgi import MAX_SIZE

SPEC = BackendSpec("scgi", "/app/", "", Address("/run/app.sock"), check_local=False)
SETTINGS = RequestConfig(document_root="/srv/www")


def scgi(request: Request, settings: RequestConfig = SETTINGS, debug: int = 0) -> Scgi:
    route = Route("scgi", "/app/", (SPEC,))
    server = GatewayServer("scgi", (route,), debug=debug)
    worker: Any = FakeWorker(None)
    return Scgi(FakeExchange(request, settings), server, route, worker)


def backend() -> Backend:
    return Backend(MemoryPort(), "app", Proc(SPEC, 0, SPEC.address, 0))


def begun(request: Request, settings: RequestConfig = SETTINGS) -> bytes:
    encoder, _ = scgi(request, settings).begin(request, request.content_length, backend())
    return encoder.head()


REQUEST = make_request("/app/x?q", "POST", content_length=3, environment=(("X", "y"),))


def test_scgi() -> None:
    head = begun(REQUEST)
    size, _, rest = head.partition(b":")
    assert len(rest) == int(size) + 1
    assert rest.startswith(b"CONTENT_LENGTH\x003\0QUERY_STRING\0q\0")
    assert rest.endswith(b"\0X\0y\0SCGI\x001\0,")


def test_nobody_else_says_that_it_is_scgi() -> None:
    head = begun(REQUEST._replace(environment=(("SCGI", "2"),)))
    assert head.count(b"\0SCGI\0") == 1
    assert b"\0SCGI\x001\0" in head


def test_uwsgi() -> None:
    head = begun(REQUEST, replace(SETTINGS, scgi_protocol="uwsgi"))
    assert int.from_bytes(head[1:3], "little") == len(head) - 4
    assert head[4:].startswith(b"\x0e\x00CONTENT_LENGTH\x01\x003")
    assert head.endswith(b"\x01\x00X\x01\x00y")
    assert b"SCGI" not in head


def test_too_much_for_uwsgi() -> None:
    request = REQUEST._replace(environment=(("X", "y" * MAX_SIZE),))
    with pytest.raises(HeadTooLarge):
        begun(request, replace(SETTINGS, scgi_protocol="uwsgi"))
    assert begun(request)  # SCGI has no limit


def test_the_body_follows_as_it_is_and_the_answer_is_cgi() -> None:
    encoder, parser = scgi(REQUEST).begin(REQUEST, 3, backend())
    assert (encoder.body(b"abc"), encoder.end()) == (b"abc", b"")
    assert parser.feed(b"Content-Length: 1\n\nx")[0] == Head(200, length=1)


def test_the_answer_to_head_is_never_short() -> None:
    request = REQUEST._replace(method="HEAD", content_length=0)
    _, parser = scgi(request).begin(request, 0, backend())
    parser.feed(b"Content-Length: 1\n\n")
    assert parser.eof() == [Complete(False)]


def test_a_bad_name_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(BadRequest):
        begun(make_request("/app/x", fields={"User_Agent": "x"}))


def test_the_access_log_and_a_debugger_are_told_the_variables(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    conversation = scgi(REQUEST, debug=1)
    conversation.begin(REQUEST, 3, backend())
    assert ("SCRIPT_NAME", "/app/x") in conversation.exchange.environment
    assert "scgi app: \n  CONTENT_LENGTH=3\n  QUERY_STRING=q" in caplog.text
    caplog.clear()
    scgi(REQUEST).begin(REQUEST, 3, backend())
    assert not caplog.text


def test_a_tunnel_is_blind() -> None:
    assert isinstance(scgi(REQUEST).tunnel_codec(), BlindCodec)
