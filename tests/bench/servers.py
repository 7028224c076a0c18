"""The two servers that are compared, in front of the same programs, each on a port of its own.

Everything lies in one temporary folder: programs, sockets, configurations, logs.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

COMMON = """
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.max-fds = 20000
server.max-connections = 8000
server.max-keep-alive-requests = 60000
server.max-read-idle = 600
"""

ECHO = """
server.modules = ("mod_wstunnel")
wstunnel.server = ("" => (("socket" => "{folder}/echo.sock")))
wstunnel.frame-type = "{frame_type}"
"""

LIGHTTPD = 'server.errorlog = "{folder}/lighttpd.log"\n'

FORKD = 'server.max-worker = 1\nserver.pid-file = "{folder}/forkd.pid"\n'


class CannotStart(Exception):
    """A program that is needed is missing or does not come up; the text says which and why."""


@dataclass(frozen=True)
class Subject:
    """A running server: its name in the tables, its port, and its process with all descendants."""

    name: str
    port: int
    pid: int


@contextmanager
def workshop(*programs: str) -> Iterator[Path]:
    """A folder with *programs* (C files beside this one) built in it."""
    with tempfile.TemporaryDirectory(prefix="forkd-bench-") as name:
        folder = Path(name)
        for program in programs:
            _compile(HERE / f"{program}.c", folder / program)
        yield folder


@contextmanager
def tunnels(folder: Path, binary: bool) -> Iterator[list[Subject]]:
    """Both servers as tunnels to the echo program."""
    frame_type = "binary" if binary else "text"
    echo = [str(folder / "echo_backend"), f"{folder}/echo.sock"]
    with _running(echo, folder), subjects(folder, ECHO, frame_type=frame_type) as servers:
        yield servers


@contextmanager
def subjects(folder: Path, config: str, **values: str) -> Iterator[list[Subject]]:
    """lighttpd and forkd with one worker, serving *config*; ended on the way out."""
    lighttpd = shutil.which("lighttpd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if lighttpd is None:
        raise CannotStart("lighttpd is not installed")
    forkd = [sys.executable, "-m", "forkd", "-D", "-f"]
    with ExitStack() as stack:
        found = []
        for name, command, own in (
            ("lighttpd", [lighttpd, "-D", "-f"], LIGHTTPD),
            ("forkd", forkd, FORKD),
        ):
            port = _free_port()
            file = folder / f"{name}.conf"
            file.write_text((COMMON + own + config).format(folder=folder, port=port, **values))
            process = stack.enter_context(_running([*command, str(file)], folder))
            _wait_for_port(name, port, process, folder)
            found.append(Subject(name, port, process.pid))
        yield found


def _compile(source: Path, target: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotStart("a C compiler is not installed")
    subprocess.run([compiler, "-O2", "-o", str(target), str(source)], check=True)


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (folder / "output.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_port(
    name: str, port: int, process: subprocess.Popen[bytes], folder: Path, deadline: float = 15
) -> None:
    end = time.monotonic() + deadline
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise CannotStart(f"{name} does not serve:\n{(folder / 'output.log').read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
