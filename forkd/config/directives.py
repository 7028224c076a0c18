"""The directives that forkd obeys: one row each (config.md 14).

A row says what a directive takes, where it may stand, and which field of ``model`` it sets; the
default is that field's.  Adding a directive is a row here, a field there and a paragraph in
forkd.conf(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from .converters import (
    Converter,
    absolute_file,
    file_list,
    file_name,
    flag,
    folder_list,
    full_text_list,
    kilobytes,
    number,
    octal,
    one_of,
    port,
    preferably,
    short,
    text,
    text_list,
    text_list_or_none,
    text_list_or_text,
    text_pairs,
    within,
)
from .gateways import cgi_limits, forwarded, proxy_header
from .hosts import routes_of
from .inventory import CORE
from .meanings import (
    alias_pairs,
    balance,
    feature_flags,
    header_fields,
    mime_types,
    parse_options,
    rule_set,
)
from .ssl_settings import tls_policy, verify_depth
from .wstunnel import binary_frames, deflate, framing, rate_action, subprotocols


class Scope(Enum):
    """Where a directive may stand (config.md 11)."""

    SERVER = "the global scope"
    SOCKET = 'the global scope or $SERVER["socket"] =='
    CONNECTION = "any block"


@dataclass(frozen=True, slots=True)
class Directive:
    """One row."""

    name: str
    convert: Converter
    field: str = ""
    """Dotted path of what it sets: ``server.…`` in ServerSettings, ``listener.…`` in a listener,
    ``tls.…`` in a listener's TlsSpec, anything else in RequestConfig.  With ``.*`` at its end the
    converter gives several fields by name.  Empty: accepted, of no meaning here."""
    scope: Scope = Scope.CONNECTION
    module: str = CORE
    guards: bool = False
    """It keeps somebody out: where it does not count it is an error, not a warning."""


def _rows(
    *rows: Directive, module: str = CORE, scope: Scope = Scope.CONNECTION
) -> Iterator[Directive]:
    return (replace(row, module=module, scope=scope) for row in rows)


_D = Directive

_EVENT_HANDLERS = one_of(
    "", "linux-sysepoll", "epoll", "poll", "select", "kqueue", "freebsd-kqueue",
    "solaris-eventports", "solaris-devpoll", "libev",
)  # fmt: skip
_NETWORK_BACKENDS = one_of(
    "", "sendfile", "linux-sendfile", "freebsd-sendfile", "darwin-sendfile", "solaris-sendfilev",
    "writev", "write",
)  # fmt: skip
_STAT_CACHES = one_of("", "simple", "inotify", "kqueue", "fam", "disable")
_FACILITIES = (
    "kern", "user", "mail", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    *(f"local{number}" for number in range(8)),
)  # fmt: skip

_SERVER_ROWS = _rows(
    _D("server.modules", text_list, "server.modules"),
    _D("server.compat-module-load", flag),
    _D("server.systemd-socket-activation", flag, "server.socket_activation"),
    _D("server.port", port, "server.port"),
    _D("server.bind", file_name, "server.bind"),
    _D("server.network-backend", _NETWORK_BACKENDS),
    _D("server.chroot", file_name, "server.chroot"),
    _D("server.username", text, "server.username"),
    _D("server.groupname", text, "server.groupname"),
    _D("server.errorlog-use-syslog", flag, "server.errorlog_use_syslog"),
    _D("server.syslog-facility", preferably("daemon", *_FACILITIES), "server.syslog_facility"),
    _D("server.core-files", flag, "server.core_files"),
    _D("server.event-handler", _EVENT_HANDLERS),
    _D("server.pid-file", file_name, "server.pid_file"),
    _D("server.max-worker", short, "server.max_worker"),
    _D("server.max-fds", number, "server.max_fds"),
    _D("server.max-connections", short, "server.max_connections"),
    _D("server.max-request-field-size", short, "server.max_request_field_size"),
    _D("server.chunkqueue-chunk-sz", number),
    _D("server.upload-temp-file-size", number, "server.upload_temp_file_size"),
    _D("server.upload-dirs", file_list, "server.upload_dirs"),
    _D("server.http-parseopts", parse_options, "server.parse_options.*"),
    _D("server.http-parseopt-header-strict", flag, "server.parse_options.header_strict"),
    _D("server.http-parseopt-host-strict", flag, "server.parse_options.host_strict"),
    _D("server.http-parseopt-host-normalize", flag, "server.parse_options.host_normalize"),
    _D("server.reject-expect-100-with-417", flag),
    _D("server.stat-cache-engine", _STAT_CACHES),
    _D("server.feature-flags", feature_flags, "server.features.*"),
    _D("mimetype.xattr-name", text, "static.xattr_name"),
    _D("debug.log-request-header-on-error", flag, "debug.request_header_on_error"),
    _D("forkd.worker-timeout", within(1, 65535), "server.worker_timeout"),
    _D("forkd.max-requests", number, "server.max_requests"),
    _D("forkd.max-requests-jitter", number, "server.max_requests_jitter"),
    _D("forkd.drain-timeout", number, "server.drain_timeout"),
    _D("forkd.drain-spread", short, "server.drain_spread"),
    _D("forkd.max-generations", within(1, 65535), "server.max_generations"),
    _D("forkd.http2-max-streams", within(1, 65535), "server.http2_max_streams"),
    scope=Scope.SERVER,
)

_SOCKET_ROWS = _rows(
    _D("server.listen-backlog", number, "listener.backlog"),
    _D("server.socket-perms", octal, "listener.socket_mode"),
    _D("server.bsd-accept-filter", text),
    _D("server.defer-accept", flag, "listener.defer_accept"),
    _D("server.use-ipv6", flag, "listener.use_ipv6"),
    _D("server.set-v6only", flag, "listener.set_v6only"),
    _D("server.v4mapped", flag, "listener.v4mapped"),
    scope=Scope.SOCKET,
)

_CONNECTION_ROWS = (
    _D("server.document-root", text, "document_root"),
    _D("server.name", text, "server_name"),
    _D("server.tag", text, "server_tag"),
    _D("server.max-request-size", kilobytes, "limits.max_request_size"),
    _D("server.max-keep-alive-requests", short, "limits.max_keep_alive_requests"),
    _D("server.max-keep-alive-idle", short, "limits.max_keep_alive_idle"),
    _D("server.max-read-idle", short, "limits.max_read_idle"),
    _D("server.max-write-idle", short, "limits.max_write_idle"),
    _D("server.protocol-http11", flag, "limits.protocol_http11"),
    _D("server.stream-request-body", short, "limits.stream_request_body"),
    _D("server.stream-response-body", short, "limits.stream_response_body"),
    _D("server.errorfile-prefix", text, "errors.errorfile_prefix"),
    _D("server.error-handler", text, "errors.error_handler"),
    _D("server.error-handler-404", text, "errors.error_handler_404"),
    _D("server.error-intercept", flag, "errors.error_intercept"),
    _D("server.force-lowercase-filenames", flag, "static.force_lowercase_filenames"),
    _D("server.follow-symlink", flag, "static.follow_symlink"),
    _D("server.range-requests", flag, "static.range_requests"),
    _D("mimetype.assign", mime_types, "static.mime_types"),
    _D("mimetype.use-xattr", flag, "static.use_xattr"),
    _D("etag.use-inode", flag, "static.etag_use_inode"),
    _D("etag.use-mtime", flag, "static.etag_use_mtime"),
    _D("etag.use-size", flag, "static.etag_use_size"),
    _D("server.errorlog", file_name, "errorlog"),
    _D("server.breakagelog", file_name, "breakagelog"),
    _D("debug.log-condition-handling", flag, "debug.condition_handling"),
    _D("debug.log-file-not-found", flag, "debug.file_not_found"),
    _D("debug.log-request-handling", flag, "debug.request_handling"),
    _D("debug.log-request-header", flag, "debug.request_header"),
    _D("debug.log-response-header", flag, "debug.response_header"),
    _D("debug.log-timeouts", flag, "debug.timeouts"),
    _D("debug.log-state-handling", flag, "debug.state_handling"),
)

_MODULE_ROWS = (
    *_rows(
        _D("index-file.names", text_list_or_text, "static.index_files"),
        module="mod_indexfile",
    ),
    *_rows(
        _D("static-file.exclude-extensions", text_list, "static.exclude_extensions"),
        _D("static-file.etags", flag, "static.etags"),
        _D("static-file.disable-pathinfo", flag, "static.disable_pathinfo"),
        module="mod_staticfile",
    ),
    *_rows(
        _D("url.access-deny", text_list, "hooks.access_deny"),
        _D("url.access-allow", text_list_or_none, "hooks.access_allow"),
        module="mod_access",
    ),
    *_rows(
        _D("alias.url", alias_pairs, "hooks.alias"),
        module="mod_alias",
    ),
    *_rows(
        _D("url.redirect", rule_set, "hooks.redirect"),
        _D("url.redirect-code", within(100, 999), "hooks.redirect_code"),
        module="mod_redirect",
    ),
    *_rows(
        _D("url.rewrite-once", rule_set, "hooks.rewrite_once"),
        _D("url.rewrite-repeat", rule_set, "hooks.rewrite_repeat"),
        _D("url.rewrite-if-not-file", rule_set, "hooks.rewrite_if_not_file"),
        _D("url.rewrite-repeat-if-not-file", rule_set, "hooks.rewrite_repeat_if_not_file"),
        module="mod_rewrite",
    ),
    *_rows(
        _D("setenv.add-request-header", header_fields, "hooks.add_request_header"),
        _D("setenv.set-request-header", header_fields, "hooks.set_request_header"),
        _D("setenv.add-response-header", header_fields, "hooks.add_response_header"),
        _D("setenv.set-response-header", header_fields, "hooks.set_response_header"),
        _D("setenv.add-environment", text_pairs, "hooks.add_environment"),
        _D("setenv.set-environment", text_pairs, "hooks.set_environment"),
        module="mod_setenv",
    ),
    *_rows(
        _D("accesslog.filename", file_name, "access_log.filename"),
        _D("accesslog.format", text, "access_log.format"),
        _D("accesslog.use-syslog", flag, "access_log.use_syslog"),
        _D("accesslog.syslog-level", within(0, 7), "access_log.syslog_level"),
        _D("accesslog.escaping", preferably("default", "json"), "access_log.escaping"),
        module="mod_accesslog",
    ),
)

_TLS_ROWS = (
    *_rows(
        _D("ssl.engine", flag, "tls.engine"),
        _D("ssl.ca-file", absolute_file, "tls.ca_file", guards=True),
        _D("ssl.cipher-list", text, "tls.cipher_list", guards=True),
        _D("ssl.openssl.ssl-conf-cmd", tls_policy, "tls.policy", guards=True),
        _D("ssl.verifyclient.activate", flag, "tls.clients.activate", guards=True),
        _D("ssl.verifyclient.enforce", flag, "tls.clients.enforce", guards=True),
        _D("ssl.verifyclient.depth", verify_depth, guards=True),
        _D("ssl.verifyclient.ca-file", absolute_file, "tls.clients.ca_file", guards=True),
        _D("ssl.verifyclient.ca-crl-file", absolute_file, "tls.clients.crl_file", guards=True),
        _D("ssl.verifyclient.username", text, "tls.clients.username", guards=True),
        _D("ssl.verifyclient.exportcert", flag, "tls.clients.export", guards=True),
        _D("ssl.honor-cipher-order", flag),
        _D("ssl.disable-client-renegotiation", flag),
        _D("debug.log-ssl-noise", flag, "tls.log_failures"),
        module="mod_openssl",
        scope=Scope.SOCKET,
    ),
    *_rows(
        _D("ssl.pemfile", absolute_file, "certificate.pemfile"),
        _D("ssl.privkey", absolute_file, "certificate.privkey"),
        _D("ssl.read-ahead", flag),
        module="mod_openssl",
    ),
)


def gateway_rows(gateway: str, *own: Directive) -> Iterator[Directive]:
    """What every gateway with hosts has, and its *own* rows (gateway.md 1, 2)."""
    field = f"servers.{gateway}"
    return _rows(
        _D(f"{gateway}.server", routes_of(gateway), f"{field}.routes"),
        _D(f"{gateway}.balance", balance, f"{field}.balance"),
        _D(f"{gateway}.debug", number, f"{field}.debug"),
        _D(f"{gateway}.map-extensions", text_pairs, f"{field}.map_extensions"),
        *own,
        module=f"mod_{gateway}",
    )


_GATEWAY_ROWS = (
    *_rows(
        _D("cgi.assign", text_pairs, "cgi.assign"),
        _D("cgi.execute-x-only", flag, "cgi.execute_x_only"),
        _D("cgi.x-sendfile", flag, "cgi.x_sendfile"),
        _D("cgi.x-sendfile-docroot", folder_list, "cgi.x_sendfile_docroot"),
        _D("cgi.local-redir", flag, "cgi.local_redir"),
        _D("cgi.upgrade", flag, "cgi.upgrade"),
        _D("cgi.limits", cgi_limits, "cgi.limits"),
        module="mod_cgi",
    ),
    *gateway_rows("fastcgi"),
    *gateway_rows(
        "scgi",
        _D("scgi.protocol", one_of("scgi", "uwsgi"), "scgi_protocol"),
    ),
    *gateway_rows(
        "proxy",
        _D("proxy.forwarded", forwarded, "proxy.forwarded"),
        _D("proxy.header", proxy_header, "proxy.header"),
        _D("proxy.replace-http-host", flag, "proxy.replace_http_host"),
    ),
    *gateway_rows(
        "wstunnel",
        _D("wstunnel.frame-type", binary_frames, "wstunnel.binary"),
        _D("wstunnel.framing", framing, "wstunnel.*"),
        _D("wstunnel.subprotocols", subprotocols, "wstunnel.subprotocols"),
        _D("wstunnel.deflate", deflate, "wstunnel.deflate"),
        _D("wstunnel.origins", full_text_list, "wstunnel.origins"),
        _D("wstunnel.ping-interval", short, "wstunnel.ping_interval"),
        _D("wstunnel.pong-timeout", short, "wstunnel.pong_timeout"),
        _D("wstunnel.handshake-timeout", short, "wstunnel.handshake_timeout"),
        _D("wstunnel.close-timeout", short, "wstunnel.close_timeout"),
        _D("wstunnel.max-message-size", number, "wstunnel.max_message_size"),
        _D("wstunnel.max-frame-size", number, "wstunnel.max_frame_size"),
        _D("wstunnel.max-message-rate", number, "wstunnel.max_message_rate"),
        _D("wstunnel.rate-action", rate_action, "wstunnel.rate_action"),
    ),
)


def _by_name(rows: Iterable[Directive]) -> dict[str, Directive]:
    return {row.name.lower(): row for row in rows}


DIRECTIVES = _by_name(
    (
        *_SERVER_ROWS,
        *_SOCKET_ROWS,
        *_CONNECTION_ROWS,
        *_TLS_ROWS,
        *_MODULE_ROWS,
        *_GATEWAY_ROWS,
    )
)
"""By name in lower case: names compare without case."""

MODULES = frozenset(row.module for row in DIRECTIVES.values() if row.module != CORE)
"""The modules of lighttpd that forkd has."""
