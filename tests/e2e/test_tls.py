"""TLS on a running server: curl and real WebSocket clients, certificates that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from authority import Authority, Issued
from e2e.harness import Forkd, Server, wait_for
from e2e.rawhttp import parse_response
from e2e.wsclient import secure_websocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

PROGRAMS = Path(__file__).parent.parent / "programs"

CONFIG = """
server.max-worker = 1
server.feature-flags = ( "server.h2proto" => "disable" )
server.modules = ("mod_openssl", "mod_wstunnel", "mod_cgi")
ssl.engine = "enable"
ssl.pemfile = "@DIR@/own.pem"
ssl.privkey = "@DIR@/own.key"
cgi.assign = ( ".cgi" => "" )
wstunnel.server = (
  "/echo/" => (( "socket" => "@DIR@/echo.sock", "bin-path" => "@DIR@/echo_stream.py", "max-procs" => 1 )),
  "/flood/" => (( "socket" => "@DIR@/flood.sock", "bin-path" => "@DIR@/flood.py", "max-procs" => 1 )) )
"""  # noqa: E501

ENVIRONMENT = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
env | sort | grep -E '^(SSL_|HTTPS|REQUEST_SCHEME|REMOTE_USER|AUTH_TYPE|SERVER_PORT)'
"""

FLOOD = """#!/usr/bin/env python3
import socket, threading
listener = socket.socket(fileno=0)
def flood(client):
    try:
        while True:
            client.sendall(b"x" * 65536)
    except OSError:
        pass
while True:
    threading.Thread(target=flood, args=(listener.accept()[0],), daemon=True).start()
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Issued:
    return authority.issue("localhost")


def install(forkd: Forkd, issued: Issued, name: str = "own") -> None:
    """Put a certificate where the configuration looks for it."""
    shutil.copy(issued.certificate, forkd.directory / f"{name}.pem")
    shutil.copy(issued.key, forkd.directory / f"{name}.key")


def start(forkd: Forkd, issued: Issued, more: str = "", daemon: bool = False) -> Server:
    install(forkd, issued)
    shutil.copy(PROGRAMS / "echo_stream.py", forkd.directory)
    files = {
        "root/file.txt": b"a small file\n",
        "root/env.cgi": ENVIRONMENT,
        "flood.py": FLOOD,
    }
    return forkd.start(CONFIG + more, files=files, daemon=daemon)


def curl(
    server: Server, authority: Authority, path: str, *options: str, host: str = "localhost"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [
            "curl", "-sS", "--max-time", "20", "--cacert", str(authority.certificate),
            "--resolve", f"{host}:{server.port}:127.0.0.1", *options,
            f"https://{host}:{server.port}{path}",
        ],
        capture_output=True,
    )  # fmt: skip


def get(
    server: Server, authority: Authority, path: str, *options: str, host: str = "localhost"
) -> str:
    found = curl(server, authority, path, "--fail", *options, host=host)
    assert found.returncode == 0, found.stderr
    return found.stdout.decode()


def environment(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def shown(server: Server, authority: Authority, name: str = "localhost") -> str:
    """The serial number of the certificate that the server shows."""
    with secured(server, authority, name) as client:
        certificate = client.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def secured(server: Server, authority: Authority, name: str = "localhost") -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", server.port), 10)
    return authority.client().wrap_socket(plain, server_hostname=name)


def serial(issued: Issued) -> str:
    found = subprocess.run(
        ["openssl", "x509", "-in", issued.certificate, "-noout", "-serial"],
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip().removeprefix("serial=")


def websocket(server: Server, authority: Authority) -> ClientConnection:
    return secure_websocket(server.port, authority.client(), "/echo/")


# Requests


VERSIONS = [("--tlsv1.3", "TLSv1.3"), ("--tls-max 1.2", "TLSv1.2")]


@pytest.mark.parametrize(("option", "version"), VERSIONS)
def test_files_and_programs(
    forkd: Forkd, authority: Authority, own: Issued, option: str, version: str
) -> None:
    server = start(forkd, own)
    options = option.split()
    assert get(server, authority, "/file.txt", *options) == "a small file\n"
    found = environment(get(server, authority, "/env.cgi", *options))
    assert found.pop("SSL_CIPHER")
    assert found.pop("SSL_CIPHER_USEKEYSIZE") == found.pop("SSL_CIPHER_ALGKEYSIZE")
    assert found == {
        "HTTPS": "on",
        "REQUEST_SCHEME": "https",
        "SERVER_PORT": str(server.port),
        "SSL_PROTOCOL": version,
        "SSL_TLS_SNI": "localhost",
    }
    posted = get(server, authority, "/env.cgi", *options, "--data-binary", "@" + __file__)
    assert environment(posted)["SSL_PROTOCOL"] == version


def test_a_big_file_arrives_whole_and_costs_no_memory(
    forkd: Forkd, authority: Authority, own: Issued
) -> None:
    server = start(forkd, own)
    content = bytes(range(256)) * 4096 * 40  # 40 MiB
    (server.root / "big").write_bytes(content)
    assert get(server, authority, "/file.txt")
    (worker,) = server.workers()
    before = worker.memory_info().rss
    found = curl(server, authority, "/big", "--limit-rate", "100M")
    assert found.stdout == content
    assert worker.memory_info().rss - before < 6 << 20
    part = curl(server, authority, "/big", "-r", "5-1000004")
    assert part.stdout == content[5:1000005]


def test_keep_alive_and_pipelining(forkd: Forkd, authority: Authority, own: Issued) -> None:
    server = start(forkd, own)
    again = f"https://localhost:{server.port}/file.txt"
    found = get(server, authority, "/file.txt", again, "-w", "%{num_connects}\n")
    assert found == "a small file\n1\na small file\n0\n"
    with secured(server, authority) as client:
        client.sendall(b"GET /file.txt HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        client.sendall(b"GET /file.txt HTTP/1.0\r\n\r\n")
        data = b""
        while piece := client.recv(65536):
            data += piece
    assert data.count(b"a small file\n") == 51


def test_old_versions_are_refused(forkd: Forkd, authority: Authority, own: Issued) -> None:
    server = start(forkd, own)
    found = curl(server, authority, "/", "--tls-max", "1.1", "--ciphers", "ALL@SECLEVEL=0")
    assert found.returncode == 35
    more = 'ssl.openssl.ssl-conf-cmd = ( "MinProtocol" => "TLSv1.3" )'
    server.stop()
    server = start(forkd, own, more)
    assert curl(server, authority, "/", "--tls-max", "1.2").returncode == 35
    assert get(server, authority, "/file.txt") == "a small file\n"


def test_plain_http_is_told_so(forkd: Forkd, own: Issued) -> None:
    server = start(forkd, own)
    for request in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PROPFIND /x HTTP/1.0\r\n\r\n",
        b"GARBAGE\r\n\r\n",
    ):
        answer, rest = parse_response(server.raw(request))
        assert answer.status == 400 and rest == b""
        assert answer.field("Connection") == "close"
        assert "speaks HTTPS" in answer.text
    head, _ = parse_response(server.raw(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"), head_only=True)
    assert head.status == 400


def test_a_handshake_that_does_not_come(forkd: Forkd, own: Issued) -> None:
    more = 'server.max-read-idle = 1\ndebug.log-ssl-noise = "enable"'
    server = start(forkd, own, more)
    assert server.raw(b"") == b""
    assert server.raw(b"\x16\x03\x01\x01") == b""
    server.wait_log("info: 127.0.0.1:[0-9]+: TLS handshake after 1 s")
    server.raw(b"\x16\x03\x01\x00\x02\x01\x00" + b"\0" * 30, eof=True)
    server.wait_log("info: 127.0.0.1:[0-9]+: TLS handshake: ")


def test_a_name_that_is_not_ascii_is_no_news(forkd: Forkd, own: Issued) -> None:
    server = start(forkd, own)
    answer = server.raw(client_hello("\xff\xfe".encode("latin-1")))
    assert answer[:1] == b"\x15"  # an alert; the fixture sees to it that no error is logged


def client_hello(name: bytes) -> bytes:
    """RFC 8446 section 4.1.2, as much of it as brings the server to the name."""
    name_list = b"\0" + len(name).to_bytes(2, "big") + name
    server_name = len(name_list).to_bytes(2, "big") + name_list
    extensions = b"".join(
        kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
        for kind, data in (
            (0, server_name),
            (10, bytes.fromhex("0002001d")),
            (13, bytes.fromhex("000404030804")),
            (43, bytes.fromhex("020303")),
        )
    )
    body = b"\x03\x03" + b"r" * 32 + b"\0" + bytes.fromhex("0002c02b0100")
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


# Certificates


def test_two_certificates_by_name(forkd: Forkd, authority: Authority, own: Issued) -> None:
    other = authority.issue("other.example")
    install(forkd, other, "other")
    server = start(
        forkd,
        own,
        '$HTTP["host"] == "other.example" {\n'
        'ssl.pemfile = "@DIR@/other.pem" ssl.privkey = "@DIR@/other.key" }',
    )
    assert get(server, authority, "/file.txt", host="other.example") == "a small file\n"
    assert get(server, authority, "/file.txt") == "a small file\n"
    found = environment(get(server, authority, "/env.cgi", host="other.example"))
    assert found["SSL_TLS_SNI"] == "other.example"
    assert shown(server, authority, "other.example") == serial(other)


CLIENTS = 'ssl.verifyclient.activate = "enable"\nssl.verifyclient.ca-file = "@DIR@/clients.pem"\n'


def showing(issued: Issued) -> tuple[str, ...]:
    return ("--cert", str(issued.certificate), "--key", str(issued.key))


@pytest.mark.parametrize(("option", "version"), VERSIONS)
def test_clients_with_certificates_only(
    forkd: Forkd, authority: Authority, own: Issued, tmp_path: Path, option: str, version: str
) -> None:
    club = Authority(tmp_path / "club", "club")
    ann = club.issue("ann", "/O=Club/CN=Ann")
    shutil.copy(club.certificate, forkd.directory / "clients.pem")
    more = CLIENTS + 'ssl.verifyclient.username = "SSL_CLIENT_S_DN_CN"'
    server = start(forkd, own, more)
    options = option.split()
    found = environment(get(server, authority, "/env.cgi", *options, *showing(ann)))
    assert found["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert found["SSL_CLIENT_S_DN"] == "O = Club, CN = Ann"
    assert found["REMOTE_USER"] == "Ann"
    assert found["SSL_CLIENT_M_SERIAL"] == serial(ann)
    assert curl(server, authority, "/env.cgi", *options).returncode in (35, 56)
    stranger = authority.issue("stranger")
    refused = curl(server, authority, "/env.cgi", *options, *showing(stranger))
    assert refused.returncode in (35, 56) and not refused.stdout


def test_clients_with_or_without(
    forkd: Forkd, authority: Authority, own: Issued, tmp_path: Path
) -> None:
    club = Authority(tmp_path / "club", "club")
    shutil.copy(club.certificate, forkd.directory / "clients.pem")
    more = CLIENTS + 'ssl.verifyclient.enforce = "disable"\nssl.verifyclient.exportcert = "enable"'
    server = start(forkd, own, more)
    assert environment(get(server, authority, "/env.cgi"))["SSL_CLIENT_VERIFY"] == "NONE"
    found = get(server, authority, "/env.cgi", *showing(club.issue("ann")))
    assert "SSL_CLIENT_VERIFY=SUCCESS" in found
    assert "SSL_CLIENT_CERT=-----BEGIN CERTIFICATE-----" in found
    stranger = authority.issue("stranger")
    assert curl(server, authority, "/env.cgi", *showing(stranger)).returncode in (35, 56)


def test_what_is_refused_before_the_start(
    forkd: Forkd, authority: Authority, own: Issued
) -> None:
    install(forkd, own)
    server = forkd.prepare(CONFIG)
    other = authority.issue("other.example")
    key = forkd.directory / "own.key"
    for broken, message in (
        (other.key.read_bytes(), "own.key: the key is not that of the certificate in"),
        (own.encrypted().read_bytes(), "own.key: the key is encrypted"),
        (b"nothing", "own.key: there is no private key in it"),
    ):
        key.write_bytes(broken)
        for action in ("check", "start"):
            found = forkd.run(action, "-f", str(server.config))
            assert found.returncode == 6, found.stderr
            assert message in found.stderr and ": error: ssl.pemfile: " in found.stderr
    key.unlink()
    assert forkd.run("check", "-f", str(server.config)).returncode == 6
    found = forkd.run("start", "-f", str(server.config))
    assert found.returncode == 5 and "own.key: No such file" in found.stderr


def test_an_expired_certificate_is_a_warning(
    forkd: Forkd, authority: Authority
) -> None:
    old = authority.issue("localhost", days=-1, file="old")
    shutil.copy(PROGRAMS / "echo_stream.py", forkd.directory)
    forkd.write("flood.py", FLOOD)
    install(forkd, old)
    server = forkd.prepare(CONFIG)
    found = forkd.run("check", "-f", str(server.config))
    assert found.returncode == 0
    assert "warning: ssl.pemfile: " in found.stderr and "expired on" in found.stderr
    assert forkd.run("check", "--strict", "-f", str(server.config)).returncode == 6


# Reload


def reload(forkd: Forkd, server: Server) -> subprocess.CompletedProcess[str]:
    return forkd.run("reload", "-f", str(server.config))


def test_a_new_certificate_under_live_tunnels(
    forkd: Forkd, authority: Authority, own: Issued
) -> None:
    server = start(forkd, own)
    assert shown(server, authority) == serial(own)
    renewed = authority.issue("localhost", file="renewed")
    with contextlib.ExitStack() as stack:
        tunnels = [stack.enter_context(websocket(server, authority)) for _ in range(5)]
        for number, tunnel in enumerate(tunnels):
            assert echoed(tunnel, f"before {number}")
        install(forkd, renewed)
        done = reload(forkd, server)
        assert done.returncode == 0, done.stderr
        assert shown(server, authority) == serial(renewed) != serial(own)
        with websocket(server, authority) as new:
            assert echoed(new, "new")
        for number, tunnel in enumerate(tunnels):
            assert echoed(tunnel, f"after {number}")
    assert [tunnel.close_code for tunnel in tunnels] == [1000] * 5


def echoed(tunnel: ClientConnection, message: str) -> bool:
    tunnel.send(message)
    return tunnel.recv(timeout=10) == message


def test_a_bad_certificate_keeps_the_old_one(
    forkd: Forkd, authority: Authority, own: Issued
) -> None:
    forkd.allow_errors("reload: ", "ssl.pemfile")
    server = start(forkd, own)
    with websocket(server, authority) as tunnel:
        other = authority.issue("other.example")
        shutil.copy(other.key, forkd.directory / "own.key")
        done = reload(forkd, server)
        assert done.returncode == 6
        assert "own.key: the key is not that of the certificate" in done.stderr
        server.master().send_signal(1)  # HUP: nobody has checked before
        server.wait_log("reload: refused, generation 1 goes on")
        server.wait_log("error: reload: .*own.key: the key is not that of the certificate")
        assert shown(server, authority) == serial(own)
        (forkd.directory / "own.pem").unlink()
        answer = reload(forkd, server)
        assert answer.returncode == 6 and "own.pem: No such file" in answer.stderr
        assert get(server, authority, "/file.txt") == "a small file\n"
        assert echoed(tunnel, "still here")
        (worker,) = server.workers()
        worker.kill()  # the one that follows has the old keys too
        server.wait_log("worker 0 gen 1 pid [0-9]+: ready(.|\n)*worker 0 gen 1 pid [0-9]+: ready")
        assert shown(server, authority) == serial(own)
    forkd.allow_errors("died, ")


def test_keys_are_read_before_the_user_is_changed(
    forkd: Forkd, authority: Authority, own: Issued
) -> None:
    user = 'server.username = "nobody"\n' if os.geteuid() == 0 else ""
    install(forkd, own)
    (forkd.directory / "own.key").chmod(0o600)
    server = forkd.start(
        f'''{user}server.max-worker = 1
        ssl.engine = "enable" ssl.pemfile = "own.pem" ssl.privkey = "own.key"''',
        daemon=True,
    )
    assert shown(server, authority) == serial(own)
    renewed = authority.issue("localhost", file="renewed2")
    install(forkd, renewed)
    assert reload(forkd, server).returncode == 0
    assert shown(server, authority) == serial(renewed)
    for worker in server.workers():
        assert not user or worker.username() == "nobody"


def test_tls_is_switched_on_and_off_by_a_reload(
    forkd: Forkd, authority: Authority, own: Issued
) -> None:
    server = start(forkd, own)
    text = server.config.read_text()
    server.config.write_text(text.replace('ssl.engine = "enable"', 'ssl.engine = "disable"'))
    assert reload(forkd, server).returncode == 0
    assert server.get("/file.txt").text == "a small file\n"
    server.config.write_text(text)
    assert reload(forkd, server).returncode == 0
    assert get(server, authority, "/file.txt") == "a small file\n"


# Tunnels


def test_echo_through_wss(forkd: Forkd, authority: Authority, own: Issued) -> None:
    server = start(forkd, own)

    async def one(number: int) -> None:
        message = f"{number} " * 40_000
        async with connect(
            f"wss://localhost:{server.port}/echo/",
            ssl=authority.client(),
            host="127.0.0.1",
            compression=None,
            max_size=None,
            proxy=None,
        ) as client:
            for size in (1, 1000, len(message)):
                await client.send(message[:size])
                answer = ""
                while len(answer) < size:
                    answer += str(await asyncio.wait_for(client.recv(), 20))
                assert answer == message[:size]
        assert client.close_code == 1000

    async def all_at_once() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    asyncio.run(all_at_once())


def test_a_client_that_does_not_read_costs_no_memory(
    forkd: Forkd, authority: Authority, own: Issued
) -> None:
    server = start(forkd, own)
    with websocket(server, authority) as warm:
        assert echoed(warm, "x")
    (worker,) = server.workers()
    before = worker.memory_info().rss
    stalled = [flooded(server, authority) for _ in range(8)]
    wait_for(lambda: quiet(worker), what="the flood stops")
    assert worker.memory_info().rss - before < 8 << 20
    with websocket(server, authority) as other:
        assert echoed(other, "others go on")
    for client in stalled:
        client.close()


def flooded(server: Server, authority: Authority) -> ssl.SSLSocket:
    """A client that asks for a flood and reads none of it."""
    client = secured(server, authority)
    client.sendall(
        b"GET /flood/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert client.recv(12) == b"HTTP/1.1 101"
    return client


def quiet(worker: psutil.Process) -> bool:
    """Whether it does nothing for a tenth of a second."""
    before = sum(worker.cpu_times()[:2])
    threading.Event().wait(0.2)
    return sum(worker.cpu_times()[:2]) - before <= 0.01


def test_the_end_of_the_server_is_told(forkd: Forkd, authority: Authority, own: Issued) -> None:
    server = start(forkd, own)
    with websocket(server, authority) as tunnel:
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        with pytest.raises(ConnectionClosed):
            tunnel.recv(timeout=15)
        stopping.join()
    assert tunnel.close_code == 1001


# Towards backends


BACKEND = """
server.max-worker = 1
server.feature-flags = ( "server.h2proto" => "disable" )
server.modules = ("mod_openssl", "mod_proxy", "mod_wstunnel", "mod_cgi")
cgi.assign = ( ".cgi" => "" )
proxy.header = ( "upgrade" => "enable" )
proxy.server = (
  "/good/" => (( "host" => "127.0.0.1", "port" => {port}, "tls" => "enable", "tls-name" => "localhost",
                 "tls-ca-file" => "{ca}", "keep-alive" => 4 )),
  "/stranger/" => (( "host" => "127.0.0.1", "port" => {port}, "tls" => "enable", "tls-name" => "localhost" )),
  "/misnamed/" => (( "host" => "127.0.0.1", "port" => {port}, "tls" => "enable", "tls-ca-file" => "{ca}" )) )
proxy.header += ( "map-urlpath" => ( "/good/" => "/" ) )
"""  # noqa: E501


@pytest.fixture
def behind(
    forkd: Forkd, authority: Authority, own: Issued
) -> Iterator[tuple[Server, Server]]:
    """(a server in front, in the clear; the one behind it, which speaks TLS)."""
    back = start(forkd, own)
    text = BACKEND.format(port=back.port, ca=authority.certificate)
    front = forkd.start(
        text.replace("server.max-worker", 'server.pid-file = "@DIR@/front.pid"\nserver.max-worker'),
        name="front.conf",
    )
    yield front, back


def test_a_backend_over_tls(behind: tuple[Server, Server]) -> None:
    front, back = behind
    assert front.get("/good/file.txt").text == "a small file\n"
    found = environment(front.get("/good/env.cgi").text)
    assert (found["HTTPS"], found["SSL_TLS_SNI"]) == ("on", "localhost")
    (back.root / "big").write_bytes(b"0123456789" * 300_000)
    assert front.get("/good/big").body == b"0123456789" * 300_000
    for path in ("/stranger/file.txt", "/misnamed/file.txt"):
        assert front.get(path).status == 503
    front.wait_log("TLS handshake: certificate not accepted: (unable|self-signed)")
    front.wait_log(r"TLS handshake: certificate not accepted: IP address mismatch.*127\.0\.0\.1")


def test_a_tunnel_to_a_backend_over_tls(behind: tuple[Server, Server]) -> None:
    front, _ = behind
    with front.websocket("/good/echo/") as client:
        assert echoed(client, "through both")
    assert client.close_code == 1000
