"""How a tunnel on HTTP/2 ends: an end of input is passed on as one, a reset as a reset, in both
directions and through every gateway (RFC 9113 section 8.5)."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator

import pytest
from client_frames import close
from e2e.h2_site import RELAYS, SECURITY, Site, path_of
from e2e.harness import wait_for

from forkd.protocol.h2_frames import ErrorCode

BY_GATEWAY = pytest.mark.parametrize("gateway", RELAYS)


@pytest.fixture(autouse=True)
def forget(site: Site) -> Iterator[None]:
    site.forget_events()
    yield


def wait_event(site: Site, gateway: str, pattern: str) -> None:
    """Until the program behind *gateway* has noted what matches."""

    def noted() -> bool:
        return any(re.search(pattern, event) for event in site.events(gateway))

    wait_for(noted, what=lambda: f"{pattern!r} in {site.events(gateway)}")


# -- the client's end ---------------------------------------------------------------------------


@BY_GATEWAY
def test_the_end_of_the_clients_direction_is_half_a_close(site: Site, gateway: str) -> None:
    """The program hears the end, and what it says then still arrives."""
    with site.client() as client:
        stream = client.tunnel(path_of(gateway, "raw"))
        stream.send(b"last", end=True)
        client.finished(stream)
        assert (stream.data, stream.reset) == (b"lastand that was all", None)
    assert site.events(gateway) == ["end of input"]


def test_the_end_behind_a_close_frame_is_a_clean_close(site: Site) -> None:
    """In frames of their own; together is what ``close_cleanly`` does in the other tests."""
    with site.client() as client:
        for path in ("/ws/", *(path_of(gateway) for gateway in RELAYS)):
            stream = client.tunnel(path)
            stream.send(close(1000))
            stream.send(b"", end=True)
            assert stream.hear_close() == 1000
            client.finished(stream)
            assert stream.ended and stream.reset is None


HEARD = {
    "proxy": "gone: .*reset by peer",
    "scgi": "gone: .*reset by peer",
    "fastcgi": "^abort$",
    "cgi": "^end of input$",  # a pipe has no reset
}


@BY_GATEWAY
def test_a_reset_by_the_client_is_a_reset_of_the_backend(site: Site, gateway: str) -> None:
    with site.client() as client:
        other = client.tunnel(path_of(gateway, "raw"))
        stream = client.tunnel(path_of(gateway, "raw"))
        stream.send(b"x")
        client.run_until(lambda: stream.data)
        client.h2.reset_stream(stream.id, ErrorCode.CANCEL)
        client.flush()
        wait_event(site, gateway, HEARD[gateway])
        other.send(b"y", end=True)
        assert client.finished(other).data == b"yand that was all"


@BY_GATEWAY
def test_a_reset_of_the_connection_is_one_of_every_backend(site: Site, gateway: str) -> None:
    with site.client() as client:
        for _ in range(3):
            client.tunnel(path_of(gateway, "raw"))
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(
        lambda: len([e for e in site.events(gateway) if re.search(HEARD[gateway], e)]) == 3,
        what=lambda: f"three resets in {site.events(gateway)}",
    )


def test_a_backend_of_wstunnel_gets_an_end_and_no_reset(site: Site) -> None:
    """Bytes without WebSocket: the program may still have something to finish."""
    with site.client() as client:
        stream = client.connect("/stall/")
        backend, _ = site.stall.accept()
        client.answered(stream)
        client.h2.reset_stream(stream.id, ErrorCode.CANCEL)
        client.flush()
        with backend:
            backend.settimeout(15)
            assert backend.recv(1) == b""


@SECURITY
def test_an_answer_that_waits_for_a_client_that_has_left(site: Site, tls: bool) -> None:
    """Its credit is used up, and nobody can give more."""

    def connections() -> int:
        ports = (site.server.port, site.tls_port)
        found = site.worker().net_connections("tcp")
        return len([one for one in found if one.laddr.port in ports and one.raddr])

    wait_for(lambda: not connections(), what="the end of what came before")
    with site.client(tls) as client:
        stream = client.request("/static.bin")
        stream.stalled = True
        client.run_until(lambda: len(stream.data) == 65535)
        assert connections() == 1
    wait_for(lambda: not connections(), what="the end of the connection")


# -- the backend's end --------------------------------------------------------------------------


@BY_GATEWAY
def test_the_end_of_the_backends_direction_is_half_a_close(site: Site, gateway: str) -> None:
    with site.client() as client:
        stream = client.tunnel(path_of(gateway, "talk"))
        client.run_until(lambda: stream.is_over)
        assert (bytes(stream.data), stream.ended) == (b"hello", True)
        stream.send(b"still here", end=True)
        wait_event(site, gateway, "^heard still here$")
        assert stream.reset is None


@BY_GATEWAY
def test_a_reset_by_the_backend_is_a_reset_of_its_stream_alone(site: Site, gateway: str) -> None:
    with site.client() as client:
        other = client.tunnel("/ws/")
        stream = client.tunnel(path_of(gateway, "reset"))
        stream.send(b"x")
        client.finished(stream)
        if gateway == "cgi":  # killed: its pipe has ended like any other
            assert stream.ended
        else:
            assert (stream.reset, stream.ended) == (ErrorCode.CONNECT_ERROR, False)
        other.say(b"alive")
        assert other.hear(5) == b"alive"


def test_a_backend_of_wstunnel_that_is_reset(site: Site) -> None:
    with site.client() as client:
        other = client.tunnel("/ws/")
        stream = client.connect("/stall/")
        backend, _ = site.stall.accept()
        client.answered(stream)
        backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        backend.close()
        assert stream.hear_close() == 1011
        other.say(b"alive")
        assert other.hear(5) == b"alive"
