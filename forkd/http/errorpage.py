"""Error responses: the generated page, or the admin's file (core.md 12)."""

from __future__ import annotations

import os
import stat
from http import HTTPStatus

from ..config.model import ErrorSettings
from ..message import Fields, Head, Pair, os_path

REASONS = {int(status): status.phrase for status in HTTPStatus} | {
    # RFC 9110 renamed these; the standard library's table is older.
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}

HTML: Pair = ("Content-Type", "text/html")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><title>{title}</title></head>
<body><h1>{title}</h1>{text}</body>
</html>
"""


def reason(status: int) -> str:
    """The reason phrase (RFC 9110 section 15), "" for an unknown status."""
    return REASONS.get(status, "")


def error_page(status: int, why: str = "") -> bytes:
    """A small page with the status as title and heading, and *why* below it; nothing of the
    request is in it."""
    title = f"{status} {reason(status)}".rstrip()
    return _PAGE.format(title=title, text=f"\n<p>{why}</p>" if why else "").encode("ascii")


def error_response(
    status: int, errors: ErrorSettings, fields: tuple[Pair, ...] = (), why: str = ""
) -> tuple[Head, bytes]:
    """Head and body for *status*: ``server.errorfile-prefix``'s file where it can be read.

    What the client has to be told, *why*, no such file says.
    """
    prefix = "" if why else errors.errorfile_prefix
    body = _error_file(status, prefix) if prefix else None
    if body is None:
        body = error_page(status, why)
    return Head(status, Fields((*fields, HTML)), len(body)), body


def _error_file(status: int, prefix: str) -> bytes | None:
    # Not to hang on a fifo that somebody put there, the file is opened without blocking.
    try:
        fd = os.open(os_path(f"{prefix}{status}.html"), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None
