"""The samples, and configurations that are in use as they were once published, run as they stand:
with the ``websockets`` client, and in a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from e2e.harness import REPOSITORY, Forkd, Server, free_port, wait_for
from e2e.webdriver import Browser
from e2e.wsclient import echoes

SAMPLES = REPOSITORY / "conf" / "samples"

# --- as they were published, line breaks, comments and the missing comma included

PUBLISHED = {
    "cgi": """\
server.modules += ("mod_cgi")
$HTTP["url"] =^ "/ws/" {
  cgi.assign = ("" => "")
  cgi.upgrade = 1
  #cgi.limits = ( "read-timeout" => 60, "write-timeout" => 60 )
}
#server.max-read-idle := 60
#server.max-write-idle := 60
""",
    "scgi": """\
server.modules += ("mod_scgi")
scgi.server = ("/ws/" => ((
  "socket" => "/tmp/scgi-ws.sock", # should use more secure location
  "bin-path" => "/usr/local/bin/scgi-cgi" # modify path to scgi-cgi
  "check-local" => "disable", "min-procs" => 1, "max-procs" => 1, "upgrade" => 1 #"read-timeout" => 60, #"write-timeout" => 60,
)) )
""",  # noqa: E501
    "fastcgi": """\
server.modules += ("mod_fastcgi")
fastcgi.server = ("/ws/" =>
  ((
    "socket" => "/tmp/fcgi-ws.sock", # should use more secure location
    "bin-path" => "/usr/local/bin/fcgi-cgi" # modify path to fcgi-cgi
    "check-local" => "disable",
    "min-procs" => 1,
    "max-procs" => 1,
    "upgrade" => 1
    #"read-timeout" => 60,
    #"write-timeout" => 60,
  ))
)
#server.max-read-idle := 60
#server.max-write-idle := 60
""",
    "proxy": """\
server.document-root = "/tmp" # place count.html here (better: use a more secure location)
server.bind = "127.0.0.1" # comment out if accessing from remote machine
server.port = 8080
server.modules += ("mod_proxy")
proxy.server = ( "/" => (( "host" => "127.0.0.1", "port" => "8081" )))
proxy.header = ( "upgrade" => "enable" )
""",
}


def relocated(name: str, places: Mapping[str, object]) -> str:
    text = PUBLISHED[name]
    for place, ours in places.items():
        text = text.replace(place, str(ours))
    return text


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_are_understood(forkd: Forkd, name: str) -> None:
    """As printed; all that may be missing is the program that they tell to install."""
    checked = forkd.run("check", "-f", str(forkd.prepare(PUBLISHED[name]).config))
    errors = [line for line in checked.stderr.splitlines() if "error" in line]
    assert all("/usr/local/bin" in line for line in errors), checked.stderr
    assert ("missing comma" in checked.stderr) == (name in ("scgi", "fastcgi"))


@pytest.mark.parametrize("name", ["cgi", "scgi", "fastcgi"])
def test_published_configurations_run(forkd: Forkd, name: str) -> None:
    files = {"root/ws/ws_echo.py": (SAMPLES / "bin" / "ws_echo.py").read_bytes()}
    places = {"/tmp/": f"{forkd.directory}/", "/usr/local/bin": REPOSITORY / "bin"}
    server = forkd.start(relocated(name, places), files=files)
    messages = ["Grüße", b"\0\xff"]
    assert echoes(server, "/ws/ws_echo.py", messages) == messages


def test_published_proxy_runs(forkd: Forkd, tmp_path: Path) -> None:
    behind = sample(forkd, "wstunnel.conf")
    places = {"8080": free_port(), "8081": behind.port}
    front = forkd.start(
        relocated("proxy", places), verbatim=True, port=places["8080"], name="front.conf"
    )
    with Browser(tmp_path / "browser") as browser:
        assert counted(browser, f"{front.url}/count.html")


# --- the samples


def sample(forkd: Forkd, name: str, more: str = "") -> Server:
    """A sample as it stands, but for its port; in a copy of its folder, where it leaves files."""
    folder = forkd.directory / "conf" / "samples"
    if not folder.exists():
        shutil.copytree(SAMPLES, folder)
        (forkd.directory / "bin").symlink_to(REPOSITORY / "bin")
    text = f'include "{name}"\nserver.port := @PORT@\n'
    text += f'server.pid-file = var.CWD + "/{name}.pid"\n{more}'
    return forkd.start(text, verbatim=True, name=f"conf/samples/run-{name}")


def counted(browser: Browser, url: str) -> bool:
    """Whether the page counts to five."""
    browser.open(url)
    wait_for(lambda: "DISCONNECT" in browser.texts("#log li span"), what="DISCONNECT")
    return "RECV 5" in browser.texts("#log li span")


@pytest.mark.parametrize("name", ["cgi.conf", "scgi.conf", "fastcgi.conf"])
def test_samples_echo_in_a_browser(forkd: Forkd, tmp_path: Path, name: str) -> None:
    server = sample(forkd, name)
    with Browser(tmp_path / "browser") as browser:
        browser.open(f"{server.url}/")

        def lines() -> list[str]:
            return browser.texts("#log li span")

        wait_for(lambda: lines() == ["CONNECT"], what=lambda: str(lines()))
        browser.run("document.getElementById('send').click()")
        wait_for(lambda: len(lines()) == 3, what=lambda: str(lines()))
        browser.run("text.value = '2 €'; document.getElementById('send').click()")
        wait_for(lambda: len(lines()) == 5, what=lambda: str(lines()))
        browser.run("document.getElementById('close').click()")
        wait_for(lambda: lines()[-1] == "DISCONNECT 1000", what=lambda: str(lines()))
        sent = ["Grüße, 世界!", "2 €"]
        assert lines()[1:-1] == [f"{what} {text}" for text in sent for what in ("SEND", "RECV")]
    assert server.stop() == 0


@pytest.mark.parametrize("name", ["cgi.conf", "scgi.conf", "fastcgi.conf"])
def test_samples_echo_and_explain_themselves(forkd: Forkd, name: str) -> None:
    server = sample(forkd, name)
    messages = ["Grüße", os.urandom(100_000), ""]
    assert echoes(server, "/ws/ws_echo.py", messages) == messages
    answer = server.get("/ws/ws_echo.py")
    assert (answer.status, answer.field("Sec-WebSocket-Version")) == (426, "13")
    assert server.get("/ws/echo.pl").status == 404


def test_sample_of_the_proxy_counts_through_two_servers(forkd: Forkd, tmp_path: Path) -> None:
    behind = sample(forkd, "wstunnel.conf")
    proxied = f'"/" => (("host" => "127.0.0.1", "port" => {behind.port}))'
    front = sample(forkd, "proxy.conf", f"proxy.server := ({proxied})\n")
    with Browser(tmp_path / "browser") as browser:
        assert counted(browser, f"{front.url}/count.html")
    assert front.stop() == 0


FRAMED: dict[str, list[tuple[str | bytes, str | bytes]]] = {
    "line": [("hello", "1: hello"), ("", "2: "), ("two\nlines €", "3: two lines €")],
    "netstring": [("two\nlines €", "two\nlines €"), ("", ""), ("1:a," * 1000, "1:a," * 1000)],
    "typed": [("hello", "HELLO"), (b"\0\xff", b"\xff\0"), ("", ""), (b"", b"")],
    "seqpacket": [("two\nlines €", "two\nlines €"), ("", ""), ("x" * 100_000, "x" * 100_000)],
}


@pytest.mark.parametrize("name", FRAMED)
def test_samples_of_framings(forkd: Forkd, name: str) -> None:
    server = sample(forkd, f"framing-{name}.conf")
    with server.websocket("/ws/", compression="deflate") as client:
        assert client.protocol.extensions, "nothing is compressed"
        if name == "netstring":
            greeting = f"You are 127.0.0.1, and this is 127.0.0.1:{server.port}"
            assert client.recv(timeout=30) == greeting
        for message, answer in FRAMED[name]:
            client.send(message)
            assert client.recv(timeout=30) == answer
    assert server.stop() == 0


def test_page_of_a_framing_in_a_browser(forkd: Forkd, tmp_path: Path) -> None:
    server = sample(forkd, "framing-typed.conf")
    with Browser(tmp_path / "browser") as browser:
        browser.open(f"{server.url}/")

        def lines() -> list[str]:
            return browser.texts("#log li span")

        wait_for(lambda: lines() == ["CONNECT"], what=lambda: str(lines()))
        browser.run("document.getElementById('send').click()")
        browser.run("text.value = 'abc'; document.getElementById('bytes').click()")
        wait_for(lambda: len(lines()) == 5, what=lambda: str(lines()))
        browser.run("document.getElementById('close').click()")
        wait_for(lambda: lines()[-1] == "DISCONNECT 1000", what=lambda: str(lines()))
        assert [line for line in lines() if line.startswith("RECV")] == [
            "RECV HELLO",
            "RECV bytes 99 98 97",
        ]
    assert server.stop() == 0


def test_sample_of_multiplexing_in_a_browser(forkd: Forkd, tmp_path: Path) -> None:
    server = sample(forkd, "fastcgi-mux.conf", "server.max-worker := 1\n")
    with Browser(tmp_path / "browser") as browser:
        browser.open(f"{server.url}/")

        def lines() -> list[str]:
            return sorted(browser.texts("#log li span"))

        for number in (1, 2):
            browser.run("document.getElementById('open').click()")
            wait_for(lambda n=number: f"CONNECT {n}" in lines(), what=lambda: str(lines()))
        browser.run("document.getElementById('send').click()")
        browser.run("document.getElementById('ask').click()")
        expected = ["ASKED on connection 1, as number 3", "CONNECT 1", "CONNECT 2"]
        expected += ["RECV 1: Grüße, 世界!", "RECV 2: Grüße, 世界!"]
        wait_for(lambda: lines() == expected, what=lambda: str(lines()))
    messages = ["Grüße", os.urandom(100_000), "", b""]
    assert echoes(server, "/mux/", messages) == messages
    assert server.stop() == 0
