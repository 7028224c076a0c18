"""forkd/config/parser.py and lost_lines.py: grammar, recovery, missing commas, lost line breaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.config.diagnostics import Findings
from forkd.config.parser import MAX_NESTING, parse
from forkd.config.syntax import Assignment, Chain, Global, Include, ListExpression, Statement

Found = Callable[..., list[str]]


def parsed(text: str) -> tuple[tuple[Statement, ...], list[str]]:
    """The statements of *text* and what was said, as ``LINE:COL severity: text``."""
    found = Findings()
    statements = parse(text, "f", found)
    return statements, [f"{d.line}:{d.column} {d.severity}: {d.text}" for d in found.diagnostics]


def shape(statements: tuple[Statement, ...]) -> list[object]:
    """Names of assignments, and the shapes of blocks as lists."""
    result: list[object] = []
    for statement in statements:
        match statement:
            case Assignment():
                result.append(statement.name if statement.value else f"{statement.name}?")
            case Chain():
                result.append([shape(branch.body) for branch in statement.branches])
            case Global():
                result.append(["global", *shape(statement.body)])
            case Include():
                result.append("include_shell" if statement.shell else "include")
            case _:
                result.append("?")
    return result


COND = '$HTTP["host"] == "h"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a.b=1 c.d="x" e.f=("y") g.h=("k"=>"v")', ["a.b", "c.d", "e.f", "g.h"]),
        ('a.b="1"c.d="2"', ["a.b", "c.d"]),
        ("a.b=1, c.d=2,,", ["a.b", "c.d"]),
        (f"{COND}{{a.b=1}}c.d=2", [[["a.b"]], "c.d"]),
        (f"{COND}{{a.b=1 c.d=2}} {COND}{{a.b=2}}", [[["a.b", "c.d"]], [["a.b"]]]),
        (f"{COND} {{a.b=1}} else {{a.b=2}}", [[["a.b"], ["a.b"]]]),
        ('include "a" include "b" c.d=2', ["include", "include", "c.d"]),
        ('include_shell "a" + x', ["include_shell"]),
        ("a.b=1 # x c.d=2", ["a.b"]),
        ("a.b\n=\n1 +\n2", ["a.b"]),
        ("a.b += (\n1\n+\n2\n,\n)", ["a.b"]),
        (f"if {COND}\n{{\na.b=1\n}}\n\nelse if {COND} {{}}\n# c\nelse\n{{}}",
         [[["a.b"], [], []]]),
        (f"{COND} {{}} elif {COND} {{}} elsif {COND} {{}} elseif {COND} {{}} elif {{}}",
         [[[], [], [], [], []]]),
        ("global\n{ a.b=1 }", [["global", "a.b"]]),
        ('$HTTP [ "host" ] == "h" {}', [[[]]]),
        ("a.b = (,1,,2,,)", ["a.b"]),
        ("a.b=x", ["a.b"]),
        ("", []),
    ],
)
def test_accepted(text: str, expected: list[object]) -> None:
    statements, said = parsed(text)
    assert (shape(statements), said) == (expected, [])


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ('a.b == "x"', "1:5", "unexpected '=='"),
        ("a.b = +1", "1:7", "no value after a.b ="),
        ("a.b = = 1", "1:7", "one '=' is enough"),
        ("5", "1:1", "a value needs a name"),
        ('"x"', "1:1", "a value needs a name"),
        ('a.b = "x"\n+ "b"', "2:1", "'+' at the end of the line before"),
        ('a.b = "x" "y"', "1:11", "joined with '+'"),
        ("{}", "1:1", "a block needs a condition"),
        ("}", "1:1", "'}' closes nothing"),
        ("else { a.b=1 }", "1:1", "'else' without a condition"),
        (f"{COND} {{}}\na.b=1\nelse {{}}", "3:1", "'else' without a condition"),
        ("global {} else {}", "1:11", "'else' without a condition"),
        (f"{COND} {{}} else {{}} else {{}}", "1:33", "after the final 'else'"),
        ('HTTP["url"] == "v" { a.b=1 }', "1:5", "begins with '$': $HTTP[...]"),
        ('$HTTP[url] == "v" {}', "1:7", "double quotes"),
        ('$HTTP["url"] = "v" {}', "1:14", "one of == != =~ !~ =^ =$"),
        ('$HTTP["url"] > "v" {}', "1:14", "one of == != =~ !~ =^ =$"),
        (f"{COND} a.b=1", "1:22", "'{' after the condition"),
        (f"{COND} {{ a.b=1", "1:29", "the '{' of line 1 is never closed"),
        ("a.b = (1,\n2", "2:2", "the '(' of line 1 is never closed"),
        ('a.b = ("k" = "v")', "1:12", "'=>'"),
        ('a.b = ("x" "y")', "1:12", "joined with '+'"),
        ('a.b = ("k" => "v" ("x"))', "1:19", "separated with ','"),
        ("a.b = (1 2)", "1:10", "',' or ')'"),
        ('a.b = ("k" =>)', "1:14", "no value after '=>'"),
        ('a.b "x"', "1:1", "'=' missing after a.b"),
        ('inlcude "x"', "1:1", "did you mean include?"),
        ("a.b = include", "1:7", "double quotes"),
        ("a.b =\nc.d = 2", "2:1", "no value after a.b ="),
        ("a.b = 2147483648", "1:7", "out of range"),
        ("a.b = 00000000000000000000000000000000009999999999", "1:7", "out of range"),
        ("include", "1:8", "no value after include"),
        ("if a.b = 1", "1:4", "after 'if'"),
        ("a.b = " + "(" * (MAX_NESTING + 1), f"1:{7 + MAX_NESTING}", "nested too deep"),
    ],
)
def test_refused(text: str, place: str, part: str) -> None:
    _, said = parsed(text)
    assert len(said) == 1
    assert said[0].startswith(f"{place} error: ")
    assert part in said[0]


def test_blocks_nested_too_deep() -> None:
    _, said = parsed(f"{COND} {{" * (MAX_NESTING + 1))
    assert any("nested too deep" in text for text in said)


def test_integers_have_leading_zeros_and_31_bits() -> None:
    statements, said = parsed("a.b = 0002147483647")
    assert said == []
    assert isinstance(statements[0], Assignment)
    assert getattr(statements[0].value, "value", None) == 2147483647


@pytest.mark.parametrize(
    ("text", "lines", "remains"),
    [
        # Every line on its own.
        ('a.b = = 1\nc.d = 2\ne.f "x"\ng.h = 3', [1, 3], ["a.b?", "c.d", "?", "g.h"]),
        # An open parenthesis ends where a line begins like a statement.
        ('a.b = ("x" "y",\n "z")\nc.d = 2\ne.f = ;', [1, 4], ["a.b?", "c.d", "e.f?"]),
        ('a.b = ("x",\nc.d = 2\ne.f = 3', [2], ["a.b?", "c.d", "e.f"]),
        # A broken condition still has its block.
        ('$HTTP["url"] = "/x" {\n a.b = = 1\n}\nc.d = ;', [1, 2, 4], [[["a.b?"]], "c.d?"]),
        ("$HTTP[\n a.b = 1\n}\nc.d = ;", [2, 4], [[[]], "a.b", "c.d?"]),
        # An error inside a block stays inside.
        (f"{COND} {{\n a.b = = 1\n c.d = 2\n}}\ne.f = 3", [2], [[["a.b?", "c.d"]], "e.f"]),
        (f"{COND} {{ a.b = = 1 }} else {{ c.d = ; }}", [1, 1], [[["a.b?"], ["c.d?"]]]),
        # A block that nobody owns is skipped whole.
        ('HTTP["url"] == "v" {\n a.b = 1\n}\nc.d = 2', [1], ["?", "c.d"]),
    ],
)
def test_independent_errors_are_all_reported(
    text: str, lines: list[int], remains: list[object]
) -> None:
    statements, said = parsed(text)
    assert [int(one.split(":")[0]) for one in said] == lines
    assert shape(statements) == remains


@pytest.mark.parametrize(
    "text",
    [
        'a.b = ("k" => "v" "l" => 1)',
        'a.b = ("k" => "v" # c\n\n "l" => 1)',
        'a.b = ("k" => ("x") "l" => 1)',
        'a.b = ("k" => 1 "l" => 1)',
        'a.b = (x "l" => 1)',
    ],
)
def test_missing_comma_before_a_key_is_a_warning(text: str) -> None:
    statements, said = parsed(text)
    assert len(said) == 1
    assert said[0].endswith(' warning: missing comma before "l"')
    assert isinstance(statements[0], Assignment)
    assert isinstance(statements[0].value, ListExpression)
    assert len(statements[0].value.elements) == 2


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.b=1 # note c.d=2 # note e.f=3", "(c.d, e.f)"),
        ("a.b=1 # c.d += 2 e.f := 3", "(c.d, e.f)"),
        ("a.b=1 # c.d=2 c.d=3", "(c.d)"),
        ("a.b=1 # a.a=1 a.b=1 a.c=1 a.d=1 a.e=1", "(a.a, a.b, a.c, a.d, ...)"),
        ('a.b=1 # $HTTP["host"] == "x" {', "($HTTP)"),
        ('a.b=1 # unbalanced " c.d=1 e.f=2', "(c.d, e.f)"),
        ('a.b = ("k" => "v", # "l" => 1\n)', '("l")'),
        ('a.b = "\n" # c.d=1 e.f=2', "(c.d, e.f)"),
    ],
)
def test_suspicious_comments(text: str, names: str) -> None:
    _, said = parsed(text)
    assert len(said) == 1
    assert "warning: line breaks seem to be lost" in said[0]
    assert said[0].endswith(names)


@pytest.mark.parametrize(
    "text",
    [
        "#c.d=2 e.f=3",
        "a.b=1\n  # c.d=2 e.f=3",
        "a.b=1 # was: c.d=2",
        "a.b=1 # c.d==2 and e.f=~3 and g.h => 4",
        'a.b=1 # "c.d=2 e.f=3"',
        'a.b=1 # "l" => 1',
        "a.b=1 # x=2 y=3",
        "a.b=1 # needs (a, b) = c; see http://x.y/z?a=b",
        'a.b="#1" # prose',
        'a.b=("k"=>"v",\n#"l"=>"w",\n"m"=>"x")',
        'a.b = ("k" => "v", # the "l"\n)',
    ],
)
def test_innocent_comments(text: str) -> None:
    assert parsed(text)[1] == []


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("a.b=(1 # c.d=2 e.f=3", True),
        ("a.b=1 # c.d=2 e.f=3\nc.d = = 1", True),
        ("a.b = = 1\na.b=1 # c.d=2 e.f=3", False),
        ("a.b = = 1\na.b=1 # c.d=2 e.f=3\nc.d = ;", True),
        ("a.b = = 1 # was c.d=2", False),
    ],
)
def test_an_error_brings_a_note_about_comments_before_it(text: str, noted: bool) -> None:
    _, said = parsed(text)
    assert not any(" warning: " in one for one in said)
    assert any(" note: line breaks seem to be lost" in one for one in said) is noted


PIECES = [
    "a.b", "x", "1", '"s"', '"', "=", ":=", "+=", "+", ",", "=>", "(", ")", "{", "}", "[", "]",
    "$HTTP", '$HTTP["url"]', "==", "!~", "if", "else", "global", "include", "\n", "# c", ";", "9a",
    "a.b = 1\n", f"{COND} {{", "} else {", "\0",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join))
@settings(max_examples=500, deadline=None)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No exception, no endless loop, and no place outside the text."""
    found = Findings()
    parse(text, "f", found)
    lines = text.split("\n")
    for said in found.diagnostics:
        assert 1 <= said.line <= len(lines)
        assert 1 <= said.column <= len(lines[said.line - 1]) + 1


LINE_PIECES = [piece for piece in PIECES if not set(piece) & set('{"\0')] + ['"s"']


@given(st.lists(st.sampled_from(LINE_PIECES), max_size=25).map(" ".join))
@settings(max_examples=300, deadline=None)
def test_a_good_line_behind_any_text_is_still_found(text: str) -> None:
    """Where no block and no string is left open."""
    statements, _ = parsed(f"{text}\nlast.one = 1\n")
    assert "last.one" in str(shape(statements))


def test_byte_order_mark_is_skipped_with_a_warning(findings: Found) -> None:
    assert findings("\xef\xbb\xbfa.b=1 c.d=;") == [
        "main.conf:1:1: warning: byte order mark skipped",
        "main.conf:1:11: error: unexpected character ';'; statements need nothing between them",
    ]
