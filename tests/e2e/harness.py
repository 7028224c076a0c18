"""Real servers for the end-to-end tests: start one, look at it from outside, end it, and be sure
that nothing of it is left.

A test asks the fixture ``forkd`` for a server:

    server = forkd.start('wstunnel.server = ( "/ws/" => ( ... ) )', files={"echo.pl": "..."})

The text is a configuration with the placeholders ``@DIR@`` (a folder of this test alone),
``@ROOT@`` (the document root in it) and ``@PORT@`` (a free port).  What every server needs and the
text does not set (root, address, port, pid file) is put in front of it, unless ``verbatim``.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from random import sample
from typing import Any, TypeVar

import psutil
from e2e.rawhttp import Client, Response
from websockets.sync.client import ClientConnection, connect

from forkd import control, paths

DEADLINE = 15.0
"""Seconds for anything that should happen soon; generous, since test machines are busy."""

REPOSITORY = Path(__file__).parents[2]

PREAMBLE = (
    ("server.document-root", 'server.document-root = "@ROOT@"\n'),
    ("server.bind", 'server.bind = "127.0.0.1"\n'),
    ("server.port", "server.port = @PORT@\n"),
    ("server.pid-file", 'server.pid-file = "@DIR@/forkd.pid"\n'),
)

MARK = "FORKD_TEST"
"""Variable in the environment of every process of one test: how those left over are found."""

T = TypeVar("T")


def wait_for(
    predicate: Callable[[], T | None],
    deadline: float = DEADLINE,
    what: str | Callable[[], str] = "",
) -> T:
    """What *predicate* gives once that is true; AssertionError, with *what*, after *deadline*."""
    end = time.monotonic() + deadline
    pause = 0.002
    while True:
        result = predicate()
        if result:
            return result
        if time.monotonic() > end:
            said = what() if callable(what) else what or getattr(predicate, "__name__", "condition")
            raise AssertionError(f"not within {deadline} s: {said}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


LANE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
"""Tests that run beside each other have ports of their own."""

_PORTS = cycle(sample(range(20_000 + 1500 * LANE, 21_500 + 1500 * LANE), 1500))


def free_port() -> int:
    """A TCP port that nobody holds and no other test is about to, outside the range from which
    clients get theirs."""
    return next(port for port in islice(_PORTS, 1500) if is_free(port))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


class Server:
    """One running forkd, seen from outside."""

    def __init__(self, config: Path, port: int, environment: Mapping[str, str]) -> None:
        self.config = config
        self.directory = config.parent
        self.root = self.directory / "root"
        self.port = port
        self.environment = dict(environment)
        self.output = self.directory / f"{config.stem}.output"
        """Standard output and standard error together."""
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[psutil.Process] = set()

    # --- starting and ending

    def launch(self, command: Sequence[str], daemon: bool) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.directory,
                start_new_session=True,
            )
        if daemon:
            status = self.process.wait(DEADLINE * 2)
            assert status == 0, f"start: exit {status}\n{self.error_log()}"

    def wait_ready(self) -> None:
        """Until the master says that all workers are ready; fails at once if it ends instead."""
        wait_for(self._is_ready, DEADLINE * 2, lambda: f"ready\n{self.error_log()}")
        self.processes()

    def _is_ready(self) -> bool:
        if self.process is not None and self.process.poll() not in (None, 0):
            raise AssertionError(f"exit {self.process.returncode}\n{self.error_log()}")
        try:
            status = self.control("status")
        except (OSError, ValueError, control.ControlError):
            return False
        return status.get("state") == "serving"

    def stop(self, sig: int = signal.SIGTERM, deadline: float = DEADLINE) -> int | None:
        """Signal the master and wait until all is gone; its exit status when it is our child."""
        processes = self.processes()
        master = self._master_or_none()
        if master is not None:
            master.send_signal(sig)
        return self.wait_gone(processes, deadline)

    def wait_gone(
        self, processes: Sequence[psutil.Process], deadline: float = DEADLINE
    ) -> int | None:
        status = self.process.wait(deadline) if self.process is not None else None
        wait_for(lambda: not any(map(is_alive, processes)), deadline, "all processes gone")
        return status

    def forget(self) -> None:
        """Remove what a killed server leaves in RUN, which is not the test's own folder."""
        for folder in paths.run_dirs():
            for name in (link := Path(folder, self._identity().pid_file), Path(f"{link}.sock")):
                name.unlink(missing_ok=True)

    # --- what it is

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The master's, from the pid file; ValueError before it is written."""
        return int(self.pid_file.read_text().strip())

    @property
    def pid_file(self) -> Path:
        named = re.search(r'^\s*server\.pid-file\s*:?=\s*"([^"]+)"', self.config.read_text(), re.M)
        return Path(named[1] if named else paths.known_pid_files(self._identity())[0])

    @property
    def control_socket(self) -> Path:
        return Path(paths.control_socket_for(str(self.pid_file)))

    def _identity(self) -> paths.Identity:
        return paths.identity(str(self.config))

    def control(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Ask the master over the control socket; ControlError when it does not answer."""
        return control.ask(str(self.control_socket), command, DEADLINE, **arguments)

    def status(self) -> dict[str, Any]:
        return self.control("status")

    # --- what it says

    def get(self, path: str, method: str = "GET", /, **fields: str) -> Response:
        """One request on a connection of its own; in names of *fields*, ``_`` stands for ``-``."""
        head = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        head.update({name.replace("_", "-"): value for name, value in fields.items()})
        lines = "".join(f"{name}: {value}\n" for name, value in head.items())
        with self.connect() as client:
            return client.request(f"{method} {path} HTTP/1.1\n{lines}\n")

    def connect(self, timeout: float = DEADLINE) -> Client:
        return Client(("127.0.0.1", self.port), timeout)

    def raw(self, data: bytes, timeout: float = DEADLINE, eof: bool = False) -> bytes:
        """Send *data* (and end of input, when *eof*), read until the server closes."""
        with self.connect(timeout) as client:
            client.send(data)
            if eof:
                client.send_eof()
            return client.read_all()

    def websocket(self, path: str = "/ws/", **options: Any) -> ClientConnection:
        """A WebSocket client (a context manager); no compression and no limits unless asked for."""
        options = {"compression": None, "max_size": None, "ping_interval": None, **options}
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, **options)

    def error_log(self) -> str:
        """What it wrote to standard error, then the file of server.errorlog where there is one."""
        files = [self.output]
        files += [Path(name) for name in self._named("server.errorlog") if name[:1] == "/"]
        return "".join(path.read_text(errors="replace") for path in files if path.exists())

    def access_log(self) -> list[str]:
        names = self._named("accesslog.filename")
        return [line for name in names for line in Path(name).read_text("latin-1").splitlines()]

    def _named(self, directive: str) -> list[str]:
        pattern = rf'^\s*{re.escape(directive)}\s*:?=\s*"([^"]+)"'
        return re.findall(pattern, self.config.read_text(), re.M)

    def wait_log(self, pattern: str, deadline: float = DEADLINE) -> re.Match[str]:
        """The first place in the error log that matches *pattern* (a search, with re.M)."""
        compiled = re.compile(pattern, re.M)
        return wait_for(
            lambda: compiled.search(self.error_log()),
            deadline,
            lambda: f"{pattern!r} in the error log\n{self.error_log()}",
        )

    # --- its processes

    def master(self) -> psutil.Process:
        return psutil.Process(self.pid)

    def workers(self) -> list[psutil.Process]:
        """The master's children that call themselves workers, oldest first."""
        return [child for child in self._children() if _title(child).startswith("forkd: worker")]

    def backends(self) -> list[psutil.Process]:
        """The master's other children, oldest first."""
        return [child for child in self._children() if not _title(child).startswith("forkd: ")]

    def _children(self) -> list[psutil.Process]:
        children = [child for child in self.master().children() if is_alive(child)]
        return sorted(children, key=lambda child: (child.create_time(), child.pid))

    def processes(self) -> list[psutil.Process]:
        """Every process of it seen so far, with those found now."""
        master = self._master_or_none()
        if master is not None:
            self._seen.update(_family(master))
        return list(self._seen)

    def _master_or_none(self) -> psutil.Process | None:
        """The master while it lives: our own child, else whom the pid file names if that is us."""
        if self.process is not None and self.process.poll() is None:
            return psutil.Process(self.process.pid)
        try:
            named = psutil.Process(self.pid)
            return named if named.environ().get(MARK) == self.environment[MARK] else None
        except (OSError, ValueError, psutil.Error):
            return None


class Forkd:
    """What the fixture ``forkd`` gives: starts servers, runs the command line, cleans up."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers: list[Server] = []
        self.mark = uuid.uuid4().hex
        self._allowed: list[str] = []

    def start(
        self,
        config: str,
        *,
        files: Mapping[str, str | bytes] | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        daemon: bool = False,
        verbatim: bool = False,
        port: int | None = None,
        name: str = "forkd.conf",
        ready: bool = True,
    ) -> Server:
        """A running server.  *files* go below the test's folder; those that begin ``#!`` are made
        executable.  *daemon*: by ``forkd start``, else ``forkd -D``.  *args* are appended.
        """
        server = self.prepare(config, files=files, env=env, verbatim=verbatim, port=port, name=name)
        action = ["start", "-f", str(server.config)] if daemon else ["-D", "-f", str(server.config)]
        server.launch([*COMMAND, *action, *args], daemon)
        if ready:
            server.wait_ready()
        return server

    def prepare(
        self,
        config: str,
        *,
        files: Mapping[str, str | bytes] | None = None,
        env: Mapping[str, str] | None = None,
        verbatim: bool = False,
        port: int | None = None,
        name: str = "forkd.conf",
    ) -> Server:
        """The same without starting it: the files are there, ``server.config`` names the file."""
        port = port or free_port()
        server = Server(self.directory / name, port, self.environment(env))
        server.root.mkdir(exist_ok=True)
        for path, content in (files or {}).items():
            self.write(path, content, port)
        self.write(name, config if verbatim else with_preamble(config), port)
        self.servers.append(server)
        return server

    def write(self, name: str, content: str | bytes, port: int = 0) -> Path:
        """Put a file below the test's folder, placeholders filled in."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else self.fill(content, port).encode()
        path.write_bytes(data)
        if data.startswith(b"#!"):
            path.chmod(0o755)
        return path

    def fill(self, text: str, port: int = 0) -> str:
        values = {"@DIR@": self.directory, "@ROOT@": self.directory / "root", "@PORT@": port}
        for placeholder, value in values.items():
            text = text.replace(placeholder, str(value))
        return text

    def run(
        self,
        *args: str,
        timeout: float = DEADLINE * 2,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """One call of the command line, in the test's folder unless *cwd* is given."""
        return subprocess.run(
            [*COMMAND, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment(env),
            cwd=cwd or self.directory,
        )

    def allow_errors(self, *patterns: str) -> None:
        """ERROR lines that match one of *patterns* are what this test is about."""
        self._allowed += patterns

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        base = {**os.environ, MARK: self.mark, "PYTHONPATH": str(REPOSITORY)}
        base["SPT_NOENV"] = "1"  # a process title must not overwrite the mark
        return {**base, **(env or {})}

    # --- the end of a test

    def finish(self) -> list[str]:
        """End everything; what was wrong, as sentences."""
        problems: list[str] = []
        for server in self.servers:
            problems += self._finish(server)
        left = [process for process in psutil.process_iter() if self._is_ours(process)]
        problems += [f"left over: {_describe(process)}" for process in left]
        kill_all(left)
        return problems

    def _finish(self, server: Server) -> list[str]:
        processes = server.processes()
        problems = []
        try:
            server.stop()
        except (AssertionError, subprocess.TimeoutExpired):
            alive = [_describe(process) for process in processes if is_alive(process)]
            problems.append(f"did not end: {alive}")
            kill_all(processes)
        server.forget()
        return problems + self._unexpected(server)

    def _unexpected(self, server: Server) -> list[str]:
        lines = UNEXPECTED.findall(server.error_log())
        allowed = re.compile("|".join(self._allowed) or "(?!)")
        return [f"in the error log: {line}" for line in lines if not allowed.search(line)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark and is_alive(process)
        except (psutil.Error, OSError):
            return False


COMMAND = (sys.executable, "-m", "forkd")

UNEXPECTED = re.compile(
    r"^(?:\d{4}-\d\d-\d\d \S+ \[\d+\] (?:error|critical|fatal): .*|Traceback .*)$", re.M | re.I
)


def with_preamble(config: str) -> str:
    """*config* with what every server needs in front of it, where it does not say it itself."""
    return "".join(line for name, line in PREAMBLE if not _sets(config, name)) + config


def _sets(config: str, name: str) -> bool:
    return re.search(rf"^\s*{re.escape(name)}\s*[:+]?=", config, re.M) is not None


def is_alive(process: psutil.Process) -> bool:
    """Running, and not merely waiting to be reaped."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_all(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    wait_for(lambda: not any(map(is_alive, processes)), what="killed processes gone")


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _describe(process: psutil.Process) -> str:
    return f"{process.pid} {_title(process)!r}"
