"""Static files: from a mapped request to a file on the wire (core.md 10, 11).

The body goes from the descriptor to the client; only a small file is read, so that head and body
leave in one write.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b

from ..config.model import Config, RequestConfig, StaticSettings
from ..errors import (
    Forbidden,
    MethodNotAllowed,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    RangeNotSatisfiable,
)
from ..http.exchange import Exchange
from ..message import Fields, Head, Pair, Request, ascii_lower, from_os
from ..uri import encode_path
from . import conditional, files, mimetypes, ranges
from .files import OpenFile
from .ranges import Range

SMALL = 16 * 1024  # bytes up to which a file is read: one write is cheaper than send and sendfile

METHODS = "OPTIONS, GET, HEAD, POST"
_SENDING = ("GET", "HEAD", "POST")
_KNOWING_FOLDERS = (*_SENDING, "QUERY")


# -- from a request to a file -----------------------------------------------------------------


def mapped(request: Request, settings: RequestConfig) -> tuple[str, str]:
    """Base folder and path of *request* in the file system, as a hook has mapped it or by the
    document root."""
    if request.physical is not None:
        return request.physical
    path = request.decoded_path
    if settings.static.force_lowercase_filenames:
        path = ascii_lower(path)
    return settings.document_root, settings.document_root.rstrip("/") + path


def find(request: Request, settings: RequestConfig, config: Config) -> OpenFile | Head:
    """The file that *request* is about, its index file for a folder, or a redirect.

    A folder comes back as such when it has no index file or the method has no use for one; the
    caller closes what it gets.  Raises NotFound, Forbidden.
    """
    base, path = mapped(request, settings)
    features = config.server.features
    found = files.lookup(base, path, settings.static.follow_symlink, features.http_pathinfo)
    if not found.is_folder:
        return found
    if not request.decoded_path.endswith("/"):
        if request.method not in _KNOWING_FOLDERS:
            return found
        found.close()
        return _to_folder(request, settings, absolute=features.absolute_dir_redirect)
    return _index_of(found, settings)


def _index_of(folder: OpenFile, settings: RequestConfig) -> OpenFile:
    """The first index file that exists, in place of *folder*; else *folder*."""
    follow = settings.static.follow_symlink
    try:
        for name in settings.static.index_files:
            parent = settings.document_root if name.startswith("/") else folder.path
            path = f"{parent.rstrip('/')}/{name.lstrip('/')}"
            with suppress(NotFound):
                found = files.lookup(path, path, follow, path_info=False)
                folder.close()
                return found
    except BaseException:
        folder.close()
        raise
    return folder


def url_path(request: Request, file: OpenFile) -> str:
    """The decoded URL path of *file* itself: with its index file's name, without its path info."""
    path = request.decoded_path
    if file.path_info:
        return path[: -len(file.path_info)]
    if path.endswith("/") and not file.is_folder:
        return path + file.path[file.path.rfind("/") + 1 :]
    return path


def _to_folder(request: Request, settings: RequestConfig, absolute: bool) -> Head:
    location = encode_path(request.decoded_path) + "/"
    if request.query is not None:
        location += f"?{request.query}"
    if absolute:
        location = f"{request.scheme}://{_authority(request, settings)}{location}"
    return Head(301, Fields([("Location", location)]), 0)


def _authority(request: Request, settings: RequestConfig) -> str:
    port = request.connection.local.port
    return request.host or settings.server_name or f"localhost:{port}"


# -- from a file to a response ----------------------------------------------------------------


def serve(exchange: Exchange, file: OpenFile, config: Config) -> None:
    """Answer with *file*, or as the method asks (core.md 10.1).  Raises ForkdError.

    EOFError or OSError: the file could not be sent as promised.
    """
    if exchange.request.method in _SENDING:
        _serve_file(exchange, file, config)
    else:
        _answer_method(exchange)


def _serve_file(exchange: Exchange, file: OpenFile, config: Config) -> None:
    request, settings = exchange.request, exchange.settings.static
    if file.is_folder:
        raise Forbidden(f"{file.path}: folder without index file")
    _check_file(file, settings)
    kind, entity = describe(file, settings)
    if status := _not_sent(request, entity):
        respond_empty(exchange, Head(status, Fields((("Content-Type", kind), *entity))))
        return
    parts = None
    if _takes_ranges(request, settings, config):
        parts = _ranges(request, entity, file.size)
        entity = (*entity, ("Accept-Ranges", "bytes"))
    if parts is None:
        head = Head(200, Fields((("Content-Type", kind), *entity)), file.size)
        _send(exchange, file, head, (0, file.size - 1))
    elif len(parts) == 1:
        _send_part(exchange, file, kind, entity, parts[0])
    else:
        _send_parts(exchange, file, kind, entity, parts)


def respond_empty(exchange: Exchange, head: Head) -> None:
    exchange.respond(head)
    exchange.finish()


def allow(exchange: Exchange) -> None:
    """The answer to OPTIONS, for a file as for ``*``."""
    respond_empty(exchange, Head(200, Fields([("Allow", METHODS)]), 0))


def _answer_method(exchange: Exchange) -> None:
    method = exchange.request.method
    if method == "OPTIONS":
        allow(exchange)
    elif method == "QUERY":
        raise Forbidden("QUERY on a file")
    elif method == "CONNECT":
        raise MethodNotAllowed("CONNECT on a file")
    else:
        raise NotImplementedHere(f"{method} on a file")


def _check_file(file: OpenFile, settings: StaticSettings) -> None:
    if file.path_info == "/":
        raise NotFound(f"{file.path}/: no folder")
    if file.path_info and settings.disable_pathinfo:
        raise Forbidden(f"{file.path}: file with path info")
    if settings.exclude_extensions and file.path.endswith(settings.exclude_extensions):
        raise Forbidden(f"{file.path}: excluded extension")


def describe(file: OpenFile, settings: StaticSettings) -> tuple[str, tuple[Pair, ...]]:
    """Media type and validator fields; a file whose type is only guessed has no validators."""
    kind = _xattr_type(file, settings) or mimetypes.media_type(file.path, settings.mime_types)
    if not kind:
        return mimetypes.DEFAULT, ()
    modified = ("Last-Modified", conditional.http_date(file.status.st_mtime_ns // 10**9))
    tag = entity_tag(file.status, settings)
    return kind, ((("ETag", tag), modified) if tag else (modified,))


def _xattr_type(file: OpenFile, settings: StaticSettings) -> str:
    if not settings.use_xattr:
        return ""
    try:
        return from_os(os.getxattr(file.fd, settings.xattr_name)).strip("\0 \t\r\n")
    except OSError:
        return ""


def entity_tag(status: os.stat_result, settings: StaticSettings) -> str:
    """A strong tag that changes with the file, "" when switched off."""
    if not settings.etags:
        return ""
    return _tag(
        status.st_ino if settings.etag_use_inode else None,
        status.st_size if settings.etag_use_size else None,
        status.st_mtime_ns if settings.etag_use_mtime else None,
    )


@lru_cache(maxsize=1024)
def _tag(*parts: int | None) -> str:
    """A digest, so that no inode number is told to the world."""
    if parts == (None, None, None):
        return ""
    return f'"{blake2b(repr(parts).encode(), digest_size=8).hexdigest()}"'


def _not_sent(request: Request, entity: Sequence[Pair]) -> int:
    """304 when the client has the file already, else 0.  Raises PreconditionFailed."""
    status = conditional.evaluate(request, _value(entity, "ETag"), _value(entity, "Last-Modified"))
    if status == 412:
        raise PreconditionFailed("If-None-Match names the file as it is")
    return 0 if status == 200 else status


def _value(entity: Sequence[Pair], name: str) -> str:
    return next((value for key, value in entity if key == name), "")


# -- ranges -----------------------------------------------------------------------------------


def _takes_ranges(request: Request, settings: StaticSettings, config: Config) -> bool:
    return (
        settings.range_requests
        and request.method != "POST"
        and (request.version != "HTTP/1.0" or config.server.features.http10_range)
    )


def _ranges(request: Request, entity: Sequence[Pair], size: int) -> list[Range] | None:
    """What the client asks for; None for the whole.  Raises RangeNotSatisfiable."""
    value = request.fields.get("range")
    if not value or not size or request.method != "GET":
        return None
    tag, modified = _value(entity, "ETag"), _value(entity, "Last-Modified")
    if not conditional.allows_range(request, tag, modified):
        return None
    wanted = ranges.ranges_of(value, size)
    if wanted == []:
        raise RangeNotSatisfiable(size)
    return wanted


def _send_part(
    exchange: Exchange, file: OpenFile, kind: str, entity: Sequence[Pair], part: Range
) -> None:
    where = ("Content-Range", _content_range(part, file))
    fields = Fields((("Content-Type", kind), *entity, where))
    _send(exchange, file, Head(206, fields, _size(part)), part)


def _send_parts(
    exchange: Exchange, file: OpenFile, kind: str, entity: Sequence[Pair], parts: list[Range]
) -> None:
    boundary = secrets.token_hex(12)
    heads = [_part_head(boundary, kind, part, file) for part in parts]
    heads[0] = heads[0][2:]  # no line before the first boundary ends here
    tail = f"\r\n--{boundary}--\r\n".encode("ascii")
    length = sum(map(len, heads)) + sum(map(_size, parts)) + len(tail)
    multipart = f"multipart/byteranges; boundary={boundary}"
    exchange.respond(Head(206, Fields((("Content-Type", multipart), *entity)), length))
    for head, part in zip(heads, parts, strict=True):
        exchange.write(head)
        if _size(part) > SMALL:
            exchange.send_file(file.fd, part[0], _size(part))
        else:
            exchange.write(_read(file, part))
    exchange.write(tail)
    exchange.finish()


def _part_head(boundary: str, kind: str, part: Range, file: OpenFile) -> bytes:
    """RFC 9110 section 14.6."""
    where = _content_range(part, file)
    lines = f"\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {where}\r\n\r\n"
    return lines.encode("latin-1")


def _content_range(part: Range, file: OpenFile) -> str:
    return f"bytes {part[0]}-{part[1]}/{file.size}"


# -- the body ---------------------------------------------------------------------------------


def _send(exchange: Exchange, file: OpenFile, head: Head, part: Range) -> None:
    """*head*, then *part* of the file.  A small file is read before anything is promised."""
    is_small = _size(part) <= SMALL
    data = _read(file, part) if is_small and exchange.request.method != "HEAD" else b""
    exchange.respond(head)
    if data:
        exchange.write(data)
    elif not is_small:
        exchange.send_file(file.fd, part[0], _size(part))
    exchange.finish()


def _read(file: OpenFile, part: Range) -> bytes:
    data = os.pread(file.fd, _size(part), part[0])
    if len(data) != _size(part):
        raise EOFError("file is shorter than it was")
    return data


def _size(part: Range) -> int:
    return part[1] - part[0] + 1
