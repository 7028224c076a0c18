"""forkd/hooks/setenv.py: fields and variables (core.md 14)."""

from __future__ import annotations

from fakes import FakeConfig, make_request

from forkd.config.model import HookSettings, RequestConfig
from forkd.hooks.setenv import change_head, change_request
from forkd.message import Fields, Head


def settings(**hooks) -> RequestConfig:
    return RequestConfig(hooks=HookSettings(**hooks))


def test_nothing_to_do():
    request, head = make_request(), Head(200)
    assert change_request(request, RequestConfig(), FakeConfig()) is request
    assert change_head(head, RequestConfig()) is head


def test_request_fields():
    changed = change_request(
        make_request(fields={"x-req": "c", "Cookie": "a=1", "X-Del": "d", "X-Set": "s"}),
        settings(
            add_request_header=(("X-Req", "r1"), ("Cookie", "b=2"), ("X-New", "n"), ("X-No", "")),
            set_request_header=(("X-Set", "s1"), ("X-Del", ""), ("X-Also", "a")),
        ),
        FakeConfig(),
    )
    assert dict(changed.fields) == {
        "x-req": "c, r1",
        "Cookie": "a=1; b=2",
        "X-Set": "s1",
        "X-New": "n",
        "X-Also": "a",
    }


def test_environment():
    changed = change_request(
        make_request(environment=(("TLS", "yes"), ("E2", "old"), ("E1", "x"))),
        settings(
            add_environment=(("E1", "v1"), ("E3", "v3")),
            set_environment=(("E2", "new"), ("E4", "v4")),
        ),
        FakeConfig(),
    )
    assert dict(changed.environment) == {
        "TLS": "yes",
        "E1": "x, v1",
        "E2": "new",
        "E3": "v3",
        "E4": "v4",
    }


def test_response_fields():
    head = Head(200, Fields([("Content-Type", "a/b"), ("Last-Modified", "d"), ("X-B", "1")]), 6)
    changed = change_head(
        head,
        settings(
            add_response_header=(("X-A", "1"), ("Content-Type", "x/y"), ("X-Empty", "")),
            set_response_header=(("X-B", "2"), ("Last-Modified", "")),
        ),
    )
    assert list(changed.fields) == [
        ("Content-Type", "a/b"),
        ("X-B", "2"),
        ("X-A", "1"),
        ("Content-Type", "x/y"),
    ]
    assert (changed.status, changed.length) == (200, 6)
