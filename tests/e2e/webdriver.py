"""A headless Chromium, driven through chromedriver in the WebDriver protocol (W3C), which is JSON
over HTTP: no library is needed for the little that the tests ask."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root otherwise
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

START_DEADLINE = 60.0


class Browser:
    """One browser with a profile of its own in *folder*, and *flags* beside the usual ones.

    A context manager; closes everything, and gives the browser the time to write its logs.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self._flags = flags
        self._driver: subprocess.Popen[str] | None = None
        self._session = ""

    def __enter__(self) -> Browser:
        try:
            self._session = f"http://127.0.0.1:{self._start_driver()}/session"
            answer = self._ask("POST", "", {"capabilities": {"alwaysMatch": self._capabilities()}})
            self._session += f"/{answer['sessionId']}"
        except BaseException:
            self._end_driver()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self._end_driver()

    def open(self, url: str) -> None:
        """Go to *url*, and wait until the page is loaded."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a JavaScript function returns in the page."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": arguments})

    def wait_for(self, script: str, *arguments: Any) -> Any:
        """What the promise that the body of a JavaScript function returns comes to."""
        script = f"const done = [...arguments].pop(); (function() {{{script}}})(...arguments)"
        return self._ask(
            "POST", "/execute/async", {"script": f"{script}.then(done)", "args": arguments}
        )

    def texts(self, selector: str) -> list[str]:
        """The text of every element that *selector* (CSS) finds."""
        script = "return Array.from(document.querySelectorAll(arguments[0]), e => e.textContent)"
        found: list[str] = self.run(script, selector)
        return found

    def _start_driver(self) -> int:
        """Its port.  It takes one that is free for IPv6 and may find it taken for IPv4."""
        said = ""
        for _ in range(5):
            self._driver = subprocess.Popen(
                [_program("chromedriver"), "--port=0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            assert self._driver.stdout is not None
            for line in self._driver.stdout:
                said += line
                found = re.search(r"started successfully on port (\d+)", line)
                if found:
                    return int(found[1])
            self._driver.wait()
        raise RuntimeError(f"chromedriver did not start: {said}")

    def _capabilities(self) -> dict[str, Any]:
        arguments = [*FLAGS, f"--user-data-dir={self.folder}", *self._flags]
        options = {"binary": _program("chromium"), "args": arguments}
        return {"browserName": "chrome", "goog:chromeOptions": options}

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self._session + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=START_DEADLINE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"chromedriver: {json.load(error)['value']['message']}") from None

    def _end_driver(self) -> None:
        """End chromedriver with the browser it started: they are one session of ours."""
        assert self._driver is not None
        with self._driver:
            for process in _session_of(self._driver.pid):
                os.kill(process, signal.SIGKILL)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; bin/test without arguments installs it")
    return found


def _session_of(leader: int) -> list[int]:
    """The processes of the session that *leader* leads, itself included."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
        except ProcessLookupError:
            continue
    return found
