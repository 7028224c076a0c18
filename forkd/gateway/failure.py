"""What happens to a request that failed: status, error handler, line in the log (core.md 12)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..config.model import Config, ErrorSettings
from ..errors import ForkdError
from ..http.exchange import Exchange
from ..message import Head, Pair, Request
from ..uri import decode_path, normalise_target
from . import trace

log = logging.getLogger(__name__)

_KEPT_FIELDS = ("www-authenticate", "allow", "retry-after")  # of an answer that is intercepted
_NOT_FOR_HANDLERS = ("Upgrade", "Range", "If-Range", "If-None-Match", "If-Modified-Since")


class Intercepted(Exception):
    """A backend answered with an error, and ``server.error-intercept`` wants our own documents."""

    def __init__(self, head: Head) -> None:
        super().__init__(f"backend answered {head.status}")
        self.head = head


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, for the client (status and fields) and for the log (text)."""

    status: int
    fields: tuple[Pair, ...]
    text: str

    @classmethod
    def of(cls, error: ForkdError | Intercepted) -> Failure:
        if isinstance(error, ForkdError):
            return cls(error.status, error.fields, str(error))
        kept = tuple(pair for pair in error.head.fields if pair[0].lower() in _KEPT_FIELDS)
        return cls(error.head.status, kept, str(error))


@dataclass(frozen=True, slots=True)
class Handler:
    """An error handler: a target to be asked for in place of the one that failed."""

    target: str
    keeps_status: int
    """Takes the place of 200, as a handler explains and does not repair; 0: its own counts."""


def handler_for(status: int, errors: ErrorSettings) -> Handler | None:
    if errors.error_handler:
        return Handler(errors.error_handler, status)
    if errors.error_handler_404 and status == 404:
        return Handler(errors.error_handler_404, 0)
    return None


def handler_request(received: Request, target: str, status: int, config: Config) -> Request:
    """A plain GET (HEAD where that was asked) for *target* in place of *received*, whose body and
    conditions are not meant for it.  Raises BadRequest when *target* is no URL."""
    path, query = normalise_target(target, config.server.parse_options)
    told = (("REDIRECT_STATUS", str(status)), ("REDIRECT_URI", received.target))
    return received._replace(
        method="HEAD" if received.method == "HEAD" else "GET",
        path=path,
        query=query,
        decoded_path=decode_path(path),
        fields=received.fields.without(*_NOT_FOR_HANDLERS),
        content_length=0,
        environment=(*received.environment, *told),
        protocol="",
    )


def report(exchange: Exchange, failure: Failure) -> None:
    """Our own failures are worth a line; a client's are when somebody looks for them."""
    request, debug = exchange.request, exchange.settings.debug
    if failure.status >= 500 and failure.status != 501:
        log.warning(
            "%s %s %s: status %d, %s",
            request.remote,
            request.method,
            request.path,
            failure.status,
            failure.text,
        )
        return
    if failure.status == 404 and debug.file_not_found:
        log.info("%s: not found, %s", request.path, failure.text)
    if debug.request_header_on_error:
        trace.request_head(request)
