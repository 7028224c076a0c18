"""forkd/certs: what is in the files, the contexts, what is told of clients."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from authority import Authority, Issued

from forkd.address import Address
from forkd.certs import Contexts, Session, check_authorities, check_ciphers, check_policy, inspect
from forkd.certs.validity import Validity, validity_of
from forkd.config.load import load
from forkd.config.model import Config
from forkd.config.tls import BackendTls, CertificateFiles, TlsPolicy
from forkd.errors import StartError
from forkd.message import ConnInfo


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("www.example.org")


def files(certificate: Path, key: Path | None = None) -> CertificateFiles:
    return CertificateFiles(str(certificate), str(key or ""))


def said(of: CertificateFiles | BackendTls) -> list[str]:
    return [f"{problem.severity} {problem.kind}: {problem.text}" for problem in inspect(of)]


# Files


def test_nothing_to_say(issued: Issued) -> None:
    assert said(files(issued.certificate, issued.key)) == []
    assert said(files(issued.in_one_file())) == []


def test_missing_files(issued: Issued, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.pem"
    line = f"error missing-certificate: {nowhere}: No such file or directory"
    assert said(files(nowhere, issued.key)) == [line]
    assert said(files(issued.certificate, nowhere)) == [line]
    assert said(BackendTls("h", str(nowhere))) == [line]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert said(files(tmp_path)) == [f"error : {tmp_path}: Is a directory"]


def test_files_without_what_they_should_hold(issued: Issued, tmp_path: Path) -> None:
    assert said(files(issued.key, issued.key)) == [
        f"error : {issued.key}: there is no certificate in it"
    ]
    assert said(files(issued.certificate)) == [
        f"error : {issued.certificate}: there is no private key in it"
    ]
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (line,) = said(files(broken, issued.key))
    assert line.startswith(f"error : {broken}, {issued.key}: cannot be used: ")
    (line,) = said(BackendTls("h", str(broken)))
    assert line.startswith(f"error : {broken}: cannot be used: ")


def test_the_key_of_another_certificate(authority: Authority, issued: Issued) -> None:
    other = authority.issue("other.example")
    assert said(files(issued.certificate, other.key)) == [
        f"error : {other.key}: the key is not that of the certificate in {issued.certificate}"
    ]


def test_an_encrypted_key_is_refused_and_nobody_is_asked(issued: Issued) -> None:
    locked = issued.encrypted()
    assert said(files(issued.certificate, locked)) == [
        f"error : {locked}: the key is encrypted; forkd needs it in the clear"
    ]


def test_an_expired_certificate_is_a_warning(authority: Authority, issued: Issued) -> None:
    old = authority.issue("www.example.org", days=-1, file="old")
    (line,) = said(files(old.certificate, old.key))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert line.startswith(f"warning : {old.certificate} expired on {yesterday:%Y-%m}")
    chain = old.certificate.with_name("chain.pem")
    chain.write_text(issued.certificate.read_text() + old.certificate.read_text())
    (line,) = said(files(chain, issued.key))
    assert line.startswith(f"warning : {chain}, certificate 2, expired on ")


def test_a_name_that_no_certificate_could_have(authority: Authority) -> None:
    (line,) = said(BackendTls("a..b", str(authority.certificate)))
    assert line == 'error : "a..b" is no name of a host'


# Validity


def test_validity_of_a_real_certificate(issued: Issued) -> None:
    der = ssl.PEM_cert_to_DER_cert(issued.certificate.read_text())
    found = validity_of(der)
    now = datetime.now(UTC)
    assert timedelta(days=9) < found.ends - now < timedelta(days=11)
    assert found.begins <= now and found.problem(now) == ""


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes(2, "big")
    return bytes([tag, 0x82]) + length + content


def a_certificate(*times: tuple[int, bytes], version: bool = True, padding: int = 0) -> bytes:
    body = element(0xA0, element(2, b"\2")) if version else b""
    body += element(2, b"\5") + element(0x30, b"") + element(0x30, b"i" * padding)
    body += element(0x30, b"".join(element(tag, text) for tag, text in times))
    return element(0x30, element(0x30, body))


@pytest.mark.parametrize("version", [True, False])
@pytest.mark.parametrize("padding", [0, 200])
@pytest.mark.parametrize(
    ("kind", "text", "year"),
    [
        (0x17, b"490102030405Z", 2049),
        (0x17, b"500102030405Z", 1950),
        (0x18, b"20510102030405Z", 2051),
    ],
)
def test_both_forms_of_time(
    kind: int, text: bytes, year: int, version: bool, padding: int
) -> None:
    found = validity_of(
        a_certificate((0x17, b"000101000000Z"), (kind, text), version=version, padding=padding)
    )
    assert found.ends == datetime(year, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert found.begins == datetime(2000, 1, 1, tzinfo=UTC)


GOOD = a_certificate((0x17, b"000101000000Z"), (0x17, b"490101000000Z"))


@pytest.mark.parametrize("size", range(len(GOOD)))
def test_a_certificate_cut_short(size: int) -> None:
    with pytest.raises(ValueError):
        validity_of(GOOD[:size])


def test_not_a_certificate() -> None:
    for data in (b"\x31" + GOOD[1:], a_certificate((2, b"1"), (2, b"2")), b"hello, world"):
        with pytest.raises(ValueError):
            validity_of(data)


def test_what_is_said_of_validity() -> None:
    found = Validity(datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
    assert found.problem(datetime(2020, 6, 1, tzinfo=UTC)) == ""
    assert found.problem(datetime(2022, 1, 1, tzinfo=UTC)) == "expired on 2021-01-01 00:00:00 UTC"
    early = found.problem(datetime(2019, 1, 1, tzinfo=UTC))
    assert early == "not valid before 2020-01-01 00:00:00 UTC"


# Single directives


def test_checks(authority: Authority, issued: Issued) -> None:
    check_ciphers("HIGH")
    check_ciphers("")
    check_policy(TlsPolicy(group="secp384r1", min_version="TLSv1.3"))
    check_authorities(str(authority.certificate))
    check_authorities("")
    with pytest.raises(ValueError, match="OpenSSL knows no cipher"):
        check_ciphers("NO-SUCH-CIPHER")
    with pytest.raises(ValueError, match="there is no certificate in it"):
        check_authorities(str(issued.key))


# Contexts


HEAD = 'server.document-root = "/"\nserver.bind = "127.0.0.1"\nssl.engine = "enable"\n'


def configured(text: str) -> Config:
    return load("main.conf", text=(HEAD + text).encode())


def shown(issued: Issued, indent: str = "") -> str:
    return f'ssl.pemfile = "{issued.certificate}" ssl.privkey = "{issued.key}"\n'


class Met:
    """A handshake between a client and the listener number *index* of *config*."""

    def __init__(
        self,
        config: Config,
        client: ssl.SSLContext,
        name: str | None = "www.example.org",
        *,
        index: int = 0,
        contexts: Contexts | None = None,
        peer: str = "192.0.2.7",
        resumed: ssl.SSLSession | None = None,
    ) -> None:
        listener = config.listeners[index]
        server = (contexts or Contexts(config, ("h2", "http/1.1"))).server(listener)
        assert server is not None
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        info = ConnInfo(Address(peer, 4711), listener.address, listener.address)
        self.session = server.session(info, to_server, to_client)
        self.client = client.wrap_bio(to_client, to_server, server_hostname=name, session=resumed)
        self._shake_hands()
        self.info = server.described(self.session)
        self.environment = dict(self.info.environment)

    def _shake_hands(self) -> None:
        client_done = server_done = False
        while not (client_done and server_done):
            client_done = client_done or step(self.client)
            server_done = server_done or step(self.session)
        self.session.write(b"x")
        assert self.client.read(1) == b"x"  # what a client refuses late, it has refused by now

    @property
    def subject(self) -> str:
        """The common name of what the server has shown."""
        certificate: Any = self.client.getpeercert()
        return str(dict(pair for (pair,) in certificate["subject"])["commonName"])


def step(session: ssl.SSLObject) -> bool:
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


Client = Callable[..., ssl.SSLContext]


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def client(request: Any, authority: Authority) -> Client:
    def make(shown: Issued | None = None) -> ssl.SSLContext:
        context = authority.client(shown)
        version = ssl.TLSVersion[request.param]
        context.minimum_version = context.maximum_version = version
        return context

    return make


def test_what_programs_are_told(issued: Issued, client: Client) -> None:
    met = Met(configured(shown(issued)), client())
    assert isinstance(met.session, Session)
    name, _, bits = met.client.cipher() or ("", "", 0)
    assert met.info.tls and met.info.alpn == ""
    assert met.environment == {
        "SSL_PROTOCOL": met.client.version(),
        "SSL_CIPHER": name,
        "SSL_CIPHER_USEKEYSIZE": str(bits),
        "SSL_CIPHER_ALGKEYSIZE": str(bits),
        "SSL_TLS_SNI": "www.example.org",
    }
    assert "GCM" in name or "CHACHA20" in name


def test_without_a_name(issued: Issued, client: Client) -> None:
    context = client()
    context.check_hostname = False
    met = Met(configured(shown(issued)), context, None)
    assert "SSL_TLS_SNI" not in met.environment and met.subject == "www.example.org"


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [(["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["acme-tls/1"], ""), ([], "")],
)
def test_the_servers_order_of_protocols(
    issued: Issued, client: Client, asked: list[str], agreed: str
) -> None:
    context = client()
    if asked:
        context.set_alpn_protocols(asked)
    met = Met(configured(shown(issued)), context)
    assert met.info.alpn == agreed


def test_the_name_chooses_the_certificate(
    authority: Authority, issued: Issued, client: Client
) -> None:
    others = [authority.issue(f"{name}.example") for name in ("a", "b", "c")]
    config = configured(
        shown(issued)
        + f'$HTTP["host"] == "a.example" {{ {shown(others[0])} }}\n'
        + f'$HTTP["host"] =~ "^b\\.ex" {{ {shown(others[1])} }}\n'
        + f'else {{ $HTTP["remoteip"] == "192.0.2.9" {{ {shown(others[2])} }} }}'
    )
    contexts = Contexts(config, ("h2", "http/1.1"))
    asking = client()
    asking.set_alpn_protocols(["h2"])
    asking.check_hostname = False

    def at(name: str, peer: str = "192.0.2.7") -> str:
        met = Met(config, asking, name, contexts=contexts, peer=peer)
        assert met.info.alpn == "h2"
        assert met.environment["SSL_TLS_SNI"] == name
        return met.subject

    assert at("a.example") == "a.example"
    assert at("A.Example") == "a.example"
    assert at("b.example") == "b.example"
    assert at("b.example", "192.0.2.9") == "b.example"
    assert at("c.example") == "www.example.org"
    assert at("c.example", "192.0.2.9") == "c.example"


def test_listeners_have_their_own(authority: Authority, issued: Issued, client: Client) -> None:
    other = authority.issue("other.example")
    config = configured(
        f'{shown(issued)} $SERVER["socket"] == "127.0.0.1:444" {{ {shown(other)} }}'
        '$SERVER["socket"] == "127.0.0.1:80" { ssl.engine = "disable" }'
    )
    assert Met(config, client(), "www.example.org").subject == "www.example.org"
    assert Met(config, client(), "other.example", index=1).subject == "other.example"
    contexts = Contexts(config)
    assert contexts.server(config.listeners[2]) is None
    assert [listener.address.port for listener in config.listeners] == [443, 444, 80]


def test_two_listeners_alike_share_their_contexts(issued: Issued) -> None:
    config = configured(f'{shown(issued)} $SERVER["socket"] == "[::1]:443" {{ }}')
    contexts = Contexts(config)
    first, second = map(contexts.server, config.listeners)
    assert first is second and first is not None
    contexts.close()


def test_the_chain_is_completed(tmp_path: Path, authority: Authority) -> None:
    between = Authority(tmp_path, "between", by=authority)
    leaf = between.issue("www.example.org")
    chain = leaf.certificate.with_name("chain.pem")
    chain.write_text(leaf.certificate.read_text() + between.certificate.read_text())
    for text in (
        f'ssl.pemfile = "{chain}" ssl.privkey = "{leaf.key}"',
        f'{shown(leaf)} ssl.ca-file = "{between.certificate}"',
    ):
        assert Met(configured(text), authority.client()).subject == "www.example.org"
    with pytest.raises(ssl.SSLCertVerificationError):
        Met(configured(shown(leaf)), authority.client())


def test_versions(issued: Issued, authority: Authority) -> None:
    old, new = authority.client(), authority.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    command = 'ssl.openssl.ssl-conf-cmd = ( "%s" => "%s" )\n'
    config = configured(shown(issued) + command % ("MinProtocol", "TLSv1.3"))
    assert Met(config, new).client.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match="(?i)unsupported_protocol|alert_protocol_version"):
        Met(config, old)
    config = configured(shown(issued) + command % ("MaxProtocol", "TLSv1.2"))
    assert Met(config, new).client.version() == "TLSv1.2"


def test_ciphers(issued: Issued, authority: Authority) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    wanted = "ECDHE-ECDSA-AES128-GCM-SHA256"
    commands = f'ssl.openssl.ssl-conf-cmd = ( "CipherString" => "{wanted}" )\n'
    met = Met(configured(f"{shown(issued)} {commands}"), context)
    assert met.environment["SSL_CIPHER"] == wanted
    assert met.environment["SSL_CIPHER_ALGKEYSIZE"] == "128"
    met = Met(configured(f'{shown(issued)} ssl.cipher-list = "{wanted}"'), context)
    assert met.environment["SSL_CIPHER"] == wanted
    both = f'{commands} ssl.cipher-list = "AES256-SHA256"'
    met = Met(configured(f"{shown(issued)} {both}"), context)
    assert met.environment["SSL_CIPHER"] == wanted


def test_tickets(issued: Issued, authority: Authority) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    config = configured(shown(issued))
    contexts = Contexts(config)
    session = Met(config, context, contexts=contexts).client.session
    assert Met(config, context, contexts=contexts, resumed=session).client.session_reused
    assert not Met(config, context, resumed=session).client.session_reused  # a reload: other keys
    off = 'ssl.openssl.ssl-conf-cmd = ( "Options" => "-SessionTicket" )'
    assert not Met(configured(shown(issued) + off), context).client.session.has_ticket


# Clients' certificates


CLIENTS = 'ssl.verifyclient.activate = "enable"\nssl.verifyclient.ca-file = "{ca}"\n'


def asking(authority: Authority, issued: Issued, more: str = "") -> Config:
    return configured(shown(issued) + CLIENTS.format(ca=authority.certificate) + more)


@pytest.fixture(scope="module")
def ann(authority: Authority) -> Issued:
    subject = "/C=DE/O=Ex Ample/CN=Ann Ünd/emailAddress=ann@example.org/UID=ann"
    return authority.issue("ann", subject)


def test_a_good_certificate(
    authority: Authority, issued: Issued, ann: Issued, client: Client
) -> None:
    met = Met(asking(authority, issued), client(ann))
    found = met.environment
    assert found["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert found["SSL_CLIENT_S_DN_CN"] == "Ann Ünd".encode().decode("latin-1")
    assert found["SSL_CLIENT_S_DN_C"] == "DE"
    assert found["SSL_CLIENT_S_DN_emailAddress"] == "ann@example.org"
    assert found["SSL_CLIENT_S_DN_UID"] == "ann"
    assert found["SSL_CLIENT_S_DN"].startswith("C = DE, O = Ex Ample, CN = Ann ")
    assert int(found["SSL_CLIENT_M_SERIAL"], 16) > 0
    assert not {"SSL_CLIENT_CERT", "REMOTE_USER"} & set(found)


def test_the_user_and_the_certificate_itself(
    authority: Authority, issued: Issued, ann: Issued
) -> None:
    more = (
        'ssl.verifyclient.username = "SSL_CLIENT_S_DN_EMAILADDRESS"\n'
        'ssl.verifyclient.exportcert = "enable"\n'
    )
    found = Met(asking(authority, issued, more), authority.client(ann)).environment
    assert found["REMOTE_USER"] == "ann@example.org"
    assert found["AUTH_TYPE"] == "SSL_CLIENT_VERIFY"
    assert found["SSL_CLIENT_CERT"].split() == ann.certificate.read_text().split()


def test_none_where_one_is_needed(authority: Authority, issued: Issued, client: Client) -> None:
    with pytest.raises(ssl.SSLError, match="(?i)peer_did_not_return_a_certificate|alert"):
        Met(asking(authority, issued), client())


def test_the_name_does_not_help(authority: Authority, issued: Issued, client: Client) -> None:
    """Whichever certificate the name chooses, the client has to show its own."""
    other = authority.issue("other.example")
    config = asking(
        authority, issued, f'$HTTP["host"] == "other.example" {{ {shown(other)} }}'
    )
    with pytest.raises(ssl.SSLError, match="(?i)peer_did_not_return_a_certificate|alert"):
        Met(config, client(), "other.example")
    ann = authority.issue("ann2")
    met = Met(config, client(ann), "other.example")
    assert (met.subject, met.environment["SSL_CLIENT_VERIFY"]) == ("other.example", "SUCCESS")


OPTIONAL = 'ssl.verifyclient.enforce = "disable"\n'


def test_optional(
    authority: Authority, issued: Issued, ann: Issued, client: Client, tmp_path: Path
) -> None:
    config = asking(authority, issued, OPTIONAL)
    assert Met(config, client()).environment["SSL_CLIENT_VERIFY"] == "NONE"
    assert Met(config, client(ann)).environment["SSL_CLIENT_VERIFY"] == "SUCCESS"
    stranger = Authority(tmp_path, "stranger").issue("ann")
    with pytest.raises(ssl.SSLError, match="(?i)certificate_verify_failed|alert"):
        Met(config, client(stranger))


def test_strangers(authority: Authority, issued: Issued, client: Client, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("ann")
    with pytest.raises(ssl.SSLError, match="(?i)certificate_verify_failed|alert"):
        Met(asking(authority, issued), client(stranger))


def test_who_completes_our_chain_vouches_for_nobody(
    authority: Authority, issued: Issued, tmp_path: Path
) -> None:
    """ssl.ca-file is for clients only where ssl.verifyclient.ca-file is not set."""
    club = Authority(tmp_path, "club")
    member = club.issue("ann")
    text = f'ssl.ca-file = "{authority.certificate}"\nssl.verifyclient.activate = "enable"\n'
    config = configured(f'{shown(issued)} {text} ssl.verifyclient.ca-file = "{club.certificate}"')
    assert Met(config, authority.client(member)).environment["SSL_CLIENT_VERIFY"] == "SUCCESS"
    with pytest.raises(ssl.SSLError):
        Met(config, authority.client(authority.issue("ann3")))
    config = configured(shown(issued) + text)
    ann = authority.issue("ann4")
    assert Met(config, authority.client(ann)).environment["SSL_CLIENT_VERIFY"] == "SUCCESS"


def test_revoked(tmp_path: Path, issued: Issued, authority: Authority) -> None:
    club = Authority(tmp_path, "club")
    good, bad = club.issue("good"), club.issue("bad")
    lists = club.revocations(bad)
    config = configured(
        f'{shown(issued)} {CLIENTS.format(ca=club.certificate)}'
        f'ssl.verifyclient.ca-crl-file = "{lists}"'
    )
    assert Met(config, authority.client(good)).environment["SSL_CLIENT_VERIFY"] == "SUCCESS"
    with pytest.raises(ssl.SSLError, match="(?i)certificate_verify_failed|alert"):
        Met(config, authority.client(bad))


def test_control_characters_do_not_get_through(
    authority: Authority, issued: Issued
) -> None:
    odd = authority.issue("odd", "/CN=a\nb\tc")
    found = Met(asking(authority, issued), authority.client(odd)).environment
    assert found["SSL_CLIENT_S_DN_CN"] == "a?b?c"


# What goes wrong


def test_the_master_is_told_which_file(issued: Issued, tmp_path: Path) -> None:
    config = configured(f'ssl.pemfile = "{tmp_path}/gone.pem"')
    with pytest.raises(StartError, match=r"gone\.pem: No such file") as caught:
        Contexts(config)
    assert caught.value.exit_code == 6


def test_backends_share_what_they_believe(authority: Authority) -> None:
    server = (
        'server.document-root = "/"\nserver.modules = ("mod_proxy")\nproxy.server = ( "/" => ('
        f'( "host" => "127.0.0.1", "tls" => 1, "tls-ca-file" => "{authority.certificate}" ),'
        f'( "host" => "127.0.0.2", "tls" => 1, "tls-ca-file" => "{authority.certificate}" ),'
        '( "host" => "127.0.0.3", "tls" => 1 ) ) )'
    )
    config = load("main.conf", text=server.encode())
    first, second, third = (backend.tls for backend in config.backends)
    assert first and second and third
    contexts = Contexts(config)
    assert contexts.client(first) is contexts.client(second) is not contexts.client(third)
    assert contexts.client(third).verify_mode is ssl.CERT_REQUIRED
    assert contexts.client(third).check_hostname
