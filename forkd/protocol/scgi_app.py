"""SCGI requests as an application reads them: the netstring, checked, and where the body begins.

The other direction is ``protocol.scgi``; the protocol: https://python.ca/scgi/protocol.txt.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import BadRequest
from .tunnel import Buffer

MAX_ENVIRONMENT = 1 << 20  # bytes of all variables: posix_spawn takes 2 MiB with its own
MAX_VALUE = 64 * 1024  # bytes of one value

_MAX_DIGITS = len(str(MAX_ENVIRONMENT))
_MAX_LENGTH_DIGITS = 18  # of CONTENT_LENGTH: an off_t holds them


class ScgiRequest(NamedTuple):
    """One request; its body begins with *rest* and has *content_length* bytes."""

    environment: dict[bytes, bytes]
    """In the order sent."""
    content_length: int
    rest: bytes
    """What came behind the netstring, which may be more than the body, or another protocol."""


class RequestDecoder:
    """Bytes to one request."""

    __slots__ = ("_data", "_end", "_start")

    def __init__(self) -> None:
        self._data = bytearray()
        # Where the variables begin and where the comma behind them is; 0: not known yet.
        self._start = self._end = 0

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has come."""
        return not self._data

    def feed(self, data: Buffer) -> ScgiRequest | None:
        """The request, as soon as *data* completes its head; not called afterwards.

        Raises BadRequest.
        """
        self._data += data
        if not self._start and not self._measure():
            return None
        if len(self._data) <= self._end:
            return None
        if self._data[self._end] != ord(","):
            raise BadRequest("SCGI: no comma behind the netstring")
        environment = _environment(bytes(self._data[self._start : self._end]))
        rest = bytes(self._data[self._end + 1 :])
        return ScgiRequest(environment, _content_length(environment), rest)

    def _measure(self) -> bool:
        """Read the length in front; False while it is unfinished."""
        colon = self._data.find(b":", 0, _MAX_DIGITS + 1)
        digits = self._data[: colon if colon >= 0 else _MAX_DIGITS + 1]
        if digits and not _is_number(digits, _MAX_DIGITS):
            raise BadRequest("SCGI: no netstring")
        if colon < 0:
            return False
        size = int(digits or b"0")
        if not size or size > MAX_ENVIRONMENT:
            raise BadRequest(f"SCGI: environment of {size} bytes")
        self._start = colon + 1
        self._end = self._start + size
        return True


def _environment(text: bytes) -> dict[bytes, bytes]:
    """The variables of a netstring.  Raises BadRequest."""
    environment: dict[bytes, bytes] = {}
    *parts, last = text.split(b"\0")
    if last or len(parts) % 2:
        raise BadRequest("SCGI: environment ends inside a variable")
    for name, value in zip(parts[::2], parts[1::2], strict=True):
        if not name or b"=" in name or name in environment:
            raise BadRequest(f"SCGI: variable {name!r} is not to be, or is there twice")
        if len(value) > MAX_VALUE:
            raise BadRequest(f"SCGI: variable {name!r} has {len(value)} bytes")
        environment[name] = value
    if environment.get(b"SCGI") != b"1":
        raise BadRequest("SCGI: variable SCGI is not 1")
    return environment


def _content_length(environment: dict[bytes, bytes]) -> int:
    """Raises BadRequest: it must come first, and be a number."""
    name, value = next(iter(environment.items()))
    if name != b"CONTENT_LENGTH":
        raise BadRequest("SCGI: CONTENT_LENGTH is not first")
    if not _is_number(value, _MAX_LENGTH_DIGITS):
        raise BadRequest(f"SCGI: CONTENT_LENGTH {value[:40]!r}")
    return int(value)


def _is_number(digits: bytes | bytearray, most: int) -> bool:
    """Digits only, no zero in front of others."""
    plain = digits.isdigit() and len(digits) <= most
    return plain and (len(digits) == 1 or digits[0] != ord("0"))
