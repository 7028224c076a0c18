"""Which blocks of a configuration take effect for a request: the config_eval vectors."""

from __future__ import annotations

import pytest
from e2e.sites import Sites, differences, exchange, http_fixture, sites_with
from vectors_loader import load, vector_id

ALWAYS = 'server.document-root = "@ROOT@"\nindex-file.names = ("index.html")\n'


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    with sites_with(tmp_path_factory, http_fixture()) as sites:
        yield sites


@pytest.mark.parametrize("vector", load("config_eval"), ids=vector_id)
def test_vectors_config_eval(sites: Sites, vector) -> None:
    server = sites.server(ALWAYS + vector["config"])
    for case in vector["cases"]:
        wanted = dict(case.get("forkd", case["expect"]))
        [response] = exchange(server, case["request"])
        expected = {"status": wanted.pop("status", response.status), "headers": wanted}
        assert not differences(response, expected, server.port), case["request"]
