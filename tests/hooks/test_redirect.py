"""forkd/hooks/redirect.py: status and Location (core.md 13)."""

from __future__ import annotations

import pytest
from fakes import FakeConfig, make_request, rules

from forkd.config.model import HookSettings, RequestConfig
from forkd.hooks.redirect import encode, redirect
from forkd.message import Head

RULES = rules(("^/stop", ""), ("^/old/(.*)$", "/new/$1"), ("^/st", "/after"))


def outcome(request, code: int = 0):
    settings = RequestConfig(hooks=HookSettings(redirect=RULES, redirect_code=code))
    return redirect(request, settings, FakeConfig())


@pytest.mark.parametrize(
    ("method", "version", "code", "status"),
    [
        ("GET", "HTTP/1.1", 0, 301),
        ("HEAD", "HTTP/1.1", 0, 301),
        ("POST", "HTTP/1.1", 0, 308),
        ("PUT", "HTTP/2.0", 0, 308),
        ("POST", "HTTP/1.0", 0, 301),
        ("POST", "HTTP/1.1", 302, 302),
    ],
)
def test_status(method, version, code, status):
    head = outcome(make_request("/old/x?y", method, version=version), code)
    assert isinstance(head, Head)
    assert (head.status, head.fields.get("location"), head.length) == (status, "/new/x?y", 0)


@pytest.mark.parametrize("target", ["/none", "/stop/old/x", "/"])
def test_passes(target):
    request = make_request(target)
    assert outcome(request) is request


def test_no_rules():
    request = make_request("/old/x")
    assert redirect(request, RequestConfig(), FakeConfig()) is request


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/a%1b5c0", "/a%1B5c0"),
        ("/[a][]", "/[a][]"),
        ("http://h:80/a?b=c&d#e", "http://h:80/a?b=c&d#e"),
        ("/a b\"<>\\^`{|}", "/a%20b%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/\r\nX: y", "/%0D%0AX:%20y"),
        ("/100%", "/100%25"),
        ("/%zz%4", "/%25zz%254"),
        ("/\xe4\x7f~", "/%E4%7F~"),
    ],
)
def test_encode(target, location):
    assert encode(target) == location
    assert encode(location) == location
