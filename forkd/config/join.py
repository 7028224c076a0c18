"""What ``+`` and ``+=`` make of two values (config.md 4, 5)."""

from __future__ import annotations

from .tree import ConfigList, Value


class JoinError(ValueError):
    """The two values do not go together; the text says why."""


def add(left: Value, right: Value) -> tuple[Value, tuple[str, ...]]:
    """*left* and *right* as one value, and the keys that stand in both with equal values.

    Two integers are added, other scalars written one behind the other, lists appended.
    Raises JoinError.
    """
    if isinstance(left, ConfigList) and isinstance(right, ConfigList):
        return _append(left, right)
    if isinstance(left, ConfigList) or isinstance(right, ConfigList):
        raise JoinError(f"data type mismatch: cannot join {_article(left)} and {_article(right)}")
    if isinstance(left, int) and isinstance(right, int):
        return left + right, ()
    return f"{left}{right}", ()


def _append(left: ConfigList, right: ConfigList) -> tuple[ConfigList, tuple[str, ...]]:
    known = {key.lower(): value for key, value in left if key is not None}
    elements, places = list(left.elements), list(left.places)
    repeated: list[str] = []
    for (key, value), place in zip(right.elements, right.places, strict=True):
        if key is None or key.lower() not in known:
            elements.append((key, value))
            places.append(place)
        elif known[key.lower()] == value:
            repeated.append(key)
        else:
            raise JoinError(f'duplicate key "{key}" with another value')
    return ConfigList(tuple(elements), tuple(places)), tuple(repeated)


def _article(value: Value) -> str:
    if isinstance(value, str):
        return "a string"
    return "an integer" if isinstance(value, int) else "a list"
