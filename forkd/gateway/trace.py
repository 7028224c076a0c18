"""``debug.log-*``: heads in the error log, for whoever looks for a mistake."""

from __future__ import annotations

import logging

from ..message import Fields, Head, Request

log = logging.getLogger(__name__)


def request_head(request: Request) -> None:
    log.info(
        "%s: request %s %s %s%s",
        request.remote,
        request.method,
        request.target,
        request.version,
        _lines(request.fields),
    )


def response_head(request: Request, head: Head) -> None:
    log.info("%s: response %d%s", request.remote, head.status, _lines(head.fields))


def _lines(fields: Fields) -> str:
    return "".join(f"\n  {name}: {value}" for name, value in fields)
