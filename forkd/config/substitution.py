"""Rules of url.redirect and url.rewrite-*: pattern and replacement (config.md 10).

A replacement is parsed once, when the configuration is loaded; what it may name is checked then.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ..address import split_port
from ..message import Request
from .patterns import Pattern

if TYPE_CHECKING:
    from .model import Config

MAX_GROUPS = 19  # of a rule's pattern, as in lighttpd

Captures = tuple[str, ...]
"""Group 0 and up; a number beyond the end is an empty group."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a rule list."""

    pattern: Pattern
    replacement: Replacement

    @classmethod
    def parse(cls, pattern: str, replacement: str) -> Rule:
        """Raises ValueError (a PatternError for the pattern)."""
        compiled = Pattern(pattern)
        if compiled.groups > MAX_GROUPS:
            raise ValueError(f"{compiled.groups} groups, at most {MAX_GROUPS} are possible")
        return cls(compiled, Replacement.parse(replacement))


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one directive, in order, as set in block number *block*."""

    rules: tuple[Rule, ...]
    block: int = 0

    def apply(self, request: Request, config: Config) -> str | None:
        """The expanded replacement of the first rule that matches the request's target with query.

        None when no rule matches, "" when the one that does says "leave as is" by being empty.
        Raises PatternTooSlow.
        """
        target = request.full_target
        for rule in self.rules:
            groups = rule.pattern.search(target)
            if groups is None:
                continue
            condition = config.conditions.captures(self.block, request)
            return rule.replacement.expand(Subject(groups, condition, request))
        return None


class Subject(NamedTuple):
    """What a replacement draws on."""

    rule: Captures
    condition: Captures
    """Of the condition that directly encloses the rules."""
    request: Request


class Part(Protocol):
    def text(self, subject: Subject, so_far: str) -> str:
        """What stands here, given the text *so_far* before it."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A parsed replacement; one without parts means: stop, leave as is."""

    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str) -> Replacement:
        """Raises ValueError naming what is not understood."""
        return cls(tuple(_parts(text)))

    def expand(self, subject: Subject) -> str:
        out = ""
        for part in self.parts:
            out += part.text(subject, out)
        return out

    def beyond(self, rule_groups: int, condition_groups: int) -> list[str]:
        """The tokens that can only be empty, because no such group exists."""
        limits = {"$": rule_groups, "%": condition_groups}
        return [
            part.token
            for part in self.parts
            if isinstance(part, Group) and part.number > limits[part.source]
        ]


@dataclass(frozen=True, slots=True)
class Literally:
    value: str

    def text(self, subject: Subject, so_far: str) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Group:
    """``$N`` or ``%N``, with or without braces."""

    source: Literal["$", "%"]
    number: int
    form: Form
    token: str
    """As written, for messages."""

    def text(self, subject: Subject, so_far: str) -> str:
        groups = subject.rule if self.source == "$" else subject.condition
        return self.form.apply(groups[self.number]) if self.number < len(groups) else ""


@dataclass(frozen=True, slots=True)
class UrlPart:
    """``${url.…}``."""

    read: Callable[[Request], str]
    form: Form

    def text(self, subject: Subject, so_far: str) -> str:
        return self.form.apply(self.read(subject.request))


@dataclass(frozen=True, slots=True)
class AppendedQuery:
    """``${qsa}``: the request's query, joined to what stands before it."""

    form: Form

    def text(self, subject: Subject, so_far: str) -> str:
        query = subject.request.query
        if query is None:
            return ""
        if "?" not in so_far:
            return "?" + self.form.apply(query)
        return "&" + self.form.apply(query) if query else ""


# Parsing

_TOKEN = re.compile(
    r"(?P<sign>[$%])(?:(?P<digit>[0-9])|\{(?P<braced>[^}]*)\}|(?P<unclosed>\{)|(?P=sign))"
)


def _parts(text: str) -> Iterator[Part]:
    end = 0
    for token in _TOKEN.finditer(text):
        if token.start() > end:
            yield Literally(text[end : token.start()])
        yield _part(token)
        end = token.end()
    if end < len(text):
        yield Literally(text[end:])


def _part(token: re.Match[str]) -> Part:
    sign: Literal["$", "%"] = "$" if token["sign"] == "$" else "%"
    if token["digit"]:
        return Group(sign, int(token["digit"]), AS_IS, token[0])
    if token["braced"] is not None:
        return _braced(sign, token["braced"], token[0])
    if token["unclosed"]:
        raise ValueError(f"missing }} after {sign}{{")
    return Literally(sign)


def _braced(sign: Literal["$", "%"], content: str, token: str) -> Part:
    *modifiers, name = content.split(":")
    form = _form(modifiers, token) if modifiers else None
    if re.fullmatch("[0-9]{1,2}", name):
        return Group(sign, int(name), form or Form(_escape_keeping_slashes), token)
    if name == "qsa":
        return AppendedQuery(form or AS_IS)
    if name in _URL_PARTS:
        return UrlPart(_URL_PARTS[name], form or AS_IS)
    known = ", ".join(["a group number", *_URL_PARTS, "qsa"])
    raise ValueError(f"unknown name in {token}; known are {known}")


# Encodings: all on Latin-1 text that stands for bytes


@dataclass(frozen=True, slots=True)
class Form:
    """How a part is written: an encoding, then perhaps a change of case."""

    encode: Callable[[str], str]
    fold: Callable[[str], str] | None = None

    def apply(self, text: str) -> str:
        encoded = self.encode(text)
        return self.fold(encoded) if self.fold else encoded


_RESERVED = re.compile(r"[^A-Za-z0-9._~-]")
_TRIPLET_OR_RESERVED = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9._~-]")
_TRIPLET_OR_RESERVED_BUT_SLASH = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9._~/-]")
_TRIPLET = re.compile(r"(%[0-9A-Fa-f]{2})")


def _as_is(text: str) -> str:
    return text


def _escape(text: str) -> str:
    return _RESERVED.sub(_encoded, text)


def _escape_keeping_escapes(text: str) -> str:
    return _TRIPLET_OR_RESERVED.sub(_reencoded, text)


def _escape_keeping_slashes(text: str) -> str:
    return _TRIPLET_OR_RESERVED_BUT_SLASH.sub(_reencoded, text)


def _encoded(char: re.Match[str]) -> str:
    return f"%{ord(char[0]):02X}"


def _reencoded(found: re.Match[str]) -> str:
    """An escape stays, unless it stands for an unreserved character; anything else is encoded."""
    if len(found[0]) == 1:
        return _encoded(found)
    char = chr(int(found[0][1:], 16))
    return found[0] if _RESERVED.match(char) else char


def _to_base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("latin-1")).decode("ascii").rstrip("=")


def _from_base64(text: str) -> str:
    """What *text* encodes; nothing when it is not base64url."""
    data = text.rstrip("=").encode("latin-1")
    try:
        decoded = base64.b64decode(data + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return ""
    return decoded.decode("latin-1")


def _to_lower(text: str) -> str:
    return _between_escapes(bytes.lower, text)


def _to_upper(text: str) -> str:
    return _between_escapes(bytes.upper, text)


def _between_escapes(change: Callable[[bytes], bytes], text: str) -> str:
    """ASCII letters changed (bytes know no others), ``%XX`` left alone."""
    pieces = _TRIPLET.split(text)  # every second one is an escape
    pieces[::2] = [change(piece.encode("latin-1")).decode("latin-1") for piece in pieces[::2]]
    return "".join(pieces)


AS_IS = Form(_as_is)

_ENCODINGS: dict[str, Callable[[str], str]] = {
    "esc": _escape,
    "escape": _escape,
    "escnde": _escape_keeping_escapes,
    "escpsnde": _escape_keeping_slashes,
    "noesc": _as_is,
    "noescape": _as_is,
    "encb64u": _to_base64,
    "decb64u": _from_base64,
}
_FOLDINGS: dict[str, Callable[[str], str]] = {"tolower": _to_lower, "toupper": _to_upper}


def _form(modifiers: list[str], token: str) -> Form:
    encodings = [word for word in modifiers if word in _ENCODINGS]
    foldings = [word for word in modifiers if word in _FOLDINGS]
    for word in modifiers:
        if word not in _ENCODINGS and word not in _FOLDINGS:
            known = ", ".join([*_ENCODINGS, *_FOLDINGS])
            raise ValueError(f"unknown modifier {word!r} in {token}; known are {known}")
    if not encodings:
        raise ValueError(f"{token}: {foldings[0]} needs an encoding beside it, as in noesc:tolower")
    if len(encodings) > 1 or len(foldings) > 1:
        raise ValueError(f"{token}: {' and '.join(modifiers)} contradict each other")
    return Form(_ENCODINGS[encodings[0]], _FOLDINGS[foldings[0]] if foldings else None)


# Parts of the request's URL


def _scheme(request: Request) -> str:
    return request.scheme


def _authority(request: Request) -> str:
    return request.host


def _authority_without_port(request: Request) -> str:
    return split_port(request.host)[0]


def _port(request: Request) -> str:
    return split_port(request.host)[1] or str(request.connection.listener.port)


def _path(request: Request) -> str:
    return request.path


def _query(request: Request) -> str:
    return request.query or ""


_URL_PARTS: dict[str, Callable[[Request], str]] = {
    "url.scheme": _scheme,
    "url.authority": _authority,
    "url.authority.noport": _authority_without_port,
    "url.port": _port,
    "url.path": _path,
    "url.query": _query,
}
