"""forkd/config/hosts.py: ``<gateway>.server`` to routes and backends (gateway.md 1, 2, 6)."""

from __future__ import annotations

import pytest

from forkd.address import Address
from forkd.config.backend import BackendSpec, Route
from forkd.config.diagnostics import ConfigRefused
from forkd.config.load import load
from forkd.config.model import Config

HEAD = 'server.document-root = "/"\nserver.modules = ("mod_%s")\n'
SPAWNED = '"bin-path" => "/bin/cat"'


def resolve(host: str, prefer_inet6: bool) -> str:
    if host == "echo.example":
        return "192.0.2.9"
    raise OSError("Name or service not known")


def loaded(servers: str, more: str = "", gateway: str = "wstunnel") -> Config:
    text = f"{HEAD % gateway}{gateway}.server = ( {servers} )\n{more}\n"
    return load("main.conf", text=text.encode("latin-1"), resolve=resolve)


def routes(servers: str, gateway: str = "wstunnel") -> tuple[Route, ...]:
    servers_of_request = loaded(servers, gateway=gateway).base.servers
    assert len(servers_of_request) == 1
    return servers_of_request[0].routes


def backend(options: str, gateway: str = "wstunnel") -> BackendSpec:
    ((only,),) = (route.backends for route in routes(f'"/ws/" => (( {options} ))', gateway))
    return only


def said(servers: str, more: str = "", gateway: str = "wstunnel") -> list[str]:
    try:
        diagnostics = loaded(servers, more, gateway).diagnostics
    except ConfigRefused as refused:
        diagnostics = refused.diagnostics
    return [f"{found.line} {found.severity}: {found.text}" for found in diagnostics]


# Shape


def test_exts_and_hosts_keep_their_order() -> None:
    first, second = routes(
        """"/b/" => ( ("port" => 1, "host" => "127.0.0.1"), "two" => ("socket" => "/s") ),
           "" => ( ("host" => "127.0.0.1") )"""
    )
    assert (first.key, second.key) == ("/b/", "")
    assert [spec.address.text for spec in first.backends] == ["127.0.0.1:1", "/s"]
    assert [str(spec) for spec in first.backends] == ["127.0.0.1:1", "two"]


@pytest.mark.parametrize(
    "servers",
    ['"x"', '"/a" => "x"', '"/a" => ( "host" => "h" )', '"/a" => ( ("h") )', '"/a" => ( "h" )'],
)
def test_wrong_shapes(servers: str) -> None:
    (line,) = said(servers)
    assert line.startswith("3 error: wstunnel.server: ")
    assert "expected exts with lists of hosts" in line or "each host is a list" in line


def test_no_exts_no_server() -> None:
    assert loaded("").base.servers == ()


def test_an_ext_without_hosts() -> None:
    assert routes('"/a" => ()') == (Route("wstunnel", "/a", ()),)


def test_long_labels() -> None:
    (line,) = said(f'"/a" => ( "{"x" * 129}" => ("host" => "::1") )')
    assert "longer than 128" in line


# Options


def test_defaults_of_a_remote_backend() -> None:
    spec = backend('"host" => "127.0.0.1"')
    assert spec == BackendSpec("wstunnel", "", "", Address("127.0.0.1", 80), check_local=False)
    assert not spec.is_spawned


def test_defaults_of_a_spawned_backend() -> None:
    spec = backend(f'"socket" => "/s", {SPAWNED}')
    assert (spec.min_procs, spec.max_procs, spec.max_load_per_proc) == (4, 4, 1)
    assert spec.bin_path == ("/bin/cat",)
    assert spec.kill_signal == 15
    assert spec.connect_timeout == 8


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ('"port" => "8081"', "address", Address("127.0.0.1", 8081)),
        ('"connect-timeout" => 3', "connect_timeout", 3),
        ('"read-timeout" => "4"', "read_timeout", 4),
        ('"write-timeout" => 5', "write_timeout", 5),
        ('"disable-time" => 0', "disable_time", 0),
        ('"tcp-fin-propagate" => "enable"', "tcp_fin_propagate", True),
        ('"check-local" => "enable"', "check_local", False),
        ('"upgrade" => 1', "upgrade", True),
        ('"docroot" => "/d"', "docroot", "/d"),
        ('"mode" => ""', "mode", "responder"),
        ('"strip-request-uri" => "/a/"', "strip_request_uri", "/a"),
        ('"x-sendfile-docroot" => ("/a/../b")', "x_sendfile_docroot", ("/b/",)),
        ('"allow-x-send-file" => "enable"', "x_sendfile", True),
        ('"max-procs" => 9', "max_procs", 1),
        ('"min-procs" => 9', "min_procs", 1),
    ],
)
def test_options(options: str, field: str, value: object) -> None:
    assert getattr(backend(f'"host" => "127.0.0.1", {options}'), field) == value


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ('"min-procs" => 9, "max-procs" => 2', "min_procs", 2),
        ('"min-procs" => 0', "min_procs", 0),
        ('"max-load-per-proc" => 8', "max_load_per_proc", 8),
        ('"idle-timeout" => 8', "idle_timeout", 8),
        ('"listen-backlog" => 8', "listen_backlog", 8),
        ('"kill-signal" => 10', "kill_signal", 10),
        ('"bin-environment" => ("A" => "b")', "bin_environment", (("A", "b"),)),
        ('"bin-copy-environment" => ("A", "B")', "bin_copy_environment", ("A", "B")),
        ('"user" => "nobody", "group" => "daemon"', "user", "nobody"),
        ('"user" => "nobody", "group" => "daemon"', "group", "daemon"),
        ('"umask" => "027"', "umask", 0o027),
        ('"umask" => "000"', "umask", 0),
        ('"socket" => "/s", "socket-mode" => "0660"', "socket_mode", 0o660),
        ('"cwd" => "/tmp"', "cwd", "/tmp"),
        ('"rlimits" => ("nofile" => 64)', "rlimits", (("nofile", 64, 64),)),
        ('"rlimits" => ("core" => "0:unlimited")', "rlimits", (("core", 0, -1),)),
        ('"rlimits" => ("as" => "unlimited", "cpu" => "1:2")', "rlimits",
         (("as", -1, -1), ("cpu", 1, 2))),
    ],
)
def test_options_of_programs(options: str, field: str, value: object) -> None:
    assert getattr(backend(f"{SPAWNED}, {options}"), field) == value


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ('"host" => "echo.example", "port" => 9', Address("192.0.2.9", 9)),
        ('"host" => "::1"', Address("::1", 80)),
        ('"host" => "[::1]"', Address("::1", 80)),
        ('"host" => "/run/echo.sock"', Address("/run/echo.sock")),
        ('"host" => "", "socket" => "/run/echo.sock"', Address("/run/echo.sock")),
        (SPAWNED, Address("127.0.0.1", 80)),
        (f'{SPAWNED}, "port" => 9000', Address("127.0.0.1", 9000)),
        (f'{SPAWNED}, "socket" => "", "port" => 9000', Address("127.0.0.1", 9000)),
        ('"socket" => "/\xe4"', Address("/\udce4")),
    ],
)
def test_addresses(options: str, address: Address) -> None:
    assert backend(options).address == address


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("/bin/cat", ("/bin/cat",)),
        ("/bin/cat -u\t-", ("/bin/cat", "-u", "-")),
        ("/bin/cat  'a b'", ("/bin/cat", "", "'a", "b'")),
    ],
)
def test_the_command_line_is_split_at_every_blank(command: str, argv: tuple[str, ...]) -> None:
    assert backend(f'"bin-path" => "{command}"').bin_path == argv


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('"port" => 80', "needs host or socket or bin-path"),
        ('"socket" => "/s", "host" => "h"', "either host and port or socket"),
        ('"socket" => "/s", "port" => 1', "either host and port or socket"),
        ('"host" => "/s", "port" => 1', "either host and port or socket"),
        ('"socket" => "s"', "not an absolute path"),
        (f'"socket" => "/{"s" * 105}"', "longer than 105 bytes"),
        ('"host" => "::1", "port" => 0', '"port": expected a number from 1 to 65535'),
        ('"host" => "::1", "port" => "http"', '"port": expected a number from 1 to 65535'),
        ('"host" => "::1", "upgrade" => "yes"', '"upgrade": expected "enable" or "disable"'),
        ('"host" => "::1", "x-sendfile-docroot" => ("x")', '"x" does not begin with /'),
        ('"host" => "nosuch.example"', 'cannot resolve host "nosuch.example": Name or service'),
        ('"host" => "::1", "mode" => "authorizer"', "not possible with wstunnel"),
        ('"bin-path" => " x"', '"bin-path" begins with a blank'),
        (f'{SPAWNED}, "max-procs" => 0', '"max-procs": expected a number from 1'),
        (f'{SPAWNED}, "port" => 65534', "the ports of 4 procs would go beyond 65535"),
        (f'{SPAWNED}, "user" => "nosuchuser-x"', '"user": no user "nosuchuser-x"'),
        (f'{SPAWNED}, "user" => "root"', '"user": "root" is root'),
        (
            f'{SPAWNED}, "user" => "nobody", "group" => "nosuchgroup-x"',
            '"group": no group "nosuchgroup-x"',
        ),
        (f'{SPAWNED}, "user" => "nobody", "group" => "root"', "\"group\": \"root\" is root's"),
        (f'{SPAWNED}, "umask" => "999"', '"umask": expected an octal mode'),
        (f'{SPAWNED}, "socket-mode" => "rw"', '"socket-mode": expected an octal mode'),
        (f'{SPAWNED}, "cwd" => "tmp"', '"cwd": "tmp" does not begin with /'),
        (f'{SPAWNED}, "rlimits" => ("files" => 1)', 'no limit is named "files"'),
        (f'{SPAWNED}, "rlimits" => ("nofiles" => 1)', "did you mean nofile?"),
        (f'{SPAWNED}, "rlimits" => ("cpu" => "2:1")', 'cpu: expected a number, "unlimited" or'),
        (f'{SPAWNED}, "rlimits" => ("cpu" => "unlimited:1")', 'got "unlimited:1"'),
        (f'{SPAWNED}, "rlimits" => ("cpu" => "")', 'got ""'),
        (f'{SPAWNED}, "rlimits" => ("cpu" => (1))', "got a list"),
        (f'{SPAWNED}, "rlimits" => (1)', "expected name => limit pairs"),
    ],
)
def test_fatal_host_errors(options: str, message: str) -> None:
    (line,) = said(f'"/ws/" => (( {options} ))')
    assert line.startswith("3 error: wstunnel.server: ")
    assert message in line


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ('"max-id" => 1', 'unknown host option "max-id" (ignored)'),
        ('"check_local" => 1', "did you mean check-local?"),
        ('"mode" => "x"', "taken for responder"),
        ('"user" => "nobody"', 'option "user" means nothing without bin-path'),
        ('"umask" => "000"', 'option "umask" means nothing without bin-path'),
        ('"rlimits" => ("cpu" => 1)', 'option "rlimits" means nothing without bin-path'),
        (f'{SPAWNED}, "socket-mode" => "0660"', 'option "socket-mode" is for unix sockets'),
        (f'{SPAWNED}, "cwd" => "/nonexistent"', '"cwd": folder "/nonexistent" does not exist'),
        (f'{SPAWNED}, "group" => "daemon"', '"group" without "user" or server.username'),
    ],
)
def test_doubtful_options(option: str, message: str) -> None:
    (line,) = said(f'"/ws/" => (( "host" => "::1", {option} ))')
    assert line.startswith("3 warning: wstunnel.server: ")
    assert message in line


# What the gateways make of the options that all of them take


@pytest.mark.parametrize(
    ("gateway", "given", "held"),
    [
        ("fastcgi", "", True),
        ("fastcgi", "disable", False),
        ("scgi", "", True),
        ("scgi", "disable", False),
        ("proxy", "", False),
        ("proxy", "enable", False),
        ("wstunnel", "enable", False),
    ],
)
def test_check_local(gateway: str, given: str, held: bool) -> None:
    option = f', "check-local" => "{given}"' if given else ""
    assert backend(f'"host" => "::1"{option}', gateway).check_local is held


def test_authorizers_of_fastcgi() -> None:
    assert backend('"host" => "::1", "mode" => "authorizer"', "fastcgi").mode == "authorizer"


def test_authorizers_of_scgi_are_ordinary_responders() -> None:
    servers = '"/a" => (( "host" => "::1", "mode" => "authorizer" ))'
    (line,) = said(servers, gateway="scgi")
    assert line.startswith('3 warning: scgi.server: "/a": "mode" => "authorizer" is not possible')
    assert routes(servers, "scgi")[0].backends[0].mode == "responder"


@pytest.mark.parametrize("gateway", ["proxy", "wstunnel"])
def test_authorizers_that_cannot_be(gateway: str) -> None:
    (line,) = said('"/a" => (( "host" => "::1", "mode" => "authorizer" ))', gateway=gateway)
    assert f'error: {gateway}.server: "/a": "mode" => "authorizer" is not possible' in line


@pytest.mark.parametrize(
    ("gateway", "option", "field", "value"),
    [
        ("proxy", '"keep-alive" => 8', "keep_alive", 8),
        ("proxy", '"keep-alive" => "0"', "keep_alive", 0),
        ("fastcgi", '"keep-conn" => 8', "keep_conn", 8),
        ("fastcgi", '"keep-conn" => "enable"', "keep_conn", 1),
        ("fastcgi", '"keep-conn" => "disable"', "keep_conn", 0),
        ("fastcgi", '"multiplex" => "auto"', "multiplex", 65535),
        ("fastcgi", '"multiplex" => 8', "multiplex", 8),
        ("fastcgi", '"multiplex" => 0', "multiplex", 0),
        ("fastcgi", '"multiplex" => 8, "pool" => 3', "pool", 3),
        ("fastcgi", '"multiplex" => 8, "pool-idle" => 3', "pool_idle", 3),
        ("fastcgi", '"broken-scriptfilename" => 1', "broken_scriptfilename", True),
        ("fastcgi", '"fix-root-scriptname" => 1', "fix_root_scriptname", True),
        ("scgi", '"docroot" => "/d"', "docroot", "/d"),
        ("scgi", '"x-sendfile" => 1', "x_sendfile", True),
        ("proxy", '"x-sendfile-docroot" => ("/")', "x_sendfile_docroot", ("/",)),
    ],
)
def test_options_of_some_gateways(gateway: str, option: str, field: str, value: object) -> None:
    assert said(f'"/a" => (( "host" => "::1", {option} ))', gateway=gateway) == []
    assert getattr(backend(f'"host" => "::1", {option}', gateway), field) == value


@pytest.mark.parametrize(
    ("gateway", "option"),
    [
        ("scgi", '"broken-scriptfilename" => "enable"'),
        ("scgi", '"strip-request-uri" => "/x"'),
        ("scgi", '"keep-conn" => 1'),
        ("proxy", '"multiplex" => "auto"'),
        ("fastcgi", '"keep-alive" => 1'),
        ("proxy", '"check-local" => "enable"'),
        ("proxy", '"docroot" => "/d"'),
        ("wstunnel", '"x-sendfile" => "enable"'),
    ],
)
def test_options_that_mean_nothing_are_noted(gateway: str, option: str) -> None:
    (line,) = said(f'"/a" => (( "host" => "::1", {option} ))', gateway=gateway)
    name = option.partition(" ")[0]
    assert line == f"3 note: {gateway}.server: option {name} means nothing to {gateway}"


@pytest.mark.parametrize("value", ['"much"', "65536", '"-1"', '("auto")'])
def test_what_multiplex_cannot_be(value: str) -> None:
    (line,) = said(f'"/a" => (( "host" => "::1", "multiplex" => {value} ))', gateway="fastcgi")
    assert 'error: fastcgi.server: "/a": "multiplex": expected "auto" or a number' in line


def test_a_pool_of_nothing_is_noted() -> None:
    (line,) = said('"/a" => (( "host" => "::1", "pool" => 2 ))', gateway="fastcgi")
    assert 'note: fastcgi.server: "pool", "pool-idle": nothing without "multiplex"' in line


def test_idle_options_switched_off_are_no_news() -> None:
    servers = '"/a" => (( "host" => "::1", "check-local" => "disable" ))'
    assert said(servers, gateway="proxy") == []


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("/bin/cat", ("/bin/cat",)),
        ("/bin/cat  'a b'", ("/bin/sh", "-c", "exec /bin/cat  'a b'")),
    ],
)
def test_programs_of_scgi_go_through_the_shell_when_they_have_blanks(
    command: str, argv: tuple[str, ...]
) -> None:
    assert backend(f'"bin-path" => "{command}"', "scgi").bin_path == argv


def test_the_name_of_a_resolved_host_is_kept() -> None:
    assert backend('"host" => "echo.example"', "proxy").host_name == "echo.example"
    assert backend('"host" => "127.0.0.1"', "proxy").host_name == ""


def test_every_host_is_reported() -> None:
    lines = said('"/a" => ( ("port" => 1),\n ("socket" => "s"),\n ("host" => "::1") )')
    assert [line.partition(":")[0] for line in lines] == ["3 error", "4 error"]


def test_a_missing_program_is_of_a_kind_of_its_own() -> None:
    with pytest.raises(ConfigRefused) as caught:
        loaded('"/a" => (("bin-path" => "/nonexistent/x", "socket" => "/s"))')
    (found,) = caught.value.diagnostics
    assert found.kind == "missing-program"
    assert '"/nonexistent/x" does not exist' in found.text


@pytest.mark.parametrize(
    ("program", "why"), [("/bin", "is not a file"), ("/etc/passwd", "is not executable")]
)
def test_programs_that_are_none(program: str, why: str) -> None:
    (line,) = said(f'"/a" => (("bin-path" => "{program}", "socket" => "/s"))')
    assert why in line


# One backend, several names


def test_all_backends_of_all_blocks_once() -> None:
    config = loaded(
        f"""
        "/a" => (("socket" => "/a", {SPAWNED})),
        "/b" => (("host" => "127.0.0.1", "port" => 1), ("host" => "127.0.0.1", "port" => 1))
        """,
        f"""$HTTP["host"] == "never" {{
            wstunnel.server = ( "/c" => ( ("socket" => "/a", {SPAWNED}), ("socket" => "/c") ) )
        }}""",
    )
    assert [spec.address.text for spec in config.backends] == ["/a", "127.0.0.1:1", "/c"]
    assert config.diagnostics == ()


def test_the_same_socket_and_program_is_an_alias() -> None:
    first, second = routes(
        f'"/a" => (("socket" => "/s", {SPAWNED}, "max-procs" => 2)),'
        f'"/b" => (("socket" => "/s", {SPAWNED}))'
    )
    assert second.backends == first.backends
    assert second.backends[0].max_procs == 2


def test_options_of_an_alias_are_said_to_be_lost() -> None:
    (line,) = said(
        f'"/a" => (("socket" => "/s", {SPAWNED}, "max-procs" => 2)),'
        f'"/b" => (("socket" => "/s", {SPAWNED}))'
    )
    assert line == (
        "3 warning: wstunnel.server: the same backend as at main.conf:3: the options there hold"
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('"socket" => "/s"', '"socket" => "/s"'),
        ('"port" => 9000', '"port" => 9003'),
        ('"port" => 9003', '"port" => 9000'),
    ],
)
def test_two_programs_at_one_address(first: str, second: str) -> None:
    (line,) = said(
        f'"/a" => (( {first}, {SPAWNED} )), "/b" => (( {second}, "bin-path" => "/bin/true" ))'
    )
    assert "is taken by another bin-path, at main.conf:3" in line


def test_neighbouring_ports_are_free() -> None:
    assert said(f'"/a" => (("port" => 9000, {SPAWNED}), ("port" => 9004, {SPAWNED}))') == []


def test_a_backend_is_the_same_under_another_ext() -> None:
    one = backend('"host" => "127.0.0.1"')
    ((other,),) = (route.backends for route in routes('"/x" => ("l" => ("host" => "127.0.0.1"))'))
    assert one == other
    assert hash(one) == hash(other)
