"""forkd/config/ssl_settings.py: what ``ssl.*`` and the host options for TLS come to."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import pytest
from fakes import make_request

from forkd.config.diagnostics import ConfigRefused
from forkd.config.load import load
from forkd.config.model import Config
from forkd.config.ssl_settings import Problem
from forkd.config.tls import (
    DEFAULT_CIPHERS,
    BackendTls,
    CertificateFiles,
    ClientCertificates,
    TlsPolicy,
    TlsSpec,
)

HEAD = 'server.document-root = "/"\nserver.bind = "127.0.0.1"\n'
ON = 'ssl.engine = "enable" ssl.pemfile = "/c.pem"\n'
OWN = CertificateFiles("/c.pem")


def loaded(text: str, **more: Any) -> Config:
    return load("main.conf", text=(HEAD + text).encode("latin-1"), **more)


def said(text: str, **more: Any) -> list[str]:
    """Everything said about *text*, as ``LINE severity: text``."""
    try:
        diagnostics = loaded(text, **more).diagnostics
    except ConfigRefused as refused:
        diagnostics = refused.diagnostics
    return [f"{found.line} {found.severity}: {found.text}" for found in diagnostics]


def spec(text: str, index: int = 0) -> TlsSpec | None:
    return loaded(text).listeners[index].tls


# Listeners


def test_no_tls() -> None:
    assert spec('ssl.pemfile = "/c.pem"') is None
    assert spec('ssl.engine = "disable"') is None


def test_the_simplest() -> None:
    found = spec(ON)
    assert found == TlsSpec(OWN)
    assert found is not None and found.ciphers == DEFAULT_CIPHERS


def test_files_are_the_same_wherever_a_process_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    found = spec('ssl.engine = 1 ssl.pemfile = "lib/c.pem" ssl.privkey = "../k.pem"')
    assert found == TlsSpec(CertificateFiles("/usr/lib/c.pem", "/k.pem"))
    assert spec('ssl.engine = 1 ssl.pemfile = "/c.pem" ssl.ca-file = ""') == TlsSpec(OWN)


def test_the_default_port() -> None:
    assert loaded(ON).listeners[0].address.port == 443
    assert loaded(f"{ON} server.port = 80").listeners[0].address.port == 80
    assert loaded(ON).server.port == 443
    assert loaded(f'$SERVER["socket"] == ":8443" {{ {ON} }}').listeners[0].address.port == 80


def test_everything() -> None:
    found = spec(
        """ssl.engine = "enable"
        ssl.pemfile = "/c.pem"
        ssl.privkey = "/k\xfc.pem"
        ssl.ca-file = "/chain.pem"
        ssl.cipher-list = "HIGH"
        ssl.openssl.ssl-conf-cmd = (
          "MinProtocol" => "TLSv1.3", "Curves" => "P-384", "Options" => "-SessionTicket" )
        ssl.verifyclient.activate = "enable"
        ssl.verifyclient.enforce = "disable"
        ssl.verifyclient.depth = 9
        ssl.verifyclient.ca-crl-file = "/crl.pem"
        ssl.verifyclient.username = "SSL_CLIENT_S_DN_CN"
        ssl.verifyclient.exportcert = "enable"
        ssl.read-ahead = "enable"
        debug.log-ssl-noise = "enable"
        ssl.honor-cipher-order = "enable"
        ssl.disable-client-renegotiation = "enable" """
    )
    assert found == TlsSpec(
        CertificateFiles("/c.pem", "/k\udcfc.pem"),
        policy=TlsPolicy("TLSv1.3", "TLSv1.3", "", "secp384r1", session_tickets=False),
        cipher_list="HIGH",
        ca_file="/chain.pem",
        clients=ClientCertificates(
            True, False, "", "/crl.pem", username="SSL_CLIENT_S_DN_CN", export=True
        ),
        log_failures=True,
    )
    assert found is not None and found.ciphers == "HIGH"


def test_a_listener_takes_over_the_global_settings_and_may_change_them() -> None:
    text = f"""{ON} ssl.privkey = "/k.pem" ssl.cipher-list = "HIGH"
        ssl.openssl.ssl-conf-cmd = ( "MinProtocol" => "TLSv1.3" )
        $SERVER["socket"] == "127.0.0.1:1" {{ }}
        $SERVER["socket"] == "127.0.0.1:2" {{ ssl.pemfile = "/d.pem" }}
        $SERVER["socket"] == "127.0.0.1:3" {{ ssl.openssl.ssl-conf-cmd = ( "Curves" => "P-256" ) }}
        $SERVER["socket"] == "127.0.0.1:4" {{ ssl.engine = "disable" }}"""
    main, same, other, curves, plain = (listener.tls for listener in loaded(text).listeners)
    assert main == same and main is not None
    assert (main.certificate, main.others) == (
        CertificateFiles("/c.pem", "/k.pem"),
        (CertificateFiles("/d.pem"),),
    )
    assert other is not None and other.certificate == CertificateFiles("/d.pem")
    assert other.policy == main.policy
    assert curves is not None and curves.policy == TlsPolicy(group="prime256v1")  # as a whole
    assert plain is None


def test_a_configuration_with_tls_pickles_and_equal_ones_are_equal() -> None:
    config = loaded(ON)
    assert pickle.loads(pickle.dumps(config)).listeners == loaded(ON).listeners
    assert {loaded(ON).listeners[0].tls: 1}[config.listeners[0].tls] == 1


# ssl.openssl.ssl-conf-cmd


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ('"MinProtocol" => "TLSv1.2"', {}),
        ('"minprotocol" => "tlsv1.3"', {"min_version": "TLSv1.3"}),
        ('"MinProtocol" => "None", "MaxProtocol" => "None"', {}),
        ('"MaxProtocol" => "TLSv1.2"', {"max_version": "TLSv1.2"}),
        ('"CipherString" => "HIGH:!MD5"', {"ciphers": "HIGH:!MD5"}),
        ('"Groups" => "P-521"', {"group": "secp521r1"}),
        ('"Groups" => "X25519:P-256:P-384:X448"', {}),
        ('"Options" => "-SessionTicket, -ServerPreference"',
         {"session_tickets": False, "server_preference": False}),
        ('"Options" => "SessionTicket,+NoRenegotiation,-Compression"', {}),
    ],
)  # fmt: skip
def test_commands(commands: str, expected: dict[str, Any]) -> None:
    text = f"{ON} ssl.openssl.ssl-conf-cmd = ( {commands} )"
    assert said(text) == []
    assert spec(text) == TlsSpec(OWN, policy=TlsPolicy(**expected))


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ('"MinProtocol" => "TLSv1.0"', "MinProtocol: TLSv1.0 is not spoken any more"),
        ('"Groups" => "P-384:P-256"', "only the first group, P-384, can be obeyed here"),
        ('"Groups" => "brainpoolP256r1"', "brainpoolP256r1 cannot be chosen here"),
        ('"Ciphersuites" => "x"', "Ciphersuites cannot be obeyed here (ignored)"),
        ('"Ciphrstring" => "x"', "did you mean cipherstring?"),
        ('"SignatureAlgorithms" => "x"', "SignatureAlgorithms cannot be obeyed here (ignored)"),
        ('"Options" => "-NoRenegotiation"', "option -NoRenegotiation cannot be obeyed"),
        ('"Options" => "PrioritizeChaCha"', "option PrioritizeChaCha cannot be obeyed"),
    ],
)
def test_commands_with_a_warning(commands: str, expected: str) -> None:
    (line,) = said(f"{ON} ssl.openssl.ssl-conf-cmd = ( {commands} )")
    assert line.startswith("4 warning: ssl.openssl.ssl-conf-cmd: ") and expected in line


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            'ssl.openssl.ssl-conf-cmd = ( "MinProtocol" => "SSLv9" )',
            'MinProtocol: expected TLSv1.2 or TLSv1.3, got "SSLv9"',
        ),
        (
            'ssl.openssl.ssl-conf-cmd = ( "MaxProtocol" => "TLSv1.1" )',
            'MaxProtocol: expected TLSv1.2 or TLSv1.3, got "TLSv1.1"',
        ),
        (
            'ssl.openssl.ssl-conf-cmd = ( "MinProtocol" => "TLSv1.3", "MaxProtocol" => "TLSv1.2" )',
            "nothing is between TLSv1.3 and TLSv1.2",
        ),
        ('ssl.openssl.ssl-conf-cmd = ( "x" )', "expected key => string pairs"),
        ("ssl.verifyclient.depth = 3", "a depth other than 9 is not supported"),
        ('ssl.verifyclient.ca-dn-file = "/x"', "ssl.verifyclient.ca-dn-file is not supported"),
        ('ssl.ca-dn-file = "/x"', "ssl.ca-dn-file is not supported"),
        ('ssl.stapling-file = "/x"', "ssl.stapling-file is not supported"),
        ('ssl.stek-file = "/x"', "ssl.stek-file is not supported"),
        (
            'ssl.verifyclient.activate = "enable"',
            "there is no ssl.verifyclient.ca-file to verify by",
        ),
    ],
)
def test_errors(lines: str, expected: str) -> None:
    (line,) = said(ON + lines)
    assert " error: " in line and expected in line


# Certificates


def test_each_certificate_has_the_key_beside_it() -> None:
    config = loaded(
        f"""{ON} ssl.privkey = "/k.pem"
        $HTTP["host"] == "a" {{ ssl.pemfile = "/a.pem" }}
        $HTTP["host"] == "b" {{ ssl.pemfile = "/b.pem" ssl.privkey = "/bk.pem" }}"""
    )

    def at(host: str) -> CertificateFiles:
        return config.select(make_request(host=host)).certificate

    assert at("x") == config.base.certificate == CertificateFiles("/c.pem", "/k.pem")
    assert at("a") == CertificateFiles("/a.pem")
    assert at("b") == CertificateFiles("/b.pem", "/bk.pem")
    tls = config.listeners[0].tls
    assert tls is not None and set(tls.others) == {at("a"), at("b")}


def test_a_key_alone() -> None:
    assert said(ON + '$HTTP["host"] == "a" { ssl.privkey = "/k.pem" }') == [
        "4 error: ssl.privkey: there is no ssl.pemfile beside it"
    ]


def test_a_listener_without_a_certificate() -> None:
    message = "error: ssl.engine: there is no ssl.pemfile"
    assert said('ssl.engine = "enable"') == [f"3 {message}"]
    block = '$SERVER["socket"] == ":8443" { ssl.engine = "enable" }'
    assert said(block) == [f"3 {message}"]
    assert said(f'ssl.pemfile = "/c.pem" {block}') == []


@pytest.mark.parametrize(
    "condition",
    [
        '$HTTP["url"] =^ "/a"',
        '$HTTP["host"] == "a" { $HTTP["useragent"] == "b"',
        '$REQUEST_HEADER["Host"] == "a"',
        '$HTTP["cookie"] == "a" { } else $HTTP["host"] == "a"',
        '$HTTP["url"] == "/a" { } else',
    ],
)
def test_a_certificate_chosen_by_what_is_not_known_yet(condition: str) -> None:
    end = "}" * (1 + condition.count("{") - condition.count("}"))
    (line,) = said(f'{ON} {condition} {{ ssl.pemfile = "/a.pem" {end}')
    assert "is not known before the certificate is shown" in line and " error: " in line


@pytest.mark.parametrize(
    "condition",
    [
        '$HTTP["host"] =~ "a"',
        '$HTTP["remoteip"] == "10.0.0.0/8" { $HTTP["host"] == "a"',
        '$SERVER["socket"] == ":8443" { $HTTP["host"] == "a"',
        '$HTTP["host"] == "a" { } else $HTTP["host"] == "b" { } else',
    ],
)
def test_a_certificate_chosen_by_what_is_known(condition: str) -> None:
    end = "}" * (1 + condition.count("{") - condition.count("}"))
    assert said(f'{ON} {condition} {{ ssl.pemfile = "/a.pem" {end}') == []


GUARDS = (
    'ssl.verifyclient.activate = "enable"',
    'ssl.verifyclient.enforce = "disable"',
    'ssl.verifyclient.ca-file = "/x"',
    'ssl.verifyclient.ca-crl-file = "/x"',
    'ssl.ca-file = "/x"',
    'ssl.cipher-list = "HIGH"',
    'ssl.openssl.ssl-conf-cmd = ( "MinProtocol" => "TLSv1.3" )',
)


@pytest.mark.parametrize("setting", GUARDS)
def test_the_name_in_a_handshake_changes_nothing_else(setting: str) -> None:
    """It would be a way around: with TLS 1.3 a client would not be asked for its certificate."""
    name = setting.split()[0]
    (line,) = said(f'{ON} $HTTP["host"] == "a" {{ {setting} }}')
    assert line == (
        f'4 error: {name} belongs to the global scope or $SERVER["socket"] =='
    )


def test_old_names() -> None:
    text = f'{ON} ssl.ca-crl-file = "/crl"'
    assert said(text) == ["4 warning: ssl.ca-crl-file is now called ssl.verifyclient.ca-crl-file"]
    found = spec(text)
    assert found is not None and found.clients.crl_file == "/crl"


def test_two_files_of_authorities() -> None:
    clients = 'ssl.verifyclient.activate = "enable" ssl.verifyclient.ca-file = "/a"\n'
    (line,) = said(f'{ON} {clients} ssl.ca-file = "/b"')
    assert "warning: ssl.ca-file has no effect beside ssl.verifyclient.ca-file" in line
    assert said(f'{ON} {clients} ssl.ca-file = "/a"') == []
    assert said(f'{ON} ssl.verifyclient.activate = "enable" ssl.ca-file = "/b"') == []


# Looking into the files


def test_files_in_use_are_looked_into() -> None:
    seen: list[CertificateFiles | BackendTls] = []

    def inspect(files: CertificateFiles | BackendTls) -> Iterable[Problem]:
        seen.append(files)
        name = files.pemfile if isinstance(files, CertificateFiles) else files.name
        yield Problem("warning", f"{name}: old")

    text = 'ssl.pemfile = "/c.pem"\n$HTTP["host"] == "a" { ssl.pemfile = "/a.pem" }\n'
    assert said(text, inspect=inspect) == [] and seen == []
    lines = said(f'{text} ssl.engine = "enable"', inspect=inspect)
    assert lines == [
        "3 warning: ssl.pemfile: /c.pem: old",
        "4 warning: ssl.pemfile: /a.pem: old",
    ]
    hosts = '"host" => "127.0.0.1", "tls" => "enable"'
    text = f'server.modules = ("mod_proxy")\nproxy.server = ( "/x" => ( ( {hosts} ) ) )'
    assert said(text, inspect=inspect) == ['4 warning: proxy.server: "/x": 127.0.0.1: old']


def test_a_missing_file_is_told_from_a_bad_one() -> None:
    def inspect(files: CertificateFiles | BackendTls) -> Iterable[Problem]:
        yield Problem("error", "gone", "missing-certificate")

    with pytest.raises(ConfigRefused) as caught:
        loaded(ON, inspect=inspect)
    assert [found.kind for found in caught.value.diagnostics] == ["missing-certificate"]


def test_strict() -> None:
    def inspect(files: CertificateFiles | BackendTls) -> Iterable[Problem]:
        yield Problem("warning", "expired")

    with pytest.raises(ConfigRefused):
        loaded(ON, inspect=inspect, strict=True)


# Backends


def backend(options: str) -> Any:
    head = 'server.modules = ("mod_proxy", "mod_wstunnel")\n'
    (found,) = loaded(f'{head}proxy.server = ( "/" => ( ( {options} ) ) )').backends
    return found


def backend_said(options: str) -> list[str]:
    return said(f'server.modules = ("mod_proxy")\nproxy.server = ( "/" => ( ( {options} ) ) )')


@pytest.mark.parametrize(
    ("options", "port", "tls"),
    [
        ('"host" => "192.0.2.1"', 80, None),
        ('"host" => "192.0.2.1", "tls" => "enable"', 443, BackendTls("192.0.2.1")),
        ('"host" => "localhost", "tls" => 1, "port" => 9', 9, BackendTls("localhost")),
        (
            '"host" => "192.0.2.1", "tls" => 1, "tls-name" => "a.example", "tls-ca-file" => "/a"',
            443,
            BackendTls("a.example", "/a"),
        ),
        ('"socket" => "/s", "tls" => 1, "tls-name" => "a"', 0, BackendTls("a")),
        ('"host" => "192.0.2.1", "tls" => "disable"', 80, None),
    ],
)
def test_hosts(options: str, port: int, tls: BackendTls | None) -> None:
    found = backend(options)
    assert (found.address.port, found.tls) == (port, tls)
    assert backend_said(options) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('"socket" => "/s", "tls" => 1', 'error: proxy.server: "/": "tls" over a unix socket'),
        ('"bin-path" => "/bin/sh", "tls" => 1', 'error: proxy.server: "/": "tls" is for hosts'),
        ('"host" => "https://a.example"', 'write "host" => "a.example", "tls" => "enable"'),
        ('"host" => "192.0.2.1", "tls-name" => "a"', 'warning: proxy.server: "tls-name"'),
    ],
)
def test_hosts_that_make_no_sense(options: str, expected: str) -> None:
    (line,) = backend_said(options)
    assert expected in line
