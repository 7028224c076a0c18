"""What a program is told of a request is the same over HTTP/1.1 and HTTP/2, ordinary requests and
WebSockets alike, but for what differs by nature."""

from __future__ import annotations

import pytest
from e2e.h2_site import RELAYS, Site, path_of, variables
from e2e.rawhttp import parse_response

OF_THE_CONNECTION = {"REMOTE_PORT", "CONNECTION_NUMBER", "REQUEST_NUMBER"}
"""The last two are added by the FastCGI program."""

FIELDS = [
    ("user-agent", "somebody"),
    ("accept", "*/*"),
    ("accept-language", "de"),
    ("cookie", "a=1; b=2"),
    ("origin", "https://localhost"),
    ("x-own", "some thing"),
]
WEBSOCKET = [
    ("sec-websocket-version", "13"),
    ("sec-websocket-protocol", "chat, superchat"),
    ("sec-websocket-extensions", "permessage-deflate"),
]
HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
BODY = b"name=value"


def told_over_1(
    site: Site, start: str, fields: list[tuple[str, str]], body: bytes = b""
) -> dict[str, str]:
    """The variables of a request by TLS and HTTP/1.1."""
    lines = [f"{start} HTTP/1.1", f"Host: localhost:{site.tls_port}"]
    lines += [f"{name}: {value}" for name, value in fields]
    data = b""
    with site.secured() as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        while piece := client.recv(65536):
            data += piece
    answer, rest = parse_response(data)
    assert answer.status == (101 if "Upgrade" in dict(fields) else 200)
    return variables(answer.body or rest)


def told_over_2(site: Site, head: list[tuple[str, str]], body: bytes | None) -> dict[str, str]:
    """The same by HTTP/2."""
    with site.client(tls=True) as client:
        stream = client.finished(client.open(head, body))
        assert stream.status == 200
        return variables(bytes(stream.data))


def head_of(site: Site, method: str, path: str) -> list[tuple[str, str]]:
    authority = f"localhost:{site.tls_port}"
    return [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]


def differing(first: dict[str, str], second: dict[str, str]) -> set[str]:
    names = {name for name in first | second if first.get(name) != second.get(name)}
    return names - OF_THE_CONNECTION


def assert_script(told: dict[str, str], gateway: str, site: Site) -> None:
    if gateway != "proxy":
        assert told["DOCUMENT_ROOT"] == f"{site.server.root}"
        assert told["SCRIPT_FILENAME"].startswith(f"{site.server.root}/{gateway}/")
        assert (told["HTTPS"], told["REQUEST_SCHEME"]) == ("on", "https")
        assert told["SSL_PROTOCOL"] == "TLSv1.3"


@pytest.mark.parametrize("gateway", RELAYS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_ordinary_request(site: Site, gateway: str, method: str) -> None:
    path = path_of(gateway, "env?q=1&r=a%20b")
    body = BODY if method == "POST" else None
    fields = FIELDS if body is None else [*FIELDS, ("content-length", str(len(BODY)))]
    close = [("Connection", "close")]
    first = told_over_1(site, f"{method} {path}", [*fields, *close], body or b"")
    second = told_over_2(site, [*head_of(site, method, path), *fields], body)
    expected = {"SERVER_PROTOCOL", "HTTP_CONNECTION"}  # the second was asked for in the first only
    assert differing(first, second) == (expected if gateway != "proxy" else set())
    assert_script(second, gateway, site)


@pytest.mark.parametrize("gateway", RELAYS)
def test_a_websocket(site: Site, gateway: str) -> None:
    """RFC 8441 has no key: a fresh one is made up."""
    path = path_of(gateway, "tell?q=1")
    fields = [*FIELDS, *WEBSOCKET]
    first = told_over_1(site, f"GET {path}", [*fields, *HANDSHAKE])
    head = [(":protocol", "websocket"), *head_of(site, "CONNECT", path)]
    second = told_over_2(site, [*head, *fields], b"")
    assert differing(first, second) == {"HTTP_SEC_WEBSOCKET_KEY"}
    assert_script(second, gateway, site)
    assert (second["REQUEST_METHOD"], second["SERVER_PROTOCOL"]) == ("GET", "HTTP/1.1")
    assert second["HTTP_UPGRADE"] == "websocket"
