"""forkd/config/load.py, listeners.py, checks.py and Config; the vectors config_check."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import make_request
from vectors_loader import accepted, vector_id
from vectors_loader import load as load_vectors

from forkd import __version__
from forkd.address import Address
from forkd.config import model
from forkd.config.diagnostics import ConfigRefused
from forkd.config.load import load
from forkd.config.model import Config, ListenerSpec
from forkd.errors import ConfigError

HEAD = 'server.document-root = "/"\n'


def resolve(host: str, prefer_inet6: bool) -> str:
    if host == "h.example":
        return "2001:db8::9" if prefer_inet6 else "192.0.2.9"
    raise OSError("Name or service not known")


def loaded(text: str, head: str = HEAD, **more: Any) -> Config:
    return load("main.conf", text=f"{head}{text}".encode("latin-1"), resolve=resolve, **more)


def said(text: str, head: str = HEAD, **more: Any) -> list[str]:
    """Everything said about *text*, as ``LINE severity: text``."""
    try:
        diagnostics = loaded(text, head, **more).diagnostics
    except ConfigRefused as refused:
        diagnostics = refused.diagnostics
    return [f"{found.line} {found.severity}: {found.text}" for found in diagnostics]


@pytest.mark.parametrize("vector", load_vectors("config_check"), ids=vector_id)
def test_vectors_config_check(vector: dict[str, Any]) -> None:
    lines = said(vector["config"], head="")
    result = {
        "ok": not any(" error: " in line for line in lines),
        "warning": any(" warning: " in line for line in lines),
    }
    assert any(
        result["ok"] is right["ok"] and result["warning"] >= bool(right.get("warning"))
        for right in accepted(vector)
    ), lines


# What holds for a request


def test_defaults() -> None:
    config = loaded("")
    assert config.base.server_tag == f"forkd/{__version__}"
    assert config.base.document_root == "/"
    assert config.select(make_request()) is config.base


def test_true_blocks_replace_key_by_key() -> None:
    config = loaded(
        """server.tag = "0"
           index-file.names = ("a", "b")
           $HTTP["host"] == "h" { server.tag = "1" }
           else $HTTP["host"] == "i" { server.tag = "2" }
           else { server.tag = "3" index-file.names = ("c") }
           $HTTP["url"] =^ "/u" { server.max-read-idle = 7 }"""
    )

    def at(host: str, target: str) -> tuple[str, tuple[str, ...], float]:
        settings = config.select(make_request(target, host=host))
        return settings.server_tag, settings.static.index_files, settings.limits.max_read_idle

    assert at("h", "/") == ("1", ("a", "b"), 60)
    assert at("i", "/u") == ("2", ("a", "b"), 7)
    assert at("j", "/u") == ("3", ("c",), 7)
    assert config.base.server_tag == "0"


def test_an_empty_value_replaces_too() -> None:
    config = loaded(
        """server.modules = ("mod_access", "mod_wstunnel")
           url.access-allow = ("a")
           wstunnel.server = ( "/" => (("host" => "::1")) )
           $HTTP["host"] == "h" { url.access-allow = () wstunnel.server = () }"""
    )
    assert config.base.hooks.access_allow == ("a",)
    assert len(config.base.servers) == 1
    settings = config.select(make_request(host="h"))
    assert settings.hooks.access_allow is None
    assert settings.servers == ()


def test_answers_are_remembered() -> None:
    config = loaded('$HTTP["host"] == "h" { server.tag = "x" }')
    assert config.select(make_request(host="h")) is config.select(make_request("/a", host="h"))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_VARIANTS", 4)
    blocks = "".join(
        f'$HTTP["url"] =~ "{letter}" {{ server.tag = "{letter}" }}\n' for letter in "abcd"
    )
    config = loaded(blocks)
    for number in range(16):
        letters = "".join(letter for bit, letter in enumerate("abcd") if number >> bit & 1)
        expected = letters[-1:] or f"forkd/{__version__}"
        assert config.select(make_request(f"/{letters}")).server_tag == expected
        assert len(config._variants) <= 4


def test_blocks_that_change_nothing_are_not_evaluated() -> None:
    config = loaded(
        """$HTTP["host"] == "a" { var.x = 1 }
           $SERVER["socket"] == "127.0.0.1:8080" { server.listen-backlog = 5 }
           $HTTP["host"] == "b" { $HTTP["url"] == "/" { server.tag = "x" } }
           $HTTP["host"] == "c" { var.x = 1 } else { server.tag = "y" }"""
    )
    assert config.conditions.mask(make_request("/", host="a")) == 1 | 1 << 6
    assert config.select(make_request("/", host="c")).server_tag == f"forkd/{__version__}"
    assert config.select(make_request("/", host="b")).server_tag == "y"


def test_rules_see_the_captures_of_their_own_block() -> None:
    config = loaded(
        """server.modules = ("mod_redirect")
           $HTTP["host"] =~ "^(www)\\." {
             $HTTP["url"] =~ "^/(.)" { url.redirect = ( "" => "/%1" ) }
           }"""
    )
    request = make_request("/u", host="www.example.org")
    rules = config.select(request).hooks.redirect
    assert rules is not None
    assert rules.apply(request, config) == "/u"


def test_servers_follow_the_order_of_modules() -> None:
    config = loaded(
        """server.modules = ("mod_wstunnel")
           wstunnel.balance = "fair"
           wstunnel.debug = 3
           wstunnel.map-extensions = (".a" => ".b")
           $HTTP["url"] =^ "/w" { wstunnel.server = ( "/w" => (("host" => "::1")) ) }"""
    )
    assert config.base.servers == ()
    (server,) = config.select(make_request("/w")).servers
    assert (server.name, server.balance, server.debug) == ("wstunnel", "least-connection", 3)
    assert server.map_extensions == ((".a", ".b"),)


def test_a_config_pickles() -> None:
    config = loaded(
        """server.modules = ("mod_redirect", "mod_rewrite", "mod_wstunnel")
           url.redirect = ( "^/(a)" => "${escape:1}${url.port}${qsa}" )
           wstunnel.server = ( "/w" => (("host" => "::1")) )
           $HTTP["remoteip"] != "10.0.0.0/8" { server.tag = "x" }
           else $HTTP["url"] !~ "a.*b.*c" { server.tag = "y" }
           $HTTP["host"] =~ "." { server.tag = "z" }"""
    )
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    request = make_request("/a", host="")
    assert again.select(request) == config.select(request)
    assert again.select(request).server_tag == "x"


# Listeners


def listeners(text: str) -> list[str]:
    return [spec.address.text for spec in loaded(text).listeners]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["0.0.0.0:80"]),
        ("server.port = 8080", ["0.0.0.0:8080"]),
        ('server.bind = "127.0.0.1"', ["127.0.0.1:80"]),
        ('server.bind = "[::1]"', ["[::1]:80"]),
        ('server.bind = "::1"', ["[::1]:80"]),
        ('server.bind = "h.example"', ["192.0.2.9:80"]),
        ('server.bind = "h.example"\nserver.use-ipv6 = 1', ["[2001:db8::9]:80"]),
        ('server.bind = "/run/w.sock"', ["/run/w.sock"]),
        ("server.use-ipv6 = 1", ["[::]:80"]),
        ('$SERVER["socket"] == ":81" { }', ["0.0.0.0:80", "0.0.0.0:81"]),
        ('$SERVER["socket"] == "[::]:81" { }', ["0.0.0.0:80", "[::]:81"]),
        ('$SERVER["socket"] == "127.0.0.1" { }', ["0.0.0.0:80", "127.0.0.1:80"]),
        ('$SERVER["socket"] == "::1" { }', ["0.0.0.0:80", "[::1]:80"]),
        ('$SERVER["socket"] == "h.example:81" { }', ["0.0.0.0:80", "192.0.2.9:81"]),
        ('$SERVER["socket"] == "/run/w.sock" { }', ["0.0.0.0:80", "/run/w.sock"]),
        ('$SERVER["socket"] == "0.0.0.0:80" { }', ["0.0.0.0:80"]),
        ('$SERVER["socket"] != "0.0.0.0:81" { }', ["0.0.0.0:80"]),
        ('$HTTP["host"] == "h" { $SERVER["socket"] == ":81" { } }', ["0.0.0.0:80"]),
    ],
)
def test_listeners(text: str, expected: list[str]) -> None:
    assert listeners(text) == expected


def test_options_of_listeners() -> None:
    config = loaded(
        """server.listen-backlog = 7
           server.set-v6only = "disable"
           $SERVER["socket"] == "[::1]:81" { server.listen-backlog = 8 server.set-v6only = 1 }
           $SERVER["socket"] == "[::1]:82" { server.set-v6only = 1 server.v4mapped = 1 }
           $SERVER["socket"] == "/s" { server.socket-perms = "0660" server.defer-accept = 1 }"""
    )
    assert config.listeners == (
        ListenerSpec(Address("0.0.0.0", 80), backlog=7, v6only=False),
        ListenerSpec(Address("::1", 81), backlog=8),
        ListenerSpec(Address("::1", 82), backlog=7, v6only=False),
        ListenerSpec(Address("/s"), 7, v6only=False, socket_mode=0o660, defer_accept=True),
    )


def test_a_socket_block_may_set_options_of_the_main_listener() -> None:
    config = loaded('$SERVER["socket"] == ":80" { server.listen-backlog = 9 }')
    assert config.listeners == (ListenerSpec(Address("0.0.0.0", 80), backlog=9),)


@pytest.mark.parametrize(
    ("text", "addresses", "is_implied"),
    [
        ("", ["0.0.0.0:80"], True),
        ('server.bind = "0.0.0.0"', ["0.0.0.0:80"], False),
        ('$SERVER["socket"] == "0.0.0.0:80" { }', ["0.0.0.0:80"], False),
        ('server.bind = "fd:web"', ["fd:web"], False),
        ('$SERVER["socket"] == "fd:web" { }', ["0.0.0.0:80", "fd:web"], True),
    ],
)
def test_inherited_and_implied_listeners(
    text: str, addresses: list[str], is_implied: bool
) -> None:
    specs = loaded(text).listeners
    assert [str(spec.address) for spec in specs] == addresses
    assert [spec.is_implied for spec in specs] == [is_implied] + [False] * (len(specs) - 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('server.bind = "nosuch.example"', 'cannot resolve "nosuch.example": Name or service'),
        ('server.bind = "/dev/stdin"', "standard input is no listener"),
        ('server.bind = "fd:"', "the name is missing"),
        ('$SERVER["socket"] == "nosuch.example:80" { }', 'cannot resolve "nosuch.example"'),
        ('$SERVER["socket"] == ":0" { }', "the port must be a number from 1 to 65535"),
        ('$SERVER["socket"] == ":http" { }', "the port must be a number from 1 to 65535"),
        ('$SERVER["socket"] == "127.0.0.1:" { }', "the port must be a number from 1 to 65535"),
        ('$SERVER["socket"] == "fd:" { }', "the name is missing"),
    ],
)
def test_bad_listeners(text: str, message: str) -> None:
    (line,) = said(text)
    assert line.startswith("2 error: ")
    assert message in line


def test_without_a_resolver_only_localhost_is_known() -> None:
    text = f'{HEAD}server.bind = "localhost"'.encode()
    assert load("main.conf", text=text).listeners[0].address == Address("127.0.0.1", 80)
    with pytest.raises(ConfigError, match="no resolver"):
        load("main.conf", text=text.replace(b"localhost", b"h.example"))


def test_a_name_is_resolved_once() -> None:
    asked = []

    def counting(host: str, prefer_inet6: bool) -> str:
        asked.append(host)
        return "192.0.2.1"

    text = f'{HEAD}$SERVER["socket"] == "a.example:81" {{ server.tag = "x" }}'
    load("main.conf", text=text.encode(), resolve=counting)
    assert asked == ["a.example"]


# Diagnostics


def test_many_errors_at_once_in_the_order_of_the_text() -> None:
    lines = said(
        """server.port = "x"
           $HTTP["url"] =~ "(" { server.tag = 5 }
           server.modules = ("mod_nope")
           $HTTP["nope"] == "" { server.name = () }
           ssl.engine = 1
        """
    )
    assert [line.split(":")[0] for line in lines] == [
        "2 error",
        "3 error",
        "3 error",
        "4 error",
        "5 error",
        "5 error",
        "6 error",
    ]


def test_an_error_names_file_line_and_column(write: Callable[..., Path]) -> None:
    path = write('server.document-root = "/"\ninclude "b.conf"\n', {"b.conf": "\n server.tag = 1"})
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    place, source, caret = str(caught.value).splitlines()
    assert "b.conf:2:2: error: server.tag: expected a string" in place
    assert source.strip() == "server.tag = 1"
    assert source.index("server") == caret.index("^")


def test_strict_makes_warnings_errors_and_leaves_notes() -> None:
    text = 'server.modules = ("mod_ssi")\nserver.prot = 1\n'
    assert [line.split(":")[0] for line in said(text)] == ["2 note", "3 warning"]
    assert [line.split(":")[0] for line in said(text, strict=True)] == ["2 note", "3 error"]
    assert loaded('server.modules = ("mod_ssi")', strict=True).diagnostics


def test_further_checks() -> None:
    def check(value: str) -> None:
        if value != "good":
            raise ValueError(f"bad format {value}")

    modules = 'server.modules = ("mod_accesslog")\n'
    checks = {"accesslog.format": check}
    assert said(f'{modules}accesslog.format = "good"', checks=checks) == []
    assert said(f'{modules}accesslog.format = "%z"', checks=checks) == [
        "3 error: accesslog.format: bad format %z"
    ]


def test_overrides() -> None:
    config = loaded("server.port = 80", overrides=["server.port=81", "server.tag=x"])
    assert config.listeners[0].address.port == 81
    assert config.base.server_tag == "x"


def test_the_real_path_is_kept(write: Callable[..., Path]) -> None:
    path = write(HEAD)
    path.with_name("link.conf").symlink_to(path)
    assert load("link.conf").file == str(path.resolve())
    assert load("-", text=HEAD.encode()).file == "-"


def test_log_files_of_every_block() -> None:
    config = loaded(
        """server.modules = ("mod_accesslog")
           server.errorlog = "/e"
           server.breakagelog = "/b"
           accesslog.filename = "|logger"
           $HTTP["host"] == "h" { accesslog.filename = "/a" server.errorlog = "/e" }
           $HTTP["host"] == "i" { accesslog.filename = "" }"""
    )
    assert config.log_files == ("/e", "/b", "|logger", "/a")
    assert (config.server.errorlog, config.server.breakagelog) == ("/e", "/b")


# Things outside


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('server.username = "root"', 'error: server.username: "root" is root'),
        ('server.groupname = "root"', "error: server.groupname: \"root\" is root's"),
        ('server.username = "nosuchuser-x"', 'error: server.username: no user "nosuchuser-x"'),
        ('server.groupname = "nosuch-x"', 'error: server.groupname: no group "nosuch-x"'),
        ('server.chroot = "/nonexistent"', 'error: server.chroot: there is no folder "/nonexi'),
        (
            'server.upload-dirs = ("/nonexistent/u")',
            'warning: server.upload-dirs: folder "/nonexistent/u" does not exist',
        ),
        (
            '$HTTP["host"] == "h" { server.document-root = "/nonexistent/d" }',
            'warning: server.document-root: folder "/nonexistent/d" does not exist',
        ),
        (
            '$HTTP["host"] == "h" { server.document-root = "/etc/passwd" }',
            'warning: server.document-root: "/etc/passwd" is not a folder',
        ),
    ],
)
def test_users_and_folders(text: str, expected: str) -> None:
    (line,) = said(text)
    assert line.startswith(f"2 {expected}")


@pytest.mark.parametrize(
    "text", ['server.username = "nobody"', 'server.username = ""', 'server.chroot = "/usr"']
)
def test_users_and_folders_that_are_fine(text: str) -> None:
    assert said(text) == []


def test_folders_are_looked_for_below_the_chroot(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    text = f'server.chroot = "{tmp_path}"\nserver.document-root = "/www"\n'
    assert said(text, head="") == []
    (line,) = said(text.replace("/www", "/usr"), head="")
    assert "does not exist" in line


@pytest.mark.parametrize("text", ["", 'server.document-root = ""'])
def test_document_root_is_required(text: str) -> None:
    assert said(text, head="") == ["1 error: server.document-root is not set"]


def test_a_wrong_document_root_is_one_error() -> None:
    assert len(said("server.document-root = 1", head="")) == 1


# The published sample

SAMPLE = """\
server.document-root = "/tmp" # place count.html here (better: use a more secure location)
server.bind = "127.0.0.1"     # comment out if accessing from remote machine
server.port = 8081
server.modules += ("mod_wstunnel")
wstunnel.server = ( "/ws/" => ( ( "socket" => "/tmp/echo.sock", # should use more secure location
  "bin-path" => "@PROGRAM@", # should use more secure location
  "max-procs" => 1 ) ) )
"""


def test_the_published_wstunnel_sample(tmp_path: Path) -> None:
    program = tmp_path / "echo.pl"
    program.write_text("#!/usr/bin/perl -T\n")
    program.chmod(0o755)
    config = loaded(SAMPLE.replace("@PROGRAM@", str(program)), head="")
    assert config.diagnostics == ()
    assert config.server.modules == ("wstunnel",)
    assert [spec.address for spec in config.listeners] == [Address("127.0.0.1", 8081)]
    (backend,) = config.backends
    assert backend.address == Address("/tmp/echo.sock")
    assert (backend.bin_path, backend.min_procs, backend.max_procs) == ((str(program),), 1, 1)
    (server,) = config.select(make_request("/ws/")).servers
    assert [(route.key, route.backends) for route in server.routes] == [("/ws/", (backend,))]


def test_requests_of_several_generations_share_nothing() -> None:
    config = loaded("")
    other = replace(config, base=replace(config.base, server_tag="other"))
    assert config == loaded("")
    assert config != other


# The samples that lighttpd's documentation publishes, as printed

CGI_SAMPLE = """server.modules += ("mod_cgi")
$HTTP["url"] =^ "/ws/" {
  cgi.assign = ( "" => "" )
  cgi.upgrade = 1
  #cgi.limits = ( "read-timeout" => 60, "write-timeout" => 60 )
}"""

HOST_SAMPLE = """server.modules += ("mod_%(gateway)s")
%(gateway)s.server = ("/ws/" => ((
  "socket" => "/tmp/ws.sock", # should use more secure location
  "bin-path" => "/bin/cat" # modify path to it
  "check-local" => "disable", "min-procs" => 1, "max-procs" => 1, "upgrade" => 1 #"read-timeout" => 60, #"write-timeout" => 60,
)) )"""  # noqa: E501


def test_the_cgi_sample() -> None:
    assert said(CGI_SAMPLE) == []
    settings = loaded(CGI_SAMPLE).select(make_request("/ws/echo")).cgi
    assert settings.upgrade
    assert settings.assign == (("", ""),)


@pytest.mark.parametrize("gateway", ["scgi", "fastcgi"])
def test_the_samples_that_lack_a_comma(gateway: str) -> None:
    text = HOST_SAMPLE % {"gateway": gateway}
    comma, comment = said(text)
    assert comma == '6 warning: missing comma before "check-local"'
    assert comment.startswith("6 warning: line breaks seem to be lost")  # config.md 13.4
    ((route,),) = (server.routes for server in loaded(text).base.servers)
    (host,) = route.backends
    assert (route.key, host.bin_path, host.max_procs) == ("/ws/", ("/bin/cat",), 1)
    assert host.upgrade
    assert not host.check_local
