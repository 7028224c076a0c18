"""Test vectors: the project's own, or those in the folder that FORKD_VECTORS names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("FORKD_VECTORS") or Path(__file__).parent / "vectors")


def load(area: str) -> list[dict[str, Any]]:
    """The vectors of *area*; none where the folder has no such file."""
    return document(area).get("vectors", [])


def document(area: str) -> dict[str, Any]:
    """The whole file of *area*: fixtures and profiles beside the vectors."""
    path = FOLDER / f"{area}.json"
    if not path.exists():
        return {}
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def vector_id(vector: dict[str, Any]) -> str:
    return str(vector["id"])


def accepted(vector: dict[str, Any]) -> list[Any]:
    """Every result that is right: forkd's own or the expected one, then the alternatives."""
    return [vector["forkd"] if "forkd" in vector else vector.get("expect"), *vector.get("also", [])]
