"""A response whose body is all at hand, in whole or in the parts that the client wants: conditions,
ranges, multipart (core.md 11).  A file and a spooled response of a backend are the same here."""

from __future__ import annotations

import secrets
from typing import Protocol

from ..config.model import Config
from ..errors import PreconditionFailed, RangeNotSatisfiable
from ..http.exchange import Exchange
from ..message import Head, Request
from . import conditional, ranges
from .ranges import Range

SMALL = 16 * 1024  # bytes that are read first: one write is cheaper than a head and a sendfile


class Source(Protocol):
    """The bytes of a representation, by their position."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, length: int) -> bytes:
        """At least one byte, where there is one; at most *length*.  Raises OSError."""

    def send(self, exchange: Exchange, start: int, length: int) -> None:
        """All of them, as body of the response.  Raises EOFError, OSError."""


def serve(exchange: Exchange, head: Head, source: Source, config: Config) -> None:
    """Answer with *source*, as the request's conditions and ranges want it.

    *head* is that of the whole, without Content-Length.  Only a 200 has conditions or parts.
    Raises PreconditionFailed, RangeNotSatisfiable; EOFError or OSError when the source could not
    be sent as promised.
    """
    head = Head(head.status, head.fields, source.size)
    if head.status != 200:
        _send(exchange, head, source, (0, source.size - 1))
        return
    request = exchange.request
    if status := _not_sent(request, head):
        exchange.respond(Head(status, head.fields))
        exchange.finish()
        return
    parts = None
    if _takes_ranges(exchange, head, config):
        parts = _ranges(request, head)
        if "accept-ranges" not in head.fields:
            head = Head(200, head.fields.plus(("Accept-Ranges", "bytes")), source.size)
    if parts is None:
        _send(exchange, head, source, (0, source.size - 1))
    elif len(parts) == 1:
        _send_part(exchange, head, source, parts[0])
    else:
        _send_parts(exchange, head, source, parts)


# -- what the request wants -------------------------------------------------------------------


def _not_sent(request: Request, head: Head) -> int:
    """304 when the client has it already, else 0.  Raises PreconditionFailed."""
    status = conditional.evaluate(request, head.fields)
    if status == 412:
        raise PreconditionFailed("If-None-Match names what there is")
    return 0 if status == 200 else status


def _takes_ranges(exchange: Exchange, head: Head, config: Config) -> bool:
    request = exchange.request
    return (
        exchange.settings.static.range_requests
        and request.method != "POST"
        and (request.version != "HTTP/1.0" or config.server.features.http10_range)
        and head.fields.get("accept-ranges", "bytes") == "bytes"
    )


def _ranges(request: Request, head: Head) -> list[Range] | None:
    """What the client asks for; None for the whole.  Raises RangeNotSatisfiable."""
    value = request.fields.get("range")
    size = head.length or 0
    if not value or not size or request.method != "GET":
        return None
    if not conditional.allows_range(request, head.fields):
        return None
    wanted = ranges.ranges_of(value, size)
    if wanted == []:
        raise RangeNotSatisfiable(size)
    return wanted


# -- the response -----------------------------------------------------------------------------


def _send_part(exchange: Exchange, head: Head, source: Source, part: Range) -> None:
    fields = head.fields.plus(("Content-Range", _content_range(part, source)))
    _send(exchange, Head(206, fields, _size(part)), source, part)


def _send_parts(exchange: Exchange, head: Head, source: Source, parts: list[Range]) -> None:
    boundary = secrets.token_hex(12)
    kind = head.fields.get("content-type")
    heads = [_part_head(boundary, kind, part, source) for part in parts]
    heads[0] = heads[0][2:]  # no line before the first boundary ends here
    tail = f"\r\n--{boundary}--\r\n".encode("ascii")
    length = sum(map(len, heads)) + sum(map(_size, parts)) + len(tail)
    multipart = f"multipart/byteranges; boundary={boundary}"
    exchange.respond(Head(206, head.fields.replacing("Content-Type", multipart), length))
    for part_head, part in zip(heads, parts, strict=True):
        exchange.write(part_head)
        if _size(part) > SMALL:
            source.send(exchange, part[0], _size(part))
        else:
            exchange.write(_read(source, part))
    exchange.write(tail)
    exchange.finish()


def _part_head(boundary: str, kind: str, part: Range, source: Source) -> bytes:
    """RFC 9110 section 14.6."""
    lines = [f"\r\n--{boundary}"]
    if kind:
        lines.append(f"Content-Type: {kind}")
    lines += [f"Content-Range: {_content_range(part, source)}", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _content_range(part: Range, source: Source) -> str:
    return f"bytes {part[0]}-{part[1]}/{source.size}"


def _send(exchange: Exchange, head: Head, source: Source, part: Range) -> None:
    """*head*, then *part*.  What is small is read before anything is promised."""
    is_small = _size(part) <= SMALL
    data = _read(source, part) if is_small and exchange.request.method != "HEAD" else b""
    exchange.respond(head)
    if data:
        exchange.write(data)
    elif not is_small:
        source.send(exchange, part[0], _size(part))
    exchange.finish()


def _read(source: Source, part: Range) -> bytes:
    position, end = part[0], part[1] + 1
    data = source.read(position, end - position)
    while len(data) < end - position:
        piece = source.read(position + len(data), end - position - len(data))
        if not piece:
            raise EOFError("file is shorter than it was")
        data += piece
    return data


def _size(part: Range) -> int:
    return part[1] - part[0] + 1
