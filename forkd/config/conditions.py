"""Conditions, compiled: which blocks of the configuration hold for a request (config.md 8, 9.2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..address import Address, Network, canonical, split_port
from ..errors import BadRequest
from ..message import Request
from ..uri import ParseOptions, normalise_target
from .diagnostics import nearest
from .patterns import Pattern
from .substitution import Captures

MAX_GROUPS = 9  # of a condition's expression, as in lighttpd

Reader = Callable[[Request], str]


class ConditionSet:
    """All blocks of one configuration that matter.  Pickles."""

    __slots__ = ("_branches", "_steps")

    def __init__(self, branches: Iterable[Branch] = ()) -> None:
        """*branches* in the order of their numbers, parents and earlier branches among them."""
        self._branches = {branch.index: branch for branch in branches}
        self._steps = tuple(_step(branch) for branch in self._branches.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConditionSet) and self._branches == other._branches

    __hash__ = None  # type: ignore[assignment]

    def mask(self, request: Request) -> int:
        """Bit N is set when block N holds for *request*; bit 0, the global block, always is.

        Raises PatternTooSlow.
        """
        mask = 1
        for bit, parent, earlier, read, matches in self._steps:
            if mask & parent and not mask & earlier and matches(read(request)):
                mask |= bit
        return mask

    def captures(self, block: int, request: Request) -> Captures:
        """What ``%0`` and up stand for in *block*, whose condition is true (config.md 10).

        Raises PatternTooSlow.
        """
        if block not in self._branches:
            return ()
        matcher = self._branches[block].matcher
        return matcher.test.captures(matcher.read(request))


@dataclass(frozen=True, slots=True)
class Branch:
    """A block.  *matcher* decides when its parent holds and no earlier branch of its chain does."""

    index: int
    parent: int
    previous: tuple[int, ...]
    matcher: Matcher


class Step(NamedTuple):
    """A branch, laid out for ``ConditionSet.mask``."""

    bit: int
    parent: int
    earlier: int
    read: Reader
    matches: Callable[[str], bool]


def _step(branch: Branch) -> Step:
    earlier = sum(1 << index for index in branch.previous)
    matcher = branch.matcher
    return Step(1 << branch.index, 1 << branch.parent, earlier, matcher.read, matcher.test.matches)


@dataclass(frozen=True, slots=True)
class Matcher:
    """A compiled condition: what is read from the request, and what is asked of it."""

    read: Reader
    test: Test


# Tests


class Test(Protocol):
    def matches(self, text: str) -> bool: ...

    def captures(self, text: str) -> Captures:
        """What ``%0`` and up stand for, given that *text* matches."""


@dataclass(frozen=True, slots=True)
class Anything:
    """A final ``else``."""

    def matches(self, text: str) -> bool:
        return True

    def captures(self, text: str) -> Captures:
        return ()


@dataclass(frozen=True, slots=True)
class Equals:
    value: str

    def matches(self, text: str) -> bool:
        return text == self.value

    def captures(self, text: str) -> Captures:
        return (text,)


@dataclass(frozen=True, slots=True)
class BeginsWith:
    value: str

    def matches(self, text: str) -> bool:
        return text.startswith(self.value)

    def captures(self, text: str) -> Captures:
        return (self.value,)


@dataclass(frozen=True, slots=True)
class EndsWith:
    value: str

    def matches(self, text: str) -> bool:
        return text.endswith(self.value)

    def captures(self, text: str) -> Captures:
        return (self.value,)


@dataclass(frozen=True, slots=True)
class Finds:
    pattern: Pattern

    def matches(self, text: str) -> bool:
        return self.pattern.matches(text)

    def captures(self, text: str) -> Captures:
        return self.pattern.search(text) or ()


@dataclass(frozen=True, slots=True)
class LiesIn:
    network: Network

    def matches(self, text: str) -> bool:
        return text in self.network

    def captures(self, text: str) -> Captures:
        return (text,)


@dataclass(frozen=True, slots=True)
class NamesHost:
    """Equality of ``host[:port]``; a port that only one side has does not count (config.md 8.3)."""

    host: str
    port: str

    @classmethod
    def parse(cls, text: str) -> NamesHost:
        return cls(*split_port(text))

    def matches(self, text: str) -> bool:
        if not text.startswith(self.host):
            return False
        host, port = split_port(text)
        return host == self.host and (not port or not self.port or port == self.port)

    def captures(self, text: str) -> Captures:
        return (text,)


@dataclass(frozen=True, slots=True)
class Differs:
    """``!=``."""

    test: Test

    def matches(self, text: str) -> bool:
        return not self.test.matches(text)

    def captures(self, text: str) -> Captures:
        return (text,)


@dataclass(frozen=True, slots=True)
class Lacks:
    """``!~``."""

    pattern: Pattern

    def matches(self, text: str) -> bool:
        return not self.pattern.matches(text)

    def captures(self, text: str) -> Captures:
        return ()


# What is read


@dataclass(frozen=True, slots=True)
class FieldReader:
    """A request field; a missing one reads as empty."""

    name: str

    def __call__(self, request: Request) -> str:
        return request.fields.get(self.name)


def _read_host(request: Request) -> str:
    return request.host


def _read_path(request: Request) -> str:
    return request.decoded_path


def _read_scheme(request: Request) -> str:
    return request.scheme


def _read_remote(request: Request) -> str:
    return request.remote.host


def _read_method(request: Request) -> str:
    return request.method


def _read_query(request: Request) -> str:
    return request.query or ""


def _read_listener(request: Request) -> str:
    return request.connection.listener.text


def _read_nothing(request: Request) -> str:
    return ""


OTHERWISE = Matcher(_read_nothing, Anything())
"""The matcher of a final ``else``."""


# Compiling


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the meaning of a condition's right side depends on."""

    options: ParseOptions
    listener: Callable[[str], Address]
    """Resolves the text of a ``$SERVER["socket"]``; may raise ValueError."""
    warn: Callable[[str], None]


def compile_condition(field: str, op: str, value: str, around: Surroundings) -> Matcher:
    """The matcher of ``FIELD OP "VALUE"``.  Raises ValueError, for an expression PatternError."""
    subject = _subject(field)
    if op in ("=~", "!~"):
        return Matcher(subject.read, _search(op, value))
    return Matcher(subject.read, subject.compare(op, value, around))


def _search(op: str, value: str) -> Test:
    pattern = Pattern(value)
    if pattern.groups > MAX_GROUPS:
        raise ValueError(
            f"{pattern.groups} groups, at most {MAX_GROUPS} are possible: use (?:...) instead"
        )
    return Finds(pattern) if op == "=~" else Lacks(pattern)


def _compared(op: str, value: str, equality: Callable[[str], Test] = Equals) -> Test:
    if op == "=^":
        return BeginsWith(value)
    if op == "=$":
        return EndsWith(value)
    test = equality(value)
    return test if op == "==" else Differs(test)


def _text(op: str, value: str, around: Surroundings) -> Test:
    return _compared(op, value)


def _path(op: str, value: str, around: Surroundings) -> Test:
    if re.search("%[0-9A-Fa-f]{2}", value):
        around.warn(f'"{value}" will hardly be found: paths are compared decoded')
    elif "?" in value:
        around.warn(f'"{value}" will hardly be found: paths are compared without their query')
    return _compared(op, value)


def _host(op: str, value: str, around: Surroundings) -> Test:
    folded = value.lower()
    if folded != value:
        around.warn(f'hosts are compared in lower case: read as "{folded}"')
    if op in ("=^", "=$"):
        return _compared(op, folded.removesuffix(":80").removesuffix(":"))
    return _compared(op, folded.removesuffix(":"), NamesHost.parse)


def _query(op: str, value: str, around: Surroundings) -> Test:
    if op in ("=^", "=$"):
        return _compared(op, value)
    try:
        query = normalise_target(f"/?{value}", around.options)[1]
    except BadRequest as error:
        raise ValueError(f"no request can have this query: {error}") from None
    return _compared(op, query or "")


def _address(op: str, value: str, around: Surroundings) -> Test:
    if op in ("=^", "=$"):
        return _compared(op, value)
    try:
        if "/" in value:
            return _compared(op, value, lambda text: LiesIn(Network(text)))
        return _compared(op, canonical(value))
    except ValueError:
        raise ValueError(f'"{value}" is not an IP address or network') from None


def _socket(op: str, value: str, around: Surroundings) -> Test:
    return _compared(op, value if op in ("=^", "=$") else around.listener(value).text)


class Subject(NamedTuple):
    """A field of config.md 8.1: how it is read, and what a comparison with it means."""

    read: Reader
    compare: Callable[[str, str, Surroundings], Test] = _text


_HTTP = {
    "host": Subject(_read_host, _host),
    "url": Subject(_read_path, _path),
    "querystring": Subject(_read_query, _query),
    "query-string": Subject(_read_query, _query),
    "scheme": Subject(_read_scheme),
    "remoteip": Subject(_read_remote, _address),
    "remote-ip": Subject(_read_remote, _address),
    "request-method": Subject(_read_method),
    "useragent": Subject(FieldReader("user-agent")),
    "user-agent": Subject(FieldReader("user-agent")),
    "cookie": Subject(FieldReader("cookie")),
    "referer": Subject(FieldReader("referer")),
    "language": Subject(FieldReader("accept-language")),
}
_SERVER = {"socket": Subject(_read_listener, _socket)}
_FIELD = re.compile(r'\$(?P<family>[A-Za-z_]+)\["(?P<name>.*)"\]', re.DOTALL)


def _subject(field: str) -> Subject:
    parsed = _FIELD.fullmatch(field)
    family, name = (parsed["family"], parsed["name"]) if parsed else ("", "")
    if family == "REQUEST_HEADER" and name:
        if name.lower() == "host":
            return Subject(_read_host)
        return Subject(FieldReader(name.lower()))
    subject = {"HTTP": _HTTP, "SERVER": _SERVER}.get(family, {}).get(name)
    if subject is not None:
        return subject
    known = [f'$HTTP["{name}"]' for name in _HTTP] + ['$SERVER["socket"]']
    guess = nearest(field, known)
    hint = f"did you mean {guess}?" if guess else f"known are {', '.join(known)}"
    raise ValueError(f"unknown condition field {field}; {hint}")
