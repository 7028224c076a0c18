"""forkd/config/substitution.py; the vectors substitution."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from fakes import make_request
from vectors_loader import accepted, load, vector_id

from forkd.address import Address
from forkd.config.conditions import Branch, ConditionSet, Surroundings, compile_condition
from forkd.config.substitution import Replacement, Rule, RuleSet, Subject
from forkd.message import ConnInfo, Request
from forkd.uri import ParseOptions


@dataclass
class Conditional:
    conditions: ConditionSet


def request_of(vector: dict[str, Any]) -> Request:
    """The request that a vector describes: its target is normalised already."""
    path, mark, query = vector["target"].partition("?")
    listener = Address("192.0.2.1", vector["port"])
    return make_request(
        path=path,
        query=query if mark else None,
        host=vector["authority"],
        connection=ConnInfo(listener, listener, listener, tls=vector["scheme"] == "https"),
    )


def conditions_of(vector: dict[str, Any]) -> ConditionSet:
    if "condition" not in vector:
        return ConditionSet()
    around = Surroundings(ParseOptions(), Address, [].append)
    regex = vector["condition"]["regex"]
    return ConditionSet([Branch(1, 0, (), compile_condition('$HTTP["host"]', "=~", regex, around))])


@pytest.mark.parametrize("vector", load("substitution"), ids=vector_id)
def test_vectors_substitution(vector: dict[str, Any]) -> None:
    try:
        rules = RuleSet((Rule.parse(vector["pattern"], vector["replacement"]),), block=1)
    except ValueError:
        assert vector.get("quirk"), "refused"
        return
    result = rules.apply(request_of(vector), Conditional(conditions_of(vector)))
    if not vector["replacement"] and result == "":
        result = None  # it ends the search, and changes nothing
    results = [expected.get("result") for expected in accepted(vector)]
    assert result in results


# Rules

PLAIN = Conditional(ConditionSet())


def test_the_first_match_wins() -> None:
    rules = RuleSet((Rule.parse("^/a", "/1"), Rule.parse("^/ab", "/2"), Rule.parse("", "/3")))
    assert rules.apply(make_request("/ab"), PLAIN) == "/1"
    assert rules.apply(make_request("/b"), PLAIN) == "/3"


def test_an_empty_replacement_stops() -> None:
    rules = RuleSet((Rule.parse("^/a", ""), Rule.parse("", "/never")))
    assert rules.apply(make_request("/a"), PLAIN) == ""


def test_an_empty_result_is_a_result() -> None:
    rules = RuleSet((Rule.parse("^/a(x)?", "$1"),))
    assert rules.apply(make_request("/a"), PLAIN) == ""


def test_no_rule_matches() -> None:
    assert RuleSet((Rule.parse("^/a", "/1"),)).apply(make_request("/b"), PLAIN) is None


def test_rules_see_the_query() -> None:
    assert RuleSet((Rule.parse(r"\?x=(.)", "/$1"),)).apply(make_request("/a?x=7"), PLAIN) == "/7"


def test_rule_sets_pickle_and_compare() -> None:
    rules = RuleSet((Rule.parse("^/(a)", "/${escape:1}${qsa}"),))
    again = pickle.loads(pickle.dumps(rules))
    assert again == rules
    assert again.apply(make_request("/a?b"), PLAIN) == "/a?b"


# Replacements


def expand(replacement: str, target: str = "/p?q=1", **changes: Any) -> str:
    request = make_request(target, **changes)
    subject = Subject(("whole", "one", "a b%2f%41"), ("cond", "c1"), request)
    return Replacement.parse(replacement).expand(subject)


@pytest.mark.parametrize(
    ("replacement", "expected"),
    [
        ("$$1 %%1 $x %x $", "$1 %1 $x %x $"),
        ("$1%1$0%0", "onec1wholecond"),
        ("$12", "one2"),
        ("${2}", "a%20b%2fA"),
        ("${escnde:2}", "a%20b%2fA"),
        ("${esc:2}", "a%20b%252f%2541"),
        ("${tolower:noesc:2}${noescape:toupper:1}", "a b%2f%41ONE"),
        ("${encb64u:1}", "b25l"),
        ("${07}[$7][%9]${19}", "[][]"),
        ("%{url.path}", "/p"),
        ("/n${qsa}", "/n?q=1"),
        ("/n?a${qsa}", "/n?a&q=1"),
        ("/n${esc:qsa}", "/n?q%3D1"),
        ("${url.query}", "q=1"),
    ],
)
def test_expansion(replacement: str, expected: str) -> None:
    assert expand(replacement) == expected


def test_base64_there_and_back() -> None:
    subject = Subject(("", "b25l", "not base64!"), (), make_request())
    assert Replacement.parse("${decb64u:1}[${decb64u:2}]").expand(subject) == "one[]"


def test_bytes_survive() -> None:
    subject = Subject(("", "ä\xff"), (), make_request())
    assert Replacement.parse("${esc:1}").expand(subject) == "%E4%FF"
    assert Replacement.parse("${noesc:toupper:1}").expand(subject) == "ä\xff"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("h:99", "h 99"), ("h", "h 8080"), ("[::1]:99", "[::1] 99"), ("", " 8080")],
)
def test_ports(host: str, expected: str) -> None:
    assert expand("${url.authority.noport} ${url.port}", host=host) == expected


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        ("/${nope}", "unknown name in ${nope}"),
        ("/${}", "unknown name in ${}"),
        ("/${1", "missing } after ${"),
        ("/%{", "missing } after %{"),
        ("/${100}", "unknown name"),
        ("/${tolower:1}", "tolower needs an encoding beside it"),
        ("/${esc:noesc:1}", "contradict each other"),
        ("/${esc:tolower:toupper:1}", "contradict each other"),
        ("/${upper:1}", "unknown modifier 'upper'"),
    ],
)
def test_bad_replacements(replacement: str, message: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        Replacement.parse(replacement)
    assert message in str(caught.value)


def test_groups_that_do_not_exist() -> None:
    replacement = Replacement.parse("$1 $2 ${3} %0 %1 %{2}")
    assert replacement.beyond(rule_groups=2, condition_groups=0) == ["${3}", "%1", "%{2}"]
    assert replacement.beyond(rule_groups=3, condition_groups=2) == []


def test_too_many_groups() -> None:
    Rule.parse("(a)" * 19, "/")
    with pytest.raises(ValueError, match="20 groups, at most 19"):
        Rule.parse("(a)" * 20, "/")
