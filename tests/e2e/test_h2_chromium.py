"""A real browser over TLS: the page and its WebSockets share one HTTP/2 connection (RFC 8441),
whichever gateway a WebSocket is behind, and end as they should.

What the browser sent is in its own record (its net-log).
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from authority import Issued
from e2e.h2_site import GATEWAYS, RELAYS, Site, path_of
from e2e.webdriver import Browser

BY_GATEWAY = pytest.mark.parametrize("gateway", GATEWAYS)

PAGE = """<!DOCTYPE html><link rel="icon" href="data:,"><title>page</title>
<script src="/talk.js"></script>
"""
TALK = """
// Says each of *messages* when the one before has been answered; then closes, when it is to.
function talk(path, messages, closes) {
  return new Promise((tell) => {
    const socket = new WebSocket(`wss://${location.host}${path}`);
    const heard = [];
    const next = () => {
      if (messages.length) socket.send(messages.shift());
      else if (closes) socket.close(1000, "done");
    };
    socket.binaryType = "arraybuffer";
    socket.onopen = next;
    socket.onmessage = ({data}) => {
      heard.push(typeof data === "string" ? data : new TextDecoder().decode(data));
      next();
    };
    socket.onclose = ({code, wasClean}) => tell({heard, code, wasClean});
  });
}
"""
TALK_TO_ALL = "return Promise.all(arguments[0].map((call) => talk(...call)))"

MESSAGES = ["hello", "Grüße, 世界!", "x" * 4000]
MANNERS = ("closed by page", "closed by server")

Headers = dict[str, str]


@dataclass
class Visit:
    """What the page saw, and what the browser says it did."""

    told: dict[tuple[str, str], Any]
    """By gateway and manner: the messages heard, the close code, whether that was clean."""
    sessions: dict[int, list[Headers]]
    """The requests that went to the server on each HTTP/2 connection."""
    resets: int
    """Streams of any that the server has reset."""


@pytest.fixture(scope="module")
def visit(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """One visit: five WebSockets at once that the page closes, then five that the server does."""
    (site.server.root / "page.html").write_text(PAGE)
    (site.server.root / "talk.js").write_text(TALK)
    folder = tmp_path_factory.mktemp("browser")
    log = folder / "net.log"
    flags = (
        f"--ignore-certificate-errors-spki-list={fingerprint(site.own)}",
        f"--log-net-log={log}",
        "--net-log-capture-mode=Everything",
    )
    calls = [[path_of(gateway), MESSAGES, True] for gateway in GATEWAYS]
    calls.append(["/say/", [f"bytes {b'bye'.hex()}\n"], False])
    calls += [[path_of(gateway), ["hello", "bye"], False] for gateway in RELAYS]
    with Browser(folder / "profile", *flags) as browser:
        browser.open(site.url("/page.html"))
        told = browser.wait_for(TALK_TO_ALL, calls[:5]) + browser.wait_for(TALK_TO_ALL, calls[5:])
    keys = [(gateway, manner) for manner in MANNERS for gateway in GATEWAYS]
    return Visit(dict(zip(keys, told, strict=True)), *recorded(log, f"localhost:{site.tls_port}"))


def fingerprint(issued: Issued) -> str:
    """Of its public key: how the browser is told to believe it."""
    public = subprocess.run(
        ["openssl", "x509", "-in", issued.certificate, "-noout", "-pubkey"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    key = base64.b64decode("".join(public.splitlines()[1:-1]))
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def recorded(log: Path, host: str) -> tuple[dict[int, list[Headers]], int]:
    """The requests of each HTTP/2 session with *host*, and the resets that came in any."""
    head, _, rest = log.read_text().partition('"events": [\n')
    kinds = json.loads(head.rstrip(",\n") + "}")["constants"]["logEventTypes"]
    sessions: dict[int, list[Headers]] = {}
    resets = 0
    for line in rest.splitlines():
        if not line.startswith("{"):
            continue
        event = json.loads(line.rstrip(",]"))
        source, params = event["source"]["id"], event.get("params", {})
        if event["type"] == kinds["HTTP2_SESSION"] and params.get("host") == host:
            sessions[source] = []
        elif event["type"] == kinds["HTTP2_SESSION_SEND_HEADERS"] and source in sessions:
            sessions[source].append(dict(line.split(": ", 1) for line in params["headers"]))
        elif event["type"] == kinds["HTTP2_SESSION_RECV_RST_STREAM"] and source in sessions:
            resets += 1
    return sessions, resets


@BY_GATEWAY
def test_page_and_websocket_share_a_connection(visit: Visit, gateway: str) -> None:
    [requests] = visit.sessions.values()
    assert (requests[0][":method"], requests[0][":path"]) == ("GET", "/page.html")
    asked = [one for one in requests if one[":path"] == path_of(gateway)]
    assert asked
    for one in asked:
        assert (one[":method"], one[":protocol"]) == ("CONNECT", "websocket")


@BY_GATEWAY
def test_the_page_closes(visit: Visit, gateway: str) -> None:
    told = visit.told[gateway, "closed by page"]
    assert told == {"heard": MESSAGES, "code": 1000, "wasClean": True}


@BY_GATEWAY
def test_the_server_closes(visit: Visit, gateway: str) -> None:
    told = visit.told[gateway, "closed by server"]
    heard = ["bye" if gateway == "wstunnel" else "hello"]
    assert told == {"heard": heard, "code": 1000, "wasClean": True}


def test_nothing_is_reset(visit: Visit) -> None:
    assert visit.resets == 0
