"""mod_redirect: answers that send the client elsewhere (core.md 13, config.md 10)."""

from __future__ import annotations

import re

from ..config.model import Config, RequestConfig
from ..message import Fields, Head, Request


def redirect(request: Request, settings: RequestConfig, config: Config) -> Request | Head:
    """The first rule that matches makes the Location; one with an empty target lets pass."""
    rules = settings.hooks.redirect
    target = rules.apply(request, config) if rules else None
    if not target:
        return request
    status = settings.hooks.redirect_code or _status(request)
    return Head(status, Fields([("Location", encode(target))]), 0)


def _status(request: Request) -> int:
    """308 keeps the method where it matters; HTTP/1.0 does not know it."""
    keeps_method = request.method not in ("GET", "HEAD") and request.version != "HTTP/1.0"
    return 308 if keeps_method else 301


_TO_ENCODE = re.compile(r'%[0-9A-Fa-f]{2}|[^!#-;=?-\[\]_a-z~]|%')


def encode(target: str) -> str:
    """*target* as a URI reference: what may not stand raw is encoded, escapes get capital hex."""
    return _TO_ENCODE.sub(_encoded, target)


def _encoded(found: re.Match[str]) -> str:
    text = found[0]
    return text.upper() if len(text) > 1 else f"%{ord(text):02X}"
