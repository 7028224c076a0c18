"""Perl-compatible regular expressions on the bytes of Latin-1 text (config.md 8.2).

The work is done by the ``regex`` package, whose dialect differs from PCRE in a few places; those
are translated.  A search has a time limit: the text comes from a client, who must not hang a worker
by making an admin's expression backtrack for ever.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import regex

from ..errors import PatternTooSlow

SEARCH_TIMEOUT = 0.25  # seconds of processor time; an ordinary search takes microseconds
MAX_REPEAT = 65535  # PCRE's; ``regex`` writes out each of {99999999} and does not come back

_FLAGS = regex.V1 | regex.ASCII  # V1: (?i) holds from where it stands, as in PCRE


class PatternError(ValueError):
    """The expression cannot be compiled; ``offset`` counts characters of the text as written."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"bad regular expression: {reason} at offset {offset}")
        self.offset = offset


class Pattern:
    """A compiled expression.  Equal texts are equal patterns; pickles as its text."""

    __slots__ = ("text", "groups", "_compiled", "_may_explode")

    def __init__(self, text: str) -> None:
        """Compile *text*.  Raises PatternError."""
        self.text = text
        self._compiled = _compile(text)
        self.groups: int = self._compiled.groups
        self._may_explode = _may_explode(text)

    def search(self, text: str) -> tuple[str, ...] | None:
        """Group 0 and the others of the first match, missing ones ""; None where there is none.

        Raises PatternTooSlow.
        """
        match = self._search(text)
        if match is None:
            return None
        found = (match[0], *match.groups(b""))
        return tuple([group.decode("latin-1") for group in found])

    def matches(self, text: str) -> bool:
        """Whether *text* holds a match.  Raises PatternTooSlow."""
        return self._search(text) is not None

    def _search(self, text: str) -> regex.Match[bytes] | None:
        data = text.encode("latin-1")
        if not self._may_explode:
            return self._compiled.search(data)
        try:
            return self._compiled.search(data, timeout=SEARCH_TIMEOUT)
        except TimeoutError:
            raise PatternTooSlow(
                f"regular expression {self.text!r}: no answer within {SEARCH_TIMEOUT} s"
                f" on a text of {len(data)} bytes"
            ) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def __reduce__(self) -> tuple[type[Pattern], tuple[str]]:
        return Pattern, (self.text,)


_EXPLOSIVE = re.compile(r"[*+{].*[*+{]|\)[*+{]|\(\?(?:R|\d|&|P>)", re.DOTALL)


def _may_explode(text: str) -> bool:
    """Whether a search may take long: one plain repetition is quadratic at worst.

    Limiting the time triples the cost of a short search, so it is done where it is needed.
    """
    return _EXPLOSIVE.search(text) is not None


def _compile(text: str) -> regex.Pattern[bytes]:
    pieces = list(_translated(text))
    source = "".join(piece for piece, _ in pieces).encode("latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about spellings that may change meaning some day
        try:
            return regex.compile(source, _FLAGS)
        except regex.error as error:
            raise PatternError(error.msg, _offset_before(pieces, error.pos or 0)) from None


def _offset_before(pieces: list[tuple[str, int]], position: int) -> int:
    """The offset in the text as written of *position* in the translated one."""
    end = 0
    for piece, offset in pieces:
        if position < end + len(piece):
            return offset + min(position - end, 1)
        end += len(piece)
    return pieces[-1][1] + len(pieces[-1][0]) if pieces else 0


# What PCRE reads otherwise than ``regex``, or it alone.
_ESCAPES = {
    "Z": r"(?=\n?\z)",  # before a final line end too
    "e": r"\x1b",
    "H": r"[^\t ]",
    "V": r"[^\n\x0b\f\r]",
    "R": r"(?>\r\n|[\n\x0b\f\r])",
}
_SET_ESCAPES = {"e": r"\x1b", "h": r"\t ", "v": r"\n\x0b\f\r"}

_TOKEN = re.compile(
    r"""\\Q(?P<literal>.*?)(?:\\E|\Z)
      | \\x\{(?P<hex>[0-9A-Fa-f]+)\}
      | \\k(?:<(?P<name>\w+)>|\{(?P<braced>\w+)\}|'(?P<quoted>\w+)')
      | \\(?P<escape>.)
      | \{(?P<count>[0-9]+(?:,[0-9]*)?)\}
      | (?P<open>\[\^?\]?)
      | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_SET_TOKEN = re.compile(
    r"""\\Q(?P<literal>.*?)(?:\\E|\Z)
      | \\x\{(?P<hex>[0-9A-Fa-f]+)\}
      | \\(?P<escape>.)
      | (?P<posix>\[:\^?\w+:\])
      | (?P<end>\])
      | (?P<operator>\[|&&|--|\|\||~~)
      | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


def _translated(text: str) -> Iterator[tuple[str, int]]:
    """*text* in the dialect of ``regex``: pieces, each with its offset in *text*."""
    offset, in_set = 0, False
    while offset < len(text):
        token = (_SET_TOKEN if in_set else _TOKEN).match(text, offset)
        assert token is not None  # both end in an alternative that takes anything
        yield _piece(token, in_set), offset
        in_set = token.lastgroup == "open" or (in_set and token.lastgroup != "end")
        offset = token.end()


def _piece(token: re.Match[str], in_set: bool) -> str:
    value = token[token.lastgroup] if token.lastgroup else ""
    match token.lastgroup:
        case "literal":
            return "".join(f"\\x{ord(char):02x}" for char in value)
        case "hex":
            return _character(value, token.start())
        case "name" | "braced" | "quoted":
            return f"(?P={value})"
        case "escape":
            return (_SET_ESCAPES if in_set else _ESCAPES).get(value, token[0])
        case "count":
            return _quantifier(value, token.start())
        case "open":
            return value.replace("]", r"\]")  # a first ] is itself
        case "operator":
            return "".join(f"\\{char}" for char in value)  # V1 computes with sets, PCRE does not
        case _:
            return token[0]


def _character(digits: str, offset: int) -> str:
    code = int(digits, 16)
    if code > 0xFF:
        raise PatternError(r"\x{} names a character above FF, but text is bytes", offset)
    return f"\\x{code:02x}"


def _quantifier(counts: str, offset: int) -> str:
    if any(int(count.lstrip("0")[:6] or "0") > MAX_REPEAT for count in counts.split(",")):
        raise PatternError("number too big in {} quantifier", offset)
    return f"{{{counts}}}"
