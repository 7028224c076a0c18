"""What programs are told of a client's TLS: the SSL_* variables of mod_openssl (core.md 16)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from ..config.tls import ClientCertificates
from ..message import Pair

# Short names of what a subject is made of (RFC 4514 section 3, and OpenSSL's for the others).
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "generationQualifier": "generationQualifier",
    "givenName": "GN",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "SN",
    "userId": "UID",
}
_NOT_PLAIN = dict.fromkeys((*range(32), 127), "?")


def of_session(
    session: ssl.SSLObject, server_name: str, key_sizes: Mapping[str, int]
) -> tuple[Pair, ...]:
    """*key_sizes*: bits of the algorithm by name of the cipher."""
    name, _, bits = session.cipher() or ("", "", 0)
    return _shared(session.version() or "", name, bits, key_sizes.get(name, bits), server_name)


@lru_cache(maxsize=1024)
def _shared(
    protocol: str, cipher: str, use_size: int, algorithm_size: int, server_name: str
) -> tuple[Pair, ...]:
    """One value for all connections that are alike."""
    found = (
        ("SSL_PROTOCOL", protocol),
        ("SSL_CIPHER", cipher),
        ("SSL_CIPHER_USEKEYSIZE", str(use_size)),
        ("SSL_CIPHER_ALGKEYSIZE", str(algorithm_size)),
    )
    return (*found, ("SSL_TLS_SNI", server_name)) if server_name else found


def of_client(session: ssl.SSLObject, settings: ClientCertificates) -> tuple[Pair, ...]:
    """What the client's certificate says.  It is a good one, or the handshake had failed."""
    certificate = session.getpeercert()
    if not certificate:
        return (("SSL_CLIENT_VERIFY", "NONE"),)
    found = dict(_of_certificate(certificate))
    if settings.export:
        der = session.getpeercert(binary_form=True)
        found["SSL_CLIENT_CERT"] = ssl.DER_cert_to_PEM_cert(der or b"")
    user = _lookup(found, settings.username)
    if user:
        found |= {"REMOTE_USER": user, "AUTH_TYPE": "SSL_CLIENT_VERIFY"}
    return tuple(found.items())


def _of_certificate(certificate: Mapping[str, Any]) -> Iterator[Pair]:
    yield "SSL_CLIENT_VERIFY", "SUCCESS"
    subject = [
        (_SHORT.get(name, name), _text(value))
        for relative_name in certificate.get("subject", ())
        for name, value in relative_name
    ]
    yield "SSL_CLIENT_S_DN", ", ".join(f"{name} = {value}" for name, value in subject)
    for name, value in subject:
        yield f"SSL_CLIENT_S_DN_{name}", value
    yield "SSL_CLIENT_M_SERIAL", str(certificate.get("serialNumber", ""))


def _text(value: str) -> str:
    """Bytes as Latin-1; what could break a line, or end a name, is no part of it."""
    return value.encode().decode("latin-1").translate(_NOT_PLAIN)


def _lookup(found: Mapping[str, str], name: str) -> str:
    """Names compare without case, as they do everywhere in the configuration."""
    return next((value for key, value in found.items() if key.lower() == name.lower()), "")
