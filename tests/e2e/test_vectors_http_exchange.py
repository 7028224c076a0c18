"""Raw bytes on one connection and the responses to them: the http_exchange vectors."""

from __future__ import annotations

import re

import pytest
from e2e.rawhttp import Response
from e2e.sites import Sites, differences, exchange, http_fixture, sites_with
from vectors_loader import document, load, vector_id

PROFILES = document("http_exchange").get("profiles", {})
NOT_BUILT = {"dirlist"}  # profiles of modules that forkd does not have


def applies(vector) -> bool:
    """Whether forkd has what the vector is about."""
    return vector["profile"] not in NOT_BUILT


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    with sites_with(tmp_path_factory, http_fixture()) as sites:
        yield sites


VECTORS = [vector for vector in load("http_exchange") if applies(vector)]


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_vectors_http_exchange(sites: Sites, vector) -> None:
    server = sites.server(PROFILES[vector["profile"]])
    request = vector["request"]
    if "@ETAG@" in request:
        request = request.replace("@ETAG@", server.get("/12345.txt").field("ETag") or "")
    responses = exchange(server, request)
    outcomes = [vector["responses"], *vector.get("also", [])]
    found = [compared(responses, outcome, server.port) for outcome in outcomes]
    assert [] in found, found


def compared(responses: list[Response], expected: list[dict], port: int) -> list[str]:
    """How the responses differ from those expected."""
    if not expected and [response.status for response in responses] == [500]:
        return []  # where lighttpd closes without an answer, forkd says that it failed
    if len(responses) != len(expected):
        return [f"{len(responses)} responses, expected {len(expected)}: {responses}"]
    pairs = zip(responses, expected, strict=True)
    return [text for response, wanted in pairs for text in differences(response, wanted, port)]


def test_a_boundary_is_never_in_use_twice(sites: Sites) -> None:
    server = sites.server('server.document-root = "@ROOT@"\nserver.range-requests = "enable"\n')
    kinds = {server.get("/100.txt", Range="bytes=0-1,97-98").field("Content-Type") for _ in "12"}
    assert len(kinds) == 2
    assert all(re.fullmatch(r"multipart/byteranges; boundary=\w+", str(kind)) for kind in kinds)
