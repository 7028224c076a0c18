"""forkd/message.py: token lists and fields."""

from __future__ import annotations

from typing import Any

import pytest
from vectors_loader import accepted, load, vector_id

from forkd.message import Fields, Request, has_token


@pytest.mark.parametrize("vector", load("header_token"), ids=vector_id)
def test_vectors_header_token(vector: dict[str, Any]) -> None:
    assert has_token(vector["field"], vector["token"]) in accepted(vector)


def test_fields_compare_names_without_case() -> None:
    fields = Fields([("A-b", "1"), ("Cookie", "x=1"), ("a-B", "2"), ("cookie", "y=2")])
    assert fields.get("A-B") == "1, 2"
    assert fields.get("Cookie") == "x=1; y=2"
    assert "COOKIE" in fields and "c" not in fields
    assert list(fields.without("a-b")) == [("Cookie", "x=1"), ("cookie", "y=2")]


def test_replacing_keeps_the_place_and_drops_repetitions() -> None:
    fields = Fields([("A", "1"), ("B", "2"), ("a", "3")])
    assert list(fields.replacing("a", "9")) == [("A", "9"), ("B", "2")]
    assert list(fields.replacing("C", "9"))[-1] == ("C", "9")
    assert list(fields.replacing("A", "")) == [("B", "2")]


def test_indexed_fields_are_fields() -> None:
    fields = Fields.indexed({"a-b": ("A-b", "1"), "c": ("C", "2")})
    assert fields == Fields([("A-b", "1"), ("C", "2")])
    assert fields.get("A-B") == "1"
    assert fields.plus(("a-b", "3")).get("a-b") == "1, 3"


def test_a_request_has_not_the_length_that_python_keeps() -> None:
    assert len(Request._fields) != 20  # see Request
