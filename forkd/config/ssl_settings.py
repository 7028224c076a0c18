"""``ssl.*``: what a block says of certificates, and a listener's TlsSpec (core.md 16).

Which certificate a handshake shows may depend on the name that the client asks for; nothing else
may, for whoever sends another name would get around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .converters import BadValue, Context, short, text_pairs
from .diagnostics import Findings, suggestion
from .model import Kind, Severity, with_values
from .tls import BackendTls, CertificateFiles, TlsPolicy, TlsSpec, TlsVersion
from .tree import Block, Place, Setting, Value

Values = Mapping[str, Any]
"""Converted values by field path: ``tls.…`` of a listener, ``certificate.…`` of any block."""

PEMFILE, PRIVKEY = "certificate.pemfile", "certificate.privkey"
VERIFY_DEPTH = 9  # certificates in a chain, lighttpd's default; Python's ssl cannot change it

# What is known when a certificate has to be chosen.
_KNOWN_EARLY = frozenset(
    {
        '$SERVER["socket"]',
        '$HTTP["host"]',
        '$HTTP["remoteip"]',
        '$HTTP["remote-ip"]',
        '$HTTP["scheme"]',
    }
)


class Problem(NamedTuple):
    """What is wrong with a file."""

    severity: Severity
    text: str
    kind: Kind = ""


Inspect = Callable[[CertificateFiles | BackendTls], Iterable[Problem]]
"""Looks into the files; ``config`` itself knows nothing of certificates."""


def uninspected(files: CertificateFiles | BackendTls) -> Iterable[Problem]:
    """Takes all files for good."""
    return ()


# -- ssl.openssl.ssl-conf-cmd -----------------------------------------------------------------


def tls_policy(value: Value, context: Context) -> TlsPolicy:
    """The commands that Python's ssl can obey; each other one is a warning."""
    found: dict[str, Any] = {}
    for name, text in text_pairs(value, context):
        command = _COMMANDS.get(name.lower())
        if command is None:
            hint = suggestion(name, (*_COMMANDS, *_NOT_POSSIBLE))
            context.warn(f"{name} cannot be obeyed here (ignored){hint}")
            continue
        try:
            found |= command(text, context)
        except BadValue as error:
            raise BadValue(f"{name}: {error}") from None
    policy = TlsPolicy(**found)
    if policy.min_version > policy.max_version:
        raise BadValue(f"nothing is between {policy.min_version} and {policy.max_version}")
    return policy


_VERSIONS: dict[str, TlsVersion] = {"tlsv1.2": "TLSv1.2", "tlsv1.3": "TLSv1.3"}
_TOO_OLD = ("sslv3", "tlsv1", "tlsv1.0", "tlsv1.1")


def _min_version(text: str, context: Context) -> dict[str, Any]:
    if text.lower() in _TOO_OLD:
        context.warn(f"MinProtocol: {text} is not spoken any more: read as TLSv1.2")
        return {}
    return {} if text.lower() == "none" else {"min_version": _version(text)}


def _max_version(text: str, context: Context) -> dict[str, Any]:
    return {} if text.lower() == "none" else {"max_version": _version(text)}


def _version(text: str) -> TlsVersion:
    version = _VERSIONS.get(text.lower())
    if version is None:
        raise BadValue(f'expected TLSv1.2 or TLSv1.3, got "{text}"')
    return version


def _ciphers(text: str, context: Context) -> dict[str, Any]:
    return {"ciphers": text}


_GROUPS = {
    "p-256": "prime256v1", "prime256v1": "prime256v1", "secp256r1": "prime256v1",
    "p-384": "secp384r1", "secp384r1": "secp384r1",
    "p-521": "secp521r1", "secp521r1": "secp521r1",
    "x25519": "",  # the first of those that OpenSSL offers by itself
}  # fmt: skip


def _groups(text: str, context: Context) -> dict[str, Any]:
    first, *others = text.split(":")
    group = _GROUPS.get(first.lower())
    if group is None:
        context.warn(f"{first} cannot be chosen here: any group that OpenSSL offers is taken")
        return {}
    if group and others:
        context.warn(f"only the first group, {first}, can be obeyed here")
    return {"group": group}


_SWITCHES = {"sessionticket": "session_tickets", "serverpreference": "server_preference"}
_ALWAYS = {"norenegotiation": True, "compression": False, "unsafelegacyrenegotiation": False}


def _options(text: str, context: Context) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in re.split(r"\s*,\s*", text.strip()):
        name, on = word.lstrip("+-").lower(), not word.startswith("-")
        if name in _SWITCHES:
            found[_SWITCHES[name]] = on
        elif _ALWAYS.get(name) is not on:
            context.warn(f"option {word} cannot be obeyed here (ignored)")
    return found


_COMMANDS: dict[str, Callable[[str, Context], dict[str, Any]]] = {
    "minprotocol": _min_version,
    "maxprotocol": _max_version,
    "cipherstring": _ciphers,
    "groups": _groups,
    "curves": _groups,
    "options": _options,
}
_NOT_POSSIBLE = (
    "Ciphersuites", "ClientSignatureAlgorithms", "DHParameters", "ECDHParameters", "Protocol",
    "RecordPadding", "SignatureAlgorithms", "VerifyMode",
)  # fmt: skip


def verify_depth(value: Value, context: Context) -> int:
    depth = short(value, context)
    if depth != VERIFY_DEPTH:
        raise BadValue(f"a depth other than {VERIFY_DEPTH} is not supported")
    return depth


# -- a block's certificate --------------------------------------------------------------------


def pair_certificate(
    values: dict[str, Any], settings: Mapping[str, Setting], findings: Findings
) -> None:
    """A key belongs to the certificate of its own block, and one without to no other's."""
    if PEMFILE in values:
        values.setdefault(PRIVKEY, "")
    elif values.pop(PRIVKEY, ""):
        place = settings["ssl.privkey"].place
        findings.error(place, "ssl.privkey: there is no ssl.pemfile beside it")


def certificate_of(values: Values) -> CertificateFiles | None:
    """What the block with *values* shows, if it says so."""
    if not values.get(PEMFILE):
        return None
    return CertificateFiles(values[PEMFILE], values[PRIVKEY])


def check_choosable(
    block: Block, blocks: Sequence[Block], place: Place, findings: Findings
) -> None:
    """Whether it is known in a handshake if *block* holds."""
    for condition in _conditions_of(block, blocks):
        if condition not in _KNOWN_EARLY:
            findings.error(
                place, f"ssl.pemfile: {condition} is not known before the certificate is shown"
            )
            return


def _conditions_of(block: Block, blocks: Sequence[Block]) -> Iterator[str]:
    """The fields that decide whether *block* holds."""
    for index in (*block.previous, block.parent):
        if index is not None:
            yield from _conditions_of(blocks[index], blocks)
    if block.condition is not None:
        yield block.condition.field


# -- a listener -------------------------------------------------------------------------------


def tls_spec(values: Values, certificates: Iterable[CertificateFiles]) -> TlsSpec | None:
    """How a listener with *values* speaks TLS; None: it does not.

    *certificates*: all of the configuration.
    """
    if not values.get("tls.engine"):
        return None
    own = {
        path.removeprefix("tls."): value
        for path, value in values.items()
        if path.startswith("tls.") and path != "tls.engine"
    }
    certificate = certificate_of(values) or CertificateFiles()
    others = tuple(one for one in certificates if one != certificate)
    spec: TlsSpec = with_values(TlsSpec(certificate, others), own)
    return spec


def check_listener(spec: TlsSpec, place: Place, findings: Findings) -> None:
    """What a TlsSpec needs to make sense."""
    if not spec.certificate.pemfile:
        findings.error(place, "ssl.engine: there is no ssl.pemfile")
    clients = spec.clients
    if clients.activate and not (clients.ca_file or spec.ca_file):
        findings.error(
            place, "ssl.verifyclient.activate: there is no ssl.verifyclient.ca-file to verify by"
        )
    elif clients.activate and clients.ca_file and spec.ca_file not in ("", clients.ca_file):
        findings.warning(
            place,
            "ssl.ca-file has no effect beside ssl.verifyclient.ca-file: put the certificates"
            " between yours and the authority's into ssl.pemfile",
        )
