"""Programs behind scgi and fastcgi: requests, bodies, upgrades, and every way to die."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.harness import Forkd, Server, wait_for
from e2e.rawhttp import Client, Incomplete, Response

PROGRAMS = Path(__file__).parents[1] / "programs"

CONFIG = """
server.modules += ("mod_{gateway}")
server.max-worker = 1
{gateway}.server = ("/app/" => ((
    "socket" => "@DIR@/app.sock",
    "bin-path" => "{python} {program}",
    "bin-environment" => ("EVENTS" => "@DIR@/events"),
    "check-local" => "disable", "max-procs" => 1,
    {options}
)))
{more}
"""

UPGRADE = '"upgrade" => "enable"'
ASK = "GET /app/{} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"

Start = Callable[..., Server]


def config(kind: str, options: str = "", more: str = "") -> str:
    gateway = "fastcgi" if kind == "fastcgi" else "scgi"
    argument = " uwsgi" if kind == "uwsgi" else ""
    return CONFIG.format(
        gateway=gateway,
        python=sys.executable,
        program=f"{PROGRAMS}/{gateway}_echo.py{argument}",
        options=options,
        more=more + (f'\nscgi.protocol = "{kind}"' if kind == "uwsgi" else ""),
    )


@pytest.fixture(params=["scgi", "fastcgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(kind: str, forkd: Forkd) -> Start:
    """Starts a server with the echo program of this kind behind ``/app/``."""
    return lambda options="", more="": forkd.start(config(kind, options, more))


def variables(response: Response) -> dict[str, str]:
    assert response.status == 200, response.text
    return dict(line.split("=", 1) for line in response.text.splitlines())


def events(server: Server) -> list[str]:
    path = server.directory / "events"
    return path.read_text().splitlines() if path.exists() else []


def wait_event(server: Server, event: str) -> None:
    wait_for(lambda: event in events(server), what=lambda: f"{event!r} in {events(server)}")


def dies_on_purpose(forkd: Forkd) -> None:
    """The program of this test: the master's complaint is expected."""
    forkd.allow_errors("app.sock-0: ended")


# -- ordinary requests ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["scgi", "uwsgi", "fastcgi"], indirect=True)
def test_variables(start: Start, kind: str) -> None:
    server = start()
    response = server.get("/app/x/env?q=%41", X_Test="yes", Content_Type="text/x")
    told = variables(response)
    assert response.field("Content-Type") == "text/plain"
    root = str(server.root)
    expected = {
        "CONTENT_LENGTH": "0", "QUERY_STRING": "q=A", "REQUEST_URI": "/app/x/env?q=%41",
        "SCRIPT_NAME": "/app/x", "PATH_INFO": "/env", "PATH_TRANSLATED": f"{root}/env",
        "SCRIPT_FILENAME": f"{root}/app/x", "DOCUMENT_ROOT": root, "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port), "SERVER_ADDR": "127.0.0.1", "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_TEST": "yes", "CONTENT_TYPE": "text/x", "REDIRECT_STATUS": "200",
    }  # fmt: skip
    assert {name: told.get(name) for name in expected} == expected
    assert next(iter(told)) == "CONTENT_LENGTH"
    assert told.get("SCGI") == ("1" if kind == "scgi" else None)
    assert told.get("ROLE") == ("1" if kind == "fastcgi" else None)


@pytest.mark.parametrize("name", ["User_Agent", "X_Test"])
def test_a_field_that_would_be_taken_for_another(start: Start, name: str) -> None:
    with start().connect() as client:
        text = f"GET /app/env HTTP/1.1\nHost: h\nX-Test: 1\n{name}: 2\n\n"
        assert client.request(text).status == 400
        assert client.request("GET /app/env HTTP/1.1\nHost: h\nX_Other: 2\n\n").status == 200


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_uploads_and_downloads_in_every_mode(start: Start, mode: int) -> None:
    server = start(
        more=f"server.stream-request-body = {mode}\nserver.stream-response-body = {mode}\n"
    )
    with server.connect() as client:
        for size in (0, 1, 65535, 65536, 3_000_000):
            body = bytes(range(251)) * (size // 251 + 1)
            body = body[:size]
            head = f"POST /app/upload HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n"
            client.send(head.encode() + body)
            assert client.response().text == f"{size} {hashlib.sha1(body).hexdigest()}"
            response = client.request(f"GET /app/download?{size} HTTP/1.1\nHost: h\n\n")
            assert len(response.body) == size
            assert response.body == (bytes(range(256)) * (size // 256 + 1))[:size]


def test_a_chunked_upload_has_its_length_counted_first(start: Start) -> None:
    head = "POST /app/upload HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n"
    chunks = "3\nabc\n2\nde\n0\n\n"
    with start().connect() as client:
        assert client.request(head + chunks).text == f"5 {hashlib.sha1(b'abcde').hexdigest()}"


def test_a_streamed_upload_must_say_its_length(start: Start) -> None:
    server = start(more="server.stream-request-body = 1\n")
    head = "POST /app/upload HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n0\n\n"
    with server.connect() as client:
        assert client.request(head).status == 411


def test_head_and_other_statuses(start: Start) -> None:
    server = start()
    with server.connect() as client:
        assert client.request("HEAD /app/download?1000 HTTP/1.1\nHost: h\n\n").body == b""
        assert client.request("GET /app/nothing HTTP/1.1\nHost: h\n\n").status == 404


def test_complaints_go_to_the_error_log(start: Start, kind: str) -> None:
    server = start()
    assert server.get("/app/stderr").text == "complained"
    for text in ("first complaint", "second complaint", "without a line end"):
        if kind == "fastcgi" or "end" not in text:
            server.wait_log(f"app.sock-0.*stderr: {text}$|app.sock-0: {text}$")


@pytest.mark.parametrize("kind", ["fastcgi"], indirect=True)
def test_an_authorizer_before_a_responder(start: Start) -> None:
    program = f"{sys.executable} {PROGRAMS}/fastcgi_echo.py"
    options = '"check-local" => "disable", "max-procs" => 1'
    responder = f'"socket" => "@DIR@/responder.sock", "bin-path" => "{program}", {options}'
    server = start(f'"mode" => "authorizer" ), ( {responder}')
    told = variables(server.get("/app/env?yes"))
    assert (told["ROLE"], told["GRANTED"]) == ("1", "by me")
    [asked] = events(server)
    assert "QUERY_STRING" in asked and "CONTENT_LENGTH" not in asked
    refused = server.get("/app/env?no")
    assert (refused.status, refused.text) == (403, "not granted")


# -- kept connections -------------------------------------------------------------------------


def numbers(response: Response) -> tuple[str, str]:
    told = variables(response)
    return told["CONNECTION_NUMBER"], told["REQUEST_NUMBER"]


@pytest.mark.parametrize("kind", ["fastcgi"], indirect=True)
def test_without_keep_conn_every_request_has_its_connection(start: Start) -> None:
    server = start()
    assert [numbers(server.get("/app/env")) for _ in range(3)] == [
        ("1", "1"), ("2", "1"), ("3", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["fastcgi"], indirect=True)
def test_keep_conn_uses_a_connection_again(start: Start) -> None:
    server = start('"keep-conn" => 1, ' + UPGRADE)
    assert [numbers(server.get("/app/env")) for _ in range(3)] == [
        ("1", "1"), ("1", "2"), ("1", "3"),
    ]  # fmt: skip
    # Whoever may become a tunnel ends the connection it has used.
    response = server.get("/app/env", Connection="Upgrade", Upgrade="raw")
    assert numbers(response) == ("1", "4")
    assert numbers(server.get("/app/env")) == ("2", "1")


@pytest.mark.parametrize("kind", ["fastcgi"], indirect=True)
def test_a_kept_connection_to_a_program_that_has_died(start: Start, forkd: Forkd) -> None:
    server = start('"keep-conn" => 4')
    dies_on_purpose(forkd)
    assert numbers(server.get("/app/env")) == ("1", "1")
    [backend] = server.backends()
    backend.kill()
    wait_for(lambda: server.backends() not in ([], [backend]), what="a new program")
    assert numbers(server.get("/app/env")) == ("1", "1")


# -- upgrades ---------------------------------------------------------------------------------


def test_websocket_echo(start: Start) -> None:
    server = start(UPGRADE)
    with server.websocket("/app/ws") as ws:
        for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
            message = (bytes(range(256)) * (size // 256 + 1))[:size]
            ws.send(message)
            assert ws.recv() == message
        ws.send("text")
        assert ws.recv() == "text"
        assert ws.ping().wait(10)
    assert ws.close_code == 1000


def test_without_the_switch_the_program_sees_an_ordinary_request(start: Start) -> None:
    server = start()
    with server.connect() as client:
        response = client.request(ASK.format("ws"))
        assert (response.status, response.text) == (426, "no upgrade asked for")
        assert "HTTP_UPGRADE" not in variables(client.request(ASK.format("env")))


def test_a_101_that_nobody_asked_for(start: Start) -> None:
    server = start(UPGRADE)
    assert server.get("/app/raw").status == 502


def test_another_answer_than_a_101(start: Start) -> None:
    server = start(UPGRADE)
    with server.connect() as client:
        told = variables(client.request(ASK.format("env")))
        assert told["HTTP_UPGRADE"] == "raw"
        assert client.request(ASK.format("upload")).text.startswith("0 ")
        assert client.request("GET /app/env HTTP/1.1\nHost: h\n\n").status == 200


def switched(client: Client, path: str = "raw", early: bytes = b"") -> Response:
    client.send(ASK.format(path).encode() + early)
    response = client.response()
    assert response.status == 101
    assert response.field("Upgrade") == "raw"
    assert response.field("Connection") == "upgrade"
    return response


@pytest.mark.parametrize("size", [5, 200_000])
def test_early_bytes_come_first(start: Start, size: int) -> None:
    early = (b"early" * size)[:size]
    with start(UPGRADE).connect() as client:
        switched(client, early=early)
        client.send(b"later")
        assert client.read(size + 5) == early + b"later"


def test_bytes_behind_the_101_and_the_end_of_the_programs_direction(start: Start) -> None:
    server = start(UPGRADE)
    with server.connect() as client:
        switched(client, "talk")
        assert client.read_all() == b"hello"
        client.send(b"still ")
        client.send(b"here")
        client.send_eof()
        wait_event(server, "heard still here")


def test_the_end_of_the_clients_direction(start: Start) -> None:
    server = start(UPGRADE)
    with server.connect() as client:
        switched(client)
        client.send(b"last")
        client.send_eof()
        assert client.read_all() == b"lastand that was all"
    wait_event(server, "end of input")
    server.wait_log("tunnel 1: closed, .* client_eof after")


def test_a_client_that_vanishes(start: Start, kind: str) -> None:
    server = start(UPGRADE)
    client = server.connect()
    switched(client)
    client.send(b"x")
    client.read(1)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_for(lambda: events(server), what="the program hears of it")
    # On a unix socket a reset is no more than an end, but nothing can be written any more.
    wait_for(lambda: "gone: " in " ".join(events(server)), what="and that nobody listens")
    assert events(server)[0] == ("abort" if kind == "fastcgi" else "end of input")
    server.wait_log("tunnel 1: closed, .* client_lost")


# -- dying ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["at-once", "in-head"])
@pytest.mark.parametrize("asks", [False, True])
def test_a_program_that_dies_before_or_in_the_head(
    start: Start, forkd: Forkd, where: str, asks: bool
) -> None:
    server = start(UPGRADE)
    dies_on_purpose(forkd)
    with server.connect() as client:
        path = f"die?{where}"
        text = ASK.format(path) if asks else f"GET /app/{path} HTTP/1.1\nHost: h\n\n"
        assert client.request(text).status == 502
    wait_for(lambda: server.get("/app/env").status == 200, what="it is back")


@pytest.mark.parametrize("mode", [0, 2])
def test_a_program_that_dies_in_the_body(start: Start, forkd: Forkd, mode: int) -> None:
    server = start(more=f"server.stream-response-body = {mode}\n")
    dies_on_purpose(forkd)
    with server.connect() as client:
        if mode:
            with pytest.raises(Incomplete):
                client.request("GET /app/die?in-body HTTP/1.1\nHost: h\n\n")
        else:
            assert client.request("GET /app/die?in-body HTTP/1.1\nHost: h\n\n").status == 502


@pytest.mark.parametrize("where", ["after-101", "in-tunnel"])
def test_a_program_that_dies_in_the_tunnel(start: Start, forkd: Forkd, where: str) -> None:
    server = start(UPGRADE)
    dies_on_purpose(forkd)
    with server.connect() as client:
        switched(client, f"die?{where}")
        if where == "in-tunnel":
            client.send(b"a word")
        assert client.read_all() == (b"got a word" if where == "in-tunnel" else b"")
    closed = server.wait_log(r"tunnel 1: closed, .* to \S+, (\S+)")
    assert re.match("backend_(died|lost)", closed[1])


def test_a_silent_program_meets_its_time_limit(start: Start) -> None:
    server = start('"read-timeout" => 1', "server.stream-response-body = 1\n")
    with server.connect() as client:
        client.send(b"GET /app/stay?5 HTTP/1.1\r\nHost: h\r\n\r\n")
        data = client.read_all()
    assert data.endswith(b"\r\n\r\n\0\1\2\3\4")
