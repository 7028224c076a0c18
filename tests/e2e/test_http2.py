"""HTTP/2 on a running server: requests, and WebSockets through every gateway (RFC 8441)."""

from __future__ import annotations

import hashlib
import os
import subprocess

import pytest
from e2e.h2_site import FILE, GATEWAYS, SECURITY, Site, close_cleanly, path_of, variables
from e2e.harness import Forkd, wait_for

# -- requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100_000, 400_000])
def test_a_body_goes_up_and_an_answer_comes_down(site: Site, size: int) -> None:
    with site.client() as client:
        body = os.urandom(size)
        field = [("content-length", str(size))]
        stream = client.finished(client.request("/cgi/app.py/upload", "POST", field, body))
        answer = f"{size} {hashlib.sha1(body).hexdigest()}"
        assert (stream.status, stream.data.decode()) == (200, answer)


def test_a_reset_request_ends_alone(site: Site) -> None:
    with site.client() as client:
        kept = client.request("/scgi/stay?5")
        client.h2.reset_stream(kept.id, 8)
        client.flush()
        other = client.finished(client.request("/static.bin"))
        assert other.data == FILE


@pytest.mark.parametrize(("is_on", "version"), [("enable", b"2"), ("disable", b"1.1")])
def test_an_upgrade_to_h2c(forkd: Forkd, is_on: str, version: bytes) -> None:
    flags = f'server.feature-flags = ( "server.h2c" => "{is_on}" )'
    server = forkd.start(flags)
    (server.root / "a.txt").write_bytes(b"hello ")
    url = f"http://127.0.0.1:{server.port}/a.txt"
    got = subprocess.run(
        ["curl", "-s", "--http2", "-w", "%{http_version}", url, "--next", "-s", "--http2", url],
        capture_output=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    assert got == b"hello " + version + b"hello "


# -- WebSockets ---------------------------------------------------------------------------------


@SECURITY
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_messages_come_back(site: Site, gateway: str, tls: bool) -> None:
    with site.client(tls) as client:
        stream = client.tunnel(path_of(gateway))
        assert not {"upgrade", "connection", "sec-websocket-accept"} & set(stream.fields)
        for size in (1, 125, 126, 70_000):
            data = os.urandom(size) if gateway != "wstunnel" else b"x" * size  # it speaks text
            stream.say(data)
            assert stream.hear(size) == data
        close_cleanly(client, stream)


def test_each_request_has_a_key_of_its_own(site: Site) -> None:
    keys = set()
    with site.client() as client:
        for _ in range(3):
            stream = client.finished(client.connect("/cgi/app.py/tell"))
            keys.add(variables(bytes(stream.data))["HTTP_SEC_WEBSOCKET_KEY"])
    assert [len(key) for key in keys] == [24] * 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/plain/ws", 405),
        ("/cgi/app.py/proofless", 502),
        ("/cgi/app.py/env", 405),
        ("/scgi/missing", 404),
        ("/nothing", 404),
        ("/static.bin", 405),
    ],
)
def test_a_refused_tunnel(site: Site, path: str, status: int) -> None:
    with site.client() as client:
        stream = client.finished(client.connect(path))
        assert stream.status == status
        assert stream.ended
        assert client.finished(client.request("/static.bin")).status == 200


def test_every_stream_is_in_the_access_log(site: Site) -> None:
    with site.client() as client:
        client.finished(client.request("/missing-in-log"))
        stream = client.tunnel("/ws/")
        stream.say(b"hello")
        stream.hear(5)
        close_cleanly(client, stream)
    log = site.server.directory / "access.log"
    wait_for(lambda: "GET /missing-in-log 404" in log.read_text(), what="line of the request")
    wait_for(lambda: "CONNECT /ws/ 200" in log.read_text(), what="line of the tunnel")
