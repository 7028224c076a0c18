"""Converters of directives whose values have a structure of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields

from ..uri import ParseOptions
from .converters import (
    BadValue,
    Context,
    flag,
    number,
    place_of,
    preferably,
    scalar_pairs,
    text_pairs,
)
from .diagnostics import suggestion
from .model import MimeTypes
from .substitution import Rule, RuleSet
from .tree import ConfigList, Value

Changes = dict[str, object]
"""Values by field name, for a directive that sets several."""


def mime_types(value: Value, context: Context) -> MimeTypes:
    return MimeTypes(text_pairs(value, context))


_balance_word = preferably("least-connection", "fair", "round-robin", "hash", "sticky")


def balance(value: Value, context: Context) -> str:
    word: str = _balance_word(value, context)
    return "least-connection" if word == "fair" else word


def rule_set(value: Value, context: Context) -> RuleSet:
    """url.redirect and url.rewrite-*: every bad rule is reported (config.md 10)."""
    rules = []
    for index, (pattern, replacement) in enumerate(text_pairs(value, context)):
        place = place_of(value, index) if isinstance(value, ConfigList) else None
        try:
            rule = Rule.parse(pattern, replacement)
        except ValueError as error:
            context.error(str(error), place)
            continue
        rules.append(rule)
        for token in rule.replacement.beyond(rule.pattern.groups, context.condition_groups):
            context.warn(f"{token} is always empty: there is no such group", place)
    return RuleSet(tuple(rules), context.block)


def alias_pairs(value: Value, context: Context) -> tuple[tuple[str, str], ...]:
    """alias.url; a key that an earlier one always beats is an error (core.md 13)."""
    pairs = text_pairs(value, context)
    keys = [key for key, _ in pairs]
    for index, key in enumerate(keys):
        shadow = next((earlier for earlier in keys[:index] if key.startswith(earlier)), None)
        if shadow is not None and isinstance(value, ConfigList):
            place = place_of(value, index)
            context.error(f'"{key}" never matches: "{shadow}" before it does', place)
    return pairs


_FIELD_NAME = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_UNSAFE = re.compile(r"[\0\r\n]")


def header_fields(value: Value, context: Context) -> tuple[tuple[str, str], ...]:
    """Header fields to add or set: what would break a message is an error."""
    pairs = text_pairs(value, context)
    for name, content in pairs:
        if not _FIELD_NAME.fullmatch(name):
            raise BadValue(f'"{name}" is not the name of a header field')
        if _UNSAFE.search(content):
            raise BadValue(f"the value of {name} holds a line end")
    return pairs


# server.http-parseopts

_PARSE_OPTIONS = {item.name.replace("_", "-"): item.name for item in fields(ParseOptions)}
_CONTRADICTIONS = (
    ("url-path-2f-decode", "url-path-2f-reject"),
    ("url-path-dotseg-remove", "url-path-dotseg-reject"),
)


def parse_options(value: Value, context: Context) -> Changes:
    """The options as fields of ParseOptions (core.md 6)."""
    given: dict[str, bool] = {}
    for name, word in scalar_pairs(value, context):
        if name not in _PARSE_OPTIONS:
            raise BadValue(f'unknown option "{name}"{suggestion(name, _PARSE_OPTIONS)}')
        given[name] = flag(word, context)
    for decode, reject in _CONTRADICTIONS:
        if given.get(decode) and given.get(reject):
            context.warn(f"{decode} and {reject} contradict each other: {reject} wins")
    return {_PARSE_OPTIONS[name]: on for name, on in (given | _consequences(given)).items()}


def _consequences(given: dict[str, bool]) -> dict[str, bool]:
    """What any url option brings with it unless something else says how text is to be encoded."""
    options = {name: getattr(ParseOptions(), field) for name, field in _PARSE_OPTIONS.items()}
    options |= given
    if not options["url-normalize"]:
        return {}
    if options["url-normalize-unreserved"] or options["url-normalize-required"]:
        return {}
    implied = {"url-normalize-unreserved": True}
    if "url-invalid-utf8-reject" not in given:
        implied["url-invalid-utf8-reject"] = True
    if "url-path-2f-decode" not in given and not options["url-path-2f-reject"]:
        implied["url-path-2f-decode"] = True
    return implied


# server.feature-flags

_FLAGS = {
    "server.h2proto": ("h2proto", flag),
    "server.h2c": ("h2c", flag),
    "server.graceful-shutdown-timeout": ("graceful_shutdown_timeout", number),
    "server.absolute-dir-redirect": ("absolute_dir_redirect", flag),
    "server.http-pathinfo": ("http_pathinfo", flag),
    "http10.range": ("http10_range", flag),
    "gw.upgrade-with-request-body": ("upgrade_with_request_body", flag),
    "proxy.force-http10": ("proxy_force_http10", flag),
}
_TRAILERS = "request.trailer-whitelist"
_MEANINGLESS_FLAGS = (
    "server.graceful-restart-bg",
    "server.graceful-unconfig-sock",
    "server.clock-jump-restart",
    "server.h1-discard-backend-1xx",
    "server.h2-discard-backend-1xx",
    "server.discard-backend-1xx",
    "server.errorlog-high-precision",
    "server.errorlog-utf8",
    "server.metrics-high-precision",
    "server.pcre_jit",
    "server.network-mptcp",
    "cgi.tempfile-accum",
    "chunkqueue.splice",
    "auth.delay-invalid-creds",
    "auth.http-goaway-invalid-creds",
    "ssl.refresh-certs",
    "ssl.refresh-crls",
    "ssl.session-cache",
)


def feature_flags(value: Value, context: Context) -> Changes:
    """The flags as fields of Features (core.md 1.1)."""
    return dict(_feature(name, word, context) for name, word in _known_flags(value, context))


def _known_flags(value: Value, context: Context) -> Iterator[tuple[str, str | int]]:
    for name, word in scalar_pairs(value, context):
        if name in _FLAGS or name == _TRAILERS:
            yield name, word
        elif name not in _MEANINGLESS_FLAGS:
            known = [*_FLAGS, _TRAILERS, *_MEANINGLESS_FLAGS]
            context.warn(f'unknown flag "{name}" (ignored){suggestion(name, known)}')


def _feature(name: str, word: str | int, context: Context) -> tuple[str, object]:
    if name == _TRAILERS:
        return "trailer_whitelist", tuple(re.findall(r"[^,\s]+", str(word).lower()))
    attribute, convert = _FLAGS[name]
    try:
        return attribute, convert(word, context)
    except BadValue as error:
        raise BadValue(f'"{name}": {error}') from None
