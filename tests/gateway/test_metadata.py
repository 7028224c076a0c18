"""forkd/gateway/metadata.py: what a request and its connection say of a client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import CLIENT, LISTENER, FakeExchange, make_request

from forkd.address import Address
from forkd.config.backend import BackendSpec, Route
from forkd.config.model import RequestConfig
from forkd.errors import BadRequest
from forkd.gateway.metadata import Tunnelled, details, introduction
from forkd.message import ConnInfo, Request
from forkd.protocol.proxy_protocol import Details, Tls, encode_v1, encode_v2

SPEC = BackendSpec("wstunnel", "/ws/", "", Address("/run/echo.sock"), check_local=False)
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "x"}
ASKED = make_request("/ws/a?q", fields=UPGRADE)


def told(metadata: Any, request: Request = ASKED) -> tuple[bytes, FakeExchange]:
    spec = replace(SPEC, metadata=metadata)
    exchange = FakeExchange(request, RequestConfig(document_root="/srv"))
    given: Any = exchange
    return introduction(Tunnelled(given, Route("wstunnel", "/ws/", (spec,)), spec, "id")), exchange


def test_nothing_unless_configured() -> None:
    assert told("none")[0] == b""


def test_addresses_are_the_clients_own() -> None:
    """Of the client that a trusted proxy told of, not of the proxy."""
    behind = ASKED._replace(remote=Address("2001:db8::9", 1))
    assert told("proxy-v1")[0] == encode_v1(CLIENT, LISTENER)
    assert told("proxy-v1", behind)[0] == encode_v1(Address("2001:db8::9", 1), LISTENER)
    expected = Details(authority="www.example.org", unique_id="id")
    assert told("proxy-v2")[0] == encode_v2(CLIENT, LISTENER, expected)


TLS = (("SSL_PROTOCOL", "TLSv1.3"), ("SSL_CIPHER", "TLS_AES_256_GCM_SHA384"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (TLS, Details("www.example.org", "h2", "id", Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384"))),
        (
            (*TLS, ("SSL_TLS_SNI", "sni.example"), ("SSL_CLIENT_VERIFY", "NONE")),
            Details("sni.example", "h2", "id", Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        ),
        (
            (*TLS, ("SSL_CLIENT_VERIFY", "SUCCESS"), ("SSL_CLIENT_S_DN_CN", "joe")),
            Details(
                "www.example.org",
                "h2",
                "id",
                Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", True, "joe"),
            ),
        ),
    ],
)
def test_details_of_tls(environment: Any, expected: Details) -> None:
    connection = ConnInfo(CLIENT, LISTENER, LISTENER, True, "h2", environment)
    assert details(ASKED._replace(connection=connection, host="www.example.org:8443"), "id") == (
        expected
    )


def variables(data: bytes) -> dict[str, str]:
    size, _, rest = data.partition(b":")
    assert rest[int(size) :] == b","
    words = rest[: int(size)].decode("latin-1").split("\0")
    return dict(zip(words[::2], words[1::2], strict=False))


def test_variables_of_cgi() -> None:
    data, exchange = told("cgi")
    found = variables(data)
    assert (found["SCGI"], found["CONTENT_LENGTH"]) == ("1", "0")
    assert (found["REQUEST_URI"], found["QUERY_STRING"]) == ("/ws/a?q", "q")
    assert (found["REMOTE_ADDR"], found["HTTP_SEC_WEBSOCKET_KEY"]) == (CLIENT.host, "x")
    assert dict(exchange.environment)["REQUEST_URI"] == "/ws/a?q"


def test_variables_of_an_extended_connect_are_those_of_an_upgrade() -> None:
    asked = make_request("/ws/", "CONNECT", version="HTTP/2.0", protocol="websocket")
    found = variables(told("cgi", asked)[0])
    assert (found["REQUEST_METHOD"], found["SERVER_PROTOCOL"]) == ("GET", "HTTP/1.1")
    assert (found["HTTP_UPGRADE"], found["HTTP_CONNECTION"]) == ("websocket", "Upgrade")
    assert "HTTP_SEC_WEBSOCKET_KEY" not in found


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(BadRequest):
        told("cgi", ASKED._replace(environment=(("A", "nul\0"),)))
