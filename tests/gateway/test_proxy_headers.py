"""proxy.md sections 2 and 3 as tables."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import make_request

from forkd.address import Address
from forkd.config.model import ProxyHeader, ProxySettings
from forkd.gateway.proxy_headers import (
    forwarded_element,
    may_upgrade,
    request_fields,
    response_head,
    speaks_http10,
)
from forkd.gateway.proxy_map import Mapping
from forkd.message import ConnInfo, Fields, Head, Request

HOST = "www.example.org"
PLAIN = ProxySettings()
HTTP10 = ProxySettings(header=ProxyHeader(force_http10=True))
TOLD = [
    ("X-Forwarded-For", "192.0.2.7"),
    ("X-Host", HOST),
    ("X-Forwarded-Host", HOST),
    ("X-Forwarded-Proto", "http"),
]


def sent(
    request: Request, settings: ProxySettings = PLAIN, length: int | None = 0, **options: Any
) -> list[tuple[str, str]]:
    mapping = Mapping(settings.header, request.fields.get("host") or request.host, request.scheme)
    return request_fields(request, settings, mapping, length, **options)


def own(made: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The fields that are not always there."""
    names = {name for name, _ in TOLD} | {"Host"}
    return [pair for pair in made if pair[0] not in names]


def request(fields: Any = (), method: str = "GET", **changes: Any) -> Request:
    return make_request("/", method, fields=fields, **changes)


def test_order_is_that_of_lighttpd() -> None:
    made = sent(request([("A", "1"), ("Host", HOST), ("X-Forwarded-Proto", "x"), ("B", "2")]))
    assert made == [
        ("Host", HOST),
        ("A", "1"),
        ("X-Forwarded-Proto", "http"),
        ("B", "2"),
        TOLD[0],
        TOLD[1],
        TOLD[2],
        ("Connection", "close"),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("Keep-Alive", "5"), ("Proxy-Connection", "x"), ("Transfer-Encoding", "x")], []),
        ([("Proxy", "http://evil"), ("Set-Cookie", "a=b"), ("HTTP2-Settings", "x")], []),
        ([("Trailer", "x")], [("Trailer", "x")]),
        ([("Proxy-Authorization", "y")], [("Proxy-Authorization", "y")]),
        ([("Connection", "close, X-A, x-b"), ("x-a", "1"), ("X-B", "2"), ("C", "3")], [("C", "3")]),
        ([("Connection", "Content-Length , X-A"), ("X-A", "1")], []),
        ([("A", ""), ("B", "x")], [("B", "x")]),
        ([("A", "1"), ("B", "2"), ("a", "3")], [("A", "1, 3"), ("B", "2")]),
        ([("Cookie", "a"), ("cookie", "b")], [("Cookie", "a; b")]),
        ([("Expect", "100-continue")], [("Expect", "100-continue")]),
        ([("TE", "gzip")], []),
        ([("TE", "trailers, deflate")], []),
        ([("Upgrade", "")], []),
    ],
)
def test_fields_of_the_client(fields: Any, expected: Any) -> None:
    assert own(sent(request(fields))) == [*expected, ("Connection", "close")]


def test_connection_cannot_hide_who_the_client_is() -> None:
    named = "x-forwarded-for, x-forwarded-host, x-host, forwarded, host"
    made = dict(sent(request([("Connection", named), ("X-Forwarded-For", "1.2.3.4")])))
    assert made["X-Forwarded-For"] == "1.2.3.4, 192.0.2.7"
    assert made["Host"] == made["X-Host"] == HOST


@pytest.mark.parametrize(
    ("fields", "settings", "keeps", "connection", "others"),
    [
        ([], PLAIN, False, "close", []),
        ([], PLAIN, True, None, []),
        ([("TE", "Trailers")], PLAIN, False, "close, te", [("TE", "Trailers")]),
        ([("TE", "trailers"), ("Connection", "te")], PLAIN, True, "te", [("TE", "trailers")]),
        ([("TE", "trailers"), ("Connection", "Close")], PLAIN, False, "close", []),
        ([("TE", "trailers")], HTTP10, True, "close", []),
        (
            [("Upgrade", "foo/1"), ("Connection", "Upgrade")],
            PLAIN,
            False,
            "close, upgrade",
            [("Upgrade", "foo/1")],
        ),
        (
            [("Upgrade", "x"), ("Connection", "keep-alive")],
            PLAIN,
            True,
            "upgrade",
            [("Upgrade", "x")],
        ),
        ([("Upgrade", "x"), ("Connection", "close")], PLAIN, False, "close", []),
        ([("Upgrade", "x"), ("Connection", "upgrade")], HTTP10, False, "close", []),
    ],
)
def test_connection(
    fields: Any, settings: ProxySettings, keeps: bool, connection: str | None, others: Any
) -> None:
    made = own(sent(request(fields), settings, keeps=keeps))
    assert made == others + ([("Connection", connection)] if connection else [])


@pytest.mark.parametrize(
    ("method", "fields", "length", "expected"),
    [
        ("GET", [], 0, []),
        ("HEAD", [("Content-Length", "0")], 0, []),
        ("POST", [("Content-Length", "0")], 0, [("Content-Length", "0")]),
        ("DELETE", [], 0, [("Content-Length", "0")]),
        ("OPTIONS", [], 0, [("Content-Length", "0")]),
        ("POST", [("content-length", "7"), ("A", "1")], 7, [("content-length", "7"), ("A", "1")]),
        ("POST", [("A", "1")], 9, [("A", "1"), ("Content-Length", "9")]),
        ("GET", [], 9, [("Content-Length", "9")]),
        ("PUT", [("A", "1")], None, [("Transfer-Encoding", "chunked"), ("A", "1")]),
        ("PUT", [("Expect", "100-continue")], 1, [("Content-Length", "1")]),
    ],
)
def test_framing(method: str, fields: Any, length: int | None, expected: Any) -> None:
    made = own(sent(request(fields, method, content_length=length), length=length))
    assert made == [*expected, ("Connection", "close")]


def test_chunked_stands_behind_host() -> None:
    made = sent(request([("A", "1")], "PUT", content_length=None), length=None)
    assert made[:3] == [("Host", HOST), ("Transfer-Encoding", "chunked"), ("A", "1")]


@pytest.mark.parametrize(
    ("settings", "label", "fields", "expected"),
    [
        (PLAIN, "label", [], HOST),
        (ProxySettings(replace_http_host=True), "label", [], "label"),
        (ProxySettings(replace_http_host=True), "", [], HOST),
        (ProxySettings(header=ProxyHeader(map_host_request=(("-", "be"),))), "x", [], "be"),
        (PLAIN, "", [("Host", "set.by.hook")], "set.by.hook"),
    ],
)
def test_host(settings: ProxySettings, label: str, fields: Any, expected: str) -> None:
    made = sent(request(fields), settings, label=label)
    assert made[0] == ("Host", expected)
    assert dict(made)["X-Host"] == (fields[0][1] if fields else HOST)


def test_without_host_the_backend_is_asked_in_http10() -> None:
    made = request([("X-Host", "forged")], host="", version="HTTP/1.0")
    assert speaks_http10(made, PLAIN)
    assert sent(made) == [TOLD[0], TOLD[3], ("Connection", "close")]
    assert not speaks_http10(request(version="HTTP/1.0"), PLAIN)
    assert speaks_http10(request(), HTTP10)


@pytest.mark.parametrize(
    ("fields", "settings", "expected"),
    [
        ([("Upgrade", "x"), ("Connection", "upgrade")], PLAIN, True),
        ([("Upgrade", "x"), ("Connection", "keep-alive")], PLAIN, True),
        ([("Upgrade", "x"), ("Connection", "close")], PLAIN, False),
        ([("Upgrade", "x"), ("Connection", "upgrade")], HTTP10, False),
        ([("Connection", "upgrade")], PLAIN, False),
    ],
)
def test_may_upgrade(fields: Any, settings: ProxySettings, expected: bool) -> None:
    assert may_upgrade(request(fields), settings) is expected


ALL = frozenset({"for", "by", "proto", "host", "remote_user"})
FRONT = Address("127.0.0.1", 21099)


def arriving(peer: str, local: Address = FRONT, tls: bool = False, **changes: Any) -> Request:
    return request(connection=ConnInfo(Address(peer, 4711), local, local, tls), **changes)


def test_forwarded_of_the_example() -> None:
    made = arriving("127.0.0.1", host="www.front:21099")
    made = made._replace(fields=Fields([("X-Forwarded-For", "1.2.3.4, ::1")]))
    wanted = frozenset({"for", "by", "proto", "host"})
    assert dict(sent(made, ProxySettings(forwarded=wanted)))["Forwarded"] == (
        'for="1.2.3.4", for="[::1]", '
        'for=127.0.0.1;by="127.0.0.1:21099";proto=http;host="www.front:21099"'
    )
    assert dict(sent(made))["X-Forwarded-For"] == "1.2.3.4, ::1, 127.0.0.1"


@pytest.mark.parametrize(
    ("made", "wanted", "expected"),
    [
        (arriving("::1"), {"for"}, 'for="[::1]"'),
        (arriving("/run/x"), {"for"}, 'for="/run/x"'),
        (arriving("/"), {"for"}, "for=unknown"),
        (arriving("1.2.3.4", Address("::1", 80)), {"by"}, 'by="[::1]:80"'),
        (arriving("1.2.3.4", Address("/run/f")), {"by"}, 'by="/run/f"'),
        (arriving("1.2.3.4", tls=True), {"proto"}, "proto=https"),
        (arriving("1.2.3.4", host=""), {"host", "proto"}, "proto=http"),
        (arriving("1.2.3.4"), {"remote_user", "proto"}, "proto=http"),
        (
            arriving("1.2.3.4", environment=(("REMOTE_USER", 'a"b\\c'),)),
            {"remote_user"},
            'remote_user="a\\"b\\\\c"',
        ),
        (
            arriving("1.2.3.4", environment=(("REMOTE_USER", "me"),)),
            ALL,
            f'for=1.2.3.4;by="127.0.0.1:21099";proto=http;host="{HOST}";remote_user="me"',
        ),
    ],
)
def test_forwarded_element(made: Request, wanted: set[str], expected: str) -> None:
    assert forwarded_element(made, frozenset(wanted)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("Forwarded", "for=x")], "for=x, for=192.0.2.7"),
        ([("Forwarded", "for=x"), ("X-Forwarded-For", "y")], "for=x, for=192.0.2.7"),
        ([("X-Forwarded-For", "a, ,[::2]:80")], 'for="a", for="[::2]:80", for=192.0.2.7'),
        ([], "for=192.0.2.7"),
    ],
)
def test_forwarded_is_appended(fields: Any, expected: str) -> None:
    made = dict(sent(request(fields), ProxySettings(forwarded=frozenset({"for"}))))
    assert made["Forwarded"] == expected


def test_forwarded_of_the_client_is_left_alone_where_it_is_off() -> None:
    assert dict(sent(request([("Forwarded", "for=x")])))["Forwarded"] == "for=x"


@pytest.mark.parametrize("peer", ["::1", "10.0.0.1"])
def test_peer_is_told_not_what_a_proxy_said_of_it(peer: str) -> None:
    made = arriving(peer, remote=Address("203.0.113.9"), fields={"X-Forwarded-For": "203.0.113.9"})
    assert dict(sent(made))["X-Forwarded-For"] == f"203.0.113.9, {peer}"


# -- responses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (
            200,
            [("Connection", "x-hop, Keep-Alive"), ("X-Hop", "1"), ("Keep-Alive", "5"), ("A", "b")],
            [("A", "b")],
        ),
        (200, [("Upgrade", "h2c"), ("Proxy-Connection", "x"), ("Transfer-Encoding", "x")], []),
        (200, [("Proxy-Authenticate", "x"), ("Trailer", "t")], None),
        (200, [("Status", "500 no"), ("Server", "be"), ("Date", "then")], None),
        (200, [("Set-Cookie", "a"), ("Set-Cookie", "b")], None),
        (101, [("Upgrade", "x"), ("Connection", "Upgrade, Y"), ("y", "1")], [("Upgrade", "x")]),
    ],
)
def test_response_head(status: int, fields: Any, expected: Any) -> None:
    made = response_head(Head(status, Fields(fields), 7), Mapping(ProxyHeader(), HOST, "http"))
    assert list(made.fields) == (fields if expected is None else expected)
    assert (made.status, made.length) == (status, 7)


def test_response_head_is_mapped() -> None:
    mapping = Mapping(ProxyHeader(map_urlpath=(("/a/", "/b/"),)), HOST, "http")
    made = response_head(Head(302, Fields([("Location", "/b/x")])), mapping)
    assert made.fields.get("location") == "/a/x"
