"""Which route takes a path (gateway.md 3)."""

from __future__ import annotations

import pytest

from forkd.config.model import GatewayServer, Route
from forkd.gateway.policy import match_route


@pytest.mark.parametrize(
    "keys, maps, path, chosen",
    [
        (["/ws/"], [], "/ws/x", "/ws/"),
        (["/ws/"], [], "/ws", None),
        (["/a", "/ab"], [], "/abc", "/a"),  # the first that matches, never the longest
        (["/ab", "/a"], [], "/abc", "/ab"),
        ([".php"], [], "/x.php", ".php"),
        ([".php"], [], "/x.PHP", None),
        ([""], [], "/anything", ""),
        ([".fcgi", "/"], [(".php", ".fcgi")], "/x.php", ".fcgi"),
        (["/"], [(".php", ".gone")], "/x.php", "/"),  # a mapping to nowhere is ignored
    ],
)
def test_match_route(keys, maps, path, chosen):
    routes = tuple(Route("wstunnel", key, ()) for key in keys)
    found = match_route(GatewayServer("wstunnel", routes, map_extensions=tuple(maps)), path)
    assert (found.key if found else None) == chosen
