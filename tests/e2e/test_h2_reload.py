"""HTTP/2 connections when the server is reloaded or stopped (RFC 9113 section 6.8), and new
certificates under live tunnels of both versions."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import ExitStack

import pytest
from authority import Issued
from client_frames import close
from e2e.h2_site import FILE, GATEWAYS, SECURITY, Site, close_cleanly, install, path_of, site_with
from e2e.harness import Forkd
from e2e.wsclient import secure_websocket
from h2_client import H2Client, Stream

MOST_STREAMS = 0x7FFFFFFF


def reload(site: Site) -> subprocess.CompletedProcess[str]:
    return site.forkd.run("reload", "-f", str(site.server.config))


def wait_closed(client: H2Client) -> None:
    with pytest.raises(AssertionError, match="closed"):
        client.run_until(lambda: False)


def echoes(stream: Stream, text: bytes) -> bool:
    stream.say(text)
    return stream.hear(len(text)) == text


# -- drains and stops ---------------------------------------------------------------------------


@SECURITY
def test_a_reload_lets_tunnels_live_and_takes_no_more_streams(forkd: Forkd, tls: bool) -> None:
    with site_with(forkd) as site, site.client(tls) as idle, site.client(tls) as client:
        asked = idle.finished(idle.request("/static.bin"))
        tunnels = [client.tunnel(path_of(gateway)) for gateway in GATEWAYS]
        slow = client.request("/static.bin")
        slow.stalled = True
        client.run_until(lambda: slow.data)
        done = reload(site)
        assert done.returncode == 0, done.stderr
        wait_closed(idle)
        assert idle.goaways == [(MOST_STREAMS, 0), (asked.id, 0)]
        client.run_until(lambda: len(client.goaways) >= 2)
        assert client.goaways == [(MOST_STREAMS, 0), (slow.id, 0)]
        assert all(echoes(stream, b"still here") for stream in tunnels)
        slow.go_on()
        assert client.finished(slow).data == FILE
        for stream in tunnels:
            close_cleanly(client, stream)
        wait_closed(client)


def test_a_stop_says_1001(forkd: Forkd) -> None:
    with site_with(forkd) as site, site.client() as client, site.client() as idle:
        stream = client.tunnel("/ws/")
        idle.finished(idle.request("/nothing"))  # it is no more one that waits to be accepted
        assert site.server.process is not None
        site.server.process.send_signal(signal.SIGINT)
        assert stream.hear_close() == 1001
        stream.send(close(1001), end=True)
        client.finished(stream)
        assert stream.reset is None
        wait_closed(idle)


# -- certificates -------------------------------------------------------------------------------


def shown(site: Site, alpn: str = "h2", name: str = "localhost") -> str:
    """The serial number of the certificate that a new connection sees."""
    with site.secured(name, alpn) as client:
        assert client.selected_alpn_protocol() == alpn
        certificate = client.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def serial(issued: Issued) -> str:
    found = subprocess.run(
        ["openssl", "x509", "-in", issued.certificate, "-noout", "-serial"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return found.strip().removeprefix("serial=")


def test_certificates_by_name_change_under_live_tunnels(forkd: Forkd) -> None:
    with ExitStack() as stack:
        site = stack.enter_context(site_with(forkd))
        client = stack.enter_context(site.client(tls=True))
        assert shown(site) == serial(site.own)
        assert shown(site, name="other.example") == serial(site.other)
        streams = [client.tunnel(path_of(gateway)) for gateway in GATEWAYS]
        sockets = [
            stack.enter_context(
                secure_websocket(site.tls_port, site.authority.client(), path_of(gateway))
            )
            for gateway in GATEWAYS
        ]

        def all_echo(text: str) -> bool:
            for one in sockets:
                one.send(text)
            heard = [one.recv(15) for one in sockets]
            return heard == [text] * 5 and all(echoes(one, text.encode()) for one in streams)

        assert all_echo("before")
        renewed = site.authority.issue("localhost", file="renewed")
        install(forkd, renewed, "own")
        done = reload(site)
        assert done.returncode == 0, done.stderr
        assert shown(site) == shown(site, "http/1.1") == serial(renewed) != serial(site.own)
        assert shown(site, name="other.example") == serial(site.other)
        assert all_echo("after")
        shutil.copy(site.other.key, forkd.directory / "own.key")  # which is not its key
        done = reload(site)
        assert done.returncode == 6
        assert "own.key: the key is not that of the certificate" in done.stderr
        assert shown(site) == serial(renewed)
        assert all_echo("still")
        for stream in streams:
            close_cleanly(client, stream)
        for one in sockets:
            one.close()
    assert [one.close_code for one in sockets] == [1000] * 5
