"""One request, one line: the accesslog vectors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from e2e.harness import Server, free_port, wait_for
from e2e.sites import Sites, http_fixture, sites_with, talk
from vectors_loader import load, vector_id

from forkd.accesslog import compile_format

VECTORS = load("accesslog")
ALWAYS = (
    'server.document-root = "@ROOT@"\n'
    'server.name = "srv.example"\n'
    'server.modules = ("mod_accesslog", "mod_setenv")\n'
)


def log_settings(vector) -> str:
    lines = [f'accesslog.filename = "@DIR@/{vector["id"]}.log"']
    if vector["format"] is not None:
        escaped = vector["format"].replace('"', '\\"')
        lines.append(f'accesslog.format = "{escaped}"')
    return "\n".join(lines) + "\n" + vector["config"]


def can_share(vector) -> bool:
    """Whether the vector can have a listener of a server that others use too: not where the format
    may be refused, nor where the request is none, so that only global settings can hold for it."""
    try:
        compile_format(vector["format"] or "%h")
    except ValueError:
        return False
    return "expect" not in vector and not vector.get("quirk") and vector["request"][0].isalpha()


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    with sites_with(tmp_path_factory, http_fixture()) as sites:
        yield sites


@pytest.fixture(scope="module")
def shared(sites: Sites) -> tuple[Server, dict[str, int]]:
    """One server with a listener and a block for each vector that can share it, and their ports.

    All have been asked, so that all wait together until the lines are written.
    """
    vectors = {free_port(): vector for vector in VECTORS if can_share(vector)}
    blocks = [
        f'$SERVER["socket"] == "127.0.0.1:{port}" {{\n{log_settings(vector)}}}\n'
        for port, vector in vectors.items()
    ]
    server = sites.server(ALWAYS + "".join(blocks))
    for port, vector in vectors.items():
        talk(port, vector["request"])
    return server, {vector["id"]: port for port, vector in vectors.items()}


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_vectors_accesslog(
    sites: Sites, shared: tuple[Server, dict[str, int]], vector
) -> None:
    server, ports = shared
    if vector["id"] in ports:
        verify(server, ports[vector["id"]], vector)
        return
    config = ALWAYS + log_settings(vector)
    is_refused = sites.check(config) != 0
    if "expect" in vector:
        assert is_refused is not vector["expect"]["ok"]
    elif not (is_refused and vector.get("quirk")):
        server = sites.server(config)
        talk(server.port, vector["request"])
        verify(server, server.port, vector)


def verify(server: Server, port: int, vector) -> None:
    log = server.directory / f"{vector['id']}.log"
    expected = vector.get("line", "").replace("@PORT@", str(port))
    text = wait_for(lambda: complete(log, expected.count("\n") or 1), what=f"a line in {log}")
    if "line_regex" in vector:
        assert re.search(vector["line_regex"], text)
    else:
        assert text == expected


def complete(log: Path, lines: int) -> str:
    """The log once it has that many lines, until then nothing."""
    text = log.read_bytes().decode("latin-1") if log.exists() else ""
    return text if text.count("\n") >= lines else ""
