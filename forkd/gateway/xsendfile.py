"""X-Sendfile: a backend names a file, and we send it (gateway.md 14).

The backend decides who gets what; the folders it may choose from are the configuration's.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import NamedTuple

from ..config.model import Config, RequestConfig
from ..errors import BackendBroken, Forbidden
from ..http.exchange import Exchange
from ..message import Fields, Head, ascii_lower
from ..uri import simplify_path
from . import files, representation, static
from .conversation import Terms
from .files import OpenFile
from .response_fields import closes, presentable

_PARTS = "x-sendfile2"  # of FastCGI, with byte ranges
_OF_THE_FILE = ("Content-Length", "ETag", "Last-Modified", "Accept-Ranges", "Content-Range")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_PART = re.compile(r"[ \t]*([^ \t]+)[ \t]+([0-9]+)-([0-9]*)[ \t]*")


class NamedFile(NamedTuple):
    """What the backend wrote: a path, and the part of the file from *start* to *end* (-1: its
    last byte), both included; None: the file, as the client asks for it."""

    path: str
    part: tuple[int, int] | None = None


def named_files(head: Head, terms: Terms) -> list[NamedFile]:
    """The files that *head* names, where *terms* let it; empty: an ordinary response.

    Raises BackendBroken when they cannot be understood.
    """
    for field in terms.send_file_fields:
        value = head.fields.get(field)
        if value and field == _PARTS:
            return [_part(item) for item in value.split(",")]
        if value:
            return [NamedFile(_decoded(value))]
    return []


def _part(item: str) -> NamedFile:
    found = _PART.fullmatch(item)
    if found is None:
        raise BackendBroken(f"X-Sendfile2: {item!r} is no file with a range")
    path, start, end = found.groups()
    return NamedFile(_decoded(path), (int(start), int(end) if end else -1))


def _decoded(value: str) -> str:
    raw = _ENCODED.sub(lambda found: chr(int(found[1], 16)), value)
    try:
        raw.encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise BackendBroken(f"X-Sendfile: {value!r} is not UTF-8") from None
    if "\0" in raw:
        raise BackendBroken("X-Sendfile: NUL in the path")
    return simplify_path(raw)


def serve(
    exchange: Exchange, head: Head, named: list[NamedFile], terms: Terms, config: Config
) -> None:
    """Answer with the *named* files under the fields of *head*.

    Raises Forbidden, NotFound; what ``representation.serve`` raises.
    """
    if closes(head):
        exchange.request = exchange.request._replace(keep_alive=False)
    fields = presentable(head).fields.without(*_OF_THE_FILE)
    with ExitStack() as stack:
        parts = [
            (stack.enter_context(_open(name.path, terms, exchange.settings)), name.part)
            for name in named
        ]
        file, part = parts[0]
        exchange.file_name = file.path
        if part is None:
            _serve_file(exchange, head._replace(fields=fields), file, config)
        else:
            spans = [(file, *_span(file, part)) for file, part in parts if part is not None]
            _serve_parts(exchange, head._replace(fields=fields), spans)


def _open(path: str, terms: Terms, settings: RequestConfig) -> OpenFile:
    if settings.static.force_lowercase_filenames:
        path = ascii_lower(path)
    if not path.startswith(terms.send_file_docroots or "/"):
        raise Forbidden(f"X-Sendfile: {path} is in no folder of x-sendfile-docroot")
    file = files.lookup(path, path, settings.static.follow_symlink, path_info=False)
    if file.is_folder:
        file.close()
        raise Forbidden(f"X-Sendfile: {path} is a folder")
    return file


def _serve_file(exchange: Exchange, head: Head, file: OpenFile, config: Config) -> None:
    kind, entity = static.describe(file, exchange.settings.static)
    fields = head.fields if "content-type" in head.fields else _typed(head.fields, kind)
    representation.serve(exchange, head._replace(fields=fields.plus(*entity)), file, config)


def _typed(fields: Fields, kind: str) -> Fields:
    return fields.plus(("Content-Type", kind))


def _span(file: OpenFile, part: tuple[int, int]) -> tuple[int, int]:
    """(offset, length) of *part* within *file*."""
    start, end = part
    last = file.size - 1 if end < 0 else min(end, file.size - 1)
    if start > last:
        raise Forbidden(f"X-Sendfile2: {file.path} has no byte {start}")
    return start, last - start + 1


def _serve_parts(
    exchange: Exchange, head: Head, spans: list[tuple[OpenFile, int, int]]
) -> None:
    exchange.respond(head._replace(length=sum(length for _, _, length in spans)))
    for file, start, length in spans:
        file.send(exchange, start, length)
    exchange.finish()
