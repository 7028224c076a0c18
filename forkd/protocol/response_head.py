"""The header block of a backend's response: what its lines mean (gateway.md 14).

For programs that answer in CGI style (RFC 3875 section 6), where a status line may stand first
("non-parsed headers"); how the bytes reach us is ``protocol.cgi``'s.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import BackendBroken
from ..message import Fields, Head, Pair

MAX_BLOCK = 65535  # bytes of one block, its blank line included; lighttpd's limit
MAX_LENGTH = (1 << 63) - 1  # bytes of a body: what an off_t holds

_FOLD = re.compile(r"\r?\n[ \t]+")
_STATUS_LINE = re.compile(r"HTTP/(?:1\.[0-9]|[23]\.0) ([1-9][0-9]{2})(?:[ \t].*)?")
_STATUS = re.compile(r"([1-9][0-9]{2})(?:[ \t].*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(r"\+?([0-9]{1,19})")


class Block(NamedTuple):
    """One header block, understood."""

    head: Head
    """Without Status and the framing fields."""
    is_chunked: bool = False
    local_target: str = ""
    """Where it leads within this server, when it says that and nothing else (RFC 3875 section
    6.2.2)."""


def parse_block(block: bytes) -> Block:
    """The meaning of a complete header *block*, with or without its blank line.

    Lines end with LF or CR LF; those that are no field lines and fields that may not be sent are
    left out.  Raises BackendBroken for a bad status, length or coding.
    """
    lines = _lines(block)
    status = 0
    if lines and lines[0].startswith("HTTP/"):
        status = _status(_STATUS_LINE, lines.pop(0))
    fields = _Fields(status)
    for line in lines:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        if value and _NAME.fullmatch(name) and not _CONTROL.search(value):
            fields.take(name, value)
    return fields.block()


def _lines(block: bytes) -> list[str]:
    text = block.decode("latin-1").rstrip("\r\n")
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    return [line.removesuffix("\r") for line in text.split("\n")] if text else []


def _status(form: re.Pattern[str], text: str) -> int:
    found = form.fullmatch(text)
    if found is None:
        raise BackendBroken(f"bad status {text[:80]!r}")
    return int(found[1])


class _Fields:
    """The fields of one block: those that mean something to us are kept apart."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._length: int | None = None
        self._is_chunked = False
        self._pairs: list[Pair] = []

    def take(self, name: str, value: str) -> None:
        key = name.lower()
        if key == "status":
            # A status line that says more than 200 is the better witness.
            status = _status(_STATUS, value)
            if self._status in (0, 200):
                self._status = status
        elif key == "content-length":
            if self._length is None:
                self._length = _length(value)
        elif key == "transfer-encoding":
            if value.lower() != "chunked":
                raise BackendBroken(f"transfer coding {value[:80]!r}")
            self._is_chunked = True
        else:
            self._pairs.append((name, value))

    def block(self) -> Block:
        fields = Fields(self._pairs)
        location = fields.get("location")
        status = self._status or (302 if location else 200)
        if status < 200 or self._is_chunked:
            return Block(Head(status, fields), self._is_chunked)
        is_bare = not self._status and len(fields) == 1 and self._length is None
        target = location if is_bare and location.startswith("/") else ""
        return Block(Head(status, fields, self._length), local_target=target)


def _length(text: str) -> int:
    found = _LENGTH.fullmatch(text)
    if found is None or int(found[1]) > MAX_LENGTH:
        raise BackendBroken(f"bad Content-Length {text[:80]!r}")
    return int(found[1])
