"""forkd/config/patterns.py: the dialect of PCRE on bytes."""

from __future__ import annotations

import pickle

import pytest

from forkd.config.patterns import Pattern, PatternError
from forkd.errors import PatternTooSlow


@pytest.mark.parametrize(
    ("pattern", "text", "groups"),
    [
        (r"^/(\w+)/", "/ws/", ("/ws/", "ws")),
        ("(a)|(b)", "b", ("b", "", "b")),
        ("", "anything", ("",)),
        (r"\Qa.b\E", "a.b", ("a.b",)),
        (r"\Qa.b\E", "axb", None),
        (r"\Q(", "(", ("(",)),
        (r"\x{41}\x42", "AB", ("AB",)),
        (r"\x{e4}", "ä", ("ä",)),
        ("[\\x{e4}-\\x{f6}]", "å", ("å",)),
        (r"(?<n>a)\k<n>\k{n}\k'n'", "aaaa", ("aaaa", "a")),
        ("(?i)^/A", "/a", ("/a",)),
        ("a(?i)b", "AB", None),
        ("a(?i)b", "aB", ("aB",)),
        ("(?i)Ä", "ä", None),
        ("a$", "a\n", ("a",)),
        (r"a\Z", "a\n", ("a",)),
        (r"a\z", "a\n", None),
        (r"\e\H", "\x1bx", ("\x1bx",)),
        ("[[a]", "[", ("[",)),
        ("[]a]+", "]a", ("]a",)),
        ("[^]a]", "]", None),
        ("[a&&b]+", "a&b", ("a&b",)),
        ("[a||b~~c]+", "a|~c", ("a|~c",)),
        ("[[:digit:]x]+", "1x", ("1x",)),
        (r"[\Q]\E]", "]", ("]",)),
        (r"[\]\e]+", "]\x1b", ("]\x1b",)),
        (r"a++b", "aab", ("aab",)),
        ("a{2}b{1,}", "aabb", ("aabb",)),
        ("a{000002}", "aaa", ("aa",)),
        (r"(?|x(a)|y(b))", "yb", ("yb", "b")),
    ],
)
def test_search(pattern: str, text: str, groups: tuple[str, ...] | None) -> None:
    assert Pattern(pattern).search(text) == groups
    assert Pattern(pattern).matches(text) is (groups is not None)


@pytest.mark.parametrize(
    ("pattern", "offset"),
    [
        ("(a", 2),
        ("a)", 1),
        ("*a", 0),
        ("[a", 2),
        (r"\Qab\E*(", 8),
        (r"\x{4141}", 0),
        ("ab[z-a]", 6),
        ("ab{65536}", 2),
        ("(a{2,99999999})", 2),
        ("a{" + "9" * 5000 + "}", 1),
    ],
)
def test_bad_expression(pattern: str, offset: int) -> None:
    with pytest.raises(PatternError, match="bad regular expression: .+ at offset") as caught:
        Pattern(pattern)
    assert caught.value.offset == offset


@pytest.mark.parametrize("pattern", ["(a|aa)+$", "(a*)*b", "(x+x+)+y", "^(([a-z])+.)+[A-Z]$"])
def test_a_client_cannot_hang_a_worker(pattern: str) -> None:
    text = "x" * 60 if "x" in pattern else "a" * 60
    try:
        assert not Pattern(pattern).matches(f"{text}!")
    except PatternTooSlow as error:
        assert pattern in str(error)


def test_backtracking_is_cut() -> None:
    with pytest.raises(PatternTooSlow, match="no answer within"):
        Pattern("(a|aa)+$").search("a" * 60 + "!")


def test_patterns_are_values() -> None:
    pattern = Pattern("^a(b)")
    assert pickle.loads(pickle.dumps(pattern)) == pattern == Pattern("^a(b)")
    assert hash(pattern) == hash(Pattern("^a(b)"))
    assert pattern != Pattern("^a")
    assert pattern.groups == 1
