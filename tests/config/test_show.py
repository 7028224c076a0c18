"""forkd/config/show.py: what is printed parses again to the same tree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors_loader import load, vector_id

from forkd.config.diagnostics import ConfigRefused
from forkd.config.evaluate import evaluate_file
from forkd.config.show import show
from forkd.config.tree import Block, Evaluated

HOST = '$HTTP["host"] == "h"'


def tree(evaluated: Evaluated) -> list[tuple[object, ...]]:
    """Everything about the blocks but places."""
    return [_without_places(block) for block in evaluated.blocks]


def _without_places(block: Block) -> tuple[object, ...]:
    condition = block.condition
    return (
        block.index,
        block.parent,
        block.kind,
        condition and (condition.field, condition.op, condition.value),
        block.previous,
        [(key, setting.name, setting.value) for key, setting in block.settings.items()],
    )


def read(text: str) -> Evaluated:
    return evaluate_file("-", text=text.encode("latin-1"))


def assert_same_when_read_again(evaluated: Evaluated) -> None:
    shown = show(evaluated)
    again = read(shown)
    assert tree(again) == tree(evaluated), shown
    assert show(again) == shown


@pytest.mark.parametrize("vector", load("config_parse"), ids=vector_id)
def test_vectors_config_parse_printed(
    vector: dict[str, Any],
    evaluate: Callable[..., Evaluated],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    vector = json.loads(json.dumps(vector).replace("@DIR@", str(tmp_path)))
    for name, value in vector.get("env", {}).items():
        monkeypatch.setenv(name, value)
    try:
        evaluated = evaluate(vector["config"], vector.get("files"))
    except ConfigRefused as refused:
        assert not vector.get("forkd", vector["expect"])["ok"] or vector.get("quirk"), str(refused)
        return
    assert_same_when_read_again(evaluated)


@pytest.mark.parametrize(
    "config",
    [
        # Reopened, so that the order of numbers is not the order of nesting.
        f'{HOST} {{ a.b=1 }} $HTTP["url"] == "u" {{}} {HOST} {{ $HTTP["url"] == "v" {{}} }}',
        # A chain that goes on behind another block.
        f'{HOST} {{ a.b=1 }} $HTTP["url"] == "u" {{}} {HOST} {{}} else {{ a.b=2 }}',
        # A block inside a final else, reached again later.
        f'{HOST} {{}} else {{}} $HTTP["url"] == "u" {{}} {HOST} {{}} else {{ {HOST} {{ a.b=1 }} }}',
        # A block that became a branch, and one inside a chain inside a chain.
        f'{HOST} {{}} $HTTP["url"] == "u" {{}} {HOST} {{}} else $HTTP["url"] == "u" {{ a.b=1 }}',
        f"{HOST} {{ {HOST} {{}} else {{ a.b=1 }} }} else {{ {HOST} {{}} else {{ a.b=2 }} }}",
        "global { a.b=1 } A.c=2 x=3",
        'a.b = "quote \\" backslash quote \\\\" newline \n # no comment \xff"',
        'a.b = ("k" => (), "l" => ((), ("m", "n" => 1)), "" => "")',
        f'a.b = ("{"x" * 90}", "k" => "{"y" * 90}", "l" => (("a", "b" => ("{"z" * 90}"))))',
        f'{HOST} {{ a.b = ("{"x" * 40}", "k" => ("{"y" * 40}", ())) }}',
        '$REQUEST_HEADER["a\\"b"] =~ "\\"" {}',
        "",
    ],
)
def test_same_tree(config: str) -> None:
    assert_same_when_read_again(read(config))


def test_it_reads_well() -> None:
    config = (
        'server.modules += ("mod_a")\nserver.modules += ("mod_b")\n'
        f'{HOST} {{ x = "1" $HTTP["url"] =^ "/" {{ a.b = x }} }} else {{ a.b = 2 }}\n'
        'wstunnel.server = ("/ws/" => (("socket" => "/run/forkd/echo.sock", '
        '"bin-path" => "/usr/local/bin/echo", "max-procs" => 1)))'
    )
    assert show(read(config)) == (
        'server.modules = ("mod_a", "mod_b")\n'
        "wstunnel.server = (\n"
        '  "/ws/" => (\n'
        "    (\n"
        '      "socket" => "/run/forkd/echo.sock",\n'
        '      "bin-path" => "/usr/local/bin/echo",\n'
        '      "max-procs" => 1,\n'
        "    ),\n"
        "  ),\n"
        ")\n"
        '$HTTP["host"] == "h" {\n'
        '  var.x = "1"\n'
        '  $HTTP["url"] =^ "/" {\n'
        '    a.b = "1"\n'
        "  }\n"
        "} else {\n"
        "  a.b = 2\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ("\na.b = env.FORKD_TEST", "2:1"),
        ("a.b = (1, (env.FORKD_TEST => 1))", "1:1"),
        ('$HTTP["url"] == env.FORKD_TEST {}', "1:1"),
    ],
)
def test_what_no_string_can_say_is_refused(
    config: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORKD_TEST", "C:\\")
    with pytest.raises(ConfigRefused, match=f"^-:{place}: error: cannot be printed"):
        show(read(config))


# Random trees, as text with every way to open and reopen blocks

TEXTS = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=12).filter(
    lambda text: not text.endswith("\\")
)


def literal(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


VALUES = st.recursive(
    st.integers(0, 2**31 - 1).map(str) | TEXTS.map(literal),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: f"({', '.join(parts)})")
    | st.dictionaries(TEXTS.map(str.lower), inner, max_size=4).map(
        lambda parts: "(" + ", ".join(f"{literal(k)} => {v}" for k, v in parts.items()) + ")"
    ),
    max_leaves=6,
)
ASSIGNMENTS = st.tuples(st.sampled_from(["a.b", "c.d", "x"]), VALUES).map(
    lambda pair: f"{pair[0]} := {pair[1]}"
)
CONDITIONS = st.sampled_from([f'$HTTP["host"] == "{letter}"' for letter in "pqr"])


def chains(bodies: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    branch = st.tuples(CONDITIONS, bodies).map(lambda pair: f"{pair[0]} {{\n{pair[1]}\n}}")
    final = st.one_of(st.just(""), bodies.map(lambda body: f"else {{\n{body}\n}}"))
    return st.tuples(st.lists(branch, min_size=1, max_size=3), final).map(
        lambda pair: " else ".join(pair[0]) + "\n" + pair[1]
    )


BODIES = st.recursive(
    ASSIGNMENTS,
    lambda inner: st.lists(ASSIGNMENTS | chains(inner), max_size=4).map("\n".join),
    max_leaves=12,
)


@given(BODIES)
@settings(max_examples=150, deadline=None)
def test_any_tree(config: str) -> None:
    try:
        evaluated = read(config)
    except ConfigRefused as refused:
        assert {d.text[:11] for d in refused.diagnostics if d.severity == "error"} == {
            "unreachable"
        }
        return
    assert_same_when_read_again(evaluated)
