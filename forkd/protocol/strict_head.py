"""HTTP/1.x request heads: the gate (RFC 9112 sections 2 to 5, core.md 4).

Bytes of one head in, its parts or a typed error out.  What a lenient parser would mend in one way
and the next server in another is refused here: bare line ends, stray control characters, blanks
round names.  What the fields mean is ``protocol.request``'s.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import BadRequest, HeadTooLarge, NotImplementedHere, VersionNotSupported
from ..message import Pair, Version

MAX_LINE = 8190  # bytes of one line, and number of lines; lighttpd's 16-bit table of line ends
MAX_HEAD = 8192  # bytes; the default of server.max-request-field-size

# RFC 9110 section 9, RFC 5789, QUERY; then WebDAV and its relatives (RFC 2068, 3253, 3648, 3744,
# 4437, 4791, 4918, 5323, 5842).
_METHOD_NAMES = """
    GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH QUERY
    ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR
    MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH REBIND REPORT SEARCH
    UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL
"""
_METHODS = {name: name for name in _METHOD_NAMES.split()}  # to the object that requests share

_VERSIONS: dict[str, Version] = {"HTTP/1.1": "HTTP/1.1", "HTTP/1.0": "HTTP/1.0"}
_VERSION_FORM = re.compile(r"HTTP/[0-9]+\.[0-9]+")

_END = re.compile(rb"\n\r?\n")
_TEXT = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Possessive: what is tried here has been refused, and must not be tried from each of its letters.
_FIRST_LINE = re.compile(rb"([A-Za-z\-]*+) ?([^\r\n]*?) (HTTP/1\.[01])\r?\n")


class RawHead(NamedTuple):
    """A head that is well formed; fields in order, values without blanks at their ends."""

    method: str
    target: str
    version: Version
    fields: list[Pair]


def known_method(name: str) -> str | None:
    """The one string that requests share for the method *name*; None for an unknown one."""
    return _METHODS.get(name)


def find_end(data: bytes | bytearray, searched: int = 0) -> int:
    """The size of the head that *data* begins with, its blank line included; -1: unfinished.

    The first *searched* bytes are known to hold no end.
    """
    found = _END.search(data, max(0, searched - 2))
    return found.end() if found else -1


def parse_head(raw: bytes, strict: bool = True) -> RawHead:
    """The parts of the complete head *raw*.

    *strict* is the parse option ``header-strict``; without it bare LF, blanks before a colon and
    control characters in values pass.  Raises BadRequest, HeadTooLarge, NotImplementedHere for
    an unknown method, VersionNotSupported.
    """
    if raw[0] < 0x20:
        raise BadRequest("head begins with a control character")
    lines = _lines(raw, strict)
    if len(raw) > MAX_LINE and (len(lines) > MAX_LINE or max(map(len, lines)) > MAX_LINE):
        raise HeadTooLarge("line too long or too many of them")
    method, target, version = _parse_request_line(lines[0], strict)
    return RawHead(method, target, version, parse_fields(lines[1:], strict))


def request_line(raw: bytes) -> tuple[str, str, str]:
    """Method, target and version of a head that was refused; empty where its first line is not one.

    For the log and for the version of the refusal.
    """
    found = _FIRST_LINE.match(raw)
    if found is None:
        return "", "", ""
    method, target, version = (part.decode("latin-1") for part in found.groups())
    return method, target, version


def _lines(raw: bytes, strict: bool) -> list[str]:
    """The lines without their ends, folded ones joined, without the blank one at the end."""
    # What is left when all text is taken away is line ends, each in one piece.
    if strict and raw.translate(None, _TEXT) != b"\r\n" * raw.count(b"\r\n"):
        raise BadRequest("control character or bare line end in the head")
    text = raw.decode("latin-1")
    if "\n " in text or "\n\t" in text:
        text = _unfold(text)
    if strict:
        lines = text.split("\r\n")
    else:
        if "\0" in text:
            raise BadRequest("NUL in the head")
        # RFC 9112 section 2.2: a bare CR is invalid, or else a blank.
        lines = text.replace("\r\n", "\n").replace("\r", " ").split("\n")
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    return lines


def _unfold(text: str) -> str:
    """RFC 9112 section 5.2: blanks in place of the line end."""
    first_end = text.find("\n") + 1
    if text[first_end] in " \t":
        raise BadRequest("first field line begins with a blank")
    return _FOLD.sub(lambda end: " " * len(end[0]), text)


def _parse_request_line(line: str, strict: bool) -> tuple[str, str, Version]:
    method, _, rest = line.partition(" ")
    target, _, protocol = rest.rpartition(" ")  # blanks inside the target are its own
    if not target or target[0] == " " or target[-1] == " ":
        raise BadRequest("request line is not: method, target, version")
    version = _VERSIONS.get(protocol)
    if version is None:
        if not strict and _VERSION_FORM.fullmatch(protocol):
            raise VersionNotSupported(protocol)
        raise BadRequest(f"unknown protocol {protocol!r}")
    known = _METHODS.get(method)
    if known is None:
        raise NotImplementedHere(f"unknown method {method!r}")
    return known, target, version


def parse_fields(lines: list[str], strict: bool = True) -> list[Pair]:
    """Field lines, unfolded and without line ends, to pairs (RFC 9112 section 5)."""
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not strict:
            name = name.rstrip(" \t")
        if not colon or not _NAME.fullmatch(name):
            raise BadRequest(f"bad field line {line[:80]!r}")
        fields.append((name, value.strip(" \t")))
    return fields
