"""forkd/config/conditions.py; the vectors config_cond."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
from fakes import make_request
from vectors_loader import load, vector_id

from forkd.address import Address, canonical, split_port
from forkd.config.conditions import (
    OTHERWISE,
    Branch,
    ConditionSet,
    Matcher,
    Surroundings,
    compile_condition,
)
from forkd.config.patterns import PatternError
from forkd.message import ConnInfo, Request
from forkd.uri import ParseOptions, normalise_host

LISTENER = Address("127.0.0.1", 8080)


def listener(text: str) -> Address:
    host, port = split_port(text)
    return Address(canonical(host) if host else "0.0.0.0", int(port or 80))


def compiled(field: str, op: str, value: str, warnings: list[str] | None = None) -> Matcher:
    warn = [].append if warnings is None else warnings.append
    return compile_condition(field, op, value, Surroundings(ParseOptions(), listener, warn))


def request_of(given: dict[str, Any]) -> Request:
    """The request that a vector describes."""
    host = given.get("host") or ""
    client = Address(given.get("remote", "127.0.0.1"), 4711)
    return make_request(
        given["target"],
        given.get("method", "GET"),
        host=normalise_host(host, 80, True, True) if host else "",
        fields=[tuple(pair) for pair in given.get("fields", []) if pair[1]],
        remote=client,
        connection=ConnInfo(client, LISTENER, LISTENER, tls=given.get("scheme") == "https"),
    )


@pytest.mark.parametrize("vector", load("config_cond"), ids=vector_id)
def test_vectors_config_cond(vector: dict[str, Any]) -> None:
    matcher = compiled(vector["field"], vector["op"], vector["value"])
    conditions = ConditionSet([Branch(1, 0, (), matcher)])
    for case in vector["cases"]:
        mask = conditions.mask(request_of(case["request"]))
        assert bool(mask & 2) is case["result"], case["request"]


# Compiling


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ('$HTTP["method"]', 'did you mean $HTTP["request-method"]?'),
        ('$HTTP["referrer"]', 'did you mean $HTTP["referer"]?'),
        ('$HTTP["URL"]', 'did you mean $HTTP["url"]?'),
        ('$PHYSICAL["path"]', "known are"),
        ('$SERVER["name"]', "unknown condition field"),
        ('$http["url"]', 'did you mean $HTTP["url"]?'),
        ('$REQUEST_HEADER[""]', "unknown condition field"),
    ],
)
def test_unknown_field(field: str, hint: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        compiled(field, "==", "x")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "value", ["10.0.0", "10.0.0.256", "10.0.0.0/x", "10.0.0.0/", "10.0.0.0/33", "::1/129", "", "h"]
)
@pytest.mark.parametrize("op", ["==", "!="])
def test_bad_address(op: str, value: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address or network"):
        compiled('$HTTP["remoteip"]', op, value)


@pytest.mark.parametrize(
    ("op", "value", "remote", "expected"),
    [
        ("==", "[2001:db8:0::1]", "2001:db8::1", True),
        ("==", "::ffff:a00:1", "::ffff:10.0.0.1", True),
        ("==", "0.0.0.0/0", "2001:db8::1", True),
        ("!=", "::/0", "10.0.0.1", False),
        ("=^", "10.", "10.0.0.1", True),
        ("=$", ".1", "10.0.0.1", True),
        ("=~", "^127", "127.0.0.1", True),
    ],
)
def test_addresses(op: str, value: str, remote: str, expected: bool) -> None:
    matcher = compiled('$HTTP["remoteip"]', op, value)
    request = request_of({"target": "/", "remote": remote})
    assert matcher.test.matches(matcher.read(request)) is expected


def test_bad_expression() -> None:
    with pytest.raises(PatternError, match="missing \\) at offset 4"):
        compiled('$HTTP["url"]', "=~", "^/(a")


def test_too_many_groups() -> None:
    with pytest.raises(ValueError, match="10 groups, at most 9"):
        compiled('$HTTP["url"]', "=~", "(a)" * 10)


@pytest.mark.parametrize(
    ("field", "op", "value", "warning"),
    [
        ('$HTTP["host"]', "==", "WWW.Example", 'read as "www.example"'),
        ('$HTTP["url"]', "=^", "/a%20b", "compared decoded"),
        ('$HTTP["url"]', "==", "/ws/?x=1", "without their query"),
    ],
)
def test_suspicious_right_sides(field: str, op: str, value: str, warning: str) -> None:
    warnings: list[str] = []
    compiled(field, op, value, warnings)
    assert len(warnings) == 1
    assert warning in warnings[0]


def test_capitals_in_a_host_are_folded() -> None:
    matcher = compiled('$HTTP["host"]', "==", "WWW.Example.ORG")
    assert matcher.test.matches("www.example.org")


@pytest.mark.parametrize(
    ("value", "host", "expected"),
    [
        ("h", "h:8080", True),
        ("h:", "h:8080", True),
        ("h:8080", "h", True),
        ("h:80", "h", True),
        ("h:80", "h:8080", False),
        ("[::1]", "[::1]:8080", True),
        ("[::1]:8080", "[::1]:9090", False),
        ("h", "h.x", False),
    ],
)
def test_ports_of_hosts(value: str, host: str, expected: bool) -> None:
    assert compiled('$HTTP["host"]', "==", value).test.matches(host) is expected
    assert compiled('$HTTP["host"]', "!=", value).test.matches(host) is not expected


def test_queries_are_normalised() -> None:
    matcher = compiled('$HTTP["querystring"]', "==", "x=%41")
    assert matcher.test.matches(matcher.read(make_request("/?x=%41")))
    assert matcher.test.matches(matcher.read(make_request("/?x=A")))


def test_host_field_is_the_normalised_host() -> None:
    matcher = compiled('$REQUEST_HEADER["hOsT"]', "==", "h:8080")
    assert matcher.test.matches(matcher.read(make_request("/", host="h:8080")))
    assert not matcher.test.matches(matcher.read(make_request("/", host="h")))


def test_listeners_are_resolved_and_compared_as_text() -> None:
    matcher = compiled('$SERVER["socket"]', "==", ":8080")
    connection = replace(make_request().connection, listener=Address("0.0.0.0", 8080))
    assert matcher.test.matches(matcher.read(make_request("/", connection=connection)))
    assert not matcher.test.matches(matcher.read(make_request()))


# Chains and nesting

A = compiled('$HTTP["host"]', "==", "a")
B = compiled('$HTTP["host"]', "==", "b")
U = compiled('$HTTP["url"]', "=^", "/u")

CHAIN = ConditionSet(
    [
        Branch(1, 0, (), A),
        Branch(2, 1, (), U),
        Branch(3, 1, (2,), OTHERWISE),
        Branch(4, 0, (1,), B),
        Branch(5, 0, (1, 4), OTHERWISE),
        Branch(6, 5, (), U),
    ]
)


@pytest.mark.parametrize(
    ("host", "target", "blocks"),
    [
        ("a", "/u", {0, 1, 2}),
        ("a", "/v", {0, 1, 3}),
        ("b", "/u", {0, 4}),
        ("c", "/u", {0, 5, 6}),
        ("c", "/v", {0, 5}),
    ],
)
def test_chains_and_nesting(host: str, target: str, blocks: set[int]) -> None:
    mask = CHAIN.mask(make_request(target, host=host))
    assert {block for block in range(7) if mask >> block & 1} == blocks


def test_no_conditions() -> None:
    assert ConditionSet().mask(make_request()) == 1


def test_condition_sets_pickle_and_compare() -> None:
    again = pickle.loads(pickle.dumps(CHAIN))
    assert again == CHAIN
    assert again.mask(make_request("/u", host="a")) == 0b111
    assert ConditionSet([Branch(1, 0, (), A)]) != ConditionSet([Branch(1, 0, (), B)])


# Captures


@pytest.mark.parametrize(
    ("op", "value", "captures"),
    [
        ("=~", "^/(u)(x)?", ("/u", "u", "")),
        ("==", "/u/v", ("/u/v",)),
        ("!=", "/w", ("/u/v",)),
        ("=^", "/u", ("/u",)),
        ("=$", "v", ("v",)),
        ("!~", "(w)", ()),
    ],
)
def test_captures(op: str, value: str, captures: tuple[str, ...]) -> None:
    conditions = ConditionSet([Branch(1, 0, (), compiled('$HTTP["url"]', op, value))])
    assert conditions.captures(1, make_request("/u/v")) == captures


def test_no_captures_without_a_condition() -> None:
    assert CHAIN.captures(0, make_request()) == ()
    assert CHAIN.captures(3, make_request(host="a")) == ()
