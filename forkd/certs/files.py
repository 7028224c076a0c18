"""Certificate, key and authority files: is everything in them that is needed, does it fit.

Problems name the file.  An encrypted key is one: nobody could type its password.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

from ..config.ssl_settings import Problem
from ..config.tls import DEFAULT_CIPHERS, BackendTls, CertificateFiles, TlsPolicy
from .validity import validity_of

_CERTIFICATE = re.compile(
    r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.*?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL
)
_KEY = re.compile(r"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----")
LIBRARY = " ".join(ssl.OPENSSL_VERSION.split()[:2])
"""What it is all done with, and its version."""

_ALWAYS_OUT = ":!aNULL:!eNULL:!EXP"  # lighttpd adds these to whatever is configured


class BadFile(Exception):
    """A file, or a name, cannot be used; the text says which.

    ``is_missing``: a file that is not there.
    """

    def __init__(self, text: str, is_missing: bool = False) -> None:
        super().__init__(text)
        self.is_missing = is_missing


def inspect(files: CertificateFiles | BackendTls) -> Iterator[Problem]:
    """What is wrong with *files*, as they are now."""
    try:
        if isinstance(files, BackendTls):
            _try_as_client(files)
        else:
            load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)
            yield from _validity_problems(files.pemfile)
    except BadFile as error:
        yield Problem("error", str(error), "missing-certificate" if error.is_missing else "")


def _try_as_client(tls: BackendTls) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file:
        load_authorities(context, tls.ca_file)
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=tls.name)
    except ValueError:
        raise BadFile(f'"{tls.name}" is no name of a host') from None


def _validity_problems(file: str) -> Iterator[Problem]:
    now = datetime.now(UTC)
    for number, pem in enumerate(_CERTIFICATE.findall(_read(file)), start=1):
        problem = _validity_problem(pem, now)
        if problem:
            which = f", certificate {number}," if number > 1 else ""
            yield Problem("warning", f"{file}{which} {problem}")


def _validity_problem(pem: str, now: datetime) -> str:
    with suppress(ValueError):  # OpenSSL has read it: what we cannot, we say nothing of
        der = ssl.PEM_cert_to_DER_cert(pem.replace("TRUSTED ", ""))
        return validity_of(der).problem(now)
    return ""


# -- loading ----------------------------------------------------------------------------------


def load_certificate(context: ssl.SSLContext, files: CertificateFiles) -> None:
    """Let *context* show the certificate in *files*.  Raises BadFile."""
    key_file = files.privkey or files.pemfile
    if not _CERTIFICATE.search(_read(files.pemfile)):
        raise BadFile(f"{files.pemfile}: there is no certificate in it")
    if not _KEY.search(_read(key_file)):
        raise BadFile(f"{key_file}: there is no private key in it")
    try:
        context.load_cert_chain(files.pemfile, key_file, password=_refuse_password)
    except _Encrypted:
        raise BadFile(f"{key_file}: the key is encrypted; forkd needs it in the clear") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"{key_file}: the key is not that of the certificate in {files.pemfile}"
            raise BadFile(text) from None
        both = files.pemfile if key_file == files.pemfile else f"{files.pemfile}, {key_file}"
        raise BadFile(f"{both}: cannot be used: {_reason(error)}") from None
    except OSError as error:
        raise BadFile(f"{files.pemfile}: {error.strerror or error}") from None


def load_authorities(context: ssl.SSLContext, file: str) -> None:
    """Let *context* believe those in *file*; "": those of the system.  Raises BadFile."""
    if not file:
        context.load_default_certs()
        return
    _load_trust(context, file, _CERTIFICATE, "certificate")


_CRL = re.compile(r"-----BEGIN X509 CRL-----")


def load_crl(context: ssl.SSLContext, file: str) -> None:
    """Let *context* refuse whom *file* revokes.  Raises BadFile."""
    _load_trust(context, file, _CRL, "revocation list")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _load_trust(
    context: ssl.SSLContext, file: str, wanted: re.Pattern[str], what: str
) -> None:
    if not wanted.search(_read(file)):
        raise BadFile(f"{file}: there is no {what} in it")
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise BadFile(f"{file}: cannot be used: {_reason(error)}") from None


def apply_policy(context: ssl.SSLContext, policy: TlsPolicy, ciphers: str) -> None:
    """*ciphers*: for TLS 1.2.  Raises ValueError for what this OpenSSL does not know."""
    context.minimum_version = _VERSIONS[policy.min_version]
    context.maximum_version = _VERSIONS[policy.max_version]
    try:
        context.set_ciphers(ciphers + _ALWAYS_OUT)
    except ssl.SSLError:
        raise ValueError(f'OpenSSL knows no cipher of "{ciphers}"') from None
    if policy.group:
        context.set_ecdh_curve(policy.group)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    _switch(context, ssl.OP_NO_TICKET, not policy.session_tickets)
    _switch(context, ssl.OP_CIPHER_SERVER_PREFERENCE, policy.server_preference)


_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def _switch(context: ssl.SSLContext, option: ssl.Options, on: bool) -> None:
    context.options = context.options | option if on else context.options & ~option


class _Encrypted(Exception):
    """OpenSSL asks for the password of a key."""


def _refuse_password() -> str:
    # Without a callback OpenSSL asks at the terminal, and waits.
    raise _Encrypted


def _read(file: str) -> str:
    try:
        with open(file, encoding="latin-1") as opened:
            return opened.read()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise BadFile(f"{file}: {os.strerror(error.errno or 0)}", missing) from None


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


# -- checks of single directives --------------------------------------------------------------


def check_authorities(file: str) -> None:
    """Raises ValueError, as those below do."""
    _checked(lambda context: load_authorities(context, file), file)


def check_crl(file: str) -> None:
    _checked(lambda context: load_crl(context, file), file)


def _checked(load: Callable[[ssl.SSLContext], None], file: str) -> None:
    if not file:
        return
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except BadFile as error:
        raise ValueError(str(error)) from None


def check_ciphers(text: str) -> None:
    check_policy(TlsPolicy(ciphers=text))


def check_policy(policy: TlsPolicy) -> None:
    ciphers = policy.ciphers or DEFAULT_CIPHERS
    apply_policy(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), policy, ciphers)
