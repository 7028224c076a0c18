"""Programs that nobody wrote for forkd: PHP by cgi and fastcgi, git by cgi, servers of WSGI and
ASGI applications behind proxy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import REPOSITORY, Forkd, Server
from e2e.rawhttp import Response
from e2e.wsclient import echoes

PROGRAMS = REPOSITORY / "tests" / "programs"


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert found, f"{name} is not installed; bin/test without arguments installs it"
    return found


def beside(forkd: Forkd, name: str, config: str, files: Mapping[str, str] | None = None) -> Server:
    """A server that shares its folder with others."""
    own = f'server.pid-file = "@DIR@/{name}.pid"\n'
    return forkd.start(own + config, files=files, name=f"{name}.conf")


def send(server: Server, method: str, path: str, body: bytes = b"", **fields: str) -> Response:
    """One request with a body; in names of *fields*, ``_`` stands for ``-``."""
    head = {"Host": f"127.0.0.1:{server.port}", "Content-Length": str(len(body))}
    head |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    with server.connect(60) as client:
        client.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return client.response()


def chunked(server: Server, method: str, path: str, body: bytes, step: int) -> Response:
    """The same request in chunks of *step* bytes."""
    with server.connect(60) as client:
        lines = "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(f"{method} {path} HTTP/1.1\r\n{lines}".encode())
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.send(b"0\r\n\r\n")
        return client.response()


def said(response: Response, status: int = 200) -> dict[str, Any]:
    assert response.status == status, response
    found: dict[str, Any] = json.loads(response.body)
    return found


# --- PHP

PHP = {
    "cgi": 'server.modules += ("mod_cgi")\ncgi.assign = (".php" => "@PHP@")\n',
    "fastcgi": """
server.modules += ("mod_fastcgi")
fastcgi.server = (".php" => ((
  "socket" => "@DIR@/php.sock",
  "bin-path" => "@PHP@",
  "bin-environment" => ("PHP_FCGI_CHILDREN" => "2"),
  "max-procs" => 1,
  "broken-scriptfilename" => "enable"
)))
""",
    "fastcgi kept": """
server.modules += ("mod_fastcgi")
fastcgi.server = (".php" => ((
  "socket" => "@DIR@/kept.sock",
  "bin-path" => "@PHP@",
  "bin-environment" => ("PHP_FCGI_CHILDREN" => "4"),
  "max-procs" => 1,
  "keep-conn" => 1,
  "multiplex" => "auto",
  "broken-scriptfilename" => "enable"
)))
""",
}

PAGES = {
    "root/said.php": """<?php
header("Content-Type: application/json");
setcookie("a", "1");
setcookie("b", "2");
$files = array_map(fn($file) => [
    "name" => $file["name"], "size" => $file["size"],
    "sha256" => hash_file("sha256", $file["tmp_name"]),
], $_FILES);
echo json_encode(["server" => $_SERVER, "get" => $_GET, "post" => $_POST, "cookie" => $_COOKIE,
    "files" => $files, "input" => hash("sha256", file_get_contents("php://input"))],
    JSON_PARTIAL_OUTPUT_ON_ERROR);
""",
    "root/status.php": """<?php
http_response_code((int) $_GET["status"]);
header("X-Said: yes");
echo "body";
""",
    "root/away.php": '<?php header("Location: http://www.example.org/there");',
    "root/much.php": """<?php
for ($i = 0; $i < 128; $i++) { echo str_repeat(chr(65 + $i % 26), 65536); }
""",
    "root/words.php": '<?php error_log("words for the admin"); echo "said";',
    "root/died.php": '<?php echo "begun"; flush(); posix_kill(getmypid(), 9);',
}


@pytest.fixture(scope="module", params=PHP)
def php(shared_forkd: Forkd, request: pytest.FixtureRequest) -> Server:
    """A server with the pages, and PHP by one of the gateways."""
    config = PHP[request.param].replace("@PHP@", program("php-cgi"))
    return beside(shared_forkd, request.param.replace(" ", "-"), config, PAGES)


def test_php_sees_the_request(php: Server) -> None:
    path = "/said.php/path/info?x=1&y=a%20b"
    seen = said(send(php, "GET", path, Cookie="c=3; d=4", X_Own="grün", User_Agent="tester"))
    assert seen["get"] == {"x": "1", "y": "a b"}
    assert seen["cookie"] == {"c": "3", "d": "4"}
    expected = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": path,
        "SCRIPT_NAME": "/said.php",
        "SCRIPT_FILENAME": str(php.root / "said.php"),
        "DOCUMENT_ROOT": str(php.root),
        "PATH_INFO": "/path/info",
        "QUERY_STRING": "x=1&y=a%20b",
        "HTTP_X_OWN": "grün",
        "HTTP_USER_AGENT": "tester",
        "SERVER_PORT": str(php.port),
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
    }
    assert {name: seen["server"].get(name) for name in expected} == expected


def test_php_gets_a_form(php: Server) -> None:
    body = b"name=Gr%C3%BC%C3%9Fe&list[]=1&list[]=2"
    seen = said(
        send(php, "POST", "/said.php", body, Content_Type="application/x-www-form-urlencoded")
    )
    assert seen["post"] == {"name": "Grüße", "list": ["1", "2"]}
    assert seen["server"]["CONTENT_LENGTH"] == str(len(body))


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_php_gets_an_upload(php: Server, size: int) -> None:
    data = os.urandom(size)
    body = b"--border\r\nContent-Disposition: form-data; name=file; filename=up.bin\r\n"
    body += b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n--border--\r\n"
    kind = "multipart/form-data; boundary=border"
    seen = said(send(php, "POST", "/said.php", body, Content_Type=kind))
    digest = hashlib.sha256(data).hexdigest()
    assert seen["files"] == {"file": {"name": "up.bin", "size": size, "sha256": digest}}


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_php_gets_a_body_in_chunks(php: Server, size: int) -> None:
    body = os.urandom(size)
    seen = said(chunked(php, "PUT", "/said.php", body, 40_000))
    assert seen["input"] == hashlib.sha256(body).hexdigest()
    assert seen["server"]["CONTENT_LENGTH"] == str(size)


def test_php_sets_fields_and_status(php: Server) -> None:
    assert send(php, "GET", "/said.php").all("Set-Cookie") == ["a=1", "b=2"]
    for status in (200, 404, 503):
        answer = send(php, "GET", f"/status.php?status={status}")
        assert (answer.status, answer.field("X-Said"), answer.body) == (status, "yes", b"body")
    away = send(php, "GET", "/away.php")
    assert (away.status, away.field("Location")) == (302, "http://www.example.org/there")
    assert php.get("/status.php?status=200", "HEAD").body == b""


def test_php_says_much(php: Server) -> None:
    answer = send(php, "GET", "/much.php")
    assert answer.body == b"".join(bytes([65 + number % 26]) * 65536 for number in range(128))


def test_words_of_php_for_the_admin_are_in_the_log(php: Server) -> None:
    assert send(php, "GET", "/words.php").body == b"said"
    php.wait_log("words for the admin")


def test_a_page_that_is_not_there_is_404(php: Server) -> None:
    assert send(php, "GET", "/missing.php").status == 404


def test_php_answers_many_requests_on_one_connection(php: Server) -> None:
    with php.connect() as client:
        for number in range(20):
            answer = client.request(f"GET /said.php?n={number} HTTP/1.1\nHost: a\n\n")
            assert said(answer)["get"] == {"n": str(number)}


def test_a_kept_connection_keeps_no_request_waiting(forkd: Forkd) -> None:
    """PHP serves one connection at a time in each process: here there is one."""
    config = PHP["fastcgi kept"].replace("@PHP@", program("php-cgi"))
    config = config.replace('"PHP_FCGI_CHILDREN" => "4"', '"PHP_FCGI_CHILDREN" => "1"')
    server = forkd.start(f"server.max-worker = 1\n{config}", files=PAGES)
    with server.connect() as client:
        for number in range(3):
            answer = client.request(f"GET /said.php?n={number} HTTP/1.1\nHost: a\n\n")
            assert said(answer)["get"] == {"n": str(number)}
            client.send(b"POST /said.php HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
            assert said(client.response())["server"]["REQUEST_METHOD"] == "POST"


# --- git

GIT = """
server.modules += ("mod_alias", "mod_setenv", "mod_cgi")
alias.url = ("/git" => "@GIT@/git-http-backend")
$HTTP["url"] =^ "/git/" {
  cgi.assign = ("" => "")
  setenv.add-environment = ("GIT_PROJECT_ROOT" => "@DIR@/git", "GIT_HTTP_EXPORT_ALL" => "")
}
"""

NOBODY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Somebody"), ("EMAIL", "somebody@example.org"))
}


def git(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "HOME": str(folder), **NOBODY}
    done = subprocess.run(
        [program("git"), *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("size", [100, 5 << 20])
def test_git_clones_and_pushes(forkd: Forkd, size: int) -> None:
    """Large pushes come in chunks, with their length unknown until their end."""
    folder = forkd.directory
    git(folder, "init", "-q", "--bare", "-b", "main", "git/project.git")
    git(folder / "git" / "project.git", "config", "http.receivepack", "true")
    backend = git(folder, "--exec-path")
    server = forkd.start(GIT.replace("@GIT@", backend))
    url = f"{server.url}/git/project.git"
    git(folder, "clone", "-q", url, "mine")
    (folder / "mine" / "file").write_bytes(os.urandom(size))
    git(folder / "mine", "checkout", "-q", "-b", "main")
    git(folder / "mine", "add", "file")
    git(folder / "mine", "commit", "-q", "-m", "A file")
    git(folder / "mine", "push", "-q", "origin", "main")
    git(folder, "clone", "-q", url, "theirs")
    mine, theirs = ((folder / name / "file").read_bytes() for name in ("mine", "theirs"))
    assert theirs == mine
    git(folder / "theirs", "fsck", "--strict")
    (folder / "theirs" / "file").write_text("changed")
    git(folder / "theirs", "commit", "-q", "-a", "-m", "A change")
    git(folder / "theirs", "push", "-q")
    git(folder / "mine", "pull", "-q", "--ff-only", "origin", "main")
    assert (folder / "mine" / "file").read_text() == "changed"


# --- WSGI


@pytest.fixture(scope="module")
def wsgi(shared_forkd: Forkd) -> Iterator[Server]:
    command = [sys.executable, str(PROGRAMS / "wsgi_app.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            config = f'proxy.server = ("/app/" => (("host" => "127.0.0.1", "port" => {port})))\n'
            yield beside(shared_forkd, "wsgi", f'server.modules += ("mod_proxy")\n{config}')
        finally:
            process.kill()


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_wsgi_application(wsgi: Server, size: int) -> None:
    body = os.urandom(size)
    seen = said(send(wsgi, "PUT", "/app/a%20b?c=d", body, Content_Type="x/y"), 201)
    assert (seen["size"], seen["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    expected = {
        "REQUEST_METHOD": "PUT",
        "PATH_INFO": "/app/a b",
        "QUERY_STRING": "c=d",
        "CONTENT_TYPE": "x/y",
        "HTTP_HOST": f"127.0.0.1:{wsgi.port}",
        "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_X_FORWARDED_PROTO": "http",
        "HTTP_CONNECTION": "close",
    }
    assert {name: seen.get(name) for name in expected} == expected


def test_wsgi_application_gets_a_body_that_came_in_chunks(wsgi: Server) -> None:
    body = os.urandom(200_000)
    seen = said(chunked(wsgi, "POST", "/app/", body, 30_000), 201)
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()


# --- ASGI

ASGI = """
server.modules += ("mod_proxy")
proxy.server = ("/app/" => ((
  "socket" => "@DIR@/uvicorn.sock",
  "bin-path" => "@PYTHON@ -m uvicorn --fd 0 --log-level warning --app-dir @APP@ asgi_app:app",
  "max-procs" => 1,
  "keep-alive" => 4
)))
proxy.header = ("upgrade" => "enable", "map-urlpath" => ("/app/" => "/"))
proxy.forwarded = ("for" => "enable", "proto" => "enable")
server.stream-request-body = @STREAM@
server.stream-response-body = @STREAM@
"""


@pytest.fixture(scope="module", params=[0, 2])
def asgi(shared_forkd: Forkd, request: pytest.FixtureRequest) -> Server:
    """uvicorn, started by forkd; bodies complete, and bodies as they come."""
    values = {"@PYTHON@": sys.executable, "@APP@": PROGRAMS, "@STREAM@": request.param}
    config = ASGI.replace("uvicorn.sock", f"uvicorn{request.param}.sock")
    for placeholder, value in values.items():
        config = config.replace(placeholder, str(value))
    return beside(shared_forkd, f"asgi{request.param}", config)


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_asgi_application(asgi: Server, size: int) -> None:
    body = os.urandom(size)
    answer = send(asgi, "POST", "/app/a%20b?c=d", body)
    seen = said(answer)
    assert (seen["size"], seen["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert (seen["path"], seen["query"], seen["version"]) == ("/a b", "c=d", "1.1")
    assert seen["fields"]["forwarded"] == "for=127.0.0.1;proto=http"
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]


def test_asgi_application_gets_a_body_in_chunks(asgi: Server) -> None:
    body = os.urandom(500_000)
    seen = said(chunked(asgi, "POST", "/app/", body, 70_000))
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()


def test_asgi_application_answers_many_requests_on_one_connection(asgi: Server) -> None:
    with asgi.connect() as client:
        for number in range(50):
            answer = client.request(f"GET /app/{number} HTTP/1.1\nHost: a\n\n")
            assert said(answer)["path"] == f"/{number}"


@pytest.mark.parametrize("size", [0, 125, 65536, 5 << 20])
def test_asgi_application_speaks_websocket(asgi: Server, size: int) -> None:
    messages = [os.urandom(size), "Grüße"]
    assert echoes(asgi, "/app/chat", messages, ["chat"]) == messages
