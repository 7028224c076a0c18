"""Where in the file system a URL leads: the mapping vectors of the modules that forkd has."""

from __future__ import annotations

import pytest
from e2e.rawhttp import Response
from e2e.sites import Sites, exchange, sites_with
from vectors_loader import accepted, document, load, vector_id

BUILT = {"alias"}
ALWAYS = (
    'server.document-root = "@ROOT@/default"\n'
    'mimetype.assign = (".txt" => "text/plain", "" => "x/y")\n'
)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    with sites_with(tmp_path_factory, document("mapping")["fixture"]) as sites:
        yield sites


@pytest.mark.parametrize(
    "vector", [vector for vector in load("mapping") if vector["area"] in BUILT], ids=vector_id
)
def test_vectors_mapping(sites: Sites, vector) -> None:
    outcomes = accepted(vector)
    if outcomes[0].get("start") is False:
        assert sites.check(ALWAYS + vector["config"]) != 0
        return
    server = sites.server(ALWAYS + vector["config"])
    host = vector["host"]
    line = f"GET {vector['target']} "
    head = line + ("HTTP/1.0\r\n" if host is None else f"HTTP/1.1\r\nHost: {host}\r\n")
    [response] = exchange(server, f"{head}Connection: close\r\n\r\n")
    assert any(fits(response, outcome) for outcome in outcomes), response


def fits(response: Response, outcome) -> bool:
    served, location = outcome.get("served"), outcome.get("location")
    return (
        response.status == outcome["status"]
        and (served is None or response.text == f"{served}\n")
        and (location is None or response.field("Location") == location)
    )
