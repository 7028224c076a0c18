"""forkd among those that start servers: the init script, service units, sockets that somebody else
has opened, the init of a container, log rotation."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from e2e.harness import COMMAND, DEADLINE, REPOSITORY, Forkd, Server, free_port, wait_for
from e2e.rawhttp import Client

ACTIVATE = REPOSITORY / "tests" / "programs" / "activate.py"
CONF = REPOSITORY / "conf"
ONE_WORKER = "server.max-worker = 1\n"
SHOW = """#!/usr/bin/env python3
import os
print("Content-Type: text/plain\\n")
print(*sorted(os.environ), sep="\\n")
"""
CGI = 'server.modules += ("mod_cgi")\ncgi.assign = ( ".py" => "" )\n'


# -- sockets that a service manager has opened ------------------------------------------------


def activated(forkd: Forkd, config: str, *sockets: str, port: int) -> Server:
    """A server that inherits *sockets*, with ``@PORT@`` in them filled in."""
    files = {"root/index.html": "hello", "root/show.py": SHOW}
    server = forkd.prepare(ONE_WORKER + CGI + config, files=files, port=port)
    places = [forkd.fill(word, port) for word in sockets]
    command = [*COMMAND, "-D", "-f", str(server.config)]
    server.launch([sys.executable, str(ACTIVATE), *places, "--", *command], daemon=False)
    return server


ACTIVATION = 'server.systemd-socket-activation = "enable"\n'


def test_two_sockets_by_their_addresses(forkd: Forkd) -> None:
    port = free_port()
    server = activated(
        forkd, ACTIVATION + '$SERVER["socket"] == "@DIR@/s" { server.tag = "by path" }\n',
        "127.0.0.1:@PORT@", "@DIR@/s", port=port,
    )  # fmt: skip
    server.wait_ready()
    assert server.get("/index.html").body == b"hello"
    environment = server.get("/show.py").body.decode().split()
    assert not [name for name in environment if name.startswith(("LISTEN_", "NOTIFY_"))]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(forkd.directory / "s"))
        client.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 200 ")
    assert b"\r\nServer: by path\r\n" in answer
    forkd.run("reload", "-f", str(server.config)).check_returncode()
    assert server.get("/index.html").body == b"hello"
    server.stop()
    assert (forkd.directory / "s").is_socket(), "the file is its manager's"


def test_sockets_by_their_names(forkd: Forkd) -> None:
    port, other = free_port(), free_port()
    server = activated(
        forkd,
        f"""server.bind = "fd:web"
        server.port = {port}
        $SERVER["socket"] == "fd:other" {{ server.tag = "the other" }}
        """,
        "other=127.0.0.1:" + str(other), "web=127.0.0.1:@PORT@", port=port,
    )  # fmt: skip
    server.wait_ready()
    assert server.get("/index.html").field("server") != "the other"
    with Client(("127.0.0.1", other), DEADLINE) as client:
        answer = client.request("GET /show.py HTTP/1.1\nHost: x\nConnection: close\n\n")
    assert answer.field("server") == "the other"
    assert server.status()["listeners"] == ["fd:web", "fd:other"]


def test_a_main_listener_that_nobody_asked_for_is_not_made(forkd: Forkd) -> None:
    port, unused = free_port(), free_port()
    config = f"""{ACTIVATION}
        server.document-root = "@ROOT@"
        server.pid-file = "@DIR@/forkd.pid"
        server.port = {unused}
        $SERVER["socket"] == "127.0.0.1:@PORT@" {{ }}
        """
    server = forkd.prepare(config, verbatim=True, port=port)
    command = [*COMMAND, "-D", "-f", str(server.config)]
    place = f"127.0.0.1:{port}"
    server.launch([sys.executable, str(ACTIVATE), place, "--", *command], daemon=False)
    server.wait_ready()
    assert server.status()["listeners"] == [place]


@pytest.mark.parametrize(
    ("config", "place", "text"),
    [
        (ACTIVATION, "127.0.0.1:{other}", "no listener of the configuration means it"),
        ('server.bind = "fd:mail"\n', "web=127.0.0.1:{other}", "fd:mail: no such socket"),
    ],
)
def test_sockets_that_do_not_fit(forkd: Forkd, config: str, place: str, text: str) -> None:
    server = activated(forkd, config, place.format(other=free_port()), port=free_port())
    assert server.process is not None
    assert server.process.wait(DEADLINE) == 255
    assert text in server.error_log()


def test_a_daemon_keeps_its_sockets(forkd: Forkd) -> None:
    port = free_port()
    server = forkd.prepare(ONE_WORKER + ACTIVATION, files={"root/index.html": "hello"}, port=port)
    command = [*COMMAND, "start", "-f", str(server.config)]
    place = f"127.0.0.1:{port}"
    server.launch([sys.executable, str(ACTIVATE), place, "--", *command], daemon=True)
    assert server.get("/index.html").body == b"hello"


# -- what a service manager is told -----------------------------------------------------------


class Manager:
    """The socket of a service manager, and what has come so far."""

    def __init__(self, path: Path) -> None:
        self.said: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def hear(self) -> list[dict[str, str]]:
        try:
            while True:
                message = self._socket.recv(4096).decode()
                self.said.append(dict(line.split("=", 1) for line in message.split("\n")))
        except BlockingIOError:
            return self.said

    def wait(self, is_it: Callable[[dict[str, str]], bool], start: int = 0) -> int:
        """The index of the first message from *start* on that *is_it*."""

        def found() -> list[int]:
            return [n for n, said in enumerate(self.hear()) if n >= start and is_it(said)]

        return wait_for(found, what=lambda: f"a message among {self.said[start:]}")[0]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.close()


def test_a_service_manager_hears_of_everything(
    forkd: Forkd, manager: Manager, tmp_path: Path
) -> None:
    forkd.allow_errors("reload: ")
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    files = {"root/show.py": SHOW}
    server = forkd.start(ONE_WORKER + CGI, env=environment, files=files)
    ready = manager.wait(lambda said: "READY" in said)
    assert manager.said[ready]["MAINPID"] == str(server.pid)
    assert re.match(r"generation 1: 1 workers, \d+ connections", manager.said[ready]["STATUS"])
    alive = manager.wait(lambda said: "WATCHDOG" in said)
    manager.wait(lambda said: "WATCHDOG" in said, alive + 1)
    assert "NOTIFY_SOCKET" not in server.get("/show.py").body.decode().split()

    good = server.config.read_text()
    for text, status in ((good, 0), (good + "server.port = \n", 6), (good, 0)):
        before = len(manager.hear())
        server.config.write_text(text)
        server.master().send_signal(signal.SIGHUP)
        reloading = manager.wait(lambda said: "RELOADING" in said, before)
        assert 0 < int(manager.said[reloading]["MONOTONIC_USEC"]) <= time.monotonic_ns() / 1000
        done = manager.wait(lambda said: "READY" in said, reloading)
        assert server.status()["last_reload"]["ok"] is (status == 0)
    assert manager.said[done]["STATUS"].startswith("generation 3")
    before = len(manager.hear())
    server.stop()
    manager.wait(lambda said: "STOPPING" in said, before)


def test_the_watchdog_is_not_fed_for_a_worker_that_is_stuck(
    forkd: Forkd, manager: Manager, tmp_path: Path
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    server = forkd.start(ONE_WORKER, env=environment)
    manager.wait(lambda said: "WATCHDOG" in said)
    (worker,) = server.workers()
    worker.suspend()
    fed = len(manager.hear())

    def is_hungry() -> bool:
        """Nothing has come for several intervals."""
        nonlocal fed
        before, fed = fed, len(manager.hear())
        quiet_until = time.monotonic() + 2
        wait_for(lambda: time.monotonic() > quiet_until)
        return len(manager.hear()) == before == fed

    wait_for(is_hungry, DEADLINE * 2)
    worker.resume()
    manager.wait(lambda said: "WATCHDOG" in said, fed)


# -- the first process of a container ---------------------------------------------------------


def test_the_init_of_a_container(forkd: Forkd) -> None:
    server = forkd.prepare(
        ONE_WORKER + CGI,
        files={
            "root/index.html": "hello",
            "root/orphan.py": "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n"
            "sh -c 'sleep 0.01 & exec true' >/dev/null 2>&1 </dev/null\n",
        },
    )
    inside = [*COMMAND, "start", "-f", str(server.config)]
    server.launch(["unshare", "--pid", "--fork", "--mount-proc", *inside], daemon=False)
    wait_for(lambda: server.pid_file.exists() and server.pid_file.read_text().strip())
    assert server.pid_file.read_text() == "1\n"
    assert wait_for(lambda: server.get("/index.html")).body == b"hello"
    assert server.get("/orphan.py").status == 200
    assert server.process is not None
    (init,) = psutil.Process(server.process.pid).children()
    wait_for(lambda: [c for c in init.children() if c.status() == "zombie"] == [])
    init.terminate()
    assert server.process.wait(DEADLINE) == 0
    assert not server.pid_file.exists()


# -- the init script --------------------------------------------------------------------------


class InitScript:
    """``/etc/init.d/forkd``, with settings of its own."""

    def __init__(self, forkd: Forkd, config: Path, command: str) -> None:
        self._forkd = forkd
        self._defaults = forkd.write("default", f"FORKD={command}\nFORKD_CONF={config}\n")

    def __call__(self, *action: str) -> tuple[int, str]:
        """Exit status, and all that was said."""
        done = subprocess.run(
            [CONF / "init.d" / "forkd", *action],
            env=self._forkd.environment({"FORKD_DEFAULTS": str(self._defaults)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE * 2,
            cwd="/",
        )
        return done.returncode, done.stdout + done.stderr


def test_the_init_script(forkd: Forkd) -> None:
    server = forkd.prepare(ONE_WORKER, files={"root/index.html": "hello"})
    script = InitScript(forkd, server.config, str(REPOSITORY / "bin" / "forkd"))
    assert script("status")[0] == 3
    assert script("stop")[0] == 0
    assert script("reload")[0] == 7
    assert script("try-restart") == (0, "not running\n")
    assert script("start")[0] == 0
    pid = server.pid
    assert script("start") == (0, f"already running, pid {pid}\n")
    assert script("status")[0] == 0
    assert script("reload")[0] == 0
    assert script("reopen-logs")[0] == 0
    good = server.config.read_text()
    server.config.write_text(good + "nonsense\n")
    for action in ("reload", "force-reload", "configtest", "restart"):
        status, said = script(action)
        assert status == 6, action
        assert f"{server.config}:" in said
    assert server.get("/index.html").body == b"hello"
    assert server.pid == pid
    server.config.write_text(good)
    assert script("restart")[0] == 0
    assert server.pid != pid
    assert server.get("/index.html").body == b"hello"
    assert script("stop")[0] == 0
    assert script("stop")[0] == 0
    assert script("status")[0] == 3


def test_the_init_script_without_the_program(forkd: Forkd) -> None:
    script = InitScript(forkd, Path("/etc/forkd/forkd.conf"), "/nowhere/forkd")
    assert script("start")[0] == 5
    assert script("stop")[0] == 0
    assert script("status")[0] == 4
    assert script("frobnicate")[0] == 3
    assert script()[0] == 2


def test_the_header_of_the_init_script() -> None:
    text = (CONF / "init.d" / "forkd").read_text()
    header = text.split("### BEGIN INIT INFO\n")[1].split("### END INIT INFO\n")[0]
    fields = dict(re.findall(r"^# ([\w-]+): +(.+)$", header, re.M))
    assert fields["Provides"] == "forkd"
    assert fields["Required-Start"] == fields["Required-Stop"]
    assert fields["Required-Start"].split() == ["$local_fs", "$remote_fs", "$network", "$syslog"]
    assert (fields["Default-Start"], fields["Default-Stop"]) == ("2 3 4 5", "0 1 6")


# -- units and rotation -----------------------------------------------------------------------


def test_the_units(tmp_path: Path) -> None:
    """As systemd reads them, with the command where it is here."""
    command = str(REPOSITORY / "bin" / "forkd")
    for name in ("forkd.service", "forkd.socket"):
        text = (CONF / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/bin/forkd", command))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=DEADLINE * 4,
    )
    ours = [line for line in done.stderr.splitlines() if "forkd" in line]
    assert (ours, done.returncode) == ([], 0), done.stderr


def test_folders_of_tmpfiles(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", tmp_path / "etc")
    done = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={tmp_path}", CONF / "tmpfiles.d" / "forkd.conf"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "forkd").is_dir()
    assert (tmp_path / "var" / "log" / "forkd").is_dir()


def test_rotated_logs_are_opened_anew(forkd: Forkd) -> None:
    config = ONE_WORKER + (
        'server.modules += ("mod_accesslog")\n'
        'server.errorlog = "@DIR@/log/error.log"\naccesslog.filename = "@DIR@/log/access.log"\n'
    )
    logs = forkd.directory / "log"
    logs.mkdir()
    server = forkd.start(config, daemon=True)
    server.get("/before")
    access = logs / "access.log"
    wait_for(lambda: "/before" in access.read_text())
    rules = (CONF / "logrotate.d" / "forkd").read_text().replace("/var/log/forkd", str(logs))
    reopen = f"{REPOSITORY}/bin/forkd reopen -q -f {server.config} "
    rules = rules.replace("/usr/bin/forkd reopen -q ", reopen)
    rotate(forkd, rules)
    assert "/before" in (logs / "access.log.1").read_text()
    server.get("/after")
    wait_for(lambda: access.exists() and "/after" in access.read_text())
    assert "/after" not in (logs / "access.log.1").read_text()
    server.stop()
    rotate(forkd, rules)  # nobody runs: nothing to open, and no failure


def rotate(forkd: Forkd, rules: str) -> None:
    logrotate = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")
    assert logrotate is not None
    file = forkd.write("rules", rules)
    environment: Mapping[str, str] = forkd.environment()
    subprocess.run(
        [logrotate, "--force", "--state", str(forkd.directory / "state"), str(file)],
        env=environment,
        check=True,
        timeout=DEADLINE * 2,
        stdin=subprocess.DEVNULL,
    )
