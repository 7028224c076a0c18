"""Tunnels that are stuck beside 99 on the same connection: they hold up nobody else, and whoever
floods them is held up in turn, not stored."""

from __future__ import annotations

from collections.abc import Callable

import psutil
from client_frames import BINARY, frame
from e2e.h2_site import FILE, RELAYS, SECURITY, Site, path_of, pss
from h2_client import FRAME, H2Client

TURNS = 20
WINDOW = 65535
FLOOD = 16 << 20
ROOM = 4 << 20
"""Bytes by which the worker may grow: queues of a few tunnels, not a flood."""


def others_go_on(client: H2Client, worker: psutil.Process, push: Callable[[], None]) -> None:
    """Turn after turn 99 tunnels echo, while what is stuck is pushed."""
    others = [client.connect("/ws/") for _ in range(99)]
    for stream in others:
        assert client.answered(stream).status == 200
    before = pss(worker)
    for turn in range(TURNS):
        push()
        data = b"%04d" % turn * 64
        for stream in others:
            stream.say(data)
        for stream in others:
            assert stream.hear(256) == data
    assert pss(worker) - before < ROOM


@SECURITY
def test_a_backend_that_takes_nothing_is_flooded(site: Site, tls: bool) -> None:
    flood = frame(BINARY, bytes(8 << 20))
    sent = 0
    with site.client(tls) as client:
        stuck = client.connect("/stall/")
        backend, _ = site.stall.accept()
        client.answered(stuck)

        def push() -> None:
            nonlocal sent
            while room := client.h2.local_flow_control_window(stuck.id):
                piece = flood[sent : sent + min(room, FRAME)]
                client.h2.send_data(stuck.id, piece)
                sent += len(piece)
                client.flush()

        with backend:
            others_go_on(client, site.worker(), push)
    assert 0 < sent < 6 << 20  # the buffers of a socket, and a window


@SECURITY
def test_clients_that_take_nothing_are_flooded(site: Site, tls: bool) -> None:
    """One through each gateway."""
    with site.client(tls) as client:
        paths = ["/say/", *(path_of(gateway, f"flood?{FLOOD}") for gateway in RELAYS)]
        stuck = [client.tunnel(path) for path in paths]
        for stream in stuck:
            stream.stalled = True
        orders = [frame(BINARY, b"flood %d\n" % FLOOD), *[b"go"] * len(RELAYS)]

        def push() -> None:
            for stream, order in zip(stuck, orders, strict=False):
                stream.send(order)
            orders.clear()

        others_go_on(client, site.worker(), push)
        client.run_until(lambda: all(len(stream.data) == WINDOW for stream in stuck))
        assert not any(stream.is_over for stream in stuck)


def test_a_stuck_answer_holds_up_no_tunnel(site: Site) -> None:
    with site.client() as client:
        stuck = client.request("/static.bin")
        stuck.stalled = True
        tunnel = client.tunnel("/ws/")
        for _ in range(20):
            tunnel.say(b"x" * 1000)
            assert tunnel.hear(1000) == b"x" * 1000
        assert stuck.data == FILE[:WINDOW]
