"""From a request to whoever answers it, and from a failure to a status.

Every request goes through ``handle``: configuration, hooks, gateways, files, in the order of
config.md 9.3.  Here is the one ``except ForkdError`` of the program.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .. import hooks
from ..config.backend import GatewayServer, Route
from ..config.model import Config
from ..errors import ClientGone, ForkdError, MethodNotAllowed, NoBackend, PayloadTooLarge
from ..hooks import Phase
from ..http.errorpage import error_response
from ..http.exchange import Exchange
from ..message import Head, Request
from . import GATEWAYS, files, static, trace
from .base import WorkerContext
from .cgi import interpreter_of, serve_program
from .failure import Failure, Handler, Intercepted, handler_for, handler_request, report
from .files import OpenFile
from .outcome import Approved, LocalRedirected
from .policy import ASKED_WITH_FILE, claim, claims, split_path, without_file
from .redirected import redirected_request

log = logging.getLogger(__name__)

MAX_RESTARTS = 5  # by programs, for one request (gateway.md 10)


def handle(exchange: Exchange, worker: WorkerContext) -> None:
    """Answer *exchange*; when this returns, it is finished, aborted or a tunnel.

    Raises ClientGone when there is nobody left to answer.
    """
    received = exchange.request
    try:
        _run(exchange, worker, Course())
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
            _run(exchange, worker, Course(handler))
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


@dataclass(slots=True)
class Course:
    """What was settled about a request when it was run before."""

    handler: Handler | None = None
    """It is run for another one, that failed."""
    is_approved: bool = False
    """An authorizer has let it on."""
    docroot: str = ""
    """Where the authorizer has its files; "": not said."""
    restarts: int = 0

    def restart(self) -> None:
        """Raises ForkdError when it goes on for ever."""
        self.restarts += 1
        if self.restarts > MAX_RESTARTS:
            raise ForkdError(f"run again more than {MAX_RESTARTS} times")


def _run(exchange: Exchange, worker: WorkerContext, course: Course) -> None:
    """Serve the exchange's request, anew each time that it becomes another one.

    Raises ForkdError, Intercepted, ClientGone; whatever else goes wrong becomes one of them or,
    when the client has been promised something else, an abort.
    """
    received = exchange.request
    try:
        while True:
            exchange.request = received
            try:
                _serve(exchange, worker, course)
                return
            except _Rewritten as changed:
                received = _moved(received, changed.request)
            except LocalRedirected as redirect:
                course.restart()
                received = redirected_request(received, redirect.target, worker.config)
                course.docroot = ""
            except Approved as approved:
                course.restart()
                course.is_approved, course.docroot = True, approved.docroot
                received = _approved(received, approved)
    except (ForkdError, Intercepted, ClientGone):
        raise
    except (EOFError, OSError) as error:
        _give_up(exchange, f"{exchange.file_name}: {error}")
    except Exception:
        log.exception("%s %s: failed", exchange.request.method, exchange.request.path)
        _give_up(exchange, "internal error")


def _approved(received: Request, approved: Approved) -> Request:
    environment = (*received.environment, *approved.environment)
    return received._replace(environment=environment)


def _moved(received: Request, rewritten: Request) -> Request:
    """*received* at the URL of *rewritten*: what other hooks have changed, they change again."""
    return received._replace(
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


def _serve(exchange: Exchange, worker: WorkerContext, course: Course) -> None:
    _select(exchange, worker.config, course.handler)
    if _is_answered(exchange, worker.config, Phase.RAW_URL, Phase.CLEAN_URL):
        return
    if not course.docroot and _is_claimed(exchange, worker, course):
        return
    request = exchange.request
    if request.method == "CONNECT" and not request.protocol:
        raise MethodNotAllowed("CONNECT that no gateway takes")
    if request.path == "*":
        static.allow(exchange)
    else:
        _serve_path(exchange, worker, course)


def _select(exchange: Exchange, config: Config, handler: Handler | None) -> None:
    """The configuration for the request, and what follows from it before anything is done."""
    settings = config.select(exchange.request)
    exchange.configure(settings)
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
        if result is exchange.request:
            continue
        if isinstance(result, Head):
            static.respond_empty(exchange, result)
            return True
        if result.rewrites != exchange.request.rewrites:
            raise _Rewritten(result)
        exchange.request = result
    return False


def _serve_path(exchange: Exchange, worker: WorkerContext, course: Course) -> None:
    """The steps from a URL to a file."""
    config, settings = worker.config, exchange.settings
    if _is_mapped_away(exchange, config, course.docroot):
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
        _serve_file(exchange, worker, found, course)


def _is_mapped_away(exchange: Exchange, config: Config, docroot: str) -> bool:
    """Map the request to the file system, under *docroot* if there is one; whether a hook has
    answered instead."""
    if not docroot:
        return _is_answered(exchange, config, Phase.PHYSICAL)
    path = docroot.rstrip("/") + exchange.request.decoded_path
    exchange.request = exchange.request._replace(physical=(docroot, path))
    return False


def _serve_file(
    exchange: Exchange, worker: WorkerContext, file: OpenFile, course: Course
) -> None:
    """The steps that know which file it is: who goes by the path is asked again, with its own."""
    exchange.file_name = file.path
    request = exchange.request
    own_path = static.url_path(request, file)
    if own_path != request.decoded_path:
        exchange.request = request._replace(decoded_path=own_path)
    if _is_answered(exchange, worker.config, Phase.FILE):
        return
    serve = _taker(exchange, worker, file, course)
    if serve is None:
        static.serve(exchange, file, worker.config)
        return
    base, _ = static.mapped(exchange.request, exchange.settings)
    exchange.request = exchange.request._replace(
        physical=(base, file.path), path_info=file.path_info
    )
    file.close()
    serve()


# -- gateways ---------------------------------------------------------------------------------


def _is_claimed(exchange: Exchange, worker: WorkerContext, course: Course) -> bool:
    """Whether a gateway that needs no file has served the request."""
    for server, route in claims(exchange.request, exchange.settings, course.is_approved):
        if _waits_for_file(exchange, server, route, worker):
            continue
        if not _is_located(exchange, worker, route):
            _ask(exchange, worker, server, without_file(route))
        return True
    return False


def _waits_for_file(
    exchange: Exchange, server: GatewayServer, route: Route, worker: WorkerContext
) -> bool:
    """Whether the backend whose turn it is wants to see the file first (``check-local``).

    Raises NoBackend: nobody need look for a file that no backend will serve.
    """
    if server.name not in ASKED_WITH_FILE or not any(b.check_local for b in route.backends):
        return False
    proc = worker.balancer.peek(server, route, exchange.request)
    if proc is None:
        retry_after = worker.balancer.retry_after(route)
        raise NoBackend(f"{server.name} {route.key!r}: no backend available", retry_after)
    return proc.backend.check_local


def _is_located(exchange: Exchange, worker: WorkerContext, route: Route) -> bool:
    """Say where the program of the request would be, in the URL and in the file system; nobody
    looks whether it is there.  Whether a hook has answered instead."""
    request = exchange.request
    if route.backends and route.backends[0].mode == "responder":
        name, path_info = split_path(request.decoded_path, route.key)
        if path_info:
            exchange.request = request._replace(decoded_path=name, path_info=path_info)
    if _is_answered(exchange, worker.config, Phase.PHYSICAL):
        return True
    exchange.file_name = static.mapped(exchange.request, exchange.settings)[1]
    return False


def _taker(
    exchange: Exchange, worker: WorkerContext, file: OpenFile, course: Course
) -> Callable[[], None] | None:
    """The first gateway in the order of ``server.modules`` that serves *file*, ready to do it."""
    settings, path = exchange.settings, exchange.request.decoded_path
    if not (settings.servers or settings.cgi.assign):
        return None
    servers = {server.name: server for server in settings.servers}
    for name in worker.config.server.modules:
        if name == "cgi" and not file.is_folder:
            is_executable = bool(file.status.st_mode & 0o111)
            interpreter = interpreter_of(file.path, is_executable, settings.cgi)
            if interpreter is not None:
                return partial(serve_program, exchange, interpreter, worker)
        elif name in ASKED_WITH_FILE and name in servers:
            route = claim(servers[name], path, file.path, course.is_approved)
            if route is not None:
                return partial(_ask, exchange, worker, servers[name], route)
    return None


def _ask(exchange: Exchange, worker: WorkerContext, server: GatewayServer, route: Route) -> None:
    if exchange.settings.debug.request_handling:
        log.info("%s: %s %r", exchange.request.decoded_path, server.name, route.key)
    GATEWAYS[server.name](exchange, server, route, worker)


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
            head = head._replace(status=handler.keeps_status, fields=fields)
        elif intercepts and not handler and head.status >= 400:
            raise Intercepted(head)
        head = hooks.run_head(head, exchange.settings, config)
        if exchange.settings.debug.response_header:
            trace.response_head(exchange.request, head)
        return head

    return on_head
