"""mod_rewrite: the URL changed before anybody else sees it (core.md 13, config.md 10).

Every change starts the request anew, so that conditions and rules see the new URL.
"""

from __future__ import annotations

from ..config.model import Config, RequestConfig
from ..config.substitution import RuleSet
from ..errors import ForkdError
from ..message import Request
from ..uri import decode_path, normalise_target

MAX_REWRITES = 100
FINISHED = -1
"""``Request.rewrites`` of a request that a -once rule has changed."""


def rewrite(request: Request, settings: RequestConfig, config: Config) -> Request:
    """``url.rewrite-once`` and ``url.rewrite-repeat``.

    Raises ForkdError when rules go round in circles, BadRequest for a result that is no URL.
    """
    hooks = settings.hooks
    return _rewrite(request, hooks.rewrite_once, hooks.rewrite_repeat, config)


def rewrite_missing(request: Request, settings: RequestConfig, config: Config) -> Request:
    """The same for the if-not-file variants, which whoever can look at files asks for."""
    hooks = settings.hooks
    return _rewrite(request, hooks.rewrite_if_not_file, hooks.rewrite_repeat_if_not_file, config)


def _rewrite(
    request: Request, once: RuleSet | None, repeat: RuleSet | None, config: Config
) -> Request:
    if request.rewrites == FINISHED:
        return request
    for rules, rewrites in ((once, FINISHED), (repeat, request.rewrites + 1)):
        target = rules.apply(request, config) if rules else None
        if target == "":
            return request  # a rule that says so, to those that come later too
        if target and target.startswith("/"):
            if rewrites > MAX_REWRITES:
                raise ForkdError(f"{request.target}: rewritten more than {MAX_REWRITES} times")
            return _moved(request, target, rewrites, config)
    return request


def _moved(request: Request, target: str, rewrites: int, config: Config) -> Request:
    path, query = normalise_target(target, config.server.parse_options)
    decoded = decode_path(path)
    return request._replace(path=path, query=query, decoded_path=decoded, rewrites=rewrites)
