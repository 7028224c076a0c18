"""Records: frozen dataclasses as values of JSON, and back by their type hints.

What one version of the program writes another one reads: a field that is not known there is passed
over, one that is missing takes its default.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union

_R = TypeVar("_R")


def encode(record: Any) -> bytes:
    """*record*, a dataclass instance, as JSON; the text is ASCII."""
    return json.dumps(_plain(record), separators=(",", ":")).encode("ascii")


def decode(kind: type[_R], data: bytes) -> _R:
    """The *kind* that ``encode`` has written.  Raises ValueError, which names the field."""
    value: _R = _read(kind, json.loads(data), kind.__name__)
    return value


# -- writing ----------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, str | int | float):
        return value
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, frozenset):
        value = sorted(value)
    if isinstance(value, Iterable):
        return [_plain(one) for one in value]
    raise TypeError(f"{value!r} cannot be part of a record")


# -- reading ----------------------------------------------------------------------------------


def _read(kind: Any, value: Any, place: str) -> Any:
    """*value* as what the type hint *kind* says; *place* is what a complaint names."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _read_optional(arguments, value, place)
    if origin is Literal:
        return _check(value in arguments, value, place)
    if origin is tuple:
        return _read_tuple(arguments, value, place)
    if origin is frozenset:
        _check(isinstance(value, list), value, place)
        return frozenset(_read(arguments[0], one, place) for one in value)
    if origin is not None:  # a mapping of names
        _check(isinstance(value, dict), value, place)
        return {key: _read(arguments[1], one, f"{place}.{key}") for key, one in value.items()}
    if is_dataclass(kind):
        return _read_record(kind, value, place)
    if issubclass(kind, Enum):
        _check(isinstance(value, str) and value in kind.__members__, value, place)
        return kind[value]
    if kind is float:
        return float(_check(type(value) in (int, float), value, place))
    return _check(type(value) is kind, value, place)


def _read_optional(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not types.NoneType)
    return _read(kind, value, place)


def _read_tuple(kinds: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    _check(isinstance(value, list), value, place)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    _check(len(kinds) == len(value), value, place)
    return tuple(
        _read(kind, one, f"{place}[{index}]")
        for index, (kind, one) in enumerate(zip(kinds, value, strict=True))
    )


def _read_record(kind: Any, value: Any, place: str) -> Any:
    _check(isinstance(value, dict), value, place)
    hints = _hints(kind)
    found = {
        field.name: _read(hints[field.name], value[field.name], f"{place}.{field.name}")
        for field in fields(kind)
        if field.init and field.name in value
    }
    for field in fields(kind):
        if field.name not in found and _is_required(field):
            raise ValueError(f"{place}.{field.name} is missing")
    return kind(**found)


def _is_required(field: Field[Any]) -> bool:
    return field.init and field.default is MISSING and field.default_factory is MISSING


@lru_cache(maxsize=64)
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _check(is_good: bool, value: Any, place: str) -> Any:
    if not is_good:
        raise ValueError(f"{place} is {value!r:.60}")
    return value
