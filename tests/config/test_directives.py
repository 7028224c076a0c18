"""forkd/config/directives.py, converters.py, meanings.py, inventory.py and vocabulary.py."""

from __future__ import annotations

import signal
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from forkd.config import inventory
from forkd.config.backend import GatewayServer
from forkd.config.converters import is_off
from forkd.config.diagnostics import ConfigRefused
from forkd.config.directives import DIRECTIVES, MODULES, Scope
from forkd.config.load import load
from forkd.config.model import (
    CgiLimits,
    CgiSettings,
    Config,
    ListenerSpec,
    MimeTypes,
    ProxyHeader,
    ProxySettings,
    RequestConfig,
    ServerSettings,
)
from forkd.config.tls import TlsSpec
from forkd.config.tree import ConfigList
from forkd.uri import ParseOptions

ALL_MODULES = ", ".join(f'"{module}"' for module in sorted(MODULES))
HEAD = f'server.document-root = "/"\nserver.modules = ( {ALL_MODULES} )\n'
FIRST = 3  # line of what follows HEAD


def loaded(text: str, head: str = HEAD) -> Config:
    return load("main.conf", text=f"{head}{text}\n".encode("latin-1"))


def said(text: str, head: str = HEAD) -> list[str]:
    """Everything said about *text*, as ``LINE severity: text``."""
    try:
        diagnostics = loaded(text, head).diagnostics
    except ConfigRefused as refused:
        diagnostics = refused.diagnostics
    return [f"{found.line} {found.severity}: {found.text}" for found in diagnostics]


# The tables

LISTENER_FIELDS = {field.name for field in fields(ListenerSpec)} | {
    "use_ipv6",
    "set_v6only",
    "v4mapped",
}


WHOLE_RECORDS = ("cgi.limits", "proxy.header", "policy")
"""Directives that replace a record, where others set fields of one."""


def field_exists(path: str) -> bool:
    head, _, rest = path.partition(".")
    if head == "listener":
        return rest in LISTENER_FIELDS
    if head == "servers":
        return rest.partition(".")[2] in {field.name for field in fields(GatewayServer)}
    record: Any = RequestConfig()
    if head == "server":
        record, path = ServerSettings(), rest
    elif path == "tls.engine":
        return True  # whether there is a TlsSpec
    elif head == "tls":
        record, path = TlsSpec(), rest
    for name in path.removesuffix(".*").split("."):
        if not is_dataclass(record) or not hasattr(record, name):
            return False
        record = getattr(record, name)
    return is_dataclass(record) == (path.endswith(".*") or path in WHOLE_RECORDS)


@pytest.mark.parametrize("name", [name for name, row in DIRECTIVES.items() if row.field])
def test_every_row_sets_a_field_that_exists(name: str) -> None:
    assert field_exists(DIRECTIVES[name].field)


def test_rows_and_inventory_agree() -> None:
    for name, row in DIRECTIVES.items():
        known = inventory.MODULE_OF.get(name)
        assert known in (None, row.module), name
        assert known is not None or name.startswith(("forkd.", "wstunnel.")), name


def test_the_modules_of_rows_are_lighttpds() -> None:
    assert MODULES <= inventory.MODULES


def test_no_directive_belongs_to_two_modules() -> None:
    names = [name for text in inventory.DIRECTIVES.values() for name in text.lower().split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", inventory.MODULE_OF)
def test_no_live_directive_is_ignored(name: str) -> None:
    """What lighttpd would obey is obeyed, known to mean nothing here, or refused."""
    module = inventory.MODULE_OF[name]
    head = f'server.document-root = "/"\nserver.modules = ("{module}")\n' if module else HEAD
    if name in ("server.modules", "server.document-root"):
        return
    name = inventory.OLD_NAMES.get(name, name)
    if name in DIRECTIVES:
        assert not any("not supported" in line for line in said(f"{name} = ()", head))
    else:
        assert f"{FIRST} error: {name} is not supported" in [
            line.lower() for line in said(f'{name} = "x"', head)
        ]


# Types


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('server.follow-symlink = "DISABLED"', "static.follow_symlink", False),
        ("server.follow-symlink = 0", "static.follow_symlink", False),
        ('server.max-read-idle = "007"', "limits.max_read_idle", 7),
        ("server.max-request-size = 2", "limits.max_request_size", 2048),
        ('Server.Tag = "T"', "server_tag", "T"),
        ('server.tag = ""', "server_tag", ""),
        ('index-file.names = ("a", "a")', "static.index_files", ("a", "a")),
        ('mimetype.assign = (".x" => "y/z")', "static.mime_types", MimeTypes(((".x", "y/z"),))),
        ("mimetype.assign = ()", "static.mime_types", MimeTypes(())),
        ('url.access-allow = ("a")', "hooks.access_allow", ("a",)),
        ("url.access-allow = ()", "hooks.access_allow", None),
        ('alias.url = ("/ab" => "x", "/a" => "y")', "hooks.alias", (("/ab", "x"), ("/a", "y"))),
        ('setenv.add-request-header = ("A" => "b")', "hooks.add_request_header", (("A", "b"),)),
        ("url.redirect-code = 302", "hooks.redirect_code", 302),
        ('accesslog.escaping = "json"', "access_log.escaping", "json"),
        ('accesslog.filename = "/l\xf6g"', "access_log.filename", "/l\udcf6g"),
        ('debug.log-request-header-on-error = "enable"', "debug.request_header_on_error", True),
        ('wstunnel.frame-type = "Binary"', "wstunnel.binary", True),
        ('wstunnel.frame-type = "text"', "wstunnel.binary", False),
        ('wstunnel.origins = ("http://a")', "wstunnel.origins", ("http://a",)),
        ("wstunnel.max-message-size = 70000", "wstunnel.max_message_size", 70000),
        (
            'cgi.assign = (".PL" => "/usr/bin/perl", "" => "")',
            "cgi.assign",
            ((".PL", "/usr/bin/perl"), ("", "")),
        ),
        ("cgi.execute-x-only = 1", "cgi.execute_x_only", True),
        ("cgi.x-sendfile = 1", "cgi.x_sendfile", True),
        ('cgi.x-sendfile-docroot = ("/a/./b")', "cgi.x_sendfile_docroot", ("/a/b/",)),
        ("cgi.local-redir = 1", "cgi.local_redir", True),
        ('cgi.upgrade = "enable"', "cgi.upgrade", True),
        ("", "cgi", CgiSettings()),
        (
            """cgi.limits = (
                "Read-Timeout" => 3, "write-timeout" => "4", "tcp-fin-propagate" => "sigusr1",
                "grace-timeout" => 0, "max-processes" => 6,
            )""",
            "cgi.limits",
            CgiLimits(3, 4, signal.SIGUSR1, 0, 6),
        ),
        ('cgi.limits = ("tcp-fin-propagate" => "INT")', "cgi.limits.tcp_fin_propagate", 2),
        ('cgi.limits = ("tcp-fin-propagate" => "9")', "cgi.limits.tcp_fin_propagate", 9),
        ('scgi.protocol = "uwsgi"', "scgi_protocol", "uwsgi"),
        ("", "proxy", ProxySettings()),
        ("proxy.replace-http-host = 1", "proxy.replace_http_host", True),
        (
            'proxy.forwarded = ("for" => 1, "remote_user" => "enable", "by" => "disable")',
            "proxy.forwarded",
            frozenset({"for", "remote_user"}),
        ),
        (
            """proxy.header = (
                "upgrade" => "enable", "connect" => 1, "force-http10" => "true",
                "https-remap" => "1", "map-host-request" => ("-" => "a"),
                "map-host-response" => ("a" => "-"), "map-urlpath" => ("/x/" => "/y/"),
                "map-urlpath-resp-host-include" => ("i"),
                "map-urlpath-resp-host-exclude" => ("e"),
            )""",
            "proxy.header",
            ProxyHeader(
                upgrade=True,
                connect=True,
                force_http10=True,
                https_remap=True,
                map_host_request=(("-", "a"),),
                map_host_response=(("a", "-"),),
                map_urlpath=(("/x/", "/y/"),),
                resp_host_include=("i",),
                resp_host_exclude=("e",),
            ),
        ),
        (
            'server.feature-flags = ("proxy.force-http10" => "enable")',
            "proxy.header",
            ProxyHeader(force_http10=True),
        ),
        (
            """server.feature-flags = ("proxy.force-http10" => "enable")
               proxy.header = ("upgrade" => 1)""",
            "proxy.header",
            ProxyHeader(upgrade=True),
        ),
    ],
)
def test_values_of_requests(line: str, field: str, value: object) -> None:
    assert at(loaded(line).base, field) == value


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("", "max_worker", 0),
        ("", "worker_timeout", 60),
        ("server.max-worker = 3", "max_worker", 3),
        ('server.pid-file = "/run/x.pid"', "pid_file", "/run/x.pid"),
        ('server.errorlog = "/x.log"', "errorlog", "/x.log"),
        ('server.syslog-facility = "local7"', "syslog_facility", "local7"),
        ("forkd.worker-timeout = 5", "worker_timeout", 5),
        ('server.http-parseopt-host-strict = "disable"', "parse_options.host_strict", False),
        ('server.feature-flags = ("server.h2proto" => "disable")', "features.h2proto", False),
        (
            'server.feature-flags = ("server.graceful-shutdown-timeout" => "3")',
            "features.graceful_shutdown_timeout",
            3,
        ),
        (
            'server.feature-flags = ("request.trailer-whitelist" => "X-A, x-b")',
            "features.trailer_whitelist",
            ("x-a", "x-b"),
        ),
    ],
)
def test_values_of_the_server(line: str, field: str, value: object) -> None:
    assert at(loaded(line).server, field) == value


def at(record: object, path: str) -> object:
    for name in path.split("."):
        record = getattr(record, name)
    return record


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('"url-path-2f-decode" => "disable"', ParseOptions(url_path_2f_decode=False)),
        ('"url-normalize" => 0', ParseOptions(url_normalize=False)),
        ('"header-strict" => "disable"', ParseOptions(header_strict=False)),
        ('"url-normalize-unreserved" => "disable"', ParseOptions()),
        (
            '"url-normalize-unreserved" => "disable", "url-normalize-required" => "enable"',
            ParseOptions(url_normalize_unreserved=False, url_normalize_required=True),
        ),
        (
            '"url-normalize-unreserved" => "disable", "url-invalid-utf8-reject" => "disable"',
            ParseOptions(url_invalid_utf8_reject=False),
        ),
    ],
)
def test_parse_options(options: str, expected: ParseOptions) -> None:
    assert loaded(f"server.http-parseopts = ( {options} )").server.parse_options == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('server.tag = ("x")', 'server.tag: expected a string, as in server.tag = "..."'),
        ('server.follow-symlink = "on"', 'expected "enable" or "disable", got "on"'),
        ("server.max-read-idle = 65536", "expected a number from 0 to 65535, got 65536"),
        ('server.max-fds = "x"', 'server.max-fds: expected a number, got "x"'),
        ("server.port = 0", "expected a number from 1 to 65535, got 0"),
        ('index-file.names = ("a" => "b")', "expected a list of strings"),
        ('mimetype.assign = (".x" => 1)', "expected key => string pairs"),
        ('server.feature-flags = ("a")', "expected key => value pairs"),
        ('server.feature-flags = ("server.h2c" => "x")', '"server.h2c": expected "enable"'),
        ('server.http-parseopts = ("url-normalise" => 1)', "did you mean url-normalize?"),
        ('server.socket-perms = "0999"', 'expected an octal mode such as "0660"'),
        ('server.event-handler = "magic"', "expected one of"),
        ('server.network-backend = "magic"', "expected one of"),
        ('server.stat-cache-engine = "magic"', "expected one of"),
        ('alias.url = ("/a" => "x", "/ab" => "y")', '"/ab" never matches: "/a" before it does'),
        ('setenv.add-response-header = ("a b" => "c")', '"a b" is not the name of a header field'),
        ('setenv.set-response-header = ("a" => "b\nc")', "the value of a holds a line end"),
        ("url.redirect-code = 99", "expected a number from 100 to 999"),
        ("accesslog.syslog-level = 8", "expected a number from 0 to 7"),
        ('wstunnel.origins = ("")', "an empty string in the list"),
        ("forkd.worker-timeout = 0", "expected a number from 1 to 65535"),
        ('cgi.assign = (".pl")', "expected key => string pairs"),
        ('cgi.x-sendfile-docroot = ("a")', '"a" does not begin with /'),
        ('cgi.limits = ("read-timeout" => "x")', '"read-timeout": expected a number, got "x"'),
        ('cgi.limits = ("tcp-fin-propagate" => 65)', "expected a signal, got 65"),
        ('scgi.protocol = "ajp"', "expected one of scgi, uwsgi"),
        ('proxy.forwarded = ("From" => 1)', 'unknown key "From"'),
        ('proxy.forwarded = ("for" => "yes")', '"for": expected "enable" or "disable", got "yes"'),
        ('proxy.header = ("map-url-path" => ())', "did you mean map-urlpath?"),
        ('proxy.header = ("upgrade" => ("x"))', '"upgrade": expected "enable" or "disable"'),
        ('proxy.header = ("map-urlpath" => "x")', '"map-urlpath": expected key => string pairs'),
        ('proxy.header = ("upgrade")', "expected members, as in proxy.header"),
    ],
)
def test_wrong_values(line: str, message: str) -> None:
    lines = said(line)
    assert len(lines) == 1
    assert lines[0].startswith(f"{FIRST} error: {line.split(' ')[0]}: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('index-file.names = "a"', 'expected a list of strings; read as ( "a" )'),
        ('wstunnel.frame-type = "binray"', '"binray" is none of text, binary: taken for text'),
        ('wstunnel.balance = "best"', "taken for least-connection"),
        ('server.syslog-facility = "x"', "taken for daemon"),
        ('server.feature-flags = ("server.h2prot" => 1)', "did you mean server.h2proto?"),
        (
            'server.http-parseopts = ("url-path-2f-decode" => 1, "url-path-2f-reject" => 1)',
            "url-path-2f-reject wins",
        ),
        (
            'server.http-parseopts = ("url-path-dotseg-reject"=>1, "url-path-dotseg-remove"=>1)',
            "url-path-dotseg-reject wins",
        ),
        ('url.redirect = ("^/a" => "/$1")', "$1 is always empty"),
        ('cgi.limits = ("read-time" => 1)', 'unknown limit "read-time" (ignored); did you mean'),
        ('cgi.limits = ("tcp-fin-propagate" => "TRM")', '"TRM" is no signal: taken for TERM'),
    ],
)
def test_doubtful_values(line: str, message: str) -> None:
    lines = said(line)
    assert len(lines) == 1
    assert lines[0].startswith(f"{FIRST} warning: {line.split(' ')[0]}: ")
    assert message in lines[0]


def test_meaningless_directives_are_accepted() -> None:
    assert said('server.event-handler = "linux-sysepoll"\nserver.chunkqueue-chunk-sz = 1') == []


def test_every_bad_rule_is_reported_where_it_stands() -> None:
    lines = said('url.redirect = ( "(" => "/",\n "a" => "/",\n "b" => "${x}" )')
    assert [line.split(":")[0] for line in lines] == ["3 error", "5 error"]


@pytest.mark.parametrize(
    ("value", "off"),
    [
        (0, True),
        ("", True),
        ("0", True),
        ("disable", True),
        ("Disabled", True),
        ("false", True),
        (ConfigList(), True),
        (1, False),
        ("enable", False),
        ("x", False),
        (ConfigList(((None, ""),)), False),
    ],
)
def test_values_that_only_switch_off(value: Any, off: bool) -> None:
    assert is_off(value) is off


# Scopes


def test_scopes() -> None:
    lines = said(
        """$HTTP["host"] == "h" {
             server.port = 5
             server.listen-backlog = 5
             server.tag = "x"
           }
           $SERVER["socket"] == "127.0.0.1:81" { server.listen-backlog = 5 server.port = 5 }
           $HTTP["host"] == "h" { $SERVER["socket"] == "127.0.0.1:82" { server.defer-accept = 1 } }
           $SERVER["socket"] != "127.0.0.1:81" { server.defer-accept = 1 }"""
    )
    socket = f"belongs to {Scope.SOCKET.value}: ignored"
    assert lines == [
        "4 warning: server.port belongs to the global scope: ignored",
        f"5 warning: server.listen-backlog {socket}",
        "8 warning: server.port belongs to the global scope: ignored",
        f"9 warning: server.defer-accept {socket}",
        f"10 warning: server.defer-accept {socket}",
    ]


def test_the_value_of_an_ignored_setting_is_not_looked_at() -> None:
    lines = said('$HTTP["host"] == "h" { server.port = "http" }')
    assert lines == ["3 warning: server.port belongs to the global scope: ignored"]


# Modules

BARE = 'server.document-root = "/"\n'


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            'url.access-deny = ("~")',
            (
                "2 warning: url.access-deny is ignored: it belongs to mod_access, which is not in"
                ' server.modules; to have it obeyed: server.modules += ("mod_access")'
            ),
        ),
        (
            'ssi.extension = (".shtml")',
            (
                "2 warning: ssi.extension is ignored: it belongs to mod_ssi, which is not in"
                " server.modules"
            ),
        ),
        (
            'server.modules = ("mod_auth")\nauth.backend = "plain"',
            "3 error: auth.backend is not supported",
        ),
        (
            'server.modules = ("mod_gnutls")\nssl.stapling-file = "x"',
            "3 error: ssl.stapling-file is not supported",
        ),
        ('ssl.acme-tls-1 = "x"', "2 error: ssl.acme-tls-1 is not supported"),
        ("dir-listing.activate = 1", "2 error: dir-listing.activate is not supported"),
        ("server.kbytes-per-second = 1", "2 error: server.kbytes-per-second is not supported"),
        (
            'server.modules = ("mod_deflate")',
            "2 note: mod_deflate is not part of forkd; nothing here needs it",
        ),
        (
            'server.modules = ("mod_compress")',
            "2 note: mod_deflate is not part of forkd; nothing here needs it",
        ),
        (
            'server.modules = ("access")',
            '2 error: unknown module "access"; did you mean mod_access?',
        ),
        (
            'server.modules = ("mod_alais")',
            '2 error: unknown module "mod_alais"; did you mean mod_alias?',
        ),
        (
            "server.prot = 1",
            "2 warning: unknown directive server.prot (ignored); did you mean server.port?",
        ),
        ("my.own = 1", "2 warning: unknown directive my.own (ignored)"),
        (
            "forkd.worker-timeot = 1",
            "2 error: unknown directive forkd.worker-timeot; did you mean forkd.worker-timeout?",
        ),
        (
            "forkd.x = 1",
            (
                "2 error: unknown directive forkd.x; known are forkd.worker-timeout,"
                " forkd.max-requests, forkd.max-requests-jitter, forkd.drain-timeout,"
                " forkd.drain-spread, forkd.max-generations, forkd.http2-max-streams"
            ),
        ),
        (
            'server.indexfiles = ("a")',
            "2 warning: server.indexfiles is now called index-file.names",
        ),
    ],
)
def test_what_is_said_of_names(lines: str, expected: str) -> None:
    assert said(lines, BARE) == [expected]


@pytest.mark.parametrize(
    "lines",
    [
        "var.unused = 1",
        'ssl.engine = "disable"',
        'server.modules = ("mod_gnutls", "mod_nss")\nssl.engine = "disable"',
        "server.kbytes-per-second = 0",
        'server.modules = ("mod_ssi")\nssi.extension = ()',
        'server.modules = ("mod_access", "mod_access", "mod_indexfile", "mod_staticfile")',
    ],
)
def test_nothing_to_say(lines: str) -> None:
    assert [line for line in said(lines, BARE) if "note" not in line] == []


def test_the_order_of_modules_is_kept() -> None:
    names = '"mod_rewrite", "mod_auth", "mod_access", "mod_rewrite"'
    config = loaded(f"server.modules = ( {names} )", BARE)
    assert config.server.modules == ("rewrite", "access")


def test_old_names_are_obeyed() -> None:
    config = loaded('server.indexfiles = ("a.html")', BARE)
    assert config.base.static.index_files == ("a.html",)


def test_old_and_new_name_together() -> None:
    lines = said('server.indexfiles = ("a")\nindex-file.names = ("b")', BARE)
    assert "2 error: server.indexfiles: index-file.names is set here too" in lines
