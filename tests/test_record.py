"""Records: there and back, and what another version may have written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest

from forkd import record
from forkd.address import Address
from forkd.config.backend import BackendSpec


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Inner:
    name: str = ""
    size: float = 0


@dataclass(frozen=True)
class Outer:
    number: int
    flag: bool = False
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    pair: tuple[str, int] = ("", 0)
    names: frozenset[str] = frozenset()
    table: dict[str, int] = field(default_factory=dict)
    anything: Any = None


FULL = Outer(
    number=-5,
    flag=True,
    colour=Colour.BLUE,
    kind="b",
    inner=Inner("x\udcff\n", float("inf")),
    maybe=Inner("y"),
    many=(Inner("a", 1), Inner("b", 2.5)),
    pair=("p", 7),
    names=frozenset({"n", "m"}),
    table={"t": 1},
    anything={"ok": [1, None]},
)


@pytest.mark.parametrize("value", [FULL, Outer(0)])
def test_there_and_back(value: Outer) -> None:
    assert record.decode(Outer, record.encode(value)) == value


def test_the_text_is_plain() -> None:
    text = json.loads(record.encode(FULL))
    assert text["colour"] == "BLUE"
    assert text["many"][1] == {"name": "b", "size": 2.5}
    assert text["names"] == ["m", "n"]


def test_what_another_version_has_and_we_have_not() -> None:
    data = b'{"number": 1, "new": {"deep": 3}, "inner": {"name": "x", "colour": "GREEN"}}'
    assert record.decode(Outer, data) == Outer(1, inner=Inner("x"))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("{}", "Outer.number is missing"),
        ('{"number": "1"}', "Outer.number is '1'"),
        ('{"number": true}', "Outer.number is True"),
        ('{"number": 1.5}', "Outer.number is 1.5"),
        ('{"number": null}', "Outer.number is None"),
        ('{"number": 1, "flag": 1}', "Outer.flag is 1"),
        ('{"number": 1, "colour": "GREEN"}', "Outer.colour is 'GREEN'"),
        ('{"number": 1, "colour": []}', "Outer.colour is "),
        ('{"number": 1, "kind": "c"}', "Outer.kind is 'c'"),
        ('{"number": 1, "many": [{}, {"name": 3}]}', r"Outer.many\[1\].name is 3"),
        ('{"number": 1, "many": {}}', "Outer.many is {}"),
        ('{"number": 1, "pair": ["x"]}', r"Outer.pair is \['x'\]"),
        ('{"number": 1, "maybe": 3}', "Outer.maybe is 3"),
        ('{"number": 1, "table": {"a": "b"}}', "Outer.table.a is 'b'"),
        ('{"number": 1, "names": "n"}', "Outer.names is 'n'"),
        ("[]", r"Outer is \[\]"),
        ("{", "Expecting"),
    ],
)
def test_what_cannot_be_read(data: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        record.decode(Outer, data.encode())


def test_what_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="cannot be part of a record"):
        record.encode(Outer(1, anything=object()))


@pytest.mark.parametrize("framing", ["", "typed"])
def test_a_backend_survives_an_upgrade(framing: Any) -> None:
    spec = BackendSpec("wstunnel", "/", "", Address("/run/app"), framing=framing)
    assert record.decode(BackendSpec, record.encode(spec)) == spec
