"""From a request to whoever answers it, and from a failure to a status.

Every request goes through ``handle``: configuration, hooks, gateways, files, in the order of
config.md 9.3.  Here is the one ``except ForkdError`` of the program.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from .. import hooks
from ..config.model import Config
from ..errors import ClientGone, ForkdError, MethodNotAllowed, PayloadTooLarge
from ..hooks import Phase
from ..http.errorpage import error_response
from ..http.exchange import Exchange
from ..message import Head, Request
from . import GATEWAYS, files, static, trace
from .base import WorkerContext
from .failure import Failure, Handler, Intercepted, handler_for, handler_request, report
from .files import OpenFile
from .policy import find_route

log = logging.getLogger(__name__)


def handle(exchange: Exchange, worker: WorkerContext) -> None:
    """Answer *exchange*; when this returns, it is finished, aborted or a tunnel.

    Raises ClientGone when there is nobody left to answer.
    """
    received = exchange.request
    try:
        _run(exchange, worker, None)
    except (ForkdError, Intercepted) as error:
        _recover(exchange, worker, received, Failure.of(error))


def _recover(
    exchange: Exchange, worker: WorkerContext, received: Request, failure: Failure
) -> None:
    """Answer a failed request: by its error handler if there is one and it works, else by the
    document for its status.  A handler that fails has no handler behind it."""
    report(exchange, failure)
    failed, errors = exchange.request, exchange.settings.errors
    handler = handler_for(failure.status, errors)
    if handler and not exchange.started:
        config = worker.config
        try:
            exchange.request = handler_request(received, handler.target, failure.status, config)
            _run(exchange, worker, handler)
            return
        except ForkdError as error:
            log.warning("error handler %s: status %d, %s", handler.target, error.status, error)
        finally:
            exchange.request = failed  # what the access log is to tell of
    if exchange.started:
        exchange.abort(failure.text)
    else:
        exchange.on_head = _head_filter(exchange, worker.config)
        _respond(exchange, *error_response(failure.status, errors, failure.fields))


def _respond(exchange: Exchange, head: Head, body: bytes) -> None:
    exchange.respond(head)
    exchange.write(body)
    exchange.finish()


# -- the steps --------------------------------------------------------------------------------


class _Rewritten(Exception):
    """A hook has changed the URL: all steps again."""

    def __init__(self, request: Request) -> None:
        self.request = request


def _run(exchange: Exchange, worker: WorkerContext, handler: Handler | None) -> None:
    """Serve the exchange's request, anew each time that its URL is rewritten.

    Raises ForkdError, Intercepted, ClientGone; whatever else goes wrong becomes one of them or,
    when the client has been promised something else, an abort.
    """
    received = exchange.request
    try:
        while True:
            exchange.request = received
            try:
                _serve(exchange, worker, handler)
                return
            except _Rewritten as changed:
                received = _moved(received, changed.request)
    except (ForkdError, Intercepted, ClientGone):
        raise
    except (EOFError, OSError) as error:
        _give_up(exchange, f"{exchange.file_name}: {error}")
    except Exception:
        log.exception("%s %s: failed", exchange.request.method, exchange.request.path)
        _give_up(exchange, "internal error")


def _moved(received: Request, rewritten: Request) -> Request:
    """*received* at the URL of *rewritten*: what other hooks have changed, they change again."""
    return replace(
        received,
        path=rewritten.path,
        query=rewritten.query,
        decoded_path=rewritten.decoded_path,
        rewrites=rewritten.rewrites,
    )


def _give_up(exchange: Exchange, why: str) -> None:
    if not exchange.started:
        raise ForkdError(why)
    log.warning("%s: response cut short, %s", exchange.request.remote, why)
    exchange.abort(why)


def _serve(exchange: Exchange, worker: WorkerContext, handler: Handler | None) -> None:
    config = worker.config
    _select(exchange, config, handler)
    if _is_answered(exchange, config, Phase.RAW_URL, Phase.CLEAN_URL):
        return
    request, settings = exchange.request, exchange.settings
    found = find_route(request, settings)
    if found:
        server, route = found
        if settings.debug.request_handling:
            log.info("%s: %s %r", request.decoded_path, server.name, route.key)
        GATEWAYS[server.name](exchange, server, route, worker)
    elif request.method == "CONNECT" and not request.protocol:
        raise MethodNotAllowed("CONNECT that no gateway takes")
    elif request.path == "*":
        static.allow(exchange)
    else:
        _serve_path(exchange, worker)


def _select(exchange: Exchange, config: Config, handler: Handler | None) -> None:
    """The configuration for the request, and what follows from it before anything is done."""
    settings = exchange.settings = config.select(exchange.request)
    request = exchange.request
    exchange.on_head = _head_filter(exchange, config, handler, settings.errors.error_intercept)
    if settings.debug.request_header:
        trace.request_head(request)
    limit = settings.limits.max_request_size
    if limit and (request.content_length or 0) > limit:
        raise PayloadTooLarge(f"body of {request.content_length} bytes, limit {limit}")


def _is_answered(exchange: Exchange, config: Config, *phases: Phase) -> bool:
    """Run the hooks of *phases* on the request; whether one has answered.  Raises _Rewritten."""
    for phase in phases:
        result = hooks.run(phase, exchange.request, exchange.settings, config)
        if isinstance(result, Head):
            static.respond_empty(exchange, result)
            return True
        if result.rewrites != exchange.request.rewrites:
            raise _Rewritten(result)
        exchange.request = result
    return False


def _serve_path(exchange: Exchange, worker: WorkerContext) -> None:
    """The steps from a URL to a file."""
    config, settings = worker.config, exchange.settings
    if _is_answered(exchange, config, Phase.PHYSICAL):
        return
    _, path = static.mapped(exchange.request, settings)
    rules = settings.hooks.rewrite_if_not_file or settings.hooks.rewrite_repeat_if_not_file
    if rules and not files.is_regular(path) and _is_answered(exchange, config, Phase.NO_FILE):
        return
    exchange.file_name = path
    if settings.debug.request_handling:
        log.info("%s: file %s", exchange.request.decoded_path, path)
    found = static.find(exchange.request, settings, config)
    if isinstance(found, Head):
        static.respond_empty(exchange, found)
        return
    with found:
        _serve_file(exchange, worker, found)


def _serve_file(exchange: Exchange, worker: WorkerContext, file: OpenFile) -> None:
    """The steps that know which file it is: who goes by the path is asked again, with its own."""
    exchange.file_name = file.path
    request = exchange.request
    own_path = static.url_path(request, file)
    if own_path != request.decoded_path:
        exchange.request = replace(request, decoded_path=own_path)
    if not _is_answered(exchange, worker.config, Phase.FILE):
        static.serve(exchange, file, worker.config)


# -- heads ------------------------------------------------------------------------------------


def _head_filter(
    exchange: Exchange, config: Config, handler: Handler | None = None, intercepts: bool = False
) -> Callable[[Head], Head]:
    """What is done to the final head on its way out.

    The head of an error handler takes the status that it is to explain; one of a backend that
    failed is not sent at all when *intercepts*: that raises Intercepted.
    """

    def on_head(head: Head) -> Head:
        if handler and handler.keeps_status and head.status == 200:
            fields = head.fields.without("accept-ranges")
            head = replace(head, status=handler.keeps_status, fields=fields)
        elif intercepts and not handler and head.status >= 400:
            raise Intercepted(head)
        head = hooks.run_head(head, exchange.settings, config)
        if exchange.settings.debug.response_header:
            trace.response_head(exchange.request, head)
        return head

    return on_head
