"""What a client is shown when a request fails (core.md 12): an error file, or a small page.

Never echoes anything of the request.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from http import HTTPStatus

from ..config.model import RequestConfig
from ..http.exchange import Exchange
from ..message import Fields, Head, Pair, os_path

MAX_FILE = 1 << 20  # bytes of an error file; a larger one is somebody's mistake


def respond(exchange: Exchange, status: int, fields: tuple[Pair, ...] = ()) -> None:
    """Answer with the document for *status*; *fields* go with it."""
    body = _from_file(exchange.settings, status) or page(status)
    head_fields = Fields((("Content-Type", "text/html"), *fields))
    exchange.respond(Head(status, head_fields, len(body)))
    exchange.write(body)
    exchange.finish()


@lru_cache(maxsize=64)
def page(status: int) -> bytes:
    """A page that says no more than *status* and its name."""
    try:
        title = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        title = str(status)
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n'
        f'<head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body><h1>{title}</h1></body>\n"
        "</html>\n"
    ).encode("ascii")


def _from_file(settings: RequestConfig, status: int) -> bytes:
    """The file PREFIX + status + ``.html``, empty when there is none to read."""
    prefix = settings.errors.errorfile_prefix
    if not prefix:
        return b""
    try:
        fd = os.open(os_path(f"{prefix}{status}.html"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE:
            return b""
        return os.read(fd, MAX_FILE)
    except OSError:
        return b""
    finally:
        os.close(fd)
