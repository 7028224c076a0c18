"""mod_proxy: upgrades, and CONNECT (upgrade.md 2, 3, 8, 11)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.harness import Forkd, wait_for
from e2e.http_backend import OK, SWITCH, HttpBackend, Peer, Script, answer_each
from e2e.proxied import Proxied, proxied
from e2e.rawhttp import Client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.server import ServerConnection, serve

CONFIG = """
server.modules = ( "mod_proxy" )
server.max-worker = 1
proxy.server = (
  "/host/" => (( @BACKEND@, "upgrade" => "enable" )),
  "/keep/" => (( @BACKEND@, "upgrade" => "enable", "keep-alive" => 1 )),
  "/quiet/" => (( @BACKEND@, "upgrade" => "enable", "read-timeout" => 1 )),
  "" => (( @BACKEND@ ))
)
$HTTP["url"] =~ "^/up/" { proxy.header = ( "upgrade" => "enable" ) }
$HTTP["url"] =~ "^/1/" { proxy.header = ( "upgrade" => 1 ) server.stream-request-body = 1 }
$HTTP["url"] =~ "^/2/" {
  proxy.header = ( "upgrade" => 1 )
  server.stream-request-body = 2
  server.stream-response-body = 2
}
$HTTP["url"] =~ "^/old/" { proxy.header = ( "upgrade" => 1, "force-http10" => 1 ) }
$HTTP["url"] == ":7" { proxy.header = ( "connect" => "enable" ) }
$HTTP["url"] =~ "^/ws/" {
  proxy.header = ( "upgrade" => "enable" )
  proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => @WS@ )) )
}
"""


def echo(connection: ServerConnection) -> None:
    try:
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        pass


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with serve(echo, "127.0.0.1", 0, max_size=None, subprotocols=["chat"]) as server:  # type: ignore[list-item]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = CONFIG.replace("@WS@", str(server.socket.getsockname()[1]))
        with proxied(tmp_path_factory, config) as running:
            yield running


@pytest.fixture
def front(running: Proxied) -> Iterator[Proxied]:
    yield running
    running.reset()


def asking(path: str, fields: str = "Connection: Upgrade\r\nUpgrade: raw\r\n") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()


def switched(client: Client, path: str, more: bytes = b"") -> None:
    """Ask for the upgrade and read the 101."""
    client.send(asking(path) + more)
    answer = client.response()
    assert answer.status == 101
    assert answer.field("Upgrade") == "raw"
    assert answer.field("Connection") == "upgrade"


def switching(then: Script) -> Script:
    def script(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(SWITCH)
        then(peer)

    heads: list[str] = []
    return script


def echoing(peer: Peer) -> None:
    while data := peer.unread or peer.socket.recv(1 << 16):
        peer.unread = b""
        peer.send(data)


# -- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/up/", "/host/", "/keep/", "/1/", "/2/"])
def test_tunnel_where_it_is_configured(front: Proxied, path: str) -> None:
    def script(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(SWITCH)
        echoing(peer)

    heads: list[str] = []
    front.backend.script = script
    with front.server.connect() as client:
        switched(client, path)
        for data in (b"a", b"\r\n\r\n", b"x" * 100_000):
            client.send(data)
            assert client.read(len(data)) == data
    assert "\r\nUpgrade: raw\r\n" in heads[0]
    options = "upgrade" if path == "/keep/" else "close, upgrade"
    assert heads[0].endswith(f"\r\nConnection: {options}\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/", "Connection: Upgrade\r\nUpgrade: raw\r\n"),
        ("/old/", "Connection: Upgrade\r\nUpgrade: raw\r\n"),
        ("/up/", "Upgrade: raw\r\n"),
        ("/up/", "Connection: close\r\nUpgrade: raw\r\n"),
        ("/up/", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        ("/up/", "Connection: Upgrade\r\nUpgrade: raw\r\nContent-Length: 1\r\n"),
        ("/up/", "Connection: Upgrade\r\nUpgrade: raw\r\nTransfer-Encoding: chunked\r\n"),
    ],
)
def test_backend_never_hears_of_an_upgrade_that_may_not_be(
    front: Proxied, path: str, fields: str
) -> None:
    body = b"1\r\nx\r\n0\r\n\r\n" if "chunked" in fields else b"x" if "Length" in fields else b""
    with front.server.connect() as client:
        client.send(asking(path, fields).replace(b"GET", b"PUT") + body)
        answer = client.response()
    assert answer.status == 200
    assert "upgrade" not in answer.text.lower()


@pytest.mark.parametrize("fields", ["Content-Length: 0\r\n", "Expect: 100-continue\r\n"])
def test_other_methods_and_empty_bodies_may_upgrade(front: Proxied, fields: str) -> None:
    front.backend.script = switching(echoing)
    with front.server.connect() as client:
        client.send(asking("/up/", f"Connection: keep-alive\r\nUpgrade: foo/1\r\n{fields}"))
        assert client.response().status == 101


@pytest.mark.parametrize("status", [200, 403, 426])
def test_backend_may_decline(front: Proxied, status: int) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK.replace(b"200", b"%d" % status))

    front.backend.script = script
    with front.server.connect() as client:
        for _ in range(2):
            client.send(asking("/up/"))
            answer = client.response()
            assert (answer.status, answer.body) == (status, b"ok")


def test_answer_to_the_handshake_is_the_backends(front: Proxied) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(
            b"HTTP/1.1 103 Early\r\nX: y\r\n\r\nHTTP/1.1 101 Yes\r\nX-A: b\r\nupgrade: raw\r\n"
            b"Connection: upgrade, x-hop\r\nX-Hop: 1\r\nSet-Cookie: c\r\n\r\n"
        )

    front.backend.script = script
    with front.server.connect() as client:
        client.send(asking("/up/"))
        assert client.response().fields == [("X", "y")]
        fields = dict(client.response().fields)
    del fields["Date"], fields["Server"]
    assert fields == {"X-A": "b", "upgrade": "raw", "Set-Cookie": "c", "Connection": "upgrade"}


@pytest.mark.parametrize("path", ["/up/", "/2/"])
def test_early_bytes_keep_their_order(front: Proxied, path: str) -> None:
    """With the request, before the 101, and behind the 101 in one packet with it."""

    def script(peer: Peer) -> None:
        peer.head()
        asked.set()
        assert sent.wait(10)
        peer.send(SWITCH + b"hello")
        got.append(peer.read(len(early)))
        peer.send(b"bye")

    early = b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 40
    got: list[bytes] = []
    asked, sent = threading.Event(), threading.Event()
    front.backend.script = script
    with front.server.connect() as client:
        client.send(asking(path) + early[:100])
        assert asked.wait(10)
        client.send(early[100:5000])
        sent.set()
        assert client.response().status == 101
        client.send(early[5000:])
        assert client.read(8) == b"hellobye"
    front.backend.wait_idle()
    assert got == [early]


# -- ending ---------------------------------------------------------------------------------------


def test_client_half_closes(front: Proxied) -> None:
    def until_the_end(peer: Peer) -> None:
        data = peer.read_all()
        peer.send(b"%d" % len(data))

    front.backend.script = switching(until_the_end)
    with front.server.connect() as client:
        switched(client, "/up/", b"early")
        client.send(b"x" * 100_000)
        client.send_eof()
        assert client.read_all() == b"100005"


def test_backend_half_closes(front: Proxied) -> None:
    def speaks_first(peer: Peer) -> None:
        peer.send(b"that was all")
        peer.send_eof()
        got.append(peer.read_all())

    got: list[bytes] = []
    front.backend.script = switching(speaks_first)
    with front.server.connect() as client:
        switched(client, "/up/")
        assert client.read_all() == b"that was all"
        client.send(b"x" * 100_000)
        client.send_eof()
        front.backend.wait_idle()
    assert got == [b"x" * 100_000]


def test_half_close_comes_with_the_request(front: Proxied) -> None:
    def until_the_end(peer: Peer) -> None:
        peer.send(b"got " + peer.read_all())

    front.backend.script = switching(until_the_end)
    with front.server.connect() as client:
        client.send(asking("/up/") + b"early")
        client.send_eof()
        assert client.response().status == 101
        assert client.read_all() == b"got early"


def test_reset_of_the_client_reaches_the_backend(front: Proxied) -> None:
    def script(peer: Peer) -> None:
        try:
            peer.read_all()
        except ConnectionResetError:
            ended.append("reset")

    ended: list[str] = []
    front.backend.script = switching(script)
    with front.server.connect() as client:
        switched(client, "/up/")
        Peer(client.socket).reset()
    front.backend.wait_idle()
    assert ended == ["reset"]


def test_reset_of_the_backend_reaches_the_client(front: Proxied) -> None:
    front.backend.script = switching(lambda peer: (peer.read(1), peer.reset())[-1])
    with front.server.connect() as client:
        switched(client, "/up/")
        client.send(b"x")
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)


def test_backend_dies_together_with_the_101(front: Proxied) -> None:
    front.backend.script = switching(lambda peer: None)
    with front.server.connect() as client:
        switched(client, "/up/")
        assert client.read_all() == b""


def no_reply(peer: Peer) -> None:
    peer.head()


def half_a_head(peer: Peer) -> None:
    peer.head()
    peer.send(SWITCH[:-2])


def no_upgrade(peer: Peer) -> None:
    peer.head()
    peer.send(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\n\r\n")


@pytest.mark.parametrize("script", [no_reply, half_a_head, no_upgrade])
def test_backend_dies_before_the_tunnel(front: Proxied, script: Script) -> None:
    front.backend.script = script
    with front.server.connect() as client:
        client.send(asking("/up/"))
        assert client.response().status == 502


def test_silent_backend_in_a_tunnel_is_cut(front: Proxied) -> None:
    front.backend.script = switching(lambda peer: (peer.read_all(), None)[1])
    with front.server.connect() as client:
        switched(client, "/quiet/")
        client.send(b"x")
        assert client.read_all() == b""


def test_tunnel_is_counted_while_it_lives(front: Proxied) -> None:
    front.backend.script = switching(echoing)
    with front.server.connect() as client:
        switched(client, "/up/")
        client.send(b"x")
        assert client.read(1) == b"x"
        assert front.server.status()["totals"]["tunnels"] == 1
    wait_for(lambda: front.server.status()["totals"]["tunnels"] == 0, what="no tunnel")


# -- WebSockets -----------------------------------------------------------------------------------

def websocket(front: Proxied, **options: Any) -> ClientConnection:
    return front.server.websocket("/ws/", subprotocols=["chat"], **options)


SIZES = (0, 1, 125, 126, 2048, 65_535, 65_536, 16 << 20)


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_every_size(front: Proxied, size: int) -> None:
    text, data = "\u00e4" * (size // 2) + "x" * (size % 2), bytes(size)
    with websocket(front) as client:
        assert client.subprotocol == "chat"
        for message in (text, data, text):
            client.send(message)
            assert client.recv(timeout=30) == message


def test_many_clients_at_once(front: Proxied) -> None:
    def talk(number: int) -> None:
        with websocket(front) as client:
            for turn in range(20):
                client.send(f"{number}:{turn}")
                assert client.recv(timeout=20) == f"{number}:{turn}"
            done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=talk, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(20))


def test_compression_is_between_client_and_backend(front: Proxied) -> None:
    with websocket(front, compression="deflate") as client:
        assert client.protocol.extensions
        client.send("x" * 100_000)
        assert client.recv(timeout=10) == "x" * 100_000


WSTUNNEL = """
server.modules = ( "mod_wstunnel" )
wstunnel.server = ( "/ws/" => (( "socket" => "@DIR@/echo.sock" )) )
wstunnel.frame-type = "binary"
"""
CHAIN = """
server.modules = ( "mod_proxy" )
proxy.header = ( "upgrade" => "enable" )
proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => @BEHIND@ )) )
"""


async def echo_in_pieces(url: str) -> None:
    """The answer begins to come, in many messages, while the question is still being sent."""
    async with asyncio.timeout(60), connect(url, proxy=None, compression=None) as client:
        for size in SIZES[1:]:
            sending = asyncio.create_task(client.send(bytes(size)))
            got = b""
            while len(got) < size:
                got += bytes(await client.recv(decode=False))
            assert got == bytes(size)
            await sending


def test_chain_of_proxy_and_wstunnel(forkd: Forkd) -> None:
    with HttpBackend(str(forkd.directory / "echo.sock")) as backend:
        backend.script = echoing
        behind = forkd.start(WSTUNNEL, name="behind.conf")
        config = CHAIN.replace("@BEHIND@", str(behind.port))
        server = forkd.start(config + 'server.pid-file = "@DIR@/front.pid"\n', name="front.conf")
        asyncio.run(echo_in_pieces(f"ws://127.0.0.1:{server.port}/ws/"))
        assert server.get("/ws/").status == 404  # what is no handshake is the other's to refuse


# -- CONNECT --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT :7 HTTP/1.1\r\nHost: evil.example:25\r\n\r\n",
        b"CONNECT :7 HTTP/1.0\r\n\r\n",
        b"CONNECT :7 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",
    ],
)
def test_connect_reaches_the_configured_backend_only(front: Proxied, head: bytes) -> None:
    front.backend.script = echoing
    with front.server.connect() as client:
        client.send(head + b"early")
        answer = client.read(len(b"HTTP/1.1 200 "))
        while b"\r\n\r\n" not in client.unread:
            assert client.is_open(5)
        fields, _, client.unread = client.unread.partition(b"\r\n\r\n")
        assert answer == b"HTTP/1.1 200 "
        assert not {b"content-length", b"transfer-encoding", b"connection"} & {
            line.split(b":")[0].lower() for line in fields.split(b"\r\n")
        }
        client.send(b" and late")
        client.send_eof()
        assert client.read_all() == b"early and late"
    assert front.backend.connections == 1


@pytest.mark.parametrize("target", [":8", "127.0.0.1:7"])
def test_connect_elsewhere_is_refused(front: Proxied, target: str) -> None:
    with front.server.connect() as client:
        assert client.request(f"CONNECT {target} HTTP/1.1\nHost: h\n\n").status == 405
    assert front.backend.connections == 0


def test_connect_to_a_backend_that_is_down(forkd: Forkd) -> None:
    server = forkd.start(
        'server.modules = ( "mod_proxy" )\nproxy.header = ( "connect" => 1 )\n'
        'proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => 1 )) )\n'
    )
    with server.connect() as client:
        assert client.request("CONNECT :7 HTTP/1.1\nHost: h\n\n").status == 503


def test_ordinary_requests_beside_tunnels(front: Proxied) -> None:
    front.backend.script = switching(echoing)
    with front.server.connect() as client:
        switched(client, "/up/")
        front.backend.script = answer_each
        assert front.server.get("/").status == 200
        client.send(b"x")
        assert client.read(1) == b"x"
