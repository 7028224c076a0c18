"""Servers for vectors: the tree that a vector file describes, one server for each configuration
however many vectors ask it something, and the comparison with what they expect."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import COMMAND, Forkd, Server
from e2e.rawhttp import Client, Response, parse_responses
from vectors_loader import document

MODIFIED = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
OWN_HTTP_EXCHANGE = Path(__file__).parents[1] / "vectors" / "http_exchange.json"
PROGRAMS = Path(__file__).parents[1] / "programs"
ONE_WORKER = "server.max-worker = 1\n"


def http_fixture() -> dict[str, Any]:
    """The tree of the http_exchange vectors, which other areas use as well."""
    found = document("http_exchange") or json.loads(OWN_HTTP_EXCHANGE.read_text("utf-8"))
    fixture: dict[str, Any] = found["fixture"]
    return fixture


def build_tree(root: Path, fixture: Mapping[str, Any]) -> None:
    """Files (a mapping, or names whose content is themselves), programs, folders, links, fifos."""
    for folder in fixture.get("folders", ()):
        (root / folder).mkdir(parents=True, exist_ok=True)
    files = fixture["files"]
    if not isinstance(files, dict):
        files = {name: f"{name}\n" for name in files}
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
        os.utime(path, (MODIFIED, MODIFIED))
    for name in fixture.get("programs", ()):
        write_program(root / name, (PROGRAMS / "cgi_echo.py").read_text())
    for name, target in fixture.get("symlinks", {}).items():
        (root / name).symlink_to(target)
    for name in fixture.get("fifos", ()):
        os.mkfifo(root / name)


def write_program(path: Path, code: str) -> None:
    """A program in Python that the server can execute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{code}")
    path.chmod(0o755)


class Sites:
    """One server for each configuration text, started when first asked for."""

    def __init__(self, make_folder: Callable[[str], Path], fixture: Mapping[str, Any]) -> None:
        self._make_folder = make_folder
        self._fixture = fixture
        self._started: dict[str, tuple[Forkd, Server]] = {}

    def prepared(self, config: str) -> tuple[Forkd, Server]:
        """A server with the tree in place, not running."""
        forkd = Forkd(self._make_folder("site"))
        server = forkd.prepare(ONE_WORKER + config)
        build_tree(server.root, self._fixture)
        return forkd, server

    def server(self, config: str) -> Server:
        if config not in self._started:
            forkd, server = self.prepared(config)
            self._started[config] = (forkd, server)
            server.launch([*COMMAND, "-D", "-f", str(server.config)], daemon=False)
            server.wait_ready()
        return self._started[config][1]

    def check(self, config: str) -> int:
        """The exit status of ``forkd check``."""
        forkd, server = self.prepared(config)
        return forkd.run("check", "-f", str(server.config)).returncode

    def finish(self) -> list[str]:
        return [problem for forkd, _ in self._started.values() for problem in forkd.finish()]


@contextmanager
def sites_with(factory: pytest.TempPathFactory, fixture: Mapping[str, Any]) -> Iterator[Sites]:
    """For a fixture of module scope; fails when a server leaves a process or an error behind."""
    sites = Sites(factory.mktemp, fixture)
    yield sites
    problems = sites.finish()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def talk(port: int, request: str) -> bytes:
    """What the server says to the bytes of *request* until it closes the connection."""
    with Client(("127.0.0.1", port)) as client:
        client.send(request.encode("latin-1"))
        return client.read_all()


def exchange(server: Server, request: str) -> list[Response]:
    """Every response to *request*, sent on one connection, until that ends."""
    data = talk(server.port, request)
    heads = re.findall(r"(?:^|\r\n\r\n)([A-Z]+) ", request)
    answered = tuple(index for index, method in enumerate(heads) if method == "HEAD")
    return parse_responses(data, heads=answered)


def differences(response: Response, expected: Mapping[str, Any], port: int) -> list[str]:
    """How *response* differs from what a vector says of it; what it does not say may be any."""
    response = _with_boundary(response, expected.get("headers", {}).get("Content-Type"))
    found = [
        f"{name}: {actual!r}, expected {expected[name]!r}"
        for name, actual in (("status", response.status), ("protocol", response.version))
        if expected.get(name, actual) != actual
    ]
    body = expected.get("body")
    for name, value in expected.get("headers", {}).items():
        found += _field_differences(response, name, value, port)
    if body is not None and response.text != body:
        found.append(f"body: {response.text!r}, expected {body!r}")
    if expected.get("body_kind") == "generated page":
        title = f"<h1>{response.status} "
        if title not in response.text or len(response.body) > 500:
            found.append(f"no generated page: {response.text!r}")
    return found


def _field_differences(
    response: Response, name: str, value: str | list[str] | None, port: int
) -> list[str]:
    actual = response.all(name)
    if value == "(any)":
        return [] if actual else [f"{name}: missing"]
    wanted = [value] if isinstance(value, str) else value or []
    wanted = [text.replace("@PORT@", str(port)) for text in wanted]
    return [] if actual == wanted else [f"{name}: {actual!r}, expected {wanted!r}"]


def _with_boundary(response: Response, content_type: object) -> Response:
    """*response* as if its random boundary were the one in *content_type*, where that has one."""
    wanted = re.search("boundary=(.*)", str(content_type))
    actual = re.search("boundary=(.*)", response.field("Content-Type") or "")
    if not (wanted and actual):
        return response
    body = response.body.replace(actual[1].encode(), wanted[1].encode())
    replaced = {"content-type": str(content_type), "content-length": str(len(body))}
    fields = [(name, replaced.get(name.lower(), value)) for name, value in response.fields]
    return Response(response.status, response.reason, response.version, fields, body)
