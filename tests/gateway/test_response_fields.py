"""forkd/gateway/response_fields.py and redirected.py."""

from __future__ import annotations

import pytest
from fakes import FakeConfig, make_request

from forkd.errors import BackendBroken
from forkd.gateway.redirected import redirected_request
from forkd.gateway.response_fields import closes, presentable, variables
from forkd.message import Fields, Head


@pytest.mark.parametrize(
    ("status", "field", "shown"),
    [
        (200, ("X-A", "1"), True),
        (200, ("Set-Cookie", "a=b"), True),
        (200, ("X-SENDFILE", "/x"), False),
        (200, ("x-sendfile2", "/x 0-"), False),
        (200, ("X-Lighttpd-Anything", "1"), False),
        (200, ("HTTP2-Settings", "x"), False),
        (200, ("Upgrade", "h2"), False),
        (426, ("Upgrade", "websocket"), False),
        (101, ("Upgrade", "websocket"), True),
    ],
)
def test_presentable(status, field, shown):
    assert list(presentable(Head(status, Fields([field]))).fields) == ([field] if shown else [])


def test_scripts_have_the_type_of_today():
    for value, sent in (
        ("application/javascript", "text/javascript"),
        ("application/javascript; charset=x", "text/javascript; charset=x"),
        ("application/json", "application/json"),
    ):
        head = presentable(Head(200, Fields([("content-type", value)])))
        assert head.fields.get("content-type") == sent


def test_closes():
    assert closes(Head(200, Fields([("Connection", "x, Close")])))
    assert not closes(Head(200, Fields([("Connection", "keep-alive")])))


def test_variables():
    pairs = [("Variable-USER", "joe"), ("VARIABLE-X-Y", "1"), ("Variable-", "x"), ("Other", "x")]
    assert variables(Head(200, Fields(pairs))) == (("USER", "joe"), ("X-Y", "1"))


def test_redirected_request():
    fields = {"Content-Type": "x", "Upgrade": "y", "Cookie": "z"}
    received = make_request("/a", "POST", fields=fields, content_length=5)
    made = redirected_request(received, "/b%20c/../d?e", FakeConfig())
    assert (made.method, made.path, made.query, made.decoded_path) == ("GET", "/d", "e", "/d")
    assert made.target == "/a" and made.content_length == 0
    assert made.fields == Fields([("Cookie", "z")])
    assert redirected_request(make_request("/", "HEAD"), "/b", FakeConfig()).method == "HEAD"
    with pytest.raises(BackendBroken):
        redirected_request(received, "/a%00", FakeConfig())
