"""A thousand tunnels, of every gateway over both versions of HTTP, that echo all the time while the
configuration is reloaded again and again and the program is upgraded under them; and clients that
come every ten milliseconds meanwhile."""

from __future__ import annotations

import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from client_frames import BINARY, frame, masked
from e2e.harness import COMMAND, Forkd, Server, wait_for
from e2e.sites import write_program
from h2_client import H2Client, Stream

PROGRAMS = Path(__file__).parents[1] / "programs"
PATHS = {
    "wstunnel": "/ws/",
    "proxy": "/proxy/ws",
    "cgi": "/cgi/ws.py",
    "scgi": "/scgi/ws",
    "fastcgi": "/fastcgi/ws",
}
PER_GATEWAY = 100  # tunnels of each gateway over each version of HTTP
H2_CONNECTIONS = 10
PAUSE = 0.5  # seconds between two messages of a tunnel
PATIENCE = 60.0  # seconds for an echo, on a machine that is busy

CONFIG = """
server.modules = ( "mod_cgi", "mod_wstunnel", "mod_proxy", "mod_scgi", "mod_fastcgi" )
server.max-worker = 2
server.max-fds = 16384
server.max-read-idle = 600
cgi.assign = ( ".py" => "" )
cgi.upgrade = "enable"
wstunnel.frame-type = "binary"
wstunnel.server = ( "/ws/" => ( ( "socket" => "@DIR@/ws.sock",
    "bin-path" => "{python} {programs}/echo_stream.py", "max-procs" => 1 ) ) )
proxy.server = ( "/proxy/" => ( ( "socket" => "@DIR@/proxy.sock",
    "bin-path" => "{python} {programs}/http_switch.py", "max-procs" => 1 ) ) )
proxy.header = ( "upgrade" => "enable" )
scgi.server = ( "/scgi/" => ( ( "socket" => "@DIR@/scgi.sock", "check-local" => "disable",
    "bin-path" => "{python} {programs}/scgi_echo.py", "upgrade" => "enable", "max-procs" => 1 ) ) )
fastcgi.server = ( "/fastcgi/" => ( ( "socket" => "@DIR@/fcgi.sock", "check-local" => "disable",
    "bin-path" => "{python} {programs}/fastcgi_echo.py", "upgrade" => "enable",
    "max-procs" => 1 ) ) )
"""
HANDSHAKE = (
    "GET PATH HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CGI = """import base64, hashlib, os
key = os.environ["HTTP_SEC_WEBSOCKET_KEY"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
head = f"Status: 101\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Accept: {accept}\\r\\n\\r\\n"
os.write(1, head.encode())
os.execvp("cat", ["cat"])
"""


def message(tunnel: int, number: int) -> bytes:
    return f"{tunnel:05d} {number:07d}".encode()


def payload_of(data: bytes) -> bytes:
    """Of one small frame: masked by a backend that sends the client's bytes back as they are."""
    size = data[1] & 0x7F
    if not data[1] & 0x80:
        return data[2 : 2 + size]
    return masked(data[6 : 6 + size], data[2:6])


def whole(data: bytes) -> int:
    """The size of the first of some small frames, 0 while it is not whole."""
    if len(data) < 2:
        return 0
    size = 2 + (4 if data[1] & 0x80 else 0) + (data[1] & 0x7F)
    return size if len(data) >= size else 0


class Bundle:
    """Tunnels that one thread looks after: in each round a message on each, and its echo."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.rounds = 0
        self.failure = ""
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._enough.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert not self.failure

    def _run(self) -> None:
        try:
            while not self._enough.wait(PAUSE):
                self.round(self.rounds)
                self.rounds += 1
            self.check_silence()
        except Exception as error:
            self.failure = f"tunnels from {self.first}, round {self.rounds}: {error!r}"

    def round(self, number: int) -> None:
        raise NotImplementedError

    def check_silence(self) -> None:
        """Nothing has come twice."""
        raise NotImplementedError


class H1Bundle(Bundle):
    """A connection for each tunnel."""

    def __init__(self, port: int, path: str, count: int, first: int) -> None:
        super().__init__(first)
        self._sockets = [self._open(port, path) for _ in range(count)]
        self._data = dict.fromkeys(self._sockets, b"")
        self._selector = selectors.DefaultSelector()
        for sock in self._sockets:
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)

    def _open(self, port: int, path: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        sock.sendall(HANDSHAKE.replace("PATH", path).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = sock.recv(1)
            assert piece, head
            head += piece
        assert head.startswith(b"HTTP/1.1 101 "), head
        return sock

    def round(self, number: int) -> None:
        awaited = {}
        for index, sock in enumerate(self._sockets):
            awaited[sock] = message(self.first + index, number)
            assert sock.send(frame(BINARY, awaited[sock]))
        end = time.monotonic() + PATIENCE
        while awaited:
            ready = self._selector.select(1)
            assert time.monotonic() < end, f"no echo of {list(awaited.values())[:3]}"
            for key, _ in ready:
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                self._hear(sock, awaited)

    def _hear(self, sock: socket.socket, awaited: dict[socket.socket, bytes]) -> None:
        piece = sock.recv(4096)
        assert piece, "ended"
        data = self._data[sock] = self._data[sock] + piece
        if size := whole(data):
            assert payload_of(data[:size]) == awaited.pop(sock)
            assert not data[size:], "something came twice"
            self._data[sock] = b""

    def check_silence(self) -> None:
        assert not self._selector.select(1)
        for sock in self._sockets:
            sock.close()


class H2Bundle(Bundle):
    """One connection, a stream for each tunnel."""

    def __init__(self, port: int, paths: Sequence[str], first: int) -> None:
        super().__init__(first)
        self._client = H2Client(port)
        self._streams = [self._client.connect(path) for path in paths]
        for stream in self._streams:
            self._client.run_until(lambda s=stream: s.status, PATIENCE)
            assert stream.status == 200, (stream.status, bytes(stream.data))

    def round(self, number: int) -> None:
        for index, stream in enumerate(self._streams):
            stream.say(message(self.first + index, number))
        for index, stream in enumerate(self._streams):
            self._hear(stream, message(self.first + index, number))

    def _hear(self, stream: Stream, expected: bytes) -> None:
        def is_there() -> bool:
            assert not stream.is_over, f"ended {stream.ended}, reset {stream.reset}"
            return whole(bytes(stream.data)) > 0

        self._client.run_until(is_there, PATIENCE)
        data = bytes(stream.data)
        stream.data.clear()
        assert payload_of(data) == expected
        assert len(data) == whole(data), "something came twice"

    def check_silence(self) -> None:
        assert not any(stream.data or stream.is_over for stream in self._streams)
        self._client.close()


class Visitors:
    """Somebody new every ten milliseconds."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self.slowest = 0.0
        self.failures: list[str] = []
        self._port = port
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._enough.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._enough.wait(0.01):
            began = time.monotonic()
            try:
                self._visit()
            except (OSError, AssertionError) as error:
                self.failures.append(f"visit {self.count}: {error!r}")
            self.count += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def _visit(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock:
            sock.sendall(b"GET /index.html HTTP/1.0\r\nHost: h\r\n\r\n")
            answer = b""
            while piece := sock.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.0 200 ") and answer.endswith(b"\r\n\r\nhello"), answer


@contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_all(server: Server) -> list[Bundle]:
    bundles: list[Bundle] = []
    first = 0
    for path in PATHS.values():
        bundles.append(H1Bundle(server.port, path, PER_GATEWAY, first))
        first += PER_GATEWAY
    per_connection = PER_GATEWAY // H2_CONNECTIONS
    for _ in range(H2_CONNECTIONS):
        paths = [path for path in PATHS.values() for _ in range(per_connection)]
        bundles.append(H2Bundle(server.port, paths, first))
        first += len(paths)
    assert first == 2 * len(PATHS) * PER_GATEWAY
    return bundles


def another_round(bundles: Sequence[Bundle]) -> Callable[[], bool]:
    """Whether every tunnel has echoed once more since now, from its beginning."""
    before = [bundle.rounds for bundle in bundles]

    def is_done() -> bool:
        failures = [bundle.failure for bundle in bundles if bundle.failure]
        assert not failures, failures
        return all(one.rounds > was + 1 for one, was in zip(bundles, before, strict=True))

    return is_done


def test_nothing_is_lost_over_reloads_and_an_upgrade(forkd: Forkd) -> None:
    forkd.allow_errors("reload: ")
    text = CONFIG.format(python=sys.executable, programs=PROGRAMS)
    server = forkd.prepare(text, files={"root/index.html": "hello"})
    write_program(server.root / "cgi" / "ws.py", CGI)
    good = server.config.read_text()
    with many_descriptors():
        server.launch([*COMMAND, "start", "-f", str(server.config)], daemon=True)
        pid = server.pid
        bundles = open_all(server)
        visitors = Visitors(server.port)
        for bundle in bundles:
            bundle.start()
        wait_for(another_round(bundles), PATIENCE * 2)
        for number in range(20):
            is_bad = number % 4 == 3
            change = "nonsense\n" if is_bad else f'server.tag = "number {number}"\n'
            server.config.write_text(good + change)
            # Asked directly: the command would not trouble the master with a bad file.
            answer = server.control("reload")
            assert answer["ok"] is not is_bad, answer
            assert another_round(bundles)() is False  # raises when a tunnel has failed
        server.config.write_text(good)
        done = forkd.run("upgrade", "-f", str(server.config), timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        wait_for(another_round(bundles), PATIENCE * 2)
        status = server.status()
        assert server.pid == pid
        assert status["generation"] == 17
        assert status["totals"]["tunnels"] == 1000
        visitors.stop()
        for bundle in bundles:
            bundle.stop()
    assert visitors.failures == []
    assert visitors.count > 100
    print(f"{visitors.count} visitors, the slowest {visitors.slowest:.3f} s")
