"""proxy.md section 4 as tables."""

from __future__ import annotations

import pytest

from forkd.config.model import ProxyHeader
from forkd.gateway.proxy_map import Mapping
from forkd.message import Fields

FRONT = "www.front:21099"

RUN = ProxyHeader(
    map_urlpath=(("/map/", "/be/"),),
    map_host_request=(("-", "be.example"),),
    map_host_response=(("be.example", "-"), ("other.example", "front.example")),
)
"""The example of proxy.md 4, as it was run."""


def mapping(header: ProxyHeader, host: str = FRONT, scheme: str = "http") -> Mapping:
    return Mapping(header, host, scheme)


def answered(made: Mapping, name: str, value: str) -> str:
    return made.response_fields(Fields([(name, value)])).get(name)


def requested(made: Mapping) -> Mapping:
    """*made* after the request of the example."""
    made.target("/map/redir?a=/map/z")
    made.host()
    return made


def test_request_of_the_example() -> None:
    made = mapping(RUN)
    assert made.target("/map/redir?a=/map/z") == "/be/redir?a=/map/z"
    assert made.host() == "be.example"
    value = made.request_field("Destination", f"http://{FRONT}/map/d")
    assert value == "http://be.example/be/d"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Location", "http://be.example/be/new?x=1", f"http://{FRONT}/map/new?x=1"),
        ("location", "/be/new", "/map/new"),
        ("Location", "/elsewhere", "/elsewhere"),
        ("Location", "http://other.example/be/x", "http://front.example/map/x"),
        ("Location", "http://unknown.example/be/x", "http://unknown.example/map/x"),
        ("Location", "HTTP://BE.EXAMPLE/be/x", f"HTTP://{FRONT}/map/x"),
        ("Location", "http://be.example", f"http://{FRONT}"),
        ("Location", "http://be.example?x=/be/", f"http://{FRONT}?x=/be/"),
        ("Location", "http://be.example:80/be/", "http://be.example:80/map/"),
        ("Location", "http:///be/x", "http:///be/x"),
        ("Location", "be/x", "be/x"),
        ("Location", "", ""),
        ("Content-Location", "/be/c", "/map/c"),
        ("Set-Cookie", "a=b; Path=/be/; Domain=be.example", "a=b; Path=/map/; Domain=www.front"),
        ("Set-Cookie", "a=b;path=/be/x;HttpOnly", "a=b;path=/map/x;HttpOnly"),
        ("Set-Cookie", 'a=b; Path="/be/"; Secure', 'a=b; Path="/map/"; Secure'),
        ("Set-Cookie", "a=b; Domain=.be.example", "a=b; Domain=.www.front"),
        ("Set-Cookie", 'a=b; Domain="Be.Example"', 'a=b; Domain="www.front"'),
        ("Set-Cookie", "a=b; domain=other.example ; path=/", "a=b; domain=front.example; path=/"),
        ("Set-Cookie", "a=b; Domain=x.example; Path=be/", "a=b; Domain=x.example; Path=be/"),
        ("Set-Cookie", "path=/be/; Expires=x", "path=/be/; Expires=x"),
        ("Set-Cookie", "a=/be/; Domain=; Path=", "a=/be/; Domain=; Path="),
        ("Refresh", "1; url=/be/x", "1; url=/be/x"),
        ("Link", "</be/x>", "</be/x>"),
    ],
)
def test_response_of_the_example(name: str, value: str, expected: str) -> None:
    assert answered(requested(mapping(RUN)), name, value) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("www.example", "be.example"),
        ("WWW.Example", "be.example"),
        ("www.example:8080", "www.example:8080"),
        ("stay.example", "stay.example"),
        ("same.example", "same.example"),
        ("last.example", "last.example"),
    ],
)
def test_hosts_compare_whole_and_without_case(host: str, expected: str) -> None:
    header = ProxyHeader(
        map_host_request=(
            ("stay.example", ""),
            ("stay.example", "never"),
            ("same.example", "-"),
            ("www.EXAMPLE", "be.example"),
        )
    )
    assert mapping(header, host).host() == expected


def test_request_without_host_is_not_taken_for_one() -> None:
    header = ProxyHeader(map_host_request=(("-", "be.example"),))
    assert mapping(header, "").host() == ""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/map", "/one"),
        ("/mapper/x", "/oneper/x"),
        ("/map/x", "/one/x"),
        ("/other", "/other"),
        ("/a?b=/map", "/a?b=/map"),
        ("/two/x", "/three/x"),
        ("*", "*"),
        ("http://www.front/map/x", "http://www.front/one/x"),
        ("http:///map/x", "http:///map/x"),
        ("urn:/map", "urn:/map"),
    ],
)
def test_first_prefix_of_the_path_wins(path: str, expected: str) -> None:
    header = ProxyHeader(map_urlpath=(("/map", "/one"), ("/map/", "/never"), ("/two", "/three")))
    assert mapping(header).target(path) == expected


@pytest.mark.parametrize(
    ("target", "location", "expected"),
    [
        ("/b/x", "/be/y", "/b/y"),
        ("/a/x", "/be/y", "/a/y"),
        ("/z", "/be/y", "/a/y"),
        ("/b/x", "/third/y", "/c/y"),
    ],
)
def test_pair_of_the_request_is_turned_round_first(
    target: str, location: str, expected: str
) -> None:
    header = ProxyHeader(map_urlpath=(("/a", "/be"), ("/b", "/be"), ("/c", "/third")))
    made = mapping(header)
    made.target(target)
    assert answered(made, "Location", location) == expected


def test_pair_of_the_target_is_remembered_not_that_of_a_later_field() -> None:
    header = ProxyHeader(map_urlpath=(("/a", "/be"), ("/b", "/be")))
    made = mapping(header)
    made.target("/b/x")
    assert made.request_field("content-location", "/a/y") == "/be/y"
    assert answered(made, "Location", "/be/z") == "/b/z"


@pytest.mark.parametrize(
    ("authority", "expected"),
    [("be.example", "front.example"), ("www.front:21099", "www.front:21099")],
)
def test_dash_in_map_host_response_is_the_host_used(authority: str, expected: str) -> None:
    header = ProxyHeader(
        map_host_request=(("-", "be.example"),), map_host_response=(("-", "front.example"),)
    )
    made = requested(mapping(header))
    assert answered(made, "Location", f"http://{authority}/") == f"http://{expected}/"


def test_dash_in_map_host_response_is_the_request_host_when_none_was_mapped() -> None:
    made = requested(mapping(ProxyHeader(map_host_response=(("-", "front.example"),))))
    assert answered(made, "Location", f"http://{FRONT}/") == "http://front.example/"


REMAP = ProxyHeader(
    https_remap=True,
    map_host_request=(("-", "be.example"),),
    map_host_response=(("be.example", "-"),),
)


@pytest.mark.parametrize(
    ("scheme", "destination", "sent", "location", "received"),
    [
        ("https", f"https://{FRONT}/", "http://be.example/", "http://be.example/", None),
        ("https", "https://x/", "https://x/", "http://x/", "http://x/"),
        ("https", f"http://{FRONT}/", "http://be.example/", "https://be.example/", None),
        (
            "http",
            f"https://{FRONT}/",
            "https://be.example/",
            "http://be.example/",
            f"http://{FRONT}/",
        ),
    ],
)
def test_https_remap(
    scheme: str, destination: str, sent: str, location: str, received: str | None
) -> None:
    made = requested(mapping(REMAP, scheme=scheme))
    assert made.request_field("destination", destination) == sent
    assert answered(made, "Location", location) == (received or f"https://{FRONT}/")


@pytest.mark.parametrize(
    ("include", "exclude", "authority", "is_mapped"),
    [
        ((), (), "x.example", True),
        ((FRONT,), (), "be.example", True),
        (("be.example",), (), "be.example", False),
        ((), (FRONT,), "be.example", False),
        ((), ("x.example",), "be.example", True),
        (("x.example",), ("x.example",), "x.example", False),
    ],
)
def test_lists_of_hosts_whose_paths_are_mapped(
    include: tuple[str, ...], exclude: tuple[str, ...], authority: str, is_mapped: bool
) -> None:
    header = ProxyHeader(
        map_urlpath=(("/map/", "/be/"),),
        map_host_request=(("-", "be.example"),),
        map_host_response=(("be.example", "-"),),
        resp_host_include=include,
        resp_host_exclude=exclude,
    )
    made = requested(mapping(header))
    value = answered(made, "Location", f"http://{authority}/be/x")
    assert value.endswith("/map/x" if is_mapped else "/be/x")
    assert answered(made, "Location", "/be/x") == "/map/x"  # no URL, no list


@pytest.mark.parametrize(
    ("header", "target", "location"),
    [
        (ProxyHeader(), "/map/x", "/be/x"),
        (ProxyHeader(map_host_request=(("-", "b"),)), "/map/x", "http://b/be/x"),
        (ProxyHeader(map_host_response=(("x", "y"),)), "/map/x", "http://b/be/x"),
    ],
)
def test_what_is_not_configured_is_left_alone(
    header: ProxyHeader, target: str, location: str
) -> None:
    made = mapping(header)
    assert made.target(target) == target
    assert answered(made, "Location", location) == location
