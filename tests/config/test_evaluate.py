"""forkd/config/evaluate.py, scopes.py, join.py and include.py; the vectors config_parse."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from vectors_loader import load, vector_id

from forkd.address import Address
from forkd.config import include
from forkd.config.conditions import Surroundings, compile_condition
from forkd.config.diagnostics import ConfigRefused, render
from forkd.config.evaluate import MAX_INCLUDES, evaluate_file
from forkd.config.tree import Evaluated
from forkd.errors import ConfigError
from forkd.uri import ParseOptions

Evaluate = Callable[..., Evaluated]
Found = Callable[..., list[str]]
Plain = Callable[[Evaluated], dict[str, Any]]

HOST = '$HTTP["host"] == "h"'

# Vectors


@pytest.mark.parametrize("vector", load("config_parse"), ids=vector_id)
def test_vectors_config_parse(
    vector: dict[str, Any],
    tmp_path: Path,
    write: Callable[..., Path],
    plain: Plain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filled = json.loads(
        json.dumps(vector).replace("@DIR@", str(tmp_path)).replace("@PID@", str(os.getpid()))
    )
    for name, value in filled.get("env", {}).items():
        monkeypatch.setenv(name, value)
    main = write(filled["config"], filled.get("files"))
    expected = filled.get("forkd", filled["expect"])
    try:
        evaluated = checked(str(main))
    except ConfigError as error:
        assert not expected["ok"] or filled.get("quirk"), str(error)
        if "line breaks seem to be lost" in expected.get("note", ""):
            assert "line breaks seem to be lost" in str(error)
        return
    assert expected["ok"]
    tree = plain(evaluated)
    assert tree["global"] == expected["global"]
    assert [*map(simplified, tree.get("blocks", []))] == [
        *map(simplified, expected.get("blocks", []))
    ]
    assert expected.get("warning", "") in render(evaluated.diagnostics)


def checked(path: str) -> Evaluated:
    """The tree, refused like a server would refuse it when a condition makes no sense."""
    evaluated = evaluate_file(path)
    around = Surroundings(ParseOptions(), lambda text: Address(text), lambda warning: None)
    for block in evaluated.blocks:
        if condition := block.condition:
            try:
                compile_condition(condition.field, condition.op, condition.value, around)
            except ValueError as error:
                raise ConfigError(str(error)) from None
    return evaluated


_PLAIN_EXPRESSION = re.compile(r"(\^?)((?:[^\\^$.|?*+()\[\]{}]|\\\.)*)(\$?)")


def simplified(block: dict[str, Any]) -> dict[str, Any]:
    """*block* with a plain regular expression as the comparison that it amounts to.

    lighttpd shows it so; here it stays as written (config.md 8.2), which other tests see to.
    """
    match = _PLAIN_EXPRESSION.fullmatch(block.get("value", ""))
    if block.get("op") != "=~" or match is None:
        return block
    start, text, end = match.groups()
    operator = {("^", "$"): "==", ("^", ""): "=^", ("", "$"): "=$"}.get((start, end))
    if operator is None:
        return block
    return {**block, "op": operator, "value": text.replace("\\.", ".")}


# Values and operators


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('1 + 2 + "b"', "3b"),
        ('"a" + 1 + "b"', "a1b"),
        ('("x") + ("y")', ["x", "y"]),
        ('("k" => 1) + ("l" => 2)', {"k": 1, "l": 2}),
        ('("k" => 1) + ("x")', {"#mixed": [["k", 1], [None, "x"]]}),
        ('("k" => 1) + ("K" => 1)', {"k": 1}),
        ('("x", "x") + ("x")', ["x", "x", "x"]),
        ('(1 => "v", "a" + 1 => "w")', {"1": "v", "a1": "w"}),
        ('("" => "")', {"": ""}),
        ('((("a")), ())', [[["a"]], []]),
        ('"" + 0', "0"),
    ],
)
def test_expressions(expression: str, value: object, evaluate: Evaluate, plain: Plain) -> None:
    assert plain(evaluate(f"a.b = {expression}"))["global"] == {"a.b": value}


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ('a.b = ("x") + "y"', "1:15: error: data type mismatch"),
        ('a.b = 1 + ("y")', "1:11: error: data type mismatch"),
        ('a.b = ("k" => 1) + ("k" => 2)', '1:20: error: duplicate key "k"'),
        ('a.b = ("k" => 1, "K" => 1)', '1:18: error: duplicate key "K"'),
        ("a.b = 2147483647 + 1", "1:20: error: integer out of range"),
        ('a.b = (("x") => 1)', "1:8: error: the key of an element must be a string"),
        ('a.b = "x"\na.b = "x"', "2:1: error: duplicate: a.b is already set in global"),
        ("a.b := 1\nA.B = 2", "2:1: error: duplicate: a.b is already set in global"),
        ('a.b = "x"\na.b += ("y")', "2:8: error: data type mismatch"),
        ("x = 1\nX = 2", "2:1: error: duplicate: var.x"),
        ("var.PID = 1", "1:1: error: var.PID is predefined"),
        ("cwd += 1", "1:1: error: var.cwd is predefined"),
        (f"{HOST} {{ pid := 1 }}", "1:24: error: var.pid is predefined"),
        ('env.HOME := "x"', "1:1: error: the environment cannot be changed"),
        ("a.b = env.NOT_SET_ANYWHERE", "1:7: error: undefined environment variable"),
        ("a.b = c.d", "1:7: error: undefined variable: c.d"),
        ("a.b = yes", '1:7: error: undefined variable: yes; as a text it stands in double quotes'),
        ("basedir = 1 a.b = basdir", "1:19: error: undefined variable: basdir; did you mean base"),
        ("server.name = 1 a.b = Server.Nam", "undefined variable: Server.Nam; did you mean serve"),
    ],
)
def test_refused(config: str, part: str, findings: Found) -> None:
    said = findings(config)
    assert len(said) == 1
    assert part in said[0]


def test_equal_pair_is_kept_once_with_a_note(findings: Found) -> None:
    assert findings('a.b = ("k" => 1)\na.b += ("k" => 1)') == [
        'main.conf:2:8: note: key "k" is there already, with the same value'
    ]


def test_operators_set_replace_and_append(evaluate: Evaluate, plain: Plain) -> None:
    config = """
        a.b = 1     a.b := "x"  a.b += 2
        c.d += ("x")
        e.f = ("x")
        $HTTP["host"] == "h" { e.f += ("y") e.f += ("z") c.d := 5 }
    """
    assert plain(evaluate(config)) == {
        "global": {"a.b": "x2", "c.d": ["x"], "e.f": ["x"]},
        "blocks": [
            {"id": 1, "parent": 0, "kind": "if", "field": '$HTTP["host"]', "op": "==",
             "value": "h", "values": {"e.f": ["x", "y", "z"], "c.d": 5}},
        ],
    }


def test_append_takes_the_nearest_enclosing_value(evaluate: Evaluate, plain: Plain) -> None:
    config = f'a.b = "1"\n{HOST} {{ a.b = "2" $HTTP["url"] == "u" {{ a.b += "3" }} }}'
    assert plain(evaluate(config))["blocks"][1]["values"] == {"a.b": "23"}


def test_settings_know_their_place_and_their_elements_too(evaluate: Evaluate) -> None:
    setting = evaluate('A.b = ("x",\n  "k" => 1)\n  a.B += ("y")').blocks[0].settings["a.b"]
    assert setting.name == "A.b"
    assert (setting.place.file, setting.place.line, setting.place.column) == ("main.conf", 3, 3)
    places = [(place.line, place.column) for place in setting.value.places]  # type: ignore[union-attr]
    assert places == [(1, 8), (2, 3), (3, 11)]


# Variables


def test_variables(
    evaluate: Evaluate, plain: Plain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORKD_TEST", "caf\xe9")
    monkeypatch.setenv("FORKD_EMPTY", "")
    config = """
        x = "1"  var.y.z = x + "2"  x := "9"
        a.b = (X, var.x, var.Y.Z, env.FORKD_TEST, env.FORKD_EMPTY)
        c.d = a.b + (var.CWD)
        e.f = var.PID
    """
    assert plain(evaluate(config))["global"] == {
        "var.x": "9",
        "var.y.z": "12",
        "a.b": ["9", "9", "12", "caf\xc3\xa9", ""],
        "c.d": ["9", "9", "12", "caf\xc3\xa9", "", str(tmp_path)],
        "e.f": os.getpid(),
    }


@pytest.mark.parametrize(
    "config",
    [
        f"{HOST} {{ x = 1 }} a.b = x",
        f'{HOST} {{ x = 1 }} $HTTP["host"] == "i" {{ a.b = x }}',
        f"{HOST} {{ x = 1 }} else {{ a.b = x }}",
        f"{HOST} {{ x = 1 global {{ a.b = x }} }}",
        "a.b = x x = 1",
    ],
)
def test_what_a_block_does_not_see(config: str, findings: Found) -> None:
    (said,) = findings(config)
    assert "undefined variable: x" in said


def test_inner_value_hides_the_outer_one(evaluate: Evaluate, plain: Plain) -> None:
    tree = plain(evaluate(f'x = "1" {HOST} {{ x = x + "2" a.b = x }} c.d = x'))
    assert tree["global"] == {"var.x": "1", "c.d": "1"}
    assert tree["blocks"][0]["values"] == {"var.x": "12", "a.b": "12"}


# Errors bring no errors


@pytest.mark.parametrize(
    ("config", "lines"),
    [
        ("x = = 1\na.b = x\nx += 2\nc.d = x\ne.f = undefined", [1, 5]),
        ("x = undefined\na.b = x\nc.d = a.b", [1]),
        ("x := ;\nx = 1\na.b = x\na.b = 2", [1, 4]),
        ('include "missing.conf"\na.b = from_there\nc.d = 1\nc.d = 2', [1, 4]),
        ('inlcude "x"\na.b = from_there', [1]),
        (f"{HOST} {{ a.b = 1\n a.b = 2 }}\n{HOST} {{ a.b = 3 }}", [2, 3]),
        ('$HTTP["host"] == 1 {\n a.b = undefined\n} else {\n a.b = 1 }', [1, 2]),
        ('$HTTP["host"] =\n{\n a.b = undefined\n}', [1, 3]),
        ("global {\n global { }\n a.b = undefined\n}", [2, 3]),
    ],
)
def test_independent_errors(config: str, lines: list[int], findings: Found) -> None:
    said = [one for one in findings(config) if ": error: " in one]
    assert [int(one.split(":")[1]) for one in said] == lines


# Blocks


def branches(evaluated: Evaluated) -> list[tuple[int | None, str, tuple[int, ...]]]:
    """(parent, value of the condition or "else", earlier branches) of each block but the first."""
    return [
        (block.parent, block.condition.value if block.condition else "else", block.previous)
        for block in evaluated.blocks[1:]
    ]


def test_blocks_are_numbered_depth_first_and_chains_remember(evaluate: Evaluate) -> None:
    config = """
        $HTTP["host"] == "a" { $HTTP["url"] == "1" { } else { } }
        else $HTTP["host"] == "b" { $HTTP["url"] == "1" { } }
        else { $HTTP["url"] == "1" { } }
        $HTTP["host"] == "c" { }
    """
    assert branches(evaluate(config)) == [
        (0, "a", ()),
        (1, "1", ()),
        (1, "else", (2,)),
        (0, "b", (1,)),
        (4, "1", ()),
        (0, "else", (1, 4)),
        (6, "1", ()),
        (0, "c", ()),
    ]


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (f"{HOST} {{ a.b=1 }} {HOST} {{ c.d=2 }}", 1),
        (f'{HOST} {{ a.b=1 }} $HTTP["host"] == "H" {{ c.d=2 }}', 2),
        (f'{HOST} {{ a.b=1 }} $HTTP["host"] =^ "h" {{ c.d=2 }}', 2),
        ('$HTTP["remoteip"] == "::1" {} $HTTP["remote-ip"] == "::1" {}', 2),
        ('$REQUEST_HEADER["x-a"] == "v" {} $REQUEST_HEADER["X-A"] == "v" {}', 1),
        (f"{HOST} {{ {HOST} {{}} }}", 2),
        (f"{HOST} {{}} else {{ a.b=1 }} {HOST} {{}} else {{ c.d=1 }}", 2),
        (f'{HOST} {{}} else {{}} $HTTP["host"] == "i" {{}} else {{}}', 4),
        (f'x = "h" {HOST} {{}} $HTTP["host"] == x {{}}', 1),
    ],
)
def test_equal_conditions_are_one_block(config: str, count: int, evaluate: Evaluate) -> None:
    assert len(evaluate(config).blocks) - 1 == count


def test_a_block_keeps_its_first_position_when_it_is_reopened(evaluate: Evaluate) -> None:
    config = f'{HOST} {{ a.b=1 }} $HTTP["url"] == "u" {{}} {HOST} {{ $HTTP["url"] == "u" {{}} }}'
    assert branches(evaluate(config)) == [(0, "h", ()), (0, "u", ()), (1, "u", ())]


def test_reopening_an_else_branch_is_allowed_with_a_warning(
    evaluate: Evaluate, plain: Plain
) -> None:
    config = f'{HOST} {{}} else $HTTP["url"] == "u" {{ a.b=1 }}\n$HTTP["url"] == "u" {{ c.d=2 }}'
    evaluated = evaluate(config)
    assert plain(evaluated)["blocks"][1]["values"] == {"a.b": 1, "c.d": 2}
    assert evaluated.blocks[2].previous == (1,)
    (said,) = evaluated.diagnostics
    assert (said.severity, said.line) == ("warning", 2)
    assert "main.conf:1, which is an 'else' branch" in said.text


def test_an_earlier_block_may_become_a_branch(evaluate: Evaluate) -> None:
    config = f'{HOST} {{}} $HTTP["url"] == "u" {{}}\n{HOST} {{}} else $HTTP["url"] == "u" {{}}'
    evaluated = evaluate(config)
    assert branches(evaluated) == [(0, "h", ()), (0, "u", (1,))]
    assert [said.severity for said in evaluated.diagnostics] == ["warning"]


@pytest.mark.parametrize(
    "config",
    [
        f"{HOST} {{}} else {HOST} {{}}",
        f'{HOST} {{}} else $HTTP["url"] == "u" {{}} else {HOST} {{}}',
        f'$HTTP["url"] == "u" {{}} {HOST} {{}} else $HTTP["url"] == "u" {{}}',
    ],
)
def test_unreachable_branches(config: str, findings: Found) -> None:
    (said,) = findings(config)
    assert "unreachable" in said


def test_conditions_keep_what_is_written(evaluate: Evaluate) -> None:
    config = 'x = "/a" $HTTP [ "url" ] =~ x + 1 + "$" { } $REQUEST_HEADER["a\\"b"] != "" { }'
    first, second = evaluate(config).blocks[1:]
    assert first.condition is not None
    assert second.condition is not None
    assert (first.condition.field, first.condition.op, first.condition.value) == (
        '$HTTP["url"]', "=~", "/a1$",
    )
    assert second.condition.field == '$REQUEST_HEADER["a\\"b"]'
    assert first.condition.place == first.place


def test_global_block_inside_a_condition(evaluate: Evaluate, plain: Plain) -> None:
    tree = plain(evaluate(f"x = 1 {HOST} {{ x = 2 global {{ a.b = x }} c.d = x }}"))
    assert tree["global"] == {"var.x": 1, "a.b": 1}
    assert tree["blocks"][0]["values"] == {"var.x": 2, "c.d": 2}


def test_no_condition_gets_into_a_global_block_by_an_include(findings: Found) -> None:
    said = findings('global { include "c.conf" }', {"c.conf": f"{HOST} {{ }}"})
    assert said == [
        "c.conf:1:1: error: a global { ... } block may not hold other blocks",
        'main.conf:1:10: note: "c.conf" is included here',
    ]


# Includes

FOLDER = {
    "d/10-a.conf": "x1.y = 1",
    "d/20-b.conf": "x2.y = 2",
    "d/30-c.txt": "x3.y = 3",
    "d/.hidden.conf": "x4.y = 4",
    "top.conf": 'include "d/10-a.conf"',
    "open.conf": f"{HOST} {{ a.b = 1",
}


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ('include "d/10-a.conf"', ["x1.y"]),
        ('include "d/*.conf"', ["x1.y", "x2.y"]),
        ('include "d/?0-[ac].*"', ["x1.y", "x3.y"]),
        ('include "{d/1*,d/3*}"', ["x1.y", "x3.y"]),
        ('include "d/{30-c.txt,{20-b,10-a}.conf}"', ["x3.y", "x2.y", "x1.y"]),
        ('include "d/*.none"', []),
        ('include "none/{a,b}"', []),
        ('include "d/{10-a.conf"', []),
        ('include "{d/10-a.conf}"', ["x1.y"]),
        ('n = "10" include "d/" + n + "-a.conf"', ["var.n", "x1.y"]),
        ("include var.CWD + \"/d/10-a.conf\"", ["x1.y"]),
        ('include "top.conf"', ["x1.y"]),
        ('include_shell "cat d/10-a.conf; pwd >&2"', ["x1.y"]),
        ('include_shell "true"', []),
        ('include_shell "echo a.b=$FORKD_TEST"', ["a.b"]),
    ],
)
def test_includes(
    config: str, names: list[str], evaluate: Evaluate, plain: Plain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORKD_TEST", "1")
    assert list(plain(evaluate(config, FOLDER))["global"]) == names


def test_includes_start_at_the_folder_of_the_main_file(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = write('include "d/*.conf" include_shell "cat top.conf"', {**FOLDER, "else/x": ""})
    monkeypatch.chdir(main.parent / "else")
    with pytest.raises(ConfigRefused) as refused:
        evaluate_file("../main.conf")
    assert [(d.file, d.severity) for d in refused.value.diagnostics] == [
        ("../d/10-a.conf", "error"),
        ("cat top.conf", "note"),
        ("../main.conf", "note"),
    ]


def test_glob_characters_in_the_name_of_the_folder_mean_nothing(
    write: Callable[..., Path],
) -> None:
    main = write("", {"[x]/main.conf": 'include "*.inc"', "[x]/a.inc": "a.b = 1"}).parent
    assert "a.b" in evaluate_file(str(main / "[x]" / "main.conf")).blocks[0].settings


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ('include "missing.conf"', "1:9: error: cannot read missing.conf: No such file"),
        ("include 5", "1:9: error: cannot read 5: No such file"),
        ('include "d"', "1:9: error: cannot read d: Is a directory"),
        ('include ("d")', "1:9: error: what to include must be a string"),
        ('include_shell "echo a.b=1; exit 3"', '1:15: error: command "echo a.b=1; exit 3" exited'),
        ('include_shell "kill -9 $$"', "was ended by signal 9"),
    ],
)
def test_includes_that_fail(config: str, part: str, findings: Found) -> None:
    (said,) = findings(config, FOLDER)
    assert part in said


def test_errors_in_an_include_name_both_places(findings: Found) -> None:
    assert findings('a.b = 1\n include "i.conf"', {"i.conf": '\ninclude "j.conf"',
                                                   "j.conf": "a.b = 2"}) == [
        (
            "j.conf:1:1: error: duplicate: a.b is already set in global (main.conf:1); "
            "':=' replaces a value"
        ),
        'i.conf:2:1: note: "j.conf" is included here',
        'main.conf:2:2: note: "i.conf" is included here',
    ]


def test_a_block_must_end_in_the_file_where_it_begins(findings: Found) -> None:
    said = findings('include "open.conf"\n}', FOLDER)
    assert [one.split(": ")[0] for one in said if ": error: " in one] == [
        "main.conf:2:1", "open.conf:1:31",
    ]


@pytest.mark.parametrize("loop", ['include "loop.conf"\n' * 2, 'include "l*.conf"\n' * 3])
def test_a_file_that_includes_itself(loop: str, findings: Found) -> None:
    said = findings('include "loop.conf"', {"loop.conf": f"x += 1\n{loop}"})
    errors = [one for one in said if ": error: " in one]
    assert errors == [
        f"loop.conf:2:9: error: include nesting too deep: over {MAX_INCLUDES} levels"
    ]


def test_a_file_that_includes_itself_inside_blocks(findings: Found) -> None:
    loop = f'{HOST} {{\n' * 3 + 'include "loop.conf"\n' + "}\n" * 3
    said = findings(loop, {"loop.conf": loop})
    errors = [one for one in said if ": error: " in one]
    assert errors == ["loop.conf:3:1: error: blocks are nested too deep"]


def test_as_many_levels_as_are_allowed(evaluate: Evaluate) -> None:
    files = {f"{n}.conf": f'include "{n + 1}.conf"' for n in range(1, MAX_INCLUDES)}
    evaluate('include "1.conf"', {**files, f"{MAX_INCLUDES}.conf": "a.b = 1"})


def test_no_command_runs_for_a_configuration_with_errors(
    findings: Found, tmp_path: Path
) -> None:
    said = findings('a.b = ;\ninclude_shell "touch ran"\nc.d = from_the_command')
    assert len(said) == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["sleep 1000", "sleep 1000 & wait", "sleep 1000 &"])
def test_a_command_has_a_deadline(
    command: str, findings: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(include, "COMMAND_TIMEOUT", 0.3)
    # Its output ends only when the last process that holds the pipe is gone.
    (said,) = findings(f'include_shell "{command}"')
    assert "did not end within 0.3 s" in said


def test_who_is_ended_while_a_command_runs_ends_at_once(tmp_path: Path) -> None:
    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit):
            include.run_command(f"sleep 0.2; kill -TERM {os.getpid()}; sleep 60", str(tmp_path))
    finally:
        signal.signal(signal.SIGTERM, before)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(include.COMMAND_TIMEOUT / 2)
            assert not thread.is_alive()


@pytest.mark.parametrize("config", ['include "big.conf"', 'include_shell "cat big.conf big.conf"'])
def test_too_large(
    config: str, findings: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(include, "MAX_SIZE", 100)
    (said,) = findings(config, {"big.conf": "#" * 101})
    assert "is larger than" in said


# The main file, standard input, overrides


def test_the_main_file_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.conf", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigRefused) as refused:
            evaluate_file(str(path))
        assert str(refused.value).startswith(f"{path}: error: cannot read {path}: {reason}")


def test_standard_input(evaluate: Evaluate, plain: Plain) -> None:
    assert plain(evaluate("", text=b'a.b = "caf\xe9"')) == {"global": {"a.b": "caf\xe9"}}
    with pytest.raises(ConfigRefused, match="^-:1:5: error: "):
        evaluate_file("-", text=b"a.b ; 1")


def test_size_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(include, "MAX_SIZE", 10)
    with pytest.raises(ConfigRefused, match="^-: error: - is larger than"):
        evaluate_file("-", text=b"#" * 11)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a.b=81", 81),
        ("a.b=127.0.0.1", "127.0.0.1"),
        ("A.B = /srv/www", "/srv/www"),
        ("a.b=word", "word"),
        ("a.b=", ""),
        ("a.b=x=y", "x=y"),
        ("a.b=c.d", 5),
        ("a.b=C", "var"),
        ('a.b="1"', "1"),
        ('a.b=("k" => c.d + 1)', {"k": 6}),
        ('a.b="x" + c', "xvar"),
        ("a.b=a\\", "a\\"),
        ("a.b=caf\u00e9", "caf\xc3\xa9"),
    ],
)
def test_overrides(override: str, value: object, evaluate: Evaluate, plain: Plain) -> None:
    config = 'a.b = 1 c.d = 5 c = "var"'
    assert plain(evaluate(config, overrides=[override]))["global"]["a.b"] == value


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("a.b", '-o a.b:1:1: error: "a.b" is not KEY=VALUE'),
        ("1a=2", '-o 1a:1:1: error: "1a=2" is not KEY=VALUE'),
        ('a.b=("x"', "-o a.b:1:12: error: unexpected end of file: the '(' of line 1"),
        ('a.b="x" c.d=1', "-o a.b:1:12: error: unexpected c.d: the end of the value"),
        ('a.b="x"+nothing', "-o a.b:1:12: error: undefined variable: nothing"),
        ("a.b=99999999999", "-o a.b:1:8: error: integer out of range"),
        ("var.pid=5", "-o var.pid:1:1: error: var.pid is predefined"),
    ],
)
def test_overrides_that_fail(override: str, said: str, findings: Found) -> None:
    (one,) = findings("", overrides=[override])
    assert one.startswith(said)


def test_sources_are_kept_for_the_checks_that_follow(evaluate: Evaluate) -> None:
    files: Mapping[str, str] = {"i.conf": "\xef\xbb\xbfa.b = 1"}
    assert evaluate('include "i.conf"', files).sources == {
        "main.conf": 'include "i.conf"', "i.conf": "a.b = 1",
    }
