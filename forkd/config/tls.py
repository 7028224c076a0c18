"""TLS as configured: what listeners show and ask of their clients, what backends have to show.

Values only.  How ``ssl.*`` comes to them is ``ssl_settings``; what is done with them, ``certs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TlsVersion = Literal["TLSv1.2", "TLSv1.3"]

DEFAULT_CIPHERS = "EECDH+AESGCM:CHACHA20:!PSK:!DHE"  # lighttpd's


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate with its chain, and its key: files (OS strings).  "": there is none."""

    pemfile: str = ""
    privkey: str = ""
    """"": the key stands in ``pemfile``."""


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """What ``ssl.openssl.ssl-conf-cmd`` may ask for: a later one replaces it as a whole."""

    min_version: TlsVersion = "TLSv1.2"
    max_version: TlsVersion = "TLSv1.3"
    ciphers: str = ""
    """For TLS 1.2, as OpenSSL writes them; "": those of ``ssl.cipher-list``."""
    group: str = ""
    """OpenSSL's name of the only group; "": OpenSSL's own list, which begins with X25519."""
    session_tickets: bool = True
    server_preference: bool = True


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """``ssl.verifyclient.*`` (core.md 16)."""

    activate: bool = False
    """Ask for a certificate; one that is shown has to be good."""
    enforce: bool = True
    """Nobody enters without."""
    ca_file: str = ""
    """OS string, like ``crl_file``."""
    crl_file: str = ""
    username: str = ""
    """The variable that becomes REMOTE_USER."""
    export: bool = False
    """Whether programs get the certificate itself."""


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """How a listener speaks TLS."""

    certificate: CertificateFiles = CertificateFiles()
    others: tuple[CertificateFiles, ...] = ()
    """Those that the name in the handshake may choose: see ``RequestConfig.certificate``."""
    policy: TlsPolicy = TlsPolicy()
    cipher_list: str = ""
    ca_file: str = ""
    """OS string: completes the chain, and vouches for clients where nothing else does."""
    clients: ClientCertificates = ClientCertificates()
    log_failures: bool = False
    """Whether handshakes that fail are worth a line in the error log."""

    @property
    def ciphers(self) -> str:
        """For TLS 1.2, as OpenSSL writes them."""
        return self.policy.ciphers or self.cipher_list or DEFAULT_CIPHERS


@dataclass(frozen=True, slots=True)
class BackendTls:
    """TLS towards a backend, which is always verified."""

    name: str
    """The host name or address that its certificate has to be for."""
    ca_file: str = ""
    """OS string; "": the system's authorities."""
