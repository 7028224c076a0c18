"""Frames on a connection and what comes of them: the http2 vectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from e2e.harness import free_port
from e2e.sites import Sites, sites_with
from echo_server import echo_server
from h2_frames import FENCE, PREFACE, RawClient, Seen, ping
from vectors_loader import accepted, document, load, vector_id

# What forkd does on purpose, and what may come of it then.
OTHERWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "h2-117": ("100 streams at one time: none is refused, all wait for a body", {}),
    "h2-102": ("END_STREAM is half a close, which a WebSocket answers in kind",
               {"status": {"1": 200}}),
}  # fmt: skip

CONFIG = """
server.modules = ( "mod_cgi", "mod_wstunnel" )
$HTTP["url"] =~ "^/cgi/" {{ cgi.assign = ( ".py" => "" ) }}
wstunnel.server = ( "/ws/" => ( ( "host" => "127.0.0.1", "port" => {port} ) ) )
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    fixture = document("http2").get("fixture", {"files": {}})
    with (
        echo_server(backend := free_port()),
        sites_with(tmp_path_factory, fixture) as sites,
    ):
        yield start(sites, backend)


def start(sites: Sites, backend: int) -> int:
    return sites.server(CONFIG.format(port=backend)).port


@pytest.mark.parametrize("vector", load("http2"), ids=vector_id)
def test_vectors_http2(port: int, vector: dict[str, Any]) -> None:
    also = vector.get("also", [])
    outcomes = accepted(vector | {"also": [also] if isinstance(also, str) else also})
    if vector["id"] in OTHERWISE:
        outcomes.append(OTHERWISE[vector["id"]][1])
    if vector["id"] == "h2-121":
        outcomes.append("up to 100 streams served")
    data = bytes.fromhex(vector["frames_hex"])
    with RawClient(port, PREFACE if vector["preface"] else b"") as client:
        client.send(data)
        if not vector["preface"]:
            client.socket.shutdown(1)
        with suppress(OSError):  # it may have closed already
            client.send(ping(FENCE))
        client.read_until(lambda seen: seen.fenced)
        with suppress(AssertionError):
            client.read_until(lambda seen: any(fits(seen, one) for one in outcomes), 3.0)
        assert any(fits(client.seen, one) for one in outcomes), client.seen.outcome


def fits(seen: Seen, expected: Any) -> bool:
    if isinstance(expected, str):
        if expected.startswith("any"):
            refused = [status for status in seen.status.values() if status >= 400]
            return bool(seen.goaway or seen.rst or refused)
        return len([status for status in seen.status.values() if status == 200]) >= 100
    return seen.outcome == expected
