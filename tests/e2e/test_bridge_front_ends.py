"""scgi-cgi and fcgi-cgi behind servers that others have written: Debian's lighttpd and nginx."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from e2e.bridges import Bridge
from e2e.harness import DEADLINE, REPOSITORY, free_port, is_alive, kill_all, wait_for

LIGHTTPD = """
server.modules = ( "mod_scgi", "mod_fastcgi" )
server.document-root = "@DIR@"
server.bind = "127.0.0.1"
server.port = @PORT@
server.pid-file = "@DIR@/lighttpd.pid"
server.max-connections = 64
server.max-fds = 256
scgi.server = ( "/scgi/" => ((
  "socket" => "@DIR@/scgi.sock", "bin-path" => "@BIN@/scgi-cgi -c 4",
  "check-local" => "disable", "min-procs" => 1, "max-procs" => 1
)) )
fastcgi.server = ( "/fcgi/" => ((
  "socket" => "@DIR@/fcgi.sock", "bin-path" => "@BIN@/fcgi-cgi -c 4",
  "check-local" => "disable", "min-procs" => 1, "max-procs" => 1
)) )
$HTTP["query-string"] =~ "stream" {
  server.stream-request-body = 2
  server.stream-response-body = 2
}
"""

NGINX = """
daemon off;
master_process off;
pid @DIR@/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path @DIR@/body;
  fastcgi_temp_path @DIR@/fastcgi;
  scgi_temp_path @DIR@/scgi-temp;
  uwsgi_temp_path @DIR@/uwsgi;
  proxy_temp_path @DIR@/proxy;
  client_max_body_size 0;
  upstream kept { server unix:@DIR@/fcgi-cgi.sock; keepalive 2; }
  server {
    listen 127.0.0.1:@PORT@;
    root @DIR@;
    location /scgi/ {
      include /etc/nginx/scgi_params;
      scgi_param SCRIPT_FILENAME $document_root$uri;
      scgi_pass unix:@DIR@/scgi-cgi.sock;
    }
    location /fcgi/ {
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME $document_root$uri;
      fastcgi_keep_conn on;
      fastcgi_pass kept;
    }
  }
}
"""

REPORT = """#!/usr/bin/python3 -IS
import json, os
print("Content-Type: application/json", end="\\r\\n\\r\\n")
print(json.dumps(dict(os.environ)))
"""

# Reads all before it answers: nginx sends no more of a body once the answer has begun.
ECHO = """#!/bin/sh
cat > "$SCRIPT_FILENAME.$$"
printf 'Content-Type: text/plain\\r\\nContent-Length: %s\\r\\n\\r\\n' $CONTENT_LENGTH
cat "$SCRIPT_FILENAME.$$"
rm "$SCRIPT_FILENAME.$$"
"""

BIG = 20 << 20

PROGRAMS = {
    "report": REPORT,
    "echo": ECHO,
    "big": f"#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nhead -c {BIG} /dev/zero\n",
    "teapot": "#!/bin/sh\nprintf 'Status: 418 Teapot\\n\\nshort and stout'\n",
    "complain": "#!/bin/sh\necho 'not well today' >&2\nprintf 'Status: 204\\n\\n'\n",
    "endless": "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nyes\n",
}


class FrontEnd:
    """Somebody else's server with both kinds of programs behind it."""

    def __init__(self, directory: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.port = port
        self.process = process

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET" if body is None else "POST", path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def said(self) -> str:
        """What is in its log, and in those of programs started by hand."""
        return "".join(path.read_text() for path in self.directory.glob("*.log"))


def filled(text: str, directory: Path, port: int) -> str:
    bin_folder = str(REPOSITORY / "bin")
    return (
        text.replace("@DIR@", str(directory))
        .replace("@PORT@", str(port))
        .replace("@BIN@", bin_folder)
    )


@contextmanager
def serving(text: str, command: Sequence[str], directory: Path) -> Iterator[FrontEnd]:
    for folder in ("scgi", "fcgi"):
        (directory / folder).mkdir()
        for name, program in PROGRAMS.items():
            path = directory / folder / name
            path.write_text(program)
            path.chmod(0o755)
    port = free_port()
    config = directory / "front.conf"
    config.write_text(filled(text, directory, port))
    with (directory / "front.log").open("wb") as log:
        process = subprocess.Popen([*command, str(config)], stdout=log, stderr=log)
    front = FrontEnd(directory, port, process)
    try:
        wait_for(lambda: answers(port), what=lambda: f"it listens\n{front.said()}")
        yield front
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(DEADLINE)
    try:
        wait_for(lambda: not any(map(is_alive, family)), what=f"none of {family} is left")
    finally:
        kill_all(family)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def lighttpd(directory: Path) -> Iterator[FrontEnd]:
    with serving(LIGHTTPD, (program("lighttpd"), "-D", "-f"), directory) as front:
        yield front


@contextmanager
def nginx(directory: Path) -> Iterator[FrontEnd]:
    bridges = [Bridge(name, directory, (), tcp=False) for name in ("scgi-cgi", "fcgi-cgi")]
    try:
        with serving(NGINX, (program("nginx"), "-p", str(directory), "-c"), directory) as front:
            yield front
    finally:
        assert [problem for bridge in bridges for problem in bridge.finish()] == []


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    assert found, f"{name} is not installed"
    return found


@pytest.fixture(scope="module", params=[lighttpd, nginx], ids=lambda start: start.__name__)
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontEnd]:
    with request.param(tmp_path_factory.mktemp("front")) as front:
        yield front


both = pytest.mark.parametrize("folder", ["scgi", "fcgi"])


@both
def test_an_ordinary_request(front: FrontEnd, folder: str) -> None:
    status, body = front.ask(f"/{folder}/report?x=1&y")
    assert status == 200
    environment = json.loads(body)
    assert environment["QUERY_STRING"] == "x=1&y"
    assert environment["SCRIPT_FILENAME"] == f"{front.directory}/{folder}/report"
    assert environment["PATH"] == os.environ["PATH"]
    assert "HOME" not in environment


@both
def test_one_after_another(front: FrontEnd, folder: str) -> None:
    for _ in range(20):
        assert front.ask(f"/{folder}/teapot") == (418, b"short and stout")


@both
@pytest.mark.parametrize("mode", ["", "?stream"])
def test_upload(front: FrontEnd, folder: str, mode: str) -> None:
    body = os.urandom(3 << 20)
    assert front.ask(f"/{folder}/echo{mode}", body) == (200, body)
    assert front.ask(f"/{folder}/echo{mode}", b"") == (200, b"")


@both
@pytest.mark.parametrize("mode", ["", "?stream"])
def test_download(front: FrontEnd, folder: str, mode: str) -> None:
    status, body = front.ask(f"/{folder}/big{mode}")
    assert (status, len(body)) == (200, BIG)


@both
def test_what_cannot_be_run(front: FrontEnd, folder: str) -> None:
    assert front.ask(f"/{folder}/missing")[0] == 404
    (front.directory / folder / "plain").touch()
    assert front.ask(f"/{folder}/plain")[0] == 403


@both
def test_complaints_reach_a_log(front: FrontEnd, folder: str) -> None:
    before = front.said().count("not well today")
    assert front.ask(f"/{folder}/complain") == (204, b"")
    wait_for(lambda: front.said().count("not well today") > before)


@both
def test_a_client_that_goes(front: FrontEnd, folder: str) -> None:
    script = f"{front.directory}/{folder}/endless"
    with socket.create_connection(("127.0.0.1", front.port), DEADLINE) as client:
        client.sendall(f"GET /{folder}/endless?stream HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert client.recv(1000)
        assert running(script)
    wait_for(lambda: not running(script), what=f"the end of {script}")


def running(script: str) -> bool:
    return any(
        script in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    )
