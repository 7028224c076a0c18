"""forkd/protocol/handshake.py: RFC 6455 section 4.2, RFC 8441 section 5, wstunnel.md 3."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import make_request

from forkd.config.model import WsTunnelSettings
from forkd.errors import BadRequest, ForkdError, OriginRefused, UpgradeRequired
from forkd.message import Request
from forkd.protocol.handshake import (
    accept_key,
    check_request,
    origin_allowed,
    response_head,
    sends_binary,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
ANYBODY = WsTunnelSettings()
LISTED = WsTunnelSettings(origins=("example.com", "http://exact.org", "https://.tls.example"))


def request(changes: dict[str, str | None] | None = None, **parts: Any) -> Request:
    """A good handshake with some fields changed, or left out with None."""
    fields = {**GOOD, **(changes or {})}
    kept = {name: value for name, value in fields.items() if value is not None}
    return make_request("/ws/", "GET", fields=kept, **parts)


def extended_connect(**fields: str) -> Request:
    given = {"sec-websocket-version": "13", **fields}
    return make_request(
        "/ws/", "CONNECT", fields=given, version="HTTP/2.0", protocol="websocket"
    )


def test_accept_example() -> None:
    """Section 1.3."""
    assert accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_example_is_accepted() -> None:
    """Section 1.2, 4.2.2: the fields of the 101; the HTTP version adds Connection."""
    check_request(request(), ANYBODY)
    head = response_head(request(), ANYBODY)
    assert head.status == 101 and head.switches_protocol
    assert list(head.fields) == [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        # 4.2.1 item 6, 4.4
        ({"Sec-WebSocket-Version": None}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "8"}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "12"}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "130"}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "13, 8"}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "13, 13"}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "1_3"}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "0x0d"}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "-13"}, UpgradeRequired),
        ({"Sec-WebSocket-Version": "\xb9\xb3"}, UpgradeRequired),
        # 4.2.1 item 5: 16 bytes in base64
        ({"Sec-WebSocket-Key": None}, BadRequest),
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"}, BadRequest),
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZR=="}, BadRequest),  # not canonical
        ({"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA"}, BadRequest),  # 15 bytes
        ({"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAAA="}, BadRequest),  # 17 bytes
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j_Q=="}, BadRequest),  # base64url
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==\n"}, BadRequest),
        ({"Sec-WebSocket-Key": f"{KEY}, {KEY}"}, BadRequest),  # repeated
        ({"Sec-WebSocket-Key": "the sample nonce"}, BadRequest),
        # 4.1 item 10: tokens, each once
        ({"Sec-WebSocket-Protocol": "chat, a b"}, BadRequest),
        ({"Sec-WebSocket-Protocol": "binary;q=1"}, BadRequest),
        ({"Sec-WebSocket-Protocol": "caf\xe9"}, BadRequest),
        ({"Sec-WebSocket-Protocol": "chat, binary, chat"}, BadRequest),
        # 9.1
        ({"Sec-WebSocket-Extensions": "permessage-deflate;"}, BadRequest),
        ({"Sec-WebSocket-Extensions": "permessage-deflate; a=b=c"}, BadRequest),
        ({"Sec-WebSocket-Extensions": "permessage-deflate; a="}, BadRequest),
        ({"Sec-WebSocket-Extensions": 'permessage-deflate; a="b c"'}, BadRequest),
        ({"Sec-WebSocket-Extensions": 'permessage-deflate; a="b'}, BadRequest),
        ({"Sec-WebSocket-Extensions": "; a"}, BadRequest),
        ({"Sec-WebSocket-Extensions": "a b"}, BadRequest),
    ],
)
def test_refused(changes: dict[str, str | None], error: type[ForkdError]) -> None:
    with pytest.raises(error):
        check_request(request(changes), ANYBODY)


@pytest.mark.parametrize("version", ["13", "013", "13 "])
def test_versions_that_lighttpd_takes(version: str) -> None:
    check_request(request({"Sec-WebSocket-Version": version}), ANYBODY)


@pytest.mark.parametrize(
    "fields",
    [
        {"Sec-WebSocket-Protocol": "chat.v2 ,\tchat,, superchat,"},
        {"Sec-WebSocket-Extensions": "foo, bar; baz=2"},  # section 9.1
        {"Sec-WebSocket-Extensions": 'a;b ; c = "1\\5" ,, d;e="f",'},
    ],
)
def test_lists_that_conform_to_the_grammar(fields: dict[str, str | None]) -> None:
    check_request(request(fields), ANYBODY)


def test_version_that_is_spoken_goes_with_the_refusal() -> None:
    """Section 4.4."""
    with pytest.raises(UpgradeRequired) as refusal:
        check_request(request({"Sec-WebSocket-Version": "25"}), ANYBODY)
    assert refusal.value.status == 426
    assert ("Sec-WebSocket-Version", "13") in refusal.value.fields


def test_host_is_demanded() -> None:
    """4.2.1 item 2."""
    with pytest.raises(BadRequest):
        check_request(request(host=""), ANYBODY)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"Origin": None}, BadRequest),
        ({"Origin": "http://example.com"}, OriginRefused),
        ({"Origin": "http://evil.example, http://www.example.com"}, BadRequest),
        ({"Origin": "http://evil.example http://www.example.com"}, BadRequest),
        ({"Origin": None, "Sec-WebSocket-Origin": "http://exact.org"}, BadRequest),
        # The first check that fails decides (wstunnel.md 3).
        ({"Origin": "null", "Sec-WebSocket-Version": "8", "Sec-WebSocket-Key": ""}, OriginRefused),
        (
            {"Origin": "http://exact.org", "Sec-WebSocket-Version": "8", "Sec-WebSocket-Key": ""},
            UpgradeRequired,
        ),
    ],
)
def test_refused_with_a_list_of_origins(
    changes: dict[str, str | None], error: type[ForkdError]
) -> None:
    with pytest.raises(error):
        check_request(request(changes), LISTED)


def test_listed_origin_is_accepted() -> None:
    check_request(request({"Origin": "http://exact.org"}), LISTED)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://www.example.com", True),
        ("https://a.b.example.com", True),
        ("example.com", True),
        ("http://exact.org", True),
        ("http://example.com", False),
        ("http://notexample.com", False),
        ("http://www.example.com:8080", False),
        ("http://exact.org:80", False),
        ("http://www.example.com.evil.org", False),
        (".example.com", True),
        ("null", False),
        ("", False),
        # forkd: a scheme that is demanded of all names below a domain
        ("https://www.tls.example", True),
        ("HTTPS://a.b.TLS.example", True),
        ("http://www.tls.example", False),
        ("https://tls.example", False),
        ("https://nottls.example", False),
        ("https://www.tls.example:8443", False),
        # forkd: scheme and host without case
        ("HTTP://EXACT.ORG", True),
        ("https://WWW.Example.Com", True),
    ],
)
def test_origin_allowed(origin: str, allowed: bool) -> None:
    assert origin_allowed(origin, LISTED.origins) is allowed


def test_listed_in_capitals() -> None:
    assert origin_allowed("https://www.example.com", ["Example.COM"])


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (None, ""),
        ("binary", "binary"),
        ("base64, binary", "binary"),
        ("chat,binary ,base64", "binary"),
        ("base64", ""),  # never coded, so never offered
        ("chat", ""),
        ("binary2", ""),
        ("Binary", ""),  # 11.5: names compare with case; the client would refuse "binary"
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_subprotocol(offered: str | None, answer: str, binary: bool) -> None:
    asked, settings = request({"Sec-WebSocket-Protocol": offered}), WsTunnelSettings(binary=binary)
    assert response_head(asked, settings).fields.get("Sec-WebSocket-Protocol") == answer
    assert sends_binary(asked, settings) is (binary or answer == "binary")


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ("chat, chat.v2", "chat.v2"),  # the server's order
        ("other, chat", "chat"),
        ("binary", ""),
        ("CHAT", ""),
        (None, ""),
    ],
)
def test_subprotocols_of_the_configuration(offered: str | None, answer: str) -> None:
    settings = WsTunnelSettings(subprotocols=("chat.v2", "chat"))
    asked = request({"Sec-WebSocket-Protocol": offered})
    assert response_head(asked, settings).fields.get("Sec-WebSocket-Protocol") == answer
    assert not sends_binary(asked, settings)


def test_binary_among_the_subprotocols_of_the_configuration() -> None:
    settings = WsTunnelSettings(subprotocols=("chat", "binary"))
    assert sends_binary(request({"Sec-WebSocket-Protocol": "binary"}), settings)
    assert not sends_binary(request({"Sec-WebSocket-Protocol": "binary, chat"}), settings)


def test_refusal_of_an_origin_says_which_and_which_are_listed() -> None:
    with pytest.raises(OriginRefused) as refusal:
        check_request(request({"Origin": "http://evil.example"}), LISTED)
    assert str(refusal.value) == (
        'origin "http://evil.example" is not in wstunnel.origins = '
        '( "example.com", "http://exact.org", "https://.tls.example" )'
    )


@pytest.mark.parametrize("asked", [request(), extended_connect()], ids=["h1", "h2"])
def test_extensions_that_were_agreed_on(asked: Request) -> None:
    head = response_head(asked, ANYBODY, "permessage-deflate")
    assert head.fields.get("Sec-WebSocket-Extensions") == "permessage-deflate"


def test_extended_connect() -> None:
    """RFC 8441 section 5: neither key nor accept, 200."""
    asked = extended_connect(**{"sec-websocket-protocol": "binary"})
    check_request(asked, ANYBODY)
    head = response_head(asked, ANYBODY)
    assert head.status == 200
    assert list(head.fields) == [("Sec-WebSocket-Protocol", "binary")]


def test_extended_connect_of_another_version() -> None:
    with pytest.raises(UpgradeRequired):
        check_request(extended_connect(**{"sec-websocket-version": "8"}), ANYBODY)
