"""forkd/gateway/environ.py: what a program is told of its request (cgi.md 4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import CLIENT, LISTENER, make_request

from forkd.address import Address
from forkd.config.backend import BackendSpec
from forkd.config.model import RequestConfig
from forkd.errors import BadRequest
from forkd.gateway.environ import Dialect, environ_for
from forkd.message import ConnInfo, Request

PLAIN = Dialect()
SETTINGS = RequestConfig(document_root="/srv/www", server_tag="forkd/1")


def request(url: str = "/app", /, **changes: object) -> Request:
    made = make_request(url, **changes)
    if made.path_info:
        name = made.decoded_path.removesuffix(made.path_info)
        made = made._replace(decoded_path=name)
    return made


def environ(made: Request, dialect: Dialect = PLAIN, **settings: object) -> dict[str, str]:
    pairs = environ_for(made, replace(SETTINGS, **settings), made.content_length, dialect)
    assert len(dict(pairs)) == len(pairs), "a variable twice"
    return dict(pairs)


def test_every_variable_in_its_order() -> None:
    made = request(
        "/app//x/%2e./b?q=1",
        path_info="/b",
        content_length=3,
        environment=(("X-Dash", "d"), ("REMOTE_USER", "jan")),
        fields=[
            ("Host", "www.example.org"),
            ("Accept", "*/*"),
            ("Content-Type", "text/x"),
            ("X-B", "1"),
            ("Content-Length", "3"),
        ],
    )
    assert environ_for(made, SETTINGS, 3, PLAIN) == [
        ("CONTENT_LENGTH", "3"),
        ("QUERY_STRING", "q=1"),
        ("REQUEST_URI", "/app//x/%2e./b?q=1"),
        ("REDIRECT_URI", made.full_target),
        ("REDIRECT_STATUS", "200"),
        ("SCRIPT_NAME", "/app"),
        ("PATH_INFO", "/b"),
        ("PATH_TRANSLATED", "/srv/www/b"),
        ("SCRIPT_FILENAME", "/srv/www/app"),
        ("DOCUMENT_ROOT", "/srv/www"),
        ("REQUEST_METHOD", "GET"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", "forkd/1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("SERVER_PORT", "8080"),
        ("SERVER_ADDR", "192.0.2.1"),
        ("SERVER_NAME", "www.example.org"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "4711"),
        ("HTTP_HOST", "www.example.org"),
        ("HTTP_ACCEPT", "*/*"),
        ("CONTENT_TYPE", "text/x"),
        ("HTTP_X_B", "1"),
        ("HTTP_CONTENT_LENGTH", "3"),
        ("X_DASH", "d"),
        ("REMOTE_USER", "jan"),
    ]


MISSING = None

# (what is said of the request and the host, what is told)
CASES: list[tuple[Request, Dialect, dict[str, object], dict[str, str | None]]] = [
    # the target
    (request("/app"), PLAIN, {}, {"QUERY_STRING": "", "REDIRECT_URI": MISSING}),
    (request("/app?"), PLAIN, {}, {"QUERY_STRING": "", "REQUEST_URI": "/app?"}),
    (request("/app?a=%2B"), PLAIN, {}, {"QUERY_STRING": "a=%2B", "REDIRECT_URI": MISSING}),
    (request("/app", target="http://h:81/app?x", query="x"), PLAIN, {},
     {"REQUEST_URI": "/app?x", "REDIRECT_URI": MISSING}),
    (request("/app", target="/old"), PLAIN, {}, {"REQUEST_URI": "/old", "REDIRECT_URI": "/app"}),
    (request("/app", target="*", path="*"), PLAIN, {}, {"REQUEST_URI": "*"}),
    (request("/r/app?x"), Dialect(strip_request_uri="/r"), {}, {"REQUEST_URI": "/app?x"}),
    (request("/rx"), Dialect(strip_request_uri="/r"), {}, {"REQUEST_URI": "/rx"}),
    (request("/r"), Dialect(strip_request_uri="/r"), {}, {"REQUEST_URI": "/r"}),
    (request("/h", target="/gone", environment=(
        ("REDIRECT_STATUS", "404"), ("REDIRECT_URI", "/gone"))), PLAIN, {},
     {"REDIRECT_STATUS": "404", "REDIRECT_URI": "/h", "REQUEST_URI": "/gone"}),
    # the script
    (request("/app"), PLAIN, {}, {"PATH_INFO": MISSING, "PATH_TRANSLATED": MISSING}),
    (request("/a.php/b", path_info="/b", physical=("/base", "/base/x/a.php")), PLAIN, {},
     {"SCRIPT_FILENAME": "/base/x/a.php", "DOCUMENT_ROOT": "/base", "PATH_TRANSLATED": "/base/b"}),
    (request("/a/b", path_info="/b"), PLAIN, {"document_root": "/srv/www/"},
     {"SCRIPT_FILENAME": "/srv/www/a", "PATH_TRANSLATED": "/srv/www/b"}),
    (request("/a/b", path_info="/b"), Dialect(docroot="/far/"), {},
     {"SCRIPT_FILENAME": "/far/a", "DOCUMENT_ROOT": "/far/", "PATH_TRANSLATED": "/far/b"}),
    (request("/a/b", path_info="/b"), Dialect(broken_scriptfilename=True), {},
     {"SCRIPT_FILENAME": "/srv/www/a/b", "PATH_INFO": "/b"}),
    (request("/a"), Dialect(broken_scriptfilename=True), {}, {"SCRIPT_FILENAME": "/srv/www/a"}),
    (request("/x/y", path_info="/y"), Dialect(fix_root_scriptname=True), {},
     {"SCRIPT_NAME": "", "PATH_INFO": "/x/y", "PATH_TRANSLATED": "/srv/www/x/y",
      "SCRIPT_FILENAME": "/srv/www"}),
    (request("/a/b", path_info="/b", content_length=3), Dialect(authorizer=True), {},
     {"CONTENT_LENGTH": MISSING, "SCRIPT_NAME": MISSING, "PATH_INFO": MISSING,
      "PATH_TRANSLATED": MISSING, "SCRIPT_FILENAME": "/srv/www/a"}),
    (request("/a"), Dialect(authorizer=True, docroot="/auth"), {},
     {"SCRIPT_FILENAME": "/auth/a", "DOCUMENT_ROOT": "/auth"}),
    # the server and the client
    (request(), PLAIN, {"server_tag": ""}, {"SERVER_SOFTWARE": ""}),
    (request(connection=ConnInfo(CLIENT, LISTENER, LISTENER, tls=True)), PLAIN, {},
     {"REQUEST_SCHEME": "https", "HTTPS": "on"}),
    (request(), PLAIN, {}, {"HTTPS": MISSING}),
    (request(version="HTTP/1.0"), PLAIN, {}, {"SERVER_PROTOCOL": "HTTP/1.0"}),
    (request(host="h.example:81"), PLAIN, {}, {"SERVER_NAME": "h.example"}),
    (request(host="[2001:db8::1]:81"), PLAIN, {}, {"SERVER_NAME": "[2001:db8::1]"}),
    (request(host="[2001:db8::1]"), PLAIN, {}, {"SERVER_NAME": "[2001:db8::1]"}),
    (request(host=""), PLAIN, {}, {"SERVER_NAME": "192.0.2.1"}),
    (request(), PLAIN, {"server_name": "me"}, {"SERVER_NAME": "me"}),
    (request(connection=ConnInfo(CLIENT, Address("192.0.2.9", 80), Address("0.0.0.0", 80))),
     PLAIN, {}, {"SERVER_ADDR": "192.0.2.9", "SERVER_PORT": "80"}),
    (request(connection=ConnInfo(CLIENT, Address("2001:db8::9", 80), Address("::", 80))),
     PLAIN, {}, {"SERVER_ADDR": "2001:db8::9"}),
    (request(connection=ConnInfo(Address(""), Address("/run/s"), Address("/run/s"))),
     PLAIN, {}, {"SERVER_ADDR": "/run/s", "SERVER_PORT": "0"}),
    (request(remote=Address("2001:db8::7", 9)), PLAIN, {},
     {"REMOTE_ADDR": "2001:db8::7", "REMOTE_PORT": "9"}),
    # fields
    (request(fields={"Proxy": "evil", "pRoXy": "evil"}), PLAIN, {}, {"HTTP_PROXY": MISSING}),
    (request(fields={"X_a.b~c": "v"}), PLAIN, {}, {"HTTP_X_A_B_C": "v"}),
    (request(fields=[("X-A", "1"), ("x-a", "2")]), PLAIN, {}, {"HTTP_X_A": "1, 2"}),
    (request(fields=[("Cookie", "a=1"), ("Cookie", "b=2")]), PLAIN, {},
     {"HTTP_COOKIE": "a=1; b=2"}),
    (request(fields={"X-Empty": ""}), PLAIN, {}, {"HTTP_X_EMPTY": MISSING}),
    (request(fields={"Upgrade": "websocket", "Connection": "Upgrade"}), PLAIN, {},
     {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}),
    (request(fields={"Content-Type": "text/x"}), PLAIN, {}, {"HTTP_CONTENT_TYPE": MISSING}),
    (request(environment=(("REMOTE_ADDR", "other"),)), PLAIN, {}, {"REMOTE_ADDR": "other"}),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(CASES)))
def test_table(case: int) -> None:
    made, dialect, settings, expected = CASES[case]
    told = environ(made, dialect, **settings)
    assert {name: told.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "names",
    [["X-A", "X_A"], ["x_a", "X-A"], ["X.A", "X_A"], ["User_Agent"], ["Content_Length"],
     ["content.type"], ["X_Forwarded-For"]],
)  # fmt: skip
def test_fields_that_would_be_taken_for_others(names: list[str]) -> None:
    with pytest.raises(BadRequest):
        environ(request(fields=[(name, "v") for name in names]))


# (host options, ext key, what of them counts)
HOSTS: list[tuple[dict[str, object], str, Dialect]] = [
    ({"gateway": "scgi"}, "/", PLAIN),
    ({"gateway": "scgi", "docroot": "/d"}, "/", Dialect(docroot="/d")),
    ({"gateway": "scgi", "mode": "authorizer", "broken_scriptfilename": True,
      "strip_request_uri": "/x"}, "/", PLAIN),
    ({"gateway": "fastcgi", "mode": "authorizer", "broken_scriptfilename": True,
      "strip_request_uri": "/x"}, "/",
     Dialect(authorizer=True, broken_scriptfilename=True, strip_request_uri="/x")),
    ({"gateway": "scgi", "fix_root_scriptname": True, "check_local": False}, "/",
     Dialect(fix_root_scriptname=True)),
    ({"gateway": "scgi", "fix_root_scriptname": True, "check_local": False}, "/x", PLAIN),
    ({"gateway": "scgi", "fix_root_scriptname": True, "check_local": True}, "/", PLAIN),
]  # fmt: skip


@pytest.mark.parametrize(("options", "key", "expected"), HOSTS)
def test_options_of_a_host(options: dict[str, object], key: str, expected: Dialect) -> None:
    spec = replace(BackendSpec("", "", "", Address("/run/s")), **options)
    assert Dialect.of(spec, key) == expected
