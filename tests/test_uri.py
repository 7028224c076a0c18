"""forkd/uri.py: the vectors url_normalise and path_simplify, and hosts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from vectors_loader import accepted, load, vector_id

from forkd.errors import BadRequest
from forkd.uri import (
    ParseOptions,
    decode_path,
    encode_path,
    normalise_host,
    normalise_target,
    simplify_path,
)

DEFAULTS = ParseOptions()


def options(names: list[str]) -> ParseOptions:
    """The options *names* on, all others off; a url option implies the group's switch."""
    on = {name.replace("-", "_") for name in names}
    if any(name.startswith("url-") for name in names):
        on.add("url_normalize")
    return ParseOptions(**{field.name: field.name in on for field in fields(ParseOptions)})


def normalised(target: str, chosen: ParseOptions, decode: bool) -> dict[str, Any]:
    try:
        path, query = normalise_target(target, chosen)
        result = {"target": path if query is None else f"{path}?{query}"}
        if decode:
            result["path"] = decode_path(path)
        return result
    except BadRequest as error:
        return {"reject": error.status}


@pytest.mark.parametrize("vector", load("url_normalise"), ids=vector_id)
def test_vectors_url_normalise(vector: dict[str, Any]) -> None:
    right = accepted(vector)
    decode = any("path" in each for each in right)
    assert normalised(vector["input"], options(vector["parseopts"]), decode) in right


@pytest.mark.parametrize("vector", load("path_simplify"), ids=vector_id)
def test_vectors_path_simplify(vector: dict[str, Any]) -> None:
    assert simplify_path(vector["input"]) in accepted(vector)


@pytest.mark.parametrize("path", ["/a/../b//c/.", "x/../../y", "/.hidden/..", "//", "a/./b/"])
def test_simplifying_twice_changes_nothing(path: str) -> None:
    once = simplify_path(path)
    assert simplify_path(once) == once


def test_nul_is_refused_even_when_options_let_it_pass() -> None:
    lax = options(["url-normalize-unreserved"])
    path, _ = normalise_target("/a%00b", lax)
    with pytest.raises(BadRequest):
        decode_path(path)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a%2e/../b?%2e#c", ("/a%2e/../b", "%2e")),
        ("/%zz", ("/%zz", None)),
        ("//x", ("//x", None)),
    ],
)
def test_without_normalising_only_the_fragment_goes(
    target: str, expected: tuple[str, str | None]
) -> None:
    assert normalise_target(target, options([])) == expected


def test_backslashes_of_the_path_become_slashes() -> None:
    chosen = options(["url-normalize-unreserved", "url-path-backslash-trans"])
    assert normalise_target("/a\\b?c\\d", chosen) == ("/a/b", "c%5Cd")


def test_rejecting_wins_over_removing() -> None:
    both = options(
        ["url-normalize-unreserved", "url-path-dotseg-remove", "url-path-dotseg-reject"]
    )
    for target in ("/a/../b", "/a//b", "/..", "."):
        with pytest.raises(BadRequest):
            normalise_target(target, both)
    assert normalise_target("/..x/.y", both) == ("/..x/.y", None)


@pytest.mark.parametrize("path", ["/a b/ä?x#y%z", "/plain/path.html", "/<\x7f>"])
def test_encode_path_is_undone_by_decode_path(path: str) -> None:
    encoded = encode_path(path)
    assert encoded.isascii() and " " not in encoded and "?" not in encoded
    assert decode_path(encoded) == path


HOSTS = [
    ("Example.ORG", "example.org"),
    ("a.b.", "a.b"),
    ("a.b.:80", "a.b"),
    ("a:80", "a"),
    ("a:", "a"),
    ("a:8080", "a:8080"),
    ("a:65535", "a:65535"),
    ("1.2.3.4:81", "1.2.3.4:81"),
    ("a-", "a-"),
    ("[::ffff:7f00:1]:80", "[::ffff:127.0.0.1]"),
    ("[0:0:0:0:0:0:102:304]", "[::1.2.3.4]"),
    ("[0:0:0:0:0:0:0:2]:8443", "[::2]:8443"),
    ("[2001:DB8:0:0:1:0:0:1]:", "[2001:db8::1:0:0:1]"),
]

BAD_HOSTS = [
    "", ".", "a..b", ".a", "-a", "a.-b", "a_b", "a%62", "u@h", "a,b", "a/b", "a b", "\xe4",
    "12345", "1.2.3", "a.1", "1.2.3.4.5", ":80", "a:0", "a:080", "a:65536", "a:x", "a:-1", "a:1:2",
    "::1", "[]", "[::1", "[::1]x", "[::1%eth0]", "[::1%25eth0]", "[1::2::3]", "[::1]:99999",
    "a" * 1024,
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), HOSTS)
def test_hosts(text: str, expected: str) -> None:
    assert normalise_host(text, 80, True, True) == expected


@pytest.mark.parametrize("text", BAD_HOSTS)
def test_bad_hosts(text: str) -> None:
    with pytest.raises(BadRequest):
        normalise_host(text, 80, True, True)


def test_longest_host() -> None:
    assert normalise_host("a" * 1023, 80, True, True) == "a" * 1023


@pytest.mark.parametrize(
    ("text", "strict", "normalize", "expected"),
    [
        ("A_b:80", False, False, "a_b:80"),
        ("A_b:80", False, True, "a_b"),
        ("0x7F:81", False, True, "0x7f:81"),
        ("A.:80", True, False, "a.:80"),
        ("A.", True, False, "a"),
    ],
)
def test_host_options(text: str, strict: bool, normalize: bool, expected: str) -> None:
    assert normalise_host(text, 80, strict, normalize) == expected
