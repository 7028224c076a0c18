"""Conditional requests (RFC 9110 section 13): entity tags and dates against a request. Pure.

If-Match and If-Unmodified-Since are ignored, as core.md 11.1 says.
"""

from __future__ import annotations

import re
from calendar import timegm
from functools import lru_cache
from time import gmtime

from ..message import Fields, Request

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY = "|".join(_DAYS)
_LONG_DAY = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS = tuple(
    re.compile(form)
    for form in (  # RFC 9110 section 5.6.7
        rf"(?:{_DAY}), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT",
        rf"(?:{_LONG_DAY}), (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT",
        rf"(?:{_DAY}) {_MONTH} (?P<day>[0-9 ][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})",
    )
)


@lru_cache(maxsize=1024)  # most requests are for few files
def http_date(seconds: int) -> str:
    """IMF-fixdate (RFC 9110 section 5.6.7) of *seconds* since the epoch; no locale involved."""
    year, month, day, hour, minute, second, weekday, _, _ = gmtime(seconds)
    return (
        f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{second:02} GMT"
    )


def parse_date(text: str) -> int | None:
    """Seconds since the epoch of one of the three forms of RFC 9110 section 5.6.7, else None."""
    for form in _FORMS:
        if found := form.fullmatch(text):
            return _seconds(found)
    return None


def _seconds(found: re.Match[str]) -> int | None:
    year, day = int(found["year"]), int(found["day"])
    if len(found["year"]) == 2:
        # Two digits that seem more than 50 years ahead mean the past (RFC 9110 section 5.6.7).
        year += 2000 if year < 70 else 1900
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"])
    if not (1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    return timegm((year, _MONTHS.index(found["month"]) + 1, day, hour, minute, second))


def evaluate(request: Request, fields: Fields) -> int:
    """200 when the representation is to be sent, 304 or 412 when it is not.

    *fields* are what the response would carry.
    """
    is_read = request.method in ("GET", "HEAD")
    none_match = request.fields.get("if-none-match")
    if none_match:
        # 13.1.2 compares weakly; a part of a representation needs the very same bytes.
        if not matches(none_match, fields.get("etag"), weakly="range" not in request.fields):
            return 200
        return 304 if is_read else 412
    since = request.fields.get("if-modified-since")
    if since and is_read and _is_not_newer(fields.get("last-modified"), since):
        return 304
    return 200


def _is_not_newer(last_modified: str, since: str) -> bool:
    if since == last_modified:
        return True
    date, modified = parse_date(since), parse_date(last_modified)
    return date is not None and modified is not None and modified <= date


_ITEM = re.compile(r'[ \t,]*(?:(?P<weak>W/)?(?P<tag>"[^"]*"))?(?P<rest>[^,]*)')


def matches(field: str, etag: str, weakly: bool) -> bool:
    """Whether *field*, a list of entity tags or ``*``, names *etag*.

    Stray commas are skipped; what is not a quoted tag matches nothing.
    """
    if field.strip(" \t") == "*":
        return True
    return bool(etag) and any(
        item["tag"] == etag and not item["rest"].strip(" \t") and (weakly or not item["weak"])
        for item in _ITEM.finditer(field)
    )


def allows_range(request: Request, fields: Fields) -> bool:
    """If-Range (RFC 9110 section 13.1.5): absent, or the exact text of a strong validator among
    *fields*, those of the response."""
    value = request.fields.get("if-range")
    return not value or value in (fields.get("etag"), fields.get("last-modified"))
