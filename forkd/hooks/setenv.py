"""mod_setenv: request fields, response fields and variables for programs (core.md 14)."""

from __future__ import annotations

from ..config.model import Config, RequestConfig
from ..message import Fields, Head, Pair, Request


def change_request(request: Request, settings: RequestConfig, config: Config) -> Request:
    """``add`` joins its value to the field's, ``set`` replaces it; an empty value removes it.

    Variables are set in the same way, for those who start or feed programs.
    """
    hooks = settings.hooks
    if hooks.add_request_header or hooks.set_request_header:
        fields = _joining(request.fields, hooks.add_request_header)
        request = request._replace(fields=_replacing(fields, hooks.set_request_header))
    if hooks.add_environment or hooks.set_environment:
        environment = dict(request.environment)
        for name, value in hooks.add_environment:
            known = environment.get(name)
            environment[name] = f"{known}, {value}" if known else value
        environment.update(hooks.set_environment)
        request = request._replace(environment=tuple(environment.items()))
    return request


def change_head(head: Head, settings: RequestConfig) -> Head:
    """``add`` appends a second field, ``set`` replaces the first or removes all."""
    hooks = settings.hooks
    if not (hooks.add_response_header or hooks.set_response_header):
        return head
    fields = head.fields.plus(*(pair for pair in hooks.add_response_header if pair[1]))
    return head._replace(fields=_replacing(fields, hooks.set_response_header))


def _joining(fields: Fields, pairs: tuple[Pair, ...]) -> Fields:
    for name, value in pairs:
        known = fields.get(name)
        joint = "; " if name.lower() == "cookie" else ", "
        if value:
            fields = fields.replacing(name, f"{known}{joint}{value}" if known else value)
    return fields


def _replacing(fields: Fields, pairs: tuple[Pair, ...]) -> Fields:
    for name, value in pairs:
        fields = fields.replacing(name, value)
    return fields
