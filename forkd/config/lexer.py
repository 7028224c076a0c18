"""Configuration text to tokens (config.md 1).

Never fails: what is no token becomes a BAD one whose text says why, and the parser decides how to
go on.  Comments come out beside the tokens, because a comment may have swallowed configuration.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum

from .tree import Place

BYTE_ORDER_MARK = "\xef\xbb\xbf"
KEYWORDS = frozenset(
    ("include", "include_shell", "global", "else", "if", "elif", "elsif", "elseif")
)


class Kind(Enum):
    """What a token is; punctuation carries its own text as value."""

    NAME = "name"
    KEYWORD = "keyword"
    INTEGER = "integer"
    STRING = "string"
    OPERATOR = "condition operator"
    ASSIGN = "="
    FORCE = ":="
    APPEND = "+="
    PLUS = "+"
    COMMA = ","
    ARROW = "=>"
    LIST_OPEN = "("
    LIST_CLOSE = ")"
    BLOCK_OPEN = "{"
    BLOCK_CLOSE = "}"
    FIELD_OPEN = "["
    FIELD_CLOSE = "]"
    DOLLAR = "$"
    NEWLINE = "end of line"
    BAD = "bad"
    END = "end of file"


@dataclass(frozen=True, slots=True)
class Token:
    """``text`` is the value of a string, the complaint of a BAD token, else the text itself."""

    kind: Kind
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Comment:
    """``text`` without the number sign."""

    text: str
    place: Place
    behind_code: bool
    """Whether a token stands before it on its line."""
    in_list: bool
    """Whether it stands inside parentheses."""


@dataclass(frozen=True, slots=True)
class Lexed:
    tokens: tuple[Token, ...]
    """The last one is END, placed right behind the last token that is not a NEWLINE."""
    comments: tuple[Comment, ...]


LINE_END = re.compile(r"\r\n|\r|\n")
_PATTERNS = re.compile(
    r"""
      (?P<newline>  \r\n | \r | \n )
    | (?P<blank>    (?: [ \t] | \xc2\xa0 )+ )
    | (?P<comment>  \# [^\r\n]* )
    | (?P<string>   " (?: \\" | [^"] )*+ " )
    | (?P<unclosed> " )
    | (?P<integer>  [0-9]+ (?! [A-Za-z0-9._-] ) )
    | (?P<number>   -? [0-9] [A-Za-z0-9._-]* )
    | (?P<name>     [A-Za-z0-9._-]+ )
    | (?P<punctuation> => | := | \+= | [+,(){}\[\]] )
    | (?P<operator> [=!]= | =\~ | !\~ | =\^ | =\$ )
    | (?P<single>   [=$] )
    | (?P<stray>    // | /\* | [\xc2-\xf4][\x80-\xbf]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)

_STRAY_HINTS = {
    ":": "unexpected character ':'; assignments are written '=', ':=' or '+='",
    ";": "unexpected character ';'; statements need nothing between them",
    "'": "unexpected character '; strings stand in double quotes",
    "!": "unexpected character '!'; only '!=' and '!~' begin with it",
    "//": "unexpected '//'; comments begin with '#'",
    "/*": "unexpected '/*'; comments begin with '#'",
    "\\": "unexpected character '\\'; a line goes on after '+', ',' or '=', and inside parentheses",
}
_TYPOGRAPHIC_QUOTES = frozenset(quote.encode().decode("latin-1") for quote in "“”„‘’«»")


def tokenize(text: str, file: str) -> Lexed:
    """The tokens and comments of *text* (without byte order mark), which stands in *file*."""
    if "\0" in text:
        place = _Places(text, file).at(text.index("\0"))
        nothing_else = (Token(Kind.BAD, "NUL byte: this is not text", place),)
        return Lexed((*nothing_else, Token(Kind.END, "", place)), ())
    return _Lexer(text, file).run()


class _Places:
    """Offsets of one text to lines and columns."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._starts = [0, *(found.end() for found in LINE_END.finditer(text))]

    def at(self, offset: int) -> Place:
        line = bisect_right(self._starts, offset)
        return Place(self._file, line, offset - self._starts[line - 1] + 1)


class _Lexer:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._places = _Places(text, file)
        self._tokens: list[Token] = []
        self._comments: list[Comment] = []
        self._depth = 0
        self._end = 0
        """Offset behind the last token that is not a NEWLINE."""

    def run(self) -> Lexed:
        offset = 0
        while offset < len(self._text):
            found = _PATTERNS.match(self._text, offset)
            assert found is not None and found.lastgroup is not None  # 'stray' takes anything
            offset = found.end()
            if found.lastgroup == "unclosed":
                offset = len(self._text)
            self._take(found.lastgroup, found.group(), found.start(), offset)
        self._add(Kind.END, "", self._end)
        return Lexed(tuple(self._tokens), tuple(self._comments))

    def _take(self, group: str, text: str, start: int, end: int) -> None:
        if group == "blank":
            return
        if group == "newline":
            self._add(Kind.NEWLINE, text, start)
            return
        if group == "comment":
            self._add_comment(text[1:], start)
            return
        kind, value = _classify(group, text)
        self._depth += (kind is Kind.LIST_OPEN) - (kind is Kind.LIST_CLOSE)
        self._add(kind, value, start)
        self._end = end

    def _add(self, kind: Kind, text: str, offset: int) -> None:
        self._tokens.append(Token(kind, text, self._places.at(offset)))

    def _add_comment(self, text: str, offset: int) -> None:
        behind_code = bool(self._tokens) and self._tokens[-1].kind is not Kind.NEWLINE
        place = self._places.at(offset)
        self._comments.append(Comment(text, place, behind_code, self._depth > 0))


def _classify(group: str, text: str) -> tuple[Kind, str]:
    """Kind and text of the token that matched *group*."""
    match group:
        case "string":
            return Kind.STRING, text[1:-1].replace('\\"', '"')
        case "integer":
            return Kind.INTEGER, text
        case "name":
            return (Kind.KEYWORD if text in KEYWORDS else Kind.NAME), text
        case "operator":
            return Kind.OPERATOR, text
        case "punctuation" | "single":
            return Kind(text), text
        case "unclosed":
            return Kind.BAD, "missing closing quote"
        case "number":
            return Kind.BAD, (
                f"{text} is neither a number nor a name: numbers are digits only, "
                "and names do not begin with a digit"
            )
    return Kind.BAD, _stray(text)


def _stray(text: str) -> str:
    if text in _TYPOGRAPHIC_QUOTES:
        return f'unexpected character {text}; strings stand in plain double quotes (")'
    if text in _STRAY_HINTS:
        return _STRAY_HINTS[text]
    if len(text) == 1 and not text.isprintable():
        return f"unexpected character 0x{ord(text):02x}"
    return f"unexpected character '{text}'"
