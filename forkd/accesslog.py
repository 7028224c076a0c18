"""The access log: a format compiled once, one line for each request, lines written whole.

The codes are those of core.md 18.1.  Text is Latin-1 ``str`` as in ``message`` and becomes bytes
when it is written.  A tunnel's line is begun when it opens, so that nothing else of its request
has to be kept.  A line goes to a buffer; a buffer goes out with one append write when it is full,
when ``flush`` is called (once a second), on reopen and at exit, so lines of several workers never
mix.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv6Network, ip_address
from typing import NamedTuple, Protocol

from .config.model import AccessLogSettings
from .message import ConnInfo, Fields, Pair, Request

FLUSH_SIZE = 8192  # bytes of lines that are written without waiting for the next second
MAX_HELD = 1 << 20  # bytes kept for a log that takes nothing for the moment (a pipe that is full)
PRIORITY = 6  # accesslog.syslog-level: syslog's INFO

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One request as it is logged.  Sizes in bytes, times in seconds."""

    request: Request | None
    """None when its head was refused."""
    connection: ConnInfo
    status: int
    body_bytes: int
    """Of the response's body, as sent."""
    started: float
    """Since the epoch: when the head had arrived, or was refused."""
    duration: float
    mark: str = "-"
    """``+`` kept alive, ``-`` closed, ``X`` aborted."""
    bytes_in: int = 0
    """Head and framing included, like ``bytes_out``."""
    bytes_out: int = 0
    response_fields: Fields = Fields()
    file_name: str = ""
    server_name: str = ""
    """``server.name`` where the request was served."""
    environment: tuple[Pair, ...] = ()
    """What a gateway told its backend; empty when no gateway served the request."""
    number: int = 0
    """Requests before this one on the connection."""
    line: tuple[str, str, str] = ("", "", "")
    """Method, target, version of a refused head, as far as they could be read."""

    @property
    def ended(self) -> float:
        """Since the epoch."""
        return self.started + self.duration


class Ended(NamedTuple):
    """The end of a request whose line was begun before; otherwise as in ``Entry``."""

    begun: str
    """What ``begin_line`` has made of its entry."""
    status: int
    body_bytes: int
    bytes_in: int
    bytes_out: int
    duration: float
    ended: float
    """Since the epoch."""


# -- formats ----------------------------------------------------------------------------------


Part = Callable[[Entry], str]


class AtEnd(NamedTuple):
    """The function of a code that only the end of a request tells."""

    part: Callable[[Entry | Ended], str]


Escape = Callable[[str], str]
Maker = Callable[[str, Escape], Part | AtEnd]
"""(argument between braces, escaping of text from outside) to the function of one code."""

_CODE = re.compile(
    r"""%(?: [<>]?(?P<plain>[A-Za-z%])
           | \{(?P<argument>[^}]+)\}(?P<code>[A-Za-z%]) )
      | \\(?P<escaped>.)
      | (?P<literal>[^%\\]+)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Format:
    """A format, compiled."""

    template: str
    """Takes what *parts* say, and becomes the one that takes what *at_end* says."""
    parts: tuple[Part, ...]
    at_end: tuple[AtEnd, ...]

    def begin(self, entry: Entry) -> str:
        """The line of *entry* as far as it is known before the end, for ``Ended``."""
        return self.template % tuple([part(entry).replace("%", "%%") for part in self.parts])

    def line(self, entry: Entry | Ended) -> str:
        """The whole line, line feed included; an ``Ended`` must have been begun by this format."""
        begun = entry.begun if isinstance(entry, Ended) else self.begin(entry)
        return begun % tuple([code.part(entry) for code in self.at_end])


def compile_format(text: str, escaping: str = "default") -> Format:
    """*text* compiled.

    Raises ValueError, naming the code, where *text* is not a format (core.md 18.1).
    """
    if not text:
        raise ValueError("empty format")
    escape = ESCAPINGS[escaping]
    template: list[str] = []
    parts: list[Part] = []
    at_end: list[AtEnd] = []
    position = 0
    while position < len(text):
        found = _CODE.match(text, position)
        if found is None:
            raise ValueError(_complaint(text[position:]))
        position = found.end()
        code = found["plain"] or found["code"]
        if code and code != "%":
            part = _part(code, found["argument"] or "", found[0], escape)
            if isinstance(part, AtEnd):
                template.append("%%s")
                at_end.append(part)
            else:
                template.append("%s")
                parts.append(part)
        elif not found["argument"]:
            literal = found["literal"] or _literal(found["escaped"])
            template.append(literal.replace("%", "%%%%"))
    return Format("".join(template) + "\n", tuple(parts), tuple(at_end))


def _literal(escaped: str | None) -> str:
    """A backslash pair in the text between the codes, or the one ``%`` that ``%%`` stands for."""
    return "%" if escaped is None else _ESCAPED.get(escaped, escaped)


def _part(code: str, argument: str, source: str, escape: Escape) -> Part | AtEnd:
    maker = CODES.get(code)
    if maker is None:
        raise ValueError(f"unknown code {source}")
    try:
        return maker(argument, escape)
    except ValueError as error:
        raise ValueError(f"{error} in {source}") from None


def _complaint(rest: str) -> str:
    if rest == "\\":
        return "backslash at the end"
    if rest.startswith("%{"):
        if "}" not in rest:
            return f"unclosed brace in {rest}"
        return f"empty braces in {rest}" if rest[2] == "}" else f"no code behind {rest}"
    return f"no code behind {rest[:2]}" if len(rest) > 1 else "lone % at the end"


# -- escaping ---------------------------------------------------------------------------------


_UNSAFE = re.compile(r'[^ !#-\[\]-~]')
_UNSAFE_JSON = re.compile(r'["\\\x00-\x1f\x7f]')
_SHORT = {
    '"': '\\"', "\\": "\\\\",
    "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", "\v": "\\v",
}  # fmt: skip


def escape_default(text: str) -> str:
    """Quote and backslash behind a backslash, what is not printable ASCII as ``\\xHH``."""
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0]) or f"\\x{ord(found[0]):02X}", text)


def escape_json(text: str) -> str:
    """The escapes of a JSON string; bytes from 0x80 up stay as they are."""
    if _UNSAFE_JSON.search(text) is None:
        return text
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", "\\u007f")


ESCAPINGS: dict[str, Escape] = {"default": escape_default, "json": escape_json}


# -- codes: one small function for each -------------------------------------------------------


def _remote(entry: Entry) -> str:
    request = entry.request
    return (request.remote if request is not None else entry.connection.peer).host or "-"


def _remote_port(entry: Entry) -> str:
    request = entry.request
    return str((request.remote if request is not None else entry.connection.peer).port)


def _masked(entry: Entry) -> str:
    """The client's address without its last octet, or its last 80 bits."""
    text = _remote(entry)
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if address.version == 4:
        return text.rpartition(".")[0] + ".0"
    return str(IPv6Network((int(address), 48), strict=False).network_address)


def _method(entry: Entry) -> str:
    return entry.line[0] if entry.request is None else entry.request.method


def _target(entry: Entry) -> str:
    return entry.line[1] if entry.request is None else entry.request.target


def _version(entry: Entry) -> str:
    return entry.line[2] if entry.request is None else entry.request.version


def _path(entry: Entry) -> str:
    return entry.line[1].partition("?")[0] if entry.request is None else entry.request.path


def _query(entry: Entry) -> str:
    if entry.request is None:
        return entry.line[1].partition("?")[2]
    return entry.request.query or ""


def _host(entry: Entry) -> str:
    return (entry.request is not None and entry.request.host) or "-"


def _user(entry: Entry) -> str:
    if entry.request is None:
        return "-"
    return _lookup(entry.request.environment, "REMOTE_USER")


def _lookup(pairs: tuple[Pair, ...], name: str) -> str:
    for key, value in reversed(pairs):
        if key == name:
            return value
    return "-"


def cookie(field: str, name: str) -> str:
    """The value of cookie *name* in a Cookie field (RFC 6265 section 4.2.1), "" when missing."""
    for pair in field.split(";"):
        key, equals, value = pair.strip(" \t").partition("=")
        if equals and key == name:
            return value
    return ""


def _plain(part: Part) -> Maker:
    """A code whose value is safe to write as it is; an argument means nothing to it."""
    return lambda argument, escape: part


def _at_end(part: Callable[[Entry | Ended], str]) -> Maker:
    return lambda argument, escape: AtEnd(part)


def _escaped(part: Part) -> Maker:
    """A code whose value comes from outside."""
    return lambda argument, escape: lambda entry: escape(part(entry))


def _address(argument: str, escape: Escape) -> Part:
    if argument not in ("", "mask"):
        raise ValueError("only mask may be asked for")
    return _masked if argument else _remote


def _port(argument: str, escape: Escape) -> Part:
    if argument not in ("", "canonical", "local", "remote"):
        raise ValueError("only canonical, local, remote may be asked for")
    if argument == "remote":
        return _remote_port
    return lambda entry: str(entry.connection.listener.port)


def _request_line(argument: str, escape: Escape) -> Part:
    def part(entry: Entry) -> str:
        return f"{_method(entry)} {escape(_target(entry))} {_version(entry)}"

    return part


def _request_field(argument: str, escape: Escape) -> Part:
    if not argument:
        raise ValueError("a field name is missing")
    name = argument.lower()

    def part(entry: Entry) -> str:
        return escape(entry.request.fields.get(name, "-")) if entry.request is not None else "-"

    return part


def _response_field(argument: str, escape: Escape) -> Part:
    if not argument:
        raise ValueError("a field name is missing")
    name = argument.lower()
    return lambda entry: escape(entry.response_fields.get(name, "-"))


def _environment(argument: str, escape: Escape) -> Part:
    return lambda entry: escape(_lookup(entry.environment, argument))


def _cookie(argument: str, escape: Escape) -> Part:
    def part(entry: Entry) -> str:
        if entry.request is None:
            return ""
        return escape(cookie(entry.request.fields.get("cookie"), argument))

    return part


_DURATIONS = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 1e3, "msec": 1e3, "us": 1e6, "usec": 1e6,
              "ns": 1e9, "nsec": 1e9}  # fmt: skip


def _duration(argument: str, escape: Escape) -> AtEnd:
    factor = _DURATIONS.get(argument)
    if factor is None:
        raise ValueError("the unit is none of s, ms, us, ns")
    return AtEnd(lambda entry: str(int(entry.duration * factor)))


_CLF_TIME = "[%d/%b/%Y:%H:%M:%S %z]"
_CLOCKS: dict[str, Callable[[int], str]] = {  # of nanoseconds since the epoch
    "sec": lambda ns: str(ns // 10**9),
    "msec": lambda ns: str(ns // 10**6),
    "usec": lambda ns: str(ns // 10**3),
    "nsec": str,
    "msec_frac": lambda ns: f"{ns % 10**9 // 10**6:03d}",
    "usec_frac": lambda ns: f"{ns % 10**9 // 10**3:06d}",
    "nsec_frac": lambda ns: f"{ns % 10**9:09d}",
}


def _time(argument: str, escape: Escape) -> Part | AtEnd:
    which, colon, rest = argument.partition(":")
    if colon and which in ("begin", "end"):
        argument = rest
        if not argument:
            raise ValueError("no time format")
    clock = _CLOCKS.get(argument)
    if clock is None:
        if argument and "%" not in argument:
            raise ValueError("neither a clock nor a strftime format")
        clock = _strftime(argument or _CLF_TIME)
    if colon and which == "end":
        return AtEnd(lambda entry: clock(int(entry.ended * 1e9)))
    return lambda entry: clock(int(entry.started * 1e9))


def _strftime(form: str) -> Callable[[int], str]:
    """Local time; the text of the last second is kept, for requests come in bunches."""
    second, text = -1, ""

    def clock(ns: int) -> str:
        nonlocal second, text
        now = ns // 10**9
        if now != second:
            second, text = now, time.strftime(form, time.localtime(now))
        return text

    return clock


CODES: dict[str, Maker] = {
    "a": _address,
    "h": _plain(_remote),
    "A": _plain(lambda entry: entry.connection.local.host or "-"),
    "p": _port,
    "l": _plain(lambda entry: "-"),
    "u": _escaped(_user),
    "t": _time,
    "r": _request_line,
    "m": _escaped(_method),
    "U": _escaped(_path),
    "q": _escaped(_query),
    "H": _escaped(_version),
    "s": _plain(lambda entry: str(entry.status)),
    "b": _at_end(lambda entry: str(entry.body_bytes)),
    "B": _at_end(lambda entry: str(entry.body_bytes)),
    "I": _at_end(lambda entry: str(entry.bytes_in)),
    "O": _at_end(lambda entry: str(entry.bytes_out)),
    "D": _at_end(lambda entry: str(int(entry.duration * 1e6))),
    "T": _duration,
    "V": _escaped(_host),
    "v": _escaped(lambda entry: entry.server_name or "-"),
    "f": _escaped(lambda entry: entry.file_name or "-"),
    "X": _plain(lambda entry: entry.mark),
    "k": _plain(lambda entry: str(entry.number)),
    "i": _request_field,
    "o": _response_field,
    "e": _environment,
    "n": _environment,
    "C": _cookie,
    "P": _plain(lambda entry: ""),
}


# -- writing ----------------------------------------------------------------------------------


class Sink(Protocol):
    """What ``AccessLogs`` writes to: ``log.LogFiles``."""

    def append(self, name: str, data: bytes) -> int:
        """Write the whole lines *data* to log *name*; how many bytes were taken or given up."""

    def to_syslog(self, priority: int, line: str) -> None:
        """Hand one line to the system's log."""


def begin_line(settings: AccessLogSettings, entry: Entry) -> str:
    """What is known of *entry*'s line before its end, for ``Ended``; "" where there is no log."""
    if not settings.is_wanted:
        return ""
    return _compiled(settings.format, settings.escaping).begin(entry)


_compiled = cache(compile_format)  # as many as the configuration has


class AccessLogs:
    """The access logs of one worker."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._held: dict[str, bytearray] = {}

    def write(self, settings: AccessLogSettings, entry: Entry | Ended) -> None:
        """Log *entry* as *settings* say; nothing, where they name no log."""
        if not settings.is_wanted:
            return
        line = _compiled(settings.format, settings.escaping).line(entry)
        if settings.use_syslog:
            self._sink.to_syslog(settings.syslog_level, line.rstrip("\n"))
            return
        held = self._held.get(settings.filename)
        if held is None:
            held = self._held[settings.filename] = bytearray()
        held += line.encode("latin-1", "replace")
        if len(held) >= FLUSH_SIZE:
            self._flush(settings.filename, held)

    def flush(self) -> None:
        """Write what is held: once a second, before a reopen, at exit."""
        for name, held in self._held.items():
            if held:
                self._flush(name, held)

    def _flush(self, name: str, held: bytearray) -> None:
        del held[: self._sink.append(name, bytes(held))]
        if len(held) > MAX_HELD:
            log.warning("access log %s: takes nothing, %d bytes of lines lost", name, len(held))
            held.clear()
