"""Since when and until when a certificate is good (RFC 5280 section 4.1.2.5).

The ``ssl`` module shows only certificates of other sides; of our own no more than these two times
are wanted, so DER is walked by hand that far.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

_SEQUENCE, _VERSION = 0x30, 0xA0  # X.690 section 8.1.2, RFC 5280 section 4.1
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_PIVOT = 50  # RFC 5280 section 4.1.2.5.1: from here on the year of a UTCTime is of the last century


class Validity(NamedTuple):
    """Times in UTC."""

    begins: datetime
    ends: datetime

    def problem(self, now: datetime) -> str:
        """What is wrong with it at *now*; "" for nothing."""
        if now > self.ends:
            return f"expired on {self.ends:%Y-%m-%d %H:%M:%S} UTC"
        if now < self.begins:
            return f"not valid before {self.begins:%Y-%m-%d %H:%M:%S} UTC"
        return ""


def validity_of(der: bytes) -> Validity:
    """Of one certificate.  Raises ValueError where there is none in *der*."""
    _, certificate, _ = _element(der, _SEQUENCE)
    _, body, _ = _element(certificate, _SEQUENCE)
    if body[:1] == bytes([_VERSION]):
        _, _, body = _element(body)
    for _ in ("serial number", "signature", "issuer"):
        _, _, body = _element(body)
    _, times, _ = _element(body, _SEQUENCE)
    kind, begins, times = _element(times)
    last_kind, ends, _ = _element(times)
    return Validity(_time(kind, begins), _time(last_kind, ends))


def _element(data: bytes, wanted: int | None = None) -> tuple[int, bytes, bytes]:
    """(tag, content, rest) of the first element of *data*."""
    if len(data) < 2 or (wanted is not None and data[0] != wanted):
        raise ValueError("not a certificate")
    size, start = data[1], 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if start + size > len(data):
        raise ValueError("a certificate that is cut short")
    return data[0], data[start : start + size], data[start + size :]


def _time(kind: int, text: bytes) -> datetime:
    digits = text.decode("ascii", "replace")
    if kind == _UTC_TIME:
        digits = ("19" if int(digits[:2]) >= _PIVOT else "20") + digits
    elif kind != _GENERALIZED_TIME:
        raise ValueError("a certificate without its times")
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
