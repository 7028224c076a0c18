"""PROXY protocol, versions 1 and 2, the sender's side: who the client of a connection is.

The protocol: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt ("PP" below).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..address import Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # PP section 2.2
PROXY_COMMAND = 0x21  # version 2, command PROXY
MAX_UNIQUE_ID = 128  # bytes, PP section 2.2.5
MAX_VALUE = 1024  # bytes; names of hosts and certificates are shorter, and the sum has 16 bits
UNIX_PATH = 108  # bytes of an address, filled up with NULs

_Ip = IPv4Address | IPv6Address


class Family(IntEnum):
    """Address family and transport (PP section 2.2)."""

    UNSPEC = 0x00
    TCP4 = 0x11
    TCP6 = 0x21
    UNIX = 0x31


class Tlv(IntEnum):
    """Types of what may follow the addresses (PP section 2.2)."""

    ALPN = 0x01
    AUTHORITY = 0x02
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23


class Client(IntFlag):
    """The first byte of Tlv.SSL."""

    SSL = 0x01
    CERT_CONN = 0x02
    """It has shown a certificate on this connection."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What is told of the client's TLS."""

    version: str
    """As OpenSSL writes it: ``TLSv1.3``."""
    cipher: str = ""
    has_certificate: bool = False
    """A good one, or there would be no connection."""
    common_name: str = ""
    """Of its subject; Latin-1 text of the bytes."""


@dataclass(frozen=True, slots=True)
class Details:
    """What version 2 can tell beside the addresses; what is empty, or too long, is left out."""

    authority: str = ""
    """The host name that the client asked for."""
    alpn: str = ""
    unique_id: str = ""
    tls: Tls | None = None


def encode_v1(source: Address, destination: Address) -> bytes:
    """The line for a connection from *source* to *destination* (PP section 2.1)."""
    pair = _ip_pair(source, destination)
    if pair is None:
        return b"PROXY UNKNOWN\r\n"
    family = "TCP4" if pair[0].version == 4 else "TCP6"
    line = f"PROXY {family} {pair[0]} {pair[1]} {source.port} {destination.port}\r\n"
    return line.encode("ascii")


def encode_v2(source: Address, destination: Address, details: Details) -> bytes:
    """The binary header for a connection from *source* to *destination* (PP section 2.2)."""
    family, addresses = _addresses(source, destination)
    body = addresses + b"".join(_tlv(kind, value) for kind, value in _tlvs(details))
    return SIGNATURE + struct.pack(">BBH", PROXY_COMMAND, family, len(body)) + body


def _addresses(source: Address, destination: Address) -> tuple[Family, bytes]:
    if source.is_unix and destination.is_unix:
        return Family.UNIX, _path(source) + _path(destination)
    pair = _ip_pair(source, destination)
    if pair is None:
        return Family.UNSPEC, b""
    ports = struct.pack(">HH", source.port, destination.port)
    family = Family.TCP4 if pair[0].version == 4 else Family.TCP6
    return family, pair[0].packed + pair[1].packed + ports


def _path(address: Address) -> bytes:
    return address.host.encode("utf-8", "surrogateescape")[:UNIX_PATH].ljust(UNIX_PATH, b"\0")


def _ip_pair(source: Address, destination: Address) -> tuple[_Ip, _Ip] | None:
    """Both addresses in the same family; None where one of them is none."""
    try:
        first, second = _ip(source), _ip(destination)
    except ValueError:
        return None
    if first.version == second.version:
        return first, second
    return _inet6(first), _inet6(second)


def _ip(address: Address) -> _Ip:
    """Without the zone of a link-local address (RFC 4007 section 11).  Raises ValueError."""
    return ip_address(address.host.partition("%")[0])


def _inet6(address: _Ip) -> IPv6Address:
    return IPv6Address(f"::ffff:{address}") if address.version == 4 else IPv6Address(address)


def _tlvs(details: Details) -> Iterable[tuple[Tlv, bytes]]:
    if details.alpn:
        yield Tlv.ALPN, details.alpn.encode("latin-1")
    if details.authority:
        yield Tlv.AUTHORITY, details.authority.encode("latin-1")
    if details.unique_id:
        yield Tlv.UNIQUE_ID, details.unique_id.encode("latin-1")[:MAX_UNIQUE_ID]
    if details.tls is not None:
        yield Tlv.SSL, _ssl(details.tls)


def _ssl(tls: Tls) -> bytes:
    """Whether there was a certificate, 0 for verified (else 1), and more TLVs."""
    client = Client.SSL | (Client.CERT_CONN if tls.has_certificate else 0)
    told = (
        (Tlv.SSL_VERSION, tls.version),
        (Tlv.SSL_CN, tls.common_name),
        (Tlv.SSL_CIPHER, tls.cipher),
    )
    parts = b"".join(_tlv(kind, text.encode("latin-1")) for kind, text in told if text)
    return struct.pack(">BI", client, 0 if tls.has_certificate else 1) + parts


def _tlv(kind: Tlv, value: bytes) -> bytes:
    if len(value) > MAX_VALUE:
        return b""
    return struct.pack(">BH", kind, len(value)) + value
