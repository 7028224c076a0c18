"""Name-value pairs as gateway protocols send them: Latin-1 text back to bytes, checked."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import BadRequest
from ..message import Pair


def encoded(environment: Iterable[Pair]) -> list[tuple[bytes, bytes]]:
    """*environment* as bytes.

    Raises BadRequest for a NUL: a program would see the variable end there, or another one begin.
    """
    pairs = []
    for name, value in environment:
        if "\0" in name or "\0" in value:
            raise BadRequest(f"NUL in variable {name!r}")
        pairs.append((name.encode("latin-1"), value.encode("latin-1")))
    return pairs
