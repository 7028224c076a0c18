"""forkd/protocol/request.py: the vectors request_parse, and what they leave open (core.md 4-6)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from vectors_loader import accepted, load, vector_id

from forkd.address import Address
from forkd.errors import BadRequest, ForkdError, NotImplementedHere
from forkd.message import ConnInfo, Fields, Request
from forkd.protocol.request import make_request
from forkd.protocol.strict_head import find_end, parse_head
from forkd.uri import ParseOptions

PEER = ConnInfo(Address("192.0.2.1", 4711), Address("127.0.0.1", 80), Address("0.0.0.0", 80))
PEER_TLS = ConnInfo(PEER.peer, PEER.local, PEER.listener, tls=True)


def parse(
    raw: bytes, options: ParseOptions = ParseOptions(), connection: ConnInfo = PEER  # noqa: B008
) -> Request:
    end = find_end(raw)
    head = parse_head(raw if end < 0 else raw[:end], options.header_strict)
    return make_request(head, connection, options)


def chosen(names: list[str] | None) -> ParseOptions:
    if names is None:
        return ParseOptions()
    on = {name.replace("-", "_") for name in names}
    return ParseOptions(**{field.name: field.name in on for field in fields(ParseOptions)})


def outcome(vector: dict[str, Any]) -> tuple[dict[str, Any], Fields]:
    """The result in the words of the vectors, and all fields."""
    raw = vector["request"].encode("latin-1")
    connection = PEER_TLS if vector.get("default_port") == 443 else PEER
    try:
        request = parse(raw, chosen(vector.get("parseopts")), connection)
    except ForkdError as error:
        return {"status": error.status}, Fields()
    return {
        "status": 0,
        "method": request.method,
        "version": request.version,
        "keep_alive": request.keep_alive,
        "body": "chunked" if request.content_length is None else request.content_length,
        "host": request.host or None,
        "target": request.full_target,
        "path": request.decoded_path,
        "query": request.query or "",
    }, request.fields


@pytest.mark.parametrize("vector", load("request_parse"), ids=vector_id)
def test_vectors_request_parse(vector: dict[str, Any]) -> None:
    result, given = outcome(vector)
    for right in accepted(vector):
        wanted = dict(right)
        listed = wanted.pop("fields", {})
        if result == wanted:
            assert {name: given.get(name) for name in listed} == listed
            return
    assert result == accepted(vector)[0]


def test_names_compare_without_case_and_the_first_spelling_stays() -> None:
    request = parse(b"GET / HTTP/1.1\r\nHost: h\r\nx-A: 1\r\nX-a: 2\r\n\r\n")
    assert list(request.fields) == [("Host", "h"), ("x-A", "1, 2")]
    assert request.fields.get("X-A") == "1, 2"


def test_the_host_that_backends_see_is_the_one_that_was_checked() -> None:
    request = parse(b"GET http://A.B./x HTTP/1.1\r\nhost: a.b.\r\n\r\n")
    assert (request.host, request.target) == ("a.b", "http://A.B./x")
    assert list(request.fields) == [("host", "a.b")]
    request = parse(b"GET http://C/x HTTP/1.1\r\n\r\n")
    assert list(request.fields) == [("Host", "c")]


def test_transfer_encoding_is_not_a_field_of_the_request() -> None:
    request = parse(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n")
    assert request.content_length is None
    assert "transfer-encoding" not in request.fields


UPGRADES = [
    (b"Upgrade: websocket\r\nConnection: upgrade\r\n", "websocket"),
    (b"Upgrade: websocket\r\nConnection: keep-alive\r\n", "websocket"),
    (b"Upgrade: websocket\r\n", ""),
    (b"Upgrade: h2c, websocket\r\nConnection: upgrade, http2-settings\r\n", ""),
    (b"Upgrade: H2C\r\nConnection: upgrade\r\nHTTP2-Settings: AAMAAABk\r\n", ""),
]


@pytest.mark.parametrize(("lines", "kept"), UPGRADES)
def test_upgrade_field(lines: bytes, kept: str) -> None:
    request = parse(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n")
    assert request.fields.get("upgrade") == kept
    assert "http2-settings" not in request.fields


@pytest.mark.parametrize(
    "lines",
    [b"Upgrade: x\r\n", b"HTTP2-Settings: x\r\n", b"Connection: a, http2-settings\r\n"],
)
def test_no_upgrade_in_http10(lines: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(b"GET / HTTP/1.0\r\n" + lines + b"\r\n")


@pytest.mark.parametrize("length", ["", "+1", "1_0", "\xb2", "1 1", "9" * 5000, "0x1", "1,1"])
def test_lengths_that_are_none(length: str) -> None:
    with pytest.raises(BadRequest):
        parse(f"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n".encode("latin-1"))


def test_coding_that_changes_between_fields() -> None:
    with pytest.raises(NotImplementedHere):
        parse(
            b"PUT / HTTP/1.1\r\nHost: h\r\n"
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n"
        )


@pytest.mark.parametrize("target", ["http://h", "http://", "ftp://h/", "h", "*", "://h/", "//h"])
def test_targets_of_get(target: str) -> None:
    raw = f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    if target == "//h":
        assert parse(raw).path == "/h"
    else:
        with pytest.raises(BadRequest):
            parse(raw)


def test_asterisk_and_authority_form() -> None:
    request = parse(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (request.path, request.decoded_path, request.query) == ("*", "*", None)
    request = parse(b"CONNECT :443 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert request.path == ":443"


def test_scheme_is_the_connections() -> None:
    assert parse(b"GET https://h/ HTTP/1.1\r\n\r\n").scheme == "http"
    assert parse(b"GET / HTTP/1.0\r\n\r\n", connection=PEER_TLS).scheme == "https"
