"""forkd/gateway/dispatch.py: the order of the steps (config.md 9.3), failures (core.md 12)."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import pytest
from fakes import FakeConfig, FakeExchange, FakeWorker, make_request, rules

from forkd.address import Address
from forkd.config.backend import BackendSpec, GatewayServer, Proc, Route
from forkd.config.model import (
    CgiSettings,
    DebugSettings,
    ErrorSettings,
    HookSettings,
    Limits,
    RequestConfig,
    ServerSettings,
    StaticSettings,
)
from forkd.errors import BackendBroken, ClientGone, NoBackend
from forkd.gateway import dispatch
from forkd.gateway.outcome import Approved, LocalRedirected
from forkd.message import Fields, Head

MODULES = ("rewrite", "setenv", "access", "redirect", "alias", "proxy")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, content in (
        ("a.txt", "a\n"),
        ("b.txt", "b\n"),
        ("handler.html", "sorry\n"),
        ("secret.inc", "s\n"),
        ("sub/index.html", "index\n"),
    ):
        (tmp_path / name).write_text(content)
    return str(tmp_path)


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


class Site:
    """A document root with one configuration; *gateway* serves what ``/gw/`` begins."""

    def __init__(self, root, hooks=None, gateway=None, monkeypatch=None, modules=MODULES, **more):
        servers = (GatewayServer("proxy", (Route("proxy", "/gw/", ()),)),) if gateway else ()
        if gateway:
            monkeypatch.setattr(dispatch, "GATEWAYS", {"proxy": gateway})
        self.settings = RequestConfig(
            document_root=root,
            static=StaticSettings(index_files=("index.html",)),
            hooks=HookSettings(**(hooks or {})),
            servers=servers,
            **more,
        )
        self.config = FakeConfig(self.settings, ServerSettings(modules=modules))

    def get(self, target: str, method: str = "GET", /, **changes) -> FakeExchange:
        exchange = FakeExchange(make_request(target, method, **changes))
        dispatch.handle(exchange, FakeWorker(self.config))
        return exchange


def test_file(root):
    got = Site(root).get("/a.txt")
    assert (got.status, got.body, got.is_finished) == (200, b"a\n", True)
    assert got.file_name == root + "/a.txt"


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/nope", "GET", 404),
        ("/sub", "GET", 301),
        ("/a.txt", "PUT", 501),
        ("*", "OPTIONS", 200),
        ("h:80", "CONNECT", 405),
    ],
)
def test_status(root, target, method, status):
    got = Site(root).get(target, method)
    assert (got.status, got.is_finished) == (status, True)


# -- hooks ------------------------------------------------------------------------------------


def test_order_of_modules_decides_between_access_and_redirect(root):
    hooks = {"access_deny": (".inc",), "redirect": rules((".inc$", "/else"))}
    assert Site(root, hooks).get("/secret.inc").status == 403
    reverse = tuple(reversed(MODULES))
    assert Site(root, hooks, modules=reverse).get("/secret.inc").status == 301


def test_hooks_of_unlisted_modules_do_not_run(root):
    hooks = {"access_deny": ("",)}
    assert Site(root, hooks, modules=()).get("/a.txt").status == 200


def test_access_is_asked_again_with_the_name_of_the_file(root):
    """As lighttpd does: an index file or one with path info has another name than the URL."""
    assert Site(root, {"access_deny": (".html",)}).get("/sub/").status == 403
    site = Site(root, {"access_deny": (".inc",)})
    settings = replace(site.settings, static=StaticSettings(disable_pathinfo=False))
    site.config = FakeConfig(settings, site.config.server)
    assert site.get("/secret.inc/x").status == 403
    assert site.get("/a.txt/x").status == 200


def test_response_fields_are_set_on_errors_too(root):
    site = Site(root, {"set_response_header": (("X-A", "1"),)})
    assert site.get("/a.txt").field("x-a") == "1"
    assert site.get("/nope").field("x-a") == "1"


def test_alias(root):
    site = Site(root, {"alias": (("/al/", root + "/sub/"),)})
    got = site.get("/al/")
    assert (got.body, got.file_name) == (b"index\n", root + "/sub/index.html")


# -- rewriting --------------------------------------------------------------------------------


def test_configuration_is_selected_anew(root):
    site = Site(root, {"rewrite_once": rules(("^/old$", "/a.txt"))})
    new = replace(site.settings, server_tag="new")
    site.config.choose = lambda request: new if request.path == "/a.txt" else site.settings
    got = site.get("/old")
    assert (got.body, got.settings.server_tag) == (b"a\n", "new")


def test_once_is_once_and_repeat_repeats(root):
    def body(kind: str, target: str) -> bytes:
        pairs = (("^/r/(.*)$", "/$1"), ("^/b.txt$", "/a.txt"))
        return Site(root, {kind: rules(*pairs)}).get(target).body

    assert body("rewrite_once", "/r/b.txt") == b"b\n"
    assert body("rewrite_repeat", "/r/r/b.txt") == b"a\n"


def test_a_loop_of_rules_ends_in_a_status(root, caplog):
    got = Site(root, {"rewrite_repeat": rules(("^/l(.*)", "/l$1x"))}).get("/loop")
    assert got.status == 500
    assert "rewritten more than" in caplog.text


def test_missing_files_are_rewritten(root):
    hooks = {
        "rewrite_if_not_file": rules(("^/(nf|sub)", "/a.txt"), ("^/b", "/a.txt")),
        "alias": (("/al/", root + "/"),),
    }
    site = Site(root, hooks)
    assert site.get("/nf/x").body == b"a\n"
    assert site.get("/b.txt").body == b"b\n"
    assert site.get("/sub/").body == b"a\n"  # a folder is no file
    hooks["rewrite_if_not_file"] = rules(("^/al", "/a.txt"))
    assert Site(root, hooks).get("/al/b.txt").body == b"b\n"  # mapped first


def test_request_fields_are_added_once_however_often_it_is_rewritten(root, monkeypatch):
    seen = []

    def gateway(exchange, server, route, worker):
        seen.append(exchange.request.fields.get("x-a"))
        exchange.respond(Head(204))
        exchange.finish()

    hooks = {
        "add_request_header": (("X-A", "1"),),
        "rewrite_repeat_if_not_file": rules(("^/m(.*)$", "/n$1"), ("^/n", "/gw/")),
    }
    assert Site(root, hooks, gateway, monkeypatch).get("/m").status == 204
    assert seen == ["1"]


# -- gateways ---------------------------------------------------------------------------------


def answering(status: int, *fields):
    def gateway(exchange, server, route, worker):
        exchange.respond(Head(status, Fields(fields)))
        exchange.write(b"from backend")
        exchange.finish()

    return gateway


def raising(error):
    def gateway(exchange, server, route, worker):
        raise error

    return gateway


def test_gateway_before_files(root, monkeypatch):
    site = Site(root, gateway=answering(200), monkeypatch=monkeypatch)
    assert site.get("/gw/../gw/x").body == b"from backend"
    assert site.get("/gw/", "CONNECT").body == b"from backend"
    assert site.get("/a.txt").body == b"a\n"


def test_body_above_the_limit_is_refused_before_anybody_reads_it(root, monkeypatch):
    limits = Limits(max_request_size=1024)
    site = Site(root, None, answering(200), monkeypatch, limits=limits)
    assert site.get("/gw/", "POST", content_length=1024).status == 200
    assert site.get("/gw/", "POST", content_length=1025).status == 413
    assert site.get("/gw/", "POST", content_length=None).status == 200


class Recorder:
    """A gateway that keeps the requests it is asked, and gives the *answers* in turn: a status, or
    an Outcome to be raised."""

    def __init__(self, *answers):
        self.requests = []
        self.routes = []
        self._answers = list(answers)

    def __call__(self, exchange, server, route, worker):
        self.requests.append(exchange.request)
        self.routes.append((server.name, route.key))
        answer = self._answers.pop(0) if self._answers else 200
        if isinstance(answer, Exception):
            raise answer
        exchange.respond(Head(answer))
        exchange.finish()


class Turn:
    """A balancer: the *backend* whose turn it is, None for nobody."""

    def __init__(self, backend):
        self._proc = backend and Proc(backend, 0, backend.address, 0)

    def peek(self, server, route, request):
        return self._proc

    def retry_after(self, route):
        return 3


LOCAL = BackendSpec("fastcgi", "", "", Address("/s"))
REMOTE = replace(LOCAL, address=Address("/r"), check_local=False)
AUTHORIZER = replace(REMOTE, address=Address("/a"), mode="authorizer")


class FastCgiSite(Site):
    """With fastcgi under *routes*, key to backends; *turn* is the backend whose turn it is."""

    def __init__(self, root, monkeypatch, recorder, routes, turn=LOCAL, **more):
        modules = more.pop("modules", ("access", "alias", "fastcgi"))
        super().__init__(root, more.pop("hooks", None), modules=modules, **more)
        made = tuple(Route("fastcgi", key, backends) for key, backends in routes.items())
        self.settings = replace(self.settings, servers=(GatewayServer("fastcgi", made),))
        self.config = FakeConfig(self.settings, self.config.server)
        monkeypatch.setattr(dispatch, "GATEWAYS", {"fastcgi": recorder})
        self.turn = Turn(turn)

    def get(self, target, method="GET", /, **changes):
        exchange = FakeExchange(make_request(target, method, **changes))
        worker = FakeWorker(self.config)
        worker.balancer = self.turn
        dispatch.handle(exchange, worker)
        return exchange


def test_backend_that_wants_a_file_gets_one(root, monkeypatch):
    asked = Recorder()
    site = FastCgiSite(root, monkeypatch, asked, {".txt": (LOCAL,), "/sub/": (LOCAL,)})
    assert site.get("/nope.txt").status == 404 and not asked.requests
    got = site.get("/a.txt/info/x")
    assert got.status == 200 and got.file_name == root + "/a.txt"
    request = asked.requests[0]
    assert (request.decoded_path, request.path_info) == ("/a.txt", "/info/x")
    assert request.physical == (root, root + "/a.txt")
    assert site.get("/sub/").status == 200  # with the index file
    assert asked.requests[1].physical == (root, root + "/sub/index.html")
    assert site.get("/handler.html").body == b"sorry\n"


def test_backend_that_wants_no_file(root, monkeypatch):
    asked = Recorder()
    hooks = {"alias": (("/app/", "/elsewhere/"),)}
    site = FastCgiSite(root, monkeypatch, asked, {"/app/": (REMOTE,)}, hooks=hooks)
    assert site.get("/app/prog/info?q").status == 200
    request = asked.requests[0]
    assert (request.decoded_path, request.path_info) == ("/app/prog", "/info")
    assert request.physical == ("/elsewhere/", "/elsewhere/prog")
    assert request.full_target == "/app/prog/info?q"


def test_no_file_is_looked_for_when_nobody_would_serve_it(root, monkeypatch):
    site = FastCgiSite(root, monkeypatch, Recorder(), {".txt": (LOCAL,)}, turn=None)
    got = site.get("/nope.txt")
    assert (got.status, got.field("retry-after")) == (503, "3")


@pytest.mark.parametrize(("turn", "status"), [(LOCAL, 404), (REMOTE, 200)])
def test_whose_turn_it_is_decides_about_the_file(root, monkeypatch, turn, status):
    asked = Recorder()
    site = FastCgiSite(root, monkeypatch, asked, {"/": (LOCAL, REMOTE)}, turn)
    assert site.get("/nope").status == status


def test_program_for_a_file(root, monkeypatch):
    ran = []

    def serve_program(exchange, interpreter, worker):
        ran.append((exchange.request.physical[1], exchange.request.path_info, interpreter))
        exchange.respond(Head(200))
        exchange.finish()

    monkeypatch.setattr(dispatch, "serve_program", serve_program)
    settings = CgiSettings(assign=((".txt", "/bin/cat"),))
    site = Site(root, modules=("cgi",), cgi=settings)
    assert site.get("/a.txt/x").status == 200
    assert ran == [(root + "/a.txt", "/x", "/bin/cat")]
    assert site.get("/handler.html").body == b"sorry\n"
    assert Site(root, modules=(), cgi=settings).get("/a.txt").body == b"a\n"


@pytest.mark.parametrize("modules", [("cgi", "fastcgi"), ("fastcgi", "cgi")])
def test_order_of_modules_decides_between_gateways(root, monkeypatch, modules):
    asked, ran = Recorder(), Recorder()
    monkeypatch.setattr(dispatch, "serve_program", lambda e, i, w: ran(e, SERVER, CGI_ROUTE, w))
    cgi = CgiSettings(assign=((".txt", ""),))
    site = FastCgiSite(root, monkeypatch, asked, {".txt": (LOCAL,)}, modules=modules, cgi=cgi)
    assert site.get("/a.txt").status == 200
    assert bool(ran.requests) is (modules[0] == "cgi") and len(ran.requests + asked.requests) == 1


SERVER, CGI_ROUTE = GatewayServer("cgi", ()), Route("cgi", "", ())


def test_local_redirect_is_served_in_place(root, monkeypatch):
    asked = Recorder(LocalRedirected("/b.txt?x"))
    site = FastCgiSite(root, monkeypatch, asked, {"/app": (REMOTE,)})
    got = site.get("/app", "POST", content_length=5)
    assert (got.status, got.body, got.request.method) == (200, b"b\n", "GET")


def test_local_redirects_for_ever(root, monkeypatch, caplog):
    asked = Recorder(*[LocalRedirected("/app")] * 9)
    site = FastCgiSite(root, monkeypatch, asked, {"/app": (REMOTE,)})
    assert site.get("/app").status == 500 and len(asked.requests) == 6


def test_local_redirect_to_what_is_no_url(root, monkeypatch):
    asked = Recorder(LocalRedirected("/%00"))
    assert FastCgiSite(root, monkeypatch, asked, {"/app": (REMOTE,)}).get("/app").status == 502


def test_approved_request_goes_on_with_what_the_authorizer_said(root, monkeypatch):
    asked = Recorder(Approved((("USER", "joe"),), ""))
    routes = {"/app": (REMOTE,), "/": (AUTHORIZER,)}
    site = FastCgiSite(root, monkeypatch, asked, routes)
    assert site.get("/app").status == 200
    assert asked.routes == [("fastcgi", "/"), ("fastcgi", "/app")]
    assert asked.requests[1].environment == (("USER", "joe"),)
    asked = Recorder(Approved((), ""))
    assert FastCgiSite(root, monkeypatch, asked, routes).get("/a.txt").body == b"a\n"


def test_authorizer_with_a_docroot_gives_its_own_files(root, monkeypatch):
    asked = Recorder(Approved((), root + "/sub"))
    routes = {"/app": (REMOTE,), "/": (AUTHORIZER,)}
    site = FastCgiSite(root, monkeypatch, asked, routes)
    got = site.get("/index.html")
    assert (got.body, got.file_name) == (b"index\n", root + "/sub/index.html")
    site = FastCgiSite(root, monkeypatch, Recorder(Approved((), root + "/sub")), routes)
    assert site.get("/app").status == 404  # it is files that were approved


def test_authorizer_that_denies(root, monkeypatch):
    site = FastCgiSite(root, monkeypatch, Recorder(403), {"/": (AUTHORIZER,)})
    assert site.get("/a.txt").status == 403


# -- failures ---------------------------------------------------------------------------------


def test_fields_of_an_error_are_sent_and_its_text_is_not(root, monkeypatch, caplog):
    site = Site(root, None, raising(NoBackend("all of them dead", 7)), monkeypatch)
    got = site.get("/gw/")
    assert (got.status, got.field("retry-after")) == (503, "7")
    assert b"dead" not in got.body
    assert "all of them dead" in caplog.text


@pytest.mark.parametrize("error", [KeyError("x"), OSError(5, "Input/output error")])
def test_any_other_failure_is_a_500(root, monkeypatch, error, caplog):
    assert Site(root, None, raising(error), monkeypatch).get("/gw/").status == 500
    assert caplog.records


@pytest.mark.parametrize("error", [BackendBroken("gone"), RuntimeError("x"), EOFError("x")])
def test_what_has_begun_is_cut_short(root, monkeypatch, error):
    def gateway(exchange, server, route, worker):
        exchange.respond(Head(200, length=10))
        raise error

    got = Site(root, None, gateway, monkeypatch, errors=ErrorSettings("", "/a.txt")).get("/gw/")
    assert got.status == 200
    assert got.aborted and not got.is_finished


def test_nobody_is_answered_who_has_left(root, monkeypatch):
    site = Site(root, None, raising(ClientGone("reset")), monkeypatch)
    with pytest.raises(ClientGone):
        site.get("/gw/")


HANDLER = ErrorSettings(error_handler="/handler.html")
HANDLER_404 = ErrorSettings(error_handler_404="/handler.html")


@pytest.mark.parametrize(
    ("errors", "target", "method", "status", "body"),
    [
        (HANDLER, "/nope", "GET", 404, b"sorry\n"),
        (HANDLER, "/nope", "PUT", 404, b"sorry\n"),
        (HANDLER, "/a.txt", "PUT", 501, b"sorry\n"),
        (HANDLER, "/nope", "HEAD", 404, b""),
        (HANDLER, "/secret.inc", "GET", 403, b"sorry\n"),
        (HANDLER_404, "/nope", "GET", 200, b"sorry\n"),
        (HANDLER_404, "/secret.inc", "GET", 403, None),
        (ErrorSettings(error_handler="/nope2"), "/nope", "GET", 404, None),
        (ErrorSettings(error_handler="/secret.inc"), "/nope", "GET", 404, None),
        (ErrorSettings(error_handler_404="/nope2"), "/nope", "GET", 404, None),
        (ErrorSettings(error_handler="/a%00"), "/nope", "GET", 404, None),
    ],
)
def test_error_handlers(root, errors, target, method, status, body):
    got = Site(root, {"access_deny": (".inc",)}, errors=errors).get(target, method)
    assert (got.status, got.is_finished) == (status, True)
    assert got.request.path == target
    if body is None:
        assert b"<h1>" in got.body
    else:
        assert got.body == body


def test_error_handler_gets_a_plain_get(root):
    conditions = {"Range": "bytes=0-0", "If-None-Match": "*", "Upgrade": "websocket"}
    got = Site(root, errors=HANDLER).get("/nope", fields=conditions)
    assert (got.status, got.body, got.field("accept-ranges")) == (404, b"sorry\n", "")


def test_a_gateway_as_error_handler_is_told_what_happened(root, monkeypatch):
    seen = []

    def gateway(exchange, server, route, worker):
        seen.append(exchange.request)
        exchange.respond(Head(200 if exchange.request.query is None else 410))
        exchange.finish()

    errors = ErrorSettings(error_handler="/gw/err", error_intercept=True)
    site = Site(root, None, gateway, monkeypatch, errors=errors)
    assert site.get("/nope?x", "POST", content_length=5).status == 404
    request = seen[0]
    assert (request.method, request.path, request.content_length) == ("GET", "/gw/err", 0)
    assert dict(request.environment) == {"REDIRECT_STATUS": "404", "REDIRECT_URI": "/nope?x"}
    errors = ErrorSettings(error_handler="/gw/err?own", error_intercept=True)
    site = Site(root, None, gateway, monkeypatch, errors=errors)
    assert site.get("/nope").status == 410  # a status of its own


def test_a_backends_errors_are_its_own_unless_intercepted(root, monkeypatch):
    gateway = answering(401, ("WWW-Authenticate", "Basic"), ("X-Other", "x"))
    assert Site(root, None, gateway, monkeypatch).get("/gw/").body == b"from backend"
    errors = ErrorSettings(error_intercept=True)
    got = Site(root, None, gateway, monkeypatch, errors=errors).get("/gw/")
    assert (got.status, got.field("www-authenticate"), got.field("x-other")) == (401, "Basic", "")
    assert b"from backend" not in got.body
    handled = replace(errors, error_handler="/handler.html")
    got = Site(root, None, gateway, monkeypatch, errors=handled).get("/gw/")
    assert (got.status, got.body) == (401, b"sorry\n")


def test_success_is_not_intercepted(root, monkeypatch):
    errors = ErrorSettings(error_intercept=True)
    site = Site(root, None, answering(201), monkeypatch, errors=errors)
    assert site.get("/gw/").body == b"from backend"


# -- traces -----------------------------------------------------------------------------------


def test_what_an_admin_may_watch(root, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    everything = DebugSettings(*[True] * 8)
    site = Site(root, None, answering(200), monkeypatch, debug=everything)
    site.get("/nope", fields={"X-A": "v"})
    site.get("/gw/")
    for text in ("GET /nope HTTP/1.1\n  X-A: v", "not found", "response 404\n", "proxy '/gw/'"):
        assert text in caplog.text


def test_an_ordinary_request_leaves_no_line(root, caplog):
    caplog.set_level(logging.INFO)
    Site(root).get("/a.txt")
    Site(root).get("/nope")
    assert not caplog.records
