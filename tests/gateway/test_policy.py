"""forkd/gateway/policy.py: who takes a request, and on which terms, as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import make_request

from forkd.address import Address
from forkd.config.backend import BackendSpec, GatewayServer, Route
from forkd.config.model import Limits, RequestConfig
from forkd.gateway.policy import (
    Streaming,
    Upgrade,
    claim,
    claims,
    match_route,
    request_streaming,
    response_streaming,
    split_path,
    upgrade_mode,
    without_file,
)
from forkd.message import Fields, Head


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


RESPONDER = BackendSpec("fastcgi", "", "", Address("/r"))
AUTHORIZER = replace(RESPONDER, address=Address("/a"), mode="authorizer")


def server(*routes: tuple[str, tuple[BackendSpec, ...]], name: str = "fastcgi") -> GatewayServer:
    return GatewayServer(name, tuple(Route(name, key, backends) for key, backends in routes))


@pytest.mark.parametrize(
    ("path", "is_approved", "key", "modes"),
    [
        ("/a/x.php", False, "/a/", ["authorizer"]),
        ("/a/x.php", True, ".php", ["responder"]),
        ("/x.php", False, ".php", ["responder"]),
        ("/m/x", False, "/m/", ["authorizer"]),
        ("/m/x", True, "/m/", ["responder"]),
        ("/a/x", True, None, []),
    ],
)
def test_authorizers_come_first_until_one_has_approved(path, is_approved, key, modes):
    both = server(
        (".php", (RESPONDER,)), ("/a/", (AUTHORIZER,)), ("/m/", (RESPONDER, AUTHORIZER))
    )
    route = claim(both, path, path, is_approved)
    assert (route.key if route else None) == key
    assert [backend.mode for backend in route.backends] == modes if route else not modes


def test_suffixes_are_compared_with_the_file_and_prefixes_with_the_url():
    both = server(("/u/", (RESPONDER,)), (".php", (RESPONDER,)))
    assert claim(both, "/x/", "/root/x/index.php", False).key == ".php"
    assert claim(both, "/u/x", "/root/x.php", False).key == "/u/"
    assert claim(both, "/x.php", "/root/y.txt", False) is None


def test_claims_in_the_order_of_the_modules():
    settings = RequestConfig(
        servers=(
            GatewayServer("wstunnel", (Route("wstunnel", "", ()),)),
            server((".php", (RESPONDER,))),
            server(("", (RESPONDER,)), name="proxy"),
        )
    )

    def names(request):
        return [found.name for found, _ in claims(request, settings, False)]

    assert names(make_request("/a.php")) == ["fastcgi", "proxy"]
    assert names(make_request("/a")) == ["proxy"]
    websocket = {"Upgrade": "websocket", "Connection": "upgrade"}
    assert names(make_request("/a", fields=websocket)) == ["wstunnel", "proxy"]


def test_without_file():
    free = replace(RESPONDER, check_local=False)
    route = Route("fastcgi", "/", (RESPONDER, free))
    assert without_file(route).backends == (free,)
    all_free = Route("fastcgi", "/", (free,))
    assert without_file(all_free) is all_free


@pytest.mark.parametrize(
    ("key", "path", "name", "path_info"),
    [  # gateway.md 3
        ("/app.fcgi", "/app.fcgi/a/b", "/app.fcgi", "/a/b"),
        ("/cgi-bin/", "/cgi-bin/x/y", "/cgi-bin/x", "/y"),
        ("/cgi-bin/", "/cgi-bin/x", "/cgi-bin/x", ""),
        ("/", "/x/y", "/x", "/y"),
        (".php", "/x/y.php", "/x/y.php", ""),
        ("", "/x/y", "/x/y", ""),
    ],
)
def test_split_path(key, path, name, path_info):
    assert split_path(path, key) == (name, path_info)


UPGRADE = {"Upgrade": "websocket", "Connection": "upgrade"}
CONNECT = {"method": "CONNECT", "protocol": "websocket", "version": "HTTP/2.0"}


@pytest.mark.parametrize(
    ("request_", "allowed", "mode"),
    [  # upgrade.md 2
        ({"fields": UPGRADE}, True, Upgrade.ALLOWED),
        ({"fields": UPGRADE}, False, Upgrade.IGNORED),
        ({"fields": {"Upgrade": "foo/1", "Connection": "keep-alive"}}, True, Upgrade.ALLOWED),
        ({"fields": {"Upgrade": "websocket"}}, True, Upgrade.IGNORED),
        ({"fields": UPGRADE | {"Upgrade": "h2c, websocket"}}, True, Upgrade.IGNORED),
        ({"fields": UPGRADE, "version": "HTTP/1.0"}, True, Upgrade.IGNORED),
        ({"fields": UPGRADE, "content_length": 1}, True, Upgrade.IGNORED),
        ({"fields": UPGRADE, "content_length": None}, True, Upgrade.IGNORED),
        ({"fields": UPGRADE, "method": "POST"}, True, Upgrade.ALLOWED),
        ({}, True, Upgrade.IGNORED),
        (CONNECT | {"content_length": None}, True, Upgrade.ALLOWED),
        (CONNECT, False, Upgrade.REFUSED),
    ],
)
def test_upgrade_mode(request_, allowed, mode):
    changes = dict(request_)
    assert upgrade_mode(make_request("/", changes.pop("method", "GET"), **changes), allowed) is mode


def test_upgrade_with_a_body_where_the_feature_is_on():
    request = make_request("/", "POST", fields=UPGRADE, content_length=1)
    assert upgrade_mode(request, True, with_body=True) is Upgrade.ALLOWED


@pytest.mark.parametrize(
    ("configured", "incremental", "mode"),
    [
        (0, "", Streaming.BUFFERED),
        (0, "?1", Streaming.DIRECT),
        (0, "?0", Streaming.BUFFERED),
        (1, "", Streaming.SPOOLED),
        (1, "?1", Streaming.SPOOLED),
        (2, "", Streaming.DIRECT),
        (3, "", Streaming.DIRECT),
    ],
)
def test_streaming(configured, incremental, mode):
    limits = Limits(stream_request_body=configured, stream_response_body=configured)
    fields = Fields([("Incremental", incremental)])
    assert request_streaming(make_request(fields={"Incremental": incremental}), limits) is mode
    assert response_streaming(Head(200, fields), limits) is mode
