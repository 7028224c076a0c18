"""Before a gateway is chosen: pure steps from a request to a changed one, or to a response.

A hook is given the request as the steps before it left it, and returns it changed or not; a Head
ends the request; what it raises is answered like any other ForkdError.  A hook that changes the
URL raises ``Request.rewrites``' count, and everything starts anew with it (config.md 9.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from ..config.model import Config, RequestConfig
from ..message import Head, Request
from . import access, alias, redirect, rewrite, setenv

Hook = Callable[[Request, RequestConfig, Config], Request | Head]
HeadHook = Callable[[Head, RequestConfig], Head]


class Phase(IntEnum):
    """When a hook runs; within a phase the order of ``server.modules`` counts."""

    RAW_URL = 0
    CLEAN_URL = 1
    """Gateways that need no file are asked behind this."""
    PHYSICAL = 2
    """Maps the URL to the file system: ``Request.physical``."""
    NO_FILE = 3
    """Only when no regular file is at the mapped path."""
    FILE = 4
    """A file was found, perhaps an index file; ``decoded_path`` is its own, without path info."""


@dataclass(frozen=True, slots=True)
class Row:
    """One hook of a module (``mod_`` left out)."""

    module: str
    phase: Phase
    hook: Hook


HOOKS: tuple[Row, ...] = (
    Row("rewrite", Phase.RAW_URL, rewrite.rewrite),
    Row("setenv", Phase.CLEAN_URL, setenv.change_request),
    Row("access", Phase.CLEAN_URL, access.check),
    Row("redirect", Phase.CLEAN_URL, redirect.redirect),
    Row("alias", Phase.PHYSICAL, alias.remap),
    Row("rewrite", Phase.NO_FILE, rewrite.rewrite_missing),
    Row("access", Phase.FILE, access.check),
)

HEAD_HOOKS: tuple[tuple[str, HeadHook], ...] = (("setenv", setenv.change_head),)
"""Module and hook on the final head of a response."""


@lru_cache(maxsize=8)  # a worker sees one configuration; tests see many
def hooks_of(modules: tuple[str, ...]) -> tuple[tuple[Hook, ...], ...]:
    """The hooks of each phase, in the order in which *modules* lists theirs."""
    rows = [row for module in modules for row in HOOKS if row.module == module]
    return tuple(tuple(row.hook for row in rows if row.phase is phase) for phase in Phase)


@lru_cache(maxsize=8)
def head_hooks_of(modules: tuple[str, ...]) -> tuple[HeadHook, ...]:
    return tuple(hook for module in modules for name, hook in HEAD_HOOKS if name == module)


def run(phase: Phase, request: Request, settings: RequestConfig, config: Config) -> Request | Head:
    """*request* through the hooks of *phase*, up to the first that answers or rewrites."""
    rewrites = request.rewrites
    for hook in hooks_of(config.server.modules)[phase]:
        result = hook(request, settings, config)
        if result is request:
            continue
        if isinstance(result, Head) or result.rewrites != rewrites:
            return result
        request = result
    return request


def run_head(head: Head, settings: RequestConfig, config: Config) -> Head:
    """*head* as the response hooks leave it."""
    for hook in head_hooks_of(config.server.modules):
        head = hook(head, settings)
    return head
