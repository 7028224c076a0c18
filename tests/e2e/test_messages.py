"""Messages kept whole on a running server: framings, what backends are told, rates, handshakes."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from authority import Authority
from client_frames import BINARY, TEXT, close, frame, server_frames
from e2e.harness import REPOSITORY, Forkd, Server
from h2_client import H2Client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

Message = str | bytes

PROGRAMS = Path(__file__).parent.parent / "programs"
SEQPACKET = REPOSITORY / "conf" / "samples" / "bin" / "seqpacket.py"

CONFIG = """
server.max-worker = 1
server.modules = ("mod_wstunnel"{modules})
wstunnel.server = (
  "/line/" => (( {echo}, "framing" => "line", "line-newline" => "space" )),
  "/refuse/" => (( {echo}, "framing" => "line" )),
  "/netstring/" => (( {echo}, "framing" => "netstring" )),
  "/typed/" => (( {echo}, "framing" => "typed" )),
  "/seqpacket/" => (( {packets}, "framing" => "seqpacket" )),
  "/v1/" => (( {echo}, "framing" => "line", "metadata" => "proxy-v1" )),
  "/v2/" => (( {echo}, "metadata" => "proxy-v2" )),
  "/v2packet/" => (( {packets}, "framing" => "seqpacket", "metadata" => "proxy-v2" )),
  "/cgi/" => (( {echo}, "framing" => "netstring", "metadata" => "cgi" )) )
$HTTP["url"] =^ "/v2" {{ wstunnel.frame-type = "binary" }}
{more}
"""

OTHER_HOST = '"socket" => "@DIR@/echo.sock-0"'  # the echo, as a host that runs elsewhere


def start(forkd: Forkd, more: str = "", modules: str = "") -> Server:
    """A server on which everything comes back as it was sent to the backend."""
    shutil.copy(PROGRAMS / "echo_stream.py", forkd.directory)
    shutil.copy(SEQPACKET, forkd.directory)
    spawned = {
        "echo": '"socket" => "@DIR@/echo.sock", "bin-path" => "@DIR@/echo_stream.py"',
        "packets": '"socket" => "@DIR@/seq.sock", "bin-path" => "@DIR@/seqpacket.py"',
    }
    # One process for all: whoever comes second is a host that runs elsewhere.
    text = CONFIG
    for name, first in spawned.items():
        path = first.split('"')[3]
        text = text.replace(f"{{{name}}}", f'{first}, "max-procs" => 1', 1)
        text = text.replace(f"{{{name}}}", f'"socket" => "{path}-0"')
    return forkd.start(text.format(more=more, modules=modules))


def closed(client: ClientConnection) -> int:
    """Read until the server closes; the code."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.recv(timeout=30)
    assert caught.value.rcvd is not None, "closed without a Close frame"
    return caught.value.rcvd.code


# -- framings -------------------------------------------------------------------------------

SHORT: list[Message] = ["", "a", "Grüße, 世界", "x" * 126, "", "y" * 70_000]
LONG: list[Message] = ["€" * 350_000]
BYTES: list[Message] = [b"", b"\0\xff\n", bytes(1 << 20), "text between", b"1:a,"]

ECHOED = {
    "line": SHORT + LONG,
    "netstring": [*SHORT, *LONG, "two\nlines", "1:a,"],
    "typed": [*SHORT, *LONG, *BYTES],
    "seqpacket": [*SHORT, "two\nlines", "z" * 200_000],
}


async def echoed(
    server: Server, path: str, messages: Sequence[Message], compression: str | None
) -> list[Message]:
    """What comes back: all of *messages* are sent at once, the last of them in fragments too."""
    url = f"ws://127.0.0.1:{server.port}{path}"
    async with connect(url, compression=compression, max_size=None, proxy=None) as client:
        assert bool(client.protocol.extensions) == bool(compression)

        async def send() -> None:
            for message in messages:
                await client.send(message)
            last = messages[-1]
            await client.send([last[:3], last[3:3], last[3:5000], last[5000:]])

        sender = asyncio.create_task(send())
        answers = [await asyncio.wait_for(client.recv(), 60) for _ in [*messages, ""]]
        await sender
    return answers


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_come_back_as_they_were(forkd: Forkd, compression: str | None) -> None:
    server = start(forkd, 'wstunnel.deflate = ( "level" => 1 )')
    for framing, messages in ECHOED.items():
        answers = asyncio.run(echoed(server, f"/{framing}/", messages, compression))
        assert answers == [*messages, messages[-1]], framing


def test_over_http2(forkd: Forkd) -> None:
    server = start(
        forkd,
        """server.feature-flags = ( "server.h2c" => "enable" )
        wstunnel.deflate = "enable"
        wstunnel.subprotocols = ("chat.v2", "chat")""",
    )
    with H2Client(server.port) as client:
        stream = client.connect(
            "/typed/",
            [
                ("sec-websocket-protocol", "chat, chat.v2"),
                ("sec-websocket-extensions", "permessage-deflate; server_no_context_takeover"),
            ],
        )
        client.answered(stream)
        assert stream.status == 200
        assert stream.fields["sec-websocket-protocol"] == "chat.v2"
        agreed = "permessage-deflate; server_no_context_takeover"
        assert stream.fields["sec-websocket-extensions"] == agreed
        # RFC 7692 section 7.2.3.1: "Hello", compressed and not.
        stream.send(frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=4) + frame(BINARY, b""))
        client.run_until(lambda: len(stream.data) >= 9)
        assert server_frames(stream.data) == [(TEXT, b"Hello", True), (BINARY, b"", True)]
        told = client.connect("/cgi/")
        client.answered(told)
        variables = variables_in(told.hear(size_of_frame(client, told)))
        assert variables["REQUEST_METHOD"] == "GET"
        assert variables["HTTP_UPGRADE"] == "websocket"
        assert "HTTP_SEC_WEBSOCKET_KEY" not in variables


def size_of_frame(client: H2Client, stream) -> int:
    """Bytes of payload in the frame that comes next: one of 126 to 65535."""
    client.run_until(lambda: len(stream.data) >= 4)
    assert stream.data[1] == 126
    return int.from_bytes(stream.data[2:4], "big")


def test_what_a_line_cannot_hold(forkd: Forkd) -> None:
    server = start(forkd)
    with server.websocket("/line/") as client:
        client.send("two\nlines")
        assert client.recv(timeout=30) == "two lines"
    with server.websocket("/refuse/") as client:
        client.send("one")
        assert client.recv(timeout=30) == "one"
        client.send("two\nlines")
        assert closed(client) == 1007


def test_what_is_too_long(forkd: Forkd) -> None:
    server = start(forkd, '$HTTP["url"] =^ "/typed/" { wstunnel.max-message-size = 1000 }')
    for path, size in (("/typed/", 1001), ("/seqpacket/", 300_000)):
        with server.websocket(path) as client:
            client.send("x" * 1000)
            assert client.recv(timeout=30) == "x" * 1000
            client.send("x" * size)
            assert closed(client) == 1009, path


@pytest.mark.parametrize("framing", ["netstring", "typed"])
def test_bombs_cost_a_worker_little(forkd: Forkd, framing: str) -> None:
    """Of 128 MiB of zeros in 128 KiB that are too many, and of 32 MiB that are not."""
    server = start(forkd, 'wstunnel.deflate = ( "level" => 1 )')
    (worker,) = server.workers()
    with server.websocket(f"/{framing}/", compression="deflate") as client:
        client.send(b"first")
        assert client.recv(timeout=30) is not None
        before = worker.memory_info().rss
        client.send(bytes(32 << 20))
        answer = client.recv(timeout=120, decode=False)
        assert answer == bytes(32 << 20)
        client.socket.sendall(bomb(128))
        assert closed(client) == 1009
    assert most_memory(worker.pid) - before < 12 << 20


def bomb(size: int) -> bytes:
    """The frame of a compressed message of *size* MiB of zeros."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = b"".join(stream.compress(bytes(1 << 20)) for _ in range(size))
    out += stream.flush(zlib.Z_SYNC_FLUSH)
    return frame(BINARY, out[:-4], rsv=4)


def most_memory(pid: int) -> int:
    """Bytes of memory that a process had at most (proc(5))."""
    (line,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(line) << 10


def test_a_backend_that_breaks_its_framing(forkd: Forkd) -> None:
    server = start(
        forkd, f'wstunnel.server += ( "/broken/" => (( {OTHER_HOST}, "metadata" => "proxy-v1",'
        ' "framing" => "typed" )) )'
    )
    with server.websocket("/broken/") as client:
        assert closed(client) == 1011
    server.wait_log(r"tunnel 1: closed, .*backend")


# -- what the backend is told ---------------------------------------------------------------


def variables_in(text: str | bytes) -> dict[str, str]:
    plain = text.decode() if isinstance(text, bytes) else text
    words = plain.split("\0")
    return dict(zip(words[::2], words[1::2], strict=False))


def tlvs(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while data:
        kind, size = struct.unpack(">BH", data[:3])
        found[kind], data = data[3 : 3 + size], data[3 + size :]
    return found


def test_who_the_client_is(forkd: Forkd) -> None:
    server = start(forkd, "wstunnel.debug = 3")
    with server.websocket("/v1/") as client:
        host, port = client.local_address[:2]
        line = f"PROXY TCP4 {host} 127.0.0.1 {port} {server.port}\r"
        assert client.recv(timeout=30) == line.removesuffix("\r")  # as a line, CR LF is its end
        client.send("then messages")
        assert client.recv(timeout=30) == "then messages"
    with server.websocket("/v2packet/") as client:
        head = client.recv(timeout=30)
        assert isinstance(head, bytes)
        assert head[:16] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", len(head) - 16)
        told = tlvs(head[28:])
        assert told[0x02] == b"127.0.0.1"
        server.wait_log(f"id {told[0x05].decode()}")
        client.send("")
        assert client.recv(timeout=30) == b""
    with server.websocket("/cgi/?q=1", additional_headers={"X-Name": "v"}) as client:
        variables = variables_in(client.recv(timeout=30))
        assert variables["CONTENT_LENGTH"] == "0" and variables["SCGI"] == "1"
        assert variables["REQUEST_URI"] == "/cgi/?q=1"
        assert variables["HTTP_X_NAME"] == "v"
        assert variables["REMOTE_PORT"] == str(client.local_address[1])
        client.send("")
        assert client.recv(timeout=30) == ""


def test_who_the_client_is_by_its_certificate(forkd: Forkd, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    own, joe = authority.issue("localhost"), authority.issue("joe")
    server = start(
        forkd,
        f"""ssl.engine = "enable"
        ssl.pemfile = "{own.certificate}"
        ssl.privkey = "{own.key}"
        ssl.verifyclient.activate = "enable"
        ssl.verifyclient.ca-file = "{authority.certificate}"
        """,
        ', "mod_openssl"',
    )
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(joe.certificate, joe.key)
    context.set_alpn_protocols(["http/1.1"])

    async def first_message() -> bytes:
        url = f"wss://localhost:{server.port}/v2/"
        async with connect(url, ssl=context, compression=None, proxy=None) as client:
            message = await asyncio.wait_for(client.recv(), 30)
        assert isinstance(message, bytes)
        return message

    told = tlvs(asyncio.run(first_message())[28:])
    assert told[0x01] == b"http/1.1"
    assert told[0x02] == b"localhost"
    assert struct.unpack(">BI", told[0x20][:5]) == (0x03, 0)
    about_tls = tlvs(told[0x20][5:])
    assert about_tls[0x21] == b"TLSv1.3"
    assert about_tls[0x22] == b"joe"


# -- rates ----------------------------------------------------------------------------------


def test_a_client_that_says_too_much_is_slowed(forkd: Forkd) -> None:
    server = start(forkd, "wstunnel.max-message-rate = 20\nwstunnel.ping-interval = 1")
    messages = [str(number) for number in range(60)]
    with server.websocket("/typed/") as client:
        begun = time.monotonic()
        for message in messages:
            client.send(message)
        assert [client.recv(timeout=30) for _ in messages] == messages
        # 20 at once, and 40 at 20 a second.  Later is right on a busy machine, sooner is not.
        assert time.monotonic() - begun > 1.9


def test_a_client_that_says_too_much_is_sent_away(forkd: Forkd) -> None:
    server = start(forkd, 'wstunnel.max-message-rate = 5\nwstunnel.rate-action = "close"')
    with server.connect() as client:
        fields = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
        head = f"GET /typed/ HTTP/1.1\nHost: a\n{fields}{key}\n".replace("\n", "\r\n").encode()
        client.send(head + frame(TEXT, b"a") * 1000 + close(1000))
        answer = client.read_all()
    frames = server_frames(answer.partition(b"\r\n\r\n")[2])
    assert frames[-1].payload[:2] == (1008).to_bytes(2, "big")
    server.wait_log("message_rate after .* from client [0-9]+ bytes 5 messages")


# -- handshakes -----------------------------------------------------------------------------


def test_origins_and_subprotocols(forkd: Forkd) -> None:
    server = start(
        forkd,
        """wstunnel.origins = ( "https://.example.com", "http://here.example" )
        wstunnel.subprotocols = ( "chat.v2", "chat" )""",
    )

    def answer(origin: str, *offered: str) -> str | None:
        with server.websocket("/typed/", origin=origin, subprotocols=offered or None) as client:
            return client.subprotocol

    assert answer("https://www.EXAMPLE.com", "chat", "chat.v2") == "chat.v2"
    assert answer("http://here.example", "binary") is None
    with pytest.raises(InvalidStatus) as refused:
        answer("http://www.example.com")
    assert refused.value.response.status_code == 403
    listed = r'"https://\.example\.com", "http://here\.example"'
    server.wait_log(rf'origin "http://www\.example\.com" is not in .* \( {listed} \)')


# -- sockets that take packets --------------------------------------------------------------


def test_a_reload_makes_a_stream_socket_one_of_packets(forkd: Forkd) -> None:
    shutil.copy(PROGRAMS / "echo_stream.py", forkd.directory / "echo.py")
    text = """
    server.max-worker = 1
    server.modules = ("mod_wstunnel")
    wstunnel.server = ( "/" => (( "socket" => "@DIR@/e.sock", "bin-path" => "@DIR@/%s",
                                  "max-procs" => 1, "framing" => "%s" )) )
    """
    shutil.copy(SEQPACKET, forkd.directory / "packets.py")
    server = forkd.start(text % ("echo.py", "typed"))
    with server.websocket("/") as before:
        before.send("a")
        assert before.recv(timeout=30) == "a"
        written = server.config.read_text()
        changed = written.replace("/echo.py", "/packets.py").replace("typed", "seqpacket")
        server.config.write_text(changed)
        server.control("reload")
        with server.websocket("/") as after:
            for message in ("b", ""):
                after.send(message)
                assert after.recv(timeout=30) == message
        before.send("still")
        assert before.recv(timeout=30) == "still"
