"""forkd/gateway/conditional.py: entity tags and dates (core.md 11.1)."""

from __future__ import annotations

import pytest
from fakes import make_request
from hypothesis import given
from hypothesis import strategies as st

from forkd.gateway.conditional import allows_range, evaluate, http_date, matches, parse_date
from forkd.message import Fields

TAG = '"abc"'
DATE = "Tue, 02 Jan 2024 03:04:05 GMT"
SECONDS = 1704164645
VALIDATORS = Fields([("ETag", TAG), ("Last-Modified", DATE)])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (DATE, SECONDS),
        ("Tuesday, 02-Jan-24 03:04:05 GMT", SECONDS),
        ("Tue Jan  2 03:04:05 2024", SECONDS),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Tue, 02 Jan 2024 03:04:05 UTC", None),
        ("Tue, 02 Jan 2024 03:04:05 GMT; foo", None),
        ("Tue, 02 Jan 2024 03:04:05 GMT ", None),
        ("tue, 02 jan 2024 03:04:05 gmt", None),
        ("Tue, 2 Jan 2024 03:04:05 GMT", None),
        ("Tue, 32 Jan 2024 03:04:05 GMT", None),
        ("Tue, 02 Jan 2024 24:04:05 GMT", None),
        ("0", None),
        ("", None),
    ],
)
def test_parse_date(text, seconds):
    assert parse_date(text) == seconds


@given(st.integers(0, 253402300799))
def test_dates_come_back(seconds):
    assert parse_date(http_date(seconds)) == seconds


@pytest.mark.parametrize(
    ("field", "weakly", "strongly"),
    [
        (TAG, True, True),
        (f"W/{TAG}", True, False),
        ("*", True, True),
        ('"*"', False, False),
        ("abc", False, False),
        (f"x{TAG}", False, False),
        (f"{TAG}x", False, False),
        (f'"x",,, ,{TAG} , ', True, True),
        (f'"x", {TAG}, "broken', True, True),
        (f'"broken, {TAG}', False, False),
        (f'"a,b", {TAG}', True, True),
        (f'"a, {TAG}", W/"y"', False, False),
        ("w/" + TAG, False, False),
        ("", False, False),
    ],
)
def test_matches(field, weakly, strongly):
    assert matches(field, TAG, weakly=True) is weakly
    assert matches(field, TAG, weakly=False) is strongly


def test_no_tag_matches_nothing_but_star():
    assert not matches('""', "", weakly=True)
    assert matches("*", "", weakly=True)


NEWER, OLDER = "Wed, 03 Jan 2024 03:04:05 GMT", "Mon, 01 Jan 2024 03:04:05 GMT"


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"If-None-Match": TAG}, 304),
        ("HEAD", {"If-None-Match": TAG}, 304),
        ("POST", {"If-None-Match": TAG}, 412),
        ("POST", {"If-None-Match": '"x"'}, 200),
        ("GET", {"If-None-Match": f"W/{TAG}"}, 304),
        ("GET", {"If-None-Match": f"W/{TAG}", "Range": "bytes=0-0"}, 200),
        ("GET", {"If-None-Match": TAG, "Range": "bytes=0-0"}, 304),
        ("GET", {"If-None-Match": '"x"', "If-Modified-Since": DATE}, 200),
        ("GET", {"If-None-Match": TAG, "If-Modified-Since": OLDER}, 304),
        ("GET", {"If-Modified-Since": DATE}, 304),
        ("GET", {"If-Modified-Since": NEWER}, 304),
        ("GET", {"If-Modified-Since": OLDER}, 200),
        ("GET", {"If-Modified-Since": "yesterday"}, 200),
        ("POST", {"If-Modified-Since": DATE}, 200),
        ("GET", {"If-Match": '"x"', "If-Unmodified-Since": OLDER}, 200),
    ],
)
def test_evaluate(method, fields, status):
    assert evaluate(make_request("/", method, fields=fields), VALIDATORS) == status


def test_without_validators_only_star_matches():
    assert evaluate(make_request(fields={"If-Modified-Since": DATE}), Fields()) == 200
    assert evaluate(make_request(fields={"If-None-Match": TAG}), Fields()) == 200


@pytest.mark.parametrize(
    ("value", "allowed"),
    [("", True), (TAG, True), (DATE, True), (f"W/{TAG}", False), ('"x"', False), (NEWER, False)],
)
def test_if_range(value, allowed):
    request = make_request(fields={"If-Range": value} if value else {})
    assert allows_range(request, VALIDATORS) is allowed
