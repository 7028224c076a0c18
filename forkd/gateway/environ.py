"""The variables of the Common Gateway Interface (RFC 3875 section 4), as cgi, scgi and fastcgi send
them: lighttpd's set, in its order (cgi.md 4).

Pure.  No two variables have the same name, so that no program has to choose.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ..address import split_port
from ..config.backend import BackendSpec
from ..config.model import RequestConfig
from ..errors import BadRequest
from ..message import Fields, Pair, Request
from . import static

_WILDCARDS = frozenset({"0.0.0.0", "::"})
_NOT_IN_A_NAME = re.compile("[^0-9A-Za-z]")

# A client that writes one of these with other punctuation means to be taken for somebody else.
_KNOWN_NAMES = """
    accept accept-charset accept-encoding accept-language accept-ranges
    access-control-request-headers access-control-request-method age allow alt-svc alt-used
    authorization cache-control connection content-encoding content-language content-length
    content-location content-range content-type cookie date dnt early-data etag expect expires
    forwarded from host http2-settings if-match if-modified-since if-none-match if-range
    if-unmodified-since keep-alive last-modified link location max-forwards origin pragma priority
    proxy-authorization proxy-connection range referer sec-websocket-extensions sec-websocket-key
    sec-websocket-protocol sec-websocket-version te trailer transfer-encoding upgrade
    upgrade-insecure-requests user-agent via x-forwarded-by x-forwarded-for x-forwarded-host
    x-forwarded-port x-forwarded-proto x-forwarded-server x-host x-http-method-override
    x-original-url x-real-ip x-rewrite-url
"""
_KNOWN = frozenset(_KNOWN_NAMES.split())


class Dialect(NamedTuple):
    """What a gateway or a host of it wants otherwise."""

    docroot: str = ""
    """Takes the place of the document root: the backend sees other folders than we do."""
    broken_scriptfilename: bool = False
    """SCRIPT_FILENAME goes on with the path info, as PHP's fix_pathinfo wants it."""
    strip_request_uri: str = ""
    """Taken off the front of REQUEST_URI; without a slash at its end."""
    fix_root_scriptname: bool = False
    """The script is the root itself: all of the path is path info."""
    authorizer: bool = False
    """Asked for permission only: there is no script and no body."""

    @classmethod
    def of(cls, spec: BackendSpec, key: str) -> Dialect:
        """What the host *spec* under the ext *key* wants; some of it is for fastcgi alone
        (gateway.md 2)."""
        is_fastcgi = spec.gateway == "fastcgi"
        return cls(
            docroot=spec.docroot,
            broken_scriptfilename=is_fastcgi and spec.broken_scriptfilename,
            strip_request_uri=spec.strip_request_uri if is_fastcgi else "",
            fix_root_scriptname=spec.fix_root_scriptname and key == "/" and not spec.check_local,
            authorizer=is_fastcgi and spec.mode == "authorizer",
        )


def environ_for(
    request: Request, settings: RequestConfig, length: int | None, dialect: Dialect
) -> list[Pair]:
    """The variables for *request*, whose body has *length* bytes, CONTENT_LENGTH first.

    ``Request.environment`` comes last and may replace what stands before it.  Raises BadRequest
    for fields that would be the same variable, or be taken for another field's.
    """
    told = {_variable(name): value for name, value in request.environment}
    environment: dict[str, str] = {}
    if not dialect.authorizer:
        environment["CONTENT_LENGTH"] = str(length or 0)
    environment |= _target(request, told.pop("REDIRECT_STATUS", "200"), dialect)
    told.pop("REDIRECT_URI", None)
    environment |= _script(request, settings, dialect)
    environment |= _server(request, settings)
    environment |= _fields(request.fields)
    environment |= told
    return list(environment.items())


# -- the request and its target ---------------------------------------------------------------


def _target(request: Request, status: str, dialect: Dialect) -> dict[str, str]:
    received = _origin_form(request.target)
    environment = {
        "QUERY_STRING": request.query or "",
        "REQUEST_URI": _stripped(received, dialect.strip_request_uri),
    }
    if request.full_target != received:
        environment["REDIRECT_URI"] = request.full_target
    environment["REDIRECT_STATUS"] = status
    return environment


def _origin_form(target: str) -> str:
    """*target* without the authority of its absolute form (RFC 9112 section 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if target.startswith("/") or not separator or not scheme.isalpha():
        return target
    return "/" + rest.partition("/")[2]


def _stripped(target: str, prefix: str) -> str:
    if prefix and target.startswith(prefix) and target[len(prefix) :].startswith("/"):
        return target[len(prefix) :]
    return target


# -- the script -------------------------------------------------------------------------------


def _script(request: Request, settings: RequestConfig, dialect: Dialect) -> dict[str, str]:
    base, path = static.mapped(request, settings)
    name, path_info = request.decoded_path, request.path_info
    if dialect.fix_root_scriptname and name:
        name, path_info = "", name + path_info
        path = base
    if dialect.docroot:
        base, path = dialect.docroot, _joined(dialect.docroot, name)
    elif dialect.broken_scriptfilename and path_info:
        path += path_info
    environment = {} if dialect.authorizer else _script_name(name, path_info, base)
    environment["SCRIPT_FILENAME"] = path
    environment["DOCUMENT_ROOT"] = base
    return environment


def _script_name(name: str, path_info: str, base: str) -> dict[str, str]:
    environment = {"SCRIPT_NAME": name}
    if path_info:
        environment["PATH_INFO"] = path_info
        environment["PATH_TRANSLATED"] = _joined(base, path_info)
    return environment


def _joined(folder: str, path: str) -> str:
    return f"{folder.rstrip('/')}{path}" if path.startswith("/") else folder + path


# -- the server and the client ----------------------------------------------------------------


def _server(request: Request, settings: RequestConfig) -> dict[str, str]:
    environment = {
        "REQUEST_METHOD": request.method,
        "SERVER_PROTOCOL": request.version,
        "SERVER_SOFTWARE": settings.server_tag,
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_SCHEME": request.scheme,
    }
    if request.scheme == "https":
        environment["HTTPS"] = "on"
    connection = request.connection
    listener = connection.listener
    if listener.is_inherited:
        listener = connection.local
    address = connection.local.host if listener.host in _WILDCARDS else listener.host
    environment |= {
        "SERVER_PORT": "0" if listener.is_unix else str(listener.port),
        "SERVER_ADDR": address,
        "SERVER_NAME": split_port(settings.server_name or request.host)[0] or address,
        "REMOTE_ADDR": request.remote.host,
        "REMOTE_PORT": str(request.remote.port),
    }
    return environment


# -- fields -----------------------------------------------------------------------------------


def _fields(fields: Fields) -> dict[str, str]:
    """Every field that is not empty, in their order, but for Proxy (https://httpoxy.org)."""
    environment: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name, value in fields:
        key = name.lower()
        if not value or key == "proxy":
            continue
        variable = _field_variable(key)
        if owners.setdefault(variable, key) != key:
            raise BadRequest(f"field {name} would be the same variable as {owners[variable]}")
        environment[variable] = fields.get(key)
    return environment


@lru_cache(maxsize=1024)
def _field_variable(name: str) -> str:
    """The variable for the field *name*, in lower case.  Raises BadRequest."""
    if name == "content-type":
        return "CONTENT_TYPE"
    plain = _NOT_IN_A_NAME.sub("-", name)
    if plain != name and plain in _KNOWN:
        raise BadRequest(f"field {name} would be taken for {plain}")
    return f"HTTP_{_variable(name)}"


def _variable(name: str) -> str:
    return _NOT_IN_A_NAME.sub("_", name).upper()
