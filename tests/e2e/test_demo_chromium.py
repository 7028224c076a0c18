"""The first thing a user does: start the demo, open the page, watch it count.

A real browser looks at the page, so that what is tested is what is seen.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from e2e.harness import REPOSITORY, Forkd, free_port, is_alive, is_free, kill_all, wait_for
from e2e.webdriver import Browser

NUMBERS = range(1, 6)

COUNTED = ["CONNECT"]
COUNTED += [f"{event} {number}" for number in NUMBERS for event in ("SEND", "RECV")]
COUNTED += ["DISCONNECT"]

INSTALLATION = 300.0
"""Seconds: the first run of the demo may have to install forkd."""

SAMPLES = REPOSITORY / "conf" / "samples"

PUBLISHED = """\
server.document-root = "/tmp" # place count.html here (better: use a more secure location)
server.bind = "127.0.0.1"     # comment out if accessing from remote machine
server.port = 8081
server.modules += ("mod_wstunnel")
wstunnel.server = ( "/ws/" => ( ( "socket" => "/tmp/echo.sock", # should use more secure location
  "bin-path" => "/tmp/echo.pl", # should use more secure location
  "max-procs" => 1 ) ) )
"""
"""A configuration as it stands in lighttpd installations, line breaks and comments included."""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "browser") as browser:
        yield browser


class Demo:
    """``bin/demo``, running in a session of its own as it would in a terminal."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self.output = folder / "output"
        # Short: the path of a socket has room for a hundred bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="demo"))
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [str(REPOSITORY / "bin" / "demo"), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                start_new_session=True,
            )

    def url(self) -> str:
        """What the user is told to open."""
        return wait_for(self._url, INSTALLATION, lambda: f"a URL\n{self.output.read_text()}")

    def _url(self) -> str | None:
        said = self.output.read_text()
        assert self.process.poll() is None, f"exit {self.process.returncode}\n{said}"
        found = re.search(r"^ +(http://\S+)$", said, re.M)
        return found[1] if found else None

    def processes(self) -> list[psutil.Process]:
        if self.process.poll() is not None:
            return []
        shell = psutil.Process(self.process.pid)
        return [shell, *shell.children(recursive=True)]

    def interrupt(self) -> int:
        """Ctrl-C, which a terminal sends to everybody in the foreground; the exit status."""
        processes = self.processes()
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            kill_all([process for process in processes if is_alive(process)])


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[Demo]:
    running = Demo(folder, options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()
        shutil.rmtree(running.temporary)


def watched(browser: Browser, url: str) -> list[str]:
    """The lines of the page's log, once it has come to its end."""
    browser.open(url)

    def lines() -> list[str]:
        return browser.texts("#log li span")

    wait_for(lambda: "DISCONNECT" in lines(), what=lambda: f"DISCONNECT in {lines()}")
    return lines()


def arrivals(browser: Browser) -> list[datetime]:
    """When each answer came, as the page says."""
    stamps = browser.run(
        "return Array.from(document.querySelectorAll('.recv'), e => e.previousSibling.textContent)"
    )
    return [datetime.strptime(stamp, "%H:%M:%S.%f") for stamp in stamps]


def test_demo_counts_to_five(tmp_path: Path, browser: Browser) -> None:
    with demo(tmp_path) as running:
        assert watched(browser, running.url()) == COUNTED


def test_demo_serves_one_visitor_after_the_other(tmp_path: Path, browser: Browser) -> None:
    with demo(tmp_path) as running:
        url = running.url()
        assert [watched(browser, url) for _ in range(3)] == [COUNTED] * 3


def test_demo_with_the_incremental_program_takes_a_second_for_each(
    tmp_path: Path, browser: Browser
) -> None:
    with demo(tmp_path, "--incremental") as running:
        assert watched(browser, running.url()) == COUNTED
        came = arrivals(browser)
        gaps = [later - sooner for sooner, later in pairwise(came)]
        assert all(gap % timedelta(days=1) > timedelta(seconds=0.9) for gap in gaps)


def test_demo_ends_with_ctrl_c_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.url()
        processes = running.processes()
        assert len(processes) >= 4, "the shell, a master, a worker, a backend"
        assert running.interrupt() == 0
        wait_for(lambda: not any(map(is_alive, processes)), what="the end of its processes")
        assert list(running.temporary.iterdir()) == []


def test_demo_finds_a_port_when_8081_is_taken(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_free(8081):  # else somebody else holds it: as good
            holder.bind(("127.0.0.1", 8081))
            holder.listen()
        with demo(tmp_path) as running:
            assert ":8081/" not in running.url()


def test_published_configuration_runs_unchanged(forkd: Forkd, browser: Browser) -> None:
    placed = {Path("/tmp/count.html"): SAMPLES / "www" / "count.html"}
    placed[Path("/tmp/echo.pl")] = SAMPLES / "bin" / "echo.pl"
    with files_at(placed):
        port = 8081 if is_free(8081) else free_port()
        changed = [] if port == 8081 else ["-o", f"server.port={port}"]
        server = forkd.start(PUBLISHED, verbatim=True, port=port, args=changed)
        assert watched(browser, f"{server.url}/count.html") == COUNTED


@contextmanager
def files_at(placed: dict[Path, Path]) -> Iterator[None]:
    """Copies at paths that must be free: those of somebody else are left alone."""
    for target in placed:
        assert not target.exists(), f"{target} is in the way"
    try:
        for target, source in placed.items():
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
        yield
    finally:
        for target in placed:
            target.unlink(missing_ok=True)
