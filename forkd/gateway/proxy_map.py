"""``map-host-*``, ``map-urlpath`` and ``https-remap`` of ``proxy.header`` (proxy.md 4): text rules.

A request is rewritten on its way to the backend and its response on the way back, so that names
and paths of the backend's world do not show in the client's.  The first pair that fits, in the
order of the configuration, is used; a path key is a plain prefix of bytes, not of segments.
"""

from __future__ import annotations

import re

from ..address import split_port
from ..config.model import ProxyHeader
from ..message import Fields, Pair

SAME = "-"  # as a key: whatever the host is; as a value: the host that the client asked for

_REQUEST_URLS = frozenset({"destination", "content-location"})
_RESPONSE_URLS = frozenset({"location", "content-location"})

_ABSOLUTE = re.compile(r"([^:/?#]*)://([^/?#]+)")
_COOKIE_ATTRIBUTE = re.compile(r'(;[ \t]*(path|domain)[ \t]*=[ \t]*"?)([^;"]*)', re.IGNORECASE)


class Mapping:
    """The maps at work for one request and then for its response.

    It remembers which pairs the request has used: they are turned round for the response before
    any other.
    """

    def __init__(self, header: ProxyHeader, host: str, scheme: str) -> None:
        """*host*: the authority that the client asked for, "" for none; *scheme*: how it came."""
        self._header = header
        self._host = host
        self._is_remapped = header.https_remap and scheme == "https"
        self._maps_request = bool(header.map_urlpath or header.map_host_request)
        self._maps_response = bool(header.map_urlpath or header.map_host_response)
        self._host_used = ""
        self._pair_used: Pair | None = None

    # -- towards the backend ----------------------------------------------------------------------

    def target(self, target: str) -> str:
        """The request target: a path, or an absolute URL."""
        return self._request_url(target) if self._maps_request else target

    def host(self) -> str:
        """The value of the Host field."""
        return self._backend_host(self._host) or self._host

    def request_field(self, name: str, value: str) -> str:
        """*value* of the request field *name*."""
        if self._maps_request and name.lower() in _REQUEST_URLS:
            return self._request_url(value)
        return value

    def _request_url(self, url: str) -> str:
        if url.startswith("/"):
            return self._backend_path(url)
        found = _ABSOLUTE.match(url)
        if found is None:
            return url
        scheme, authority = found.groups()
        mapped = self._backend_host(authority)
        if mapped and self._is_remapped and scheme == "https":
            scheme = "http"
        path = self._backend_path(url[found.end() :])
        return f"{scheme}://{mapped or authority}{path}"

    def _backend_host(self, authority: str) -> str:
        """What stands for *authority* towards the backend; "" when no pair says."""
        value = self._looked_up(self._header.map_host_request, authority, self._host)
        if value and not self._host_used:
            self._host_used = value
        return value

    def _backend_path(self, path: str) -> str:
        for pair in self._header.map_urlpath:
            key, value = pair
            if path.startswith(key):
                self._pair_used = self._pair_used or pair
                return value + path[len(key) :]
        return path

    # -- towards the client -----------------------------------------------------------------------

    def response_fields(self, fields: Fields) -> Fields:
        """*fields* of the response with the URLs in them as the client knows them."""
        if not self._maps_response:
            return fields
        return Fields((name, self._response_value(name.lower(), value)) for name, value in fields)

    def _response_value(self, key: str, value: str) -> str:
        if key in _RESPONSE_URLS:
            return self._response_url(value)
        if key == "set-cookie":
            return _COOKIE_ATTRIBUTE.sub(self._cookie_attribute, value)
        return value

    def _response_url(self, url: str) -> str:
        if url.startswith("/"):
            return self._client_path(url)
        found = _ABSOLUTE.match(url)
        if found is None:
            return url
        scheme, authority = found.groups()
        mapped = self._client_host(authority)
        if mapped and self._is_remapped and scheme == "http":
            scheme = "https"
        authority = mapped or authority
        path = url[found.end() :]
        if self._is_listed(authority):
            path = self._client_path(path)
        return f"{scheme}://{authority}{path}"

    def _is_listed(self, authority: str) -> bool:
        """Whether paths of absolute URLs with *authority* are mapped."""
        include, exclude = self._header.resp_host_include, self._header.resp_host_exclude
        return (not include or authority in include) and authority not in exclude

    def _client_host(self, authority: str) -> str:
        """What stands for *authority* towards the client; "" when no pair says."""
        own = self._host_used or self._host
        return self._looked_up(self._header.map_host_response, authority, own)

    def _client_path(self, path: str) -> str:
        pairs = self._header.map_urlpath
        if self._pair_used is not None:
            pairs = (self._pair_used, *pairs)
        for key, value in pairs:
            if path.startswith(value):
                return key + path[len(value) :]
        return path

    def _cookie_attribute(self, found: re.Match[str]) -> str:
        start, value = str(found[1]), str(found[3])
        if found[2].lower() == "path":
            return start + (self._client_path(value) if value.startswith("/") else value)
        dot = "." if value.startswith(".") else ""
        mapped = self._client_host(value[len(dot) :].rstrip(" \t"))
        if not mapped:
            return f"{start}{value}"
        # RFC 6265 section 4.1.1: a domain has no port, where an authority may have one.
        return f"{start}{dot}{split_port(mapped)[0]}"

    # -- both -------------------------------------------------------------------------------------

    def _looked_up(self, pairs: tuple[Pair, ...], authority: str, own: str) -> str:
        """The value for *authority*, where the key ``-`` stands for *own*; "" to leave it."""
        wanted = authority.lower()
        for key, value in pairs:
            if key == SAME:
                key = own
            if not key or key.lower() != wanted:
                continue
            if value != SAME:
                return value
            if self._host:
                return self._host
        return ""
