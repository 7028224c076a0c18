"""Static files: from a mapped request to a file, and what is said of it (core.md 10)."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b

from ..config.model import Config, RequestConfig, StaticSettings
from ..errors import Forbidden, MethodNotAllowed, NotFound, NotImplementedHere
from ..http.exchange import Exchange
from ..message import Fields, Head, Pair, Request, ascii_lower, from_os
from ..uri import encode_path
from . import conditional, files, mimetypes, representation
from .files import OpenFile

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
    settings = exchange.settings.static
    if file.is_folder:
        raise Forbidden(f"{file.path}: folder without index file")
    _check_file(file, settings)
    kind, entity = describe(file, settings)
    head = Head(200, Fields((("Content-Type", kind), *entity)))
    representation.serve(exchange, head, file, config)


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
