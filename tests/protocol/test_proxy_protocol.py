"""forkd/protocol/proxy_protocol.py, read back as a receiver would."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest

from forkd.address import Address
from forkd.protocol.proxy_protocol import (
    MAX_VALUE,
    SIGNATURE,
    Details,
    Tls,
    Tlv,
    encode_v1,
    encode_v2,
)

CLIENT, SERVER = Address("192.0.2.7", 4711), Address("198.51.100.1", 443)
CLIENT6, SERVER6 = Address("2001:db8::7", 4711), Address("2001:db8::1", 443)


def decoded(data: bytes) -> tuple[int, bytes, dict[int, bytes]]:
    """(family, addresses, TLVs) of a version 2 header that is all of *data*."""
    assert data[:12] == SIGNATURE == b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
    version_command, family, length = struct.unpack(">BBH", data[12:16])
    assert (version_command, length) == (0x21, len(data) - 16)
    size = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}[family]
    return family, data[16 : 16 + size], tlvs(data[16 + size :])


def tlvs(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while data:
        kind, size = struct.unpack(">BH", data[:3])
        assert kind not in found and len(data) >= 3 + size
        found[kind], data = data[3 : 3 + size], data[3 + size :]
    return found


@pytest.mark.parametrize(
    ("source", "destination", "line"),
    [
        (CLIENT, SERVER, b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"),
        (CLIENT6, SERVER6, b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"),
        # A proxy may have told of a client of the other family.
        (CLIENT, SERVER6, b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 4711 443\r\n"),
        (CLIENT6, SERVER, b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 4711 443\r\n"),
        (Address("fe80::1%eth0", 1), SERVER6, b"PROXY TCP6 fe80::1 2001:db8::1 1 443\r\n"),
        (Address("/"), Address("/run/s"), b"PROXY UNKNOWN\r\n"),
        (CLIENT, Address("/run/s"), b"PROXY UNKNOWN\r\n"),
        (Address("unknown"), SERVER, b"PROXY UNKNOWN\r\n"),
    ],
)
def test_version_1(source: Address, destination: Address, line: bytes) -> None:
    encoded = encode_v1(source, destination)
    assert ip_less(encoded) == ip_less(line)
    assert len(encoded) <= 107  # PP section 2.1


def ip_less(line: bytes) -> list[object]:
    """The words of the line; addresses as values, which are written in more than one way."""
    words: list[object] = list(line.decode().split(" "))
    if len(words) == 6:
        words[2:4] = [ip_address(str(word)) for word in words[2:4]]
    return words


def test_version_2_over_ipv4() -> None:
    family, addresses, told = decoded(encode_v2(CLIENT, SERVER, Details()))
    assert family == 0x11
    assert addresses[:4] == socket.inet_aton("192.0.2.7")
    assert addresses[4:8] == socket.inet_aton("198.51.100.1")
    assert struct.unpack(">HH", addresses[8:]) == (4711, 443)
    assert told == {}


@pytest.mark.parametrize(
    ("source", "destination", "first", "second"),
    [
        (CLIENT6, SERVER6, "2001:db8::7", "2001:db8::1"),
        (CLIENT, SERVER6, "::ffff:192.0.2.7", "2001:db8::1"),
        (CLIENT6, SERVER, "2001:db8::7", "::ffff:198.51.100.1"),
    ],
)
def test_version_2_over_ipv6(
    source: Address, destination: Address, first: str, second: str
) -> None:
    family, addresses, _ = decoded(encode_v2(source, destination, Details()))
    assert family == 0x21
    assert addresses[:16] == socket.inet_pton(socket.AF_INET6, first)
    assert addresses[16:32] == socket.inet_pton(socket.AF_INET6, second)


def test_version_2_over_a_unix_socket() -> None:
    family, addresses, told = decoded(
        encode_v2(Address("/"), Address("/run/s"), Details(authority="a.example"))
    )
    assert (family, addresses[108:].rstrip(b"\0")) == (0x31, b"/run/s")
    assert told == {Tlv.AUTHORITY: b"a.example"}


def test_version_2_of_an_address_that_is_none() -> None:
    family, _, told = decoded(encode_v2(Address("unknown"), SERVER, Details(alpn="h2")))
    assert (family, told) == (0, {Tlv.ALPN: b"h2"})


def test_details() -> None:
    tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", has_certificate=True, common_name="J\xc3\xb6rg")
    details = Details("www.example.org", "h2", "f00f", tls)
    _, _, told = decoded(encode_v2(CLIENT, SERVER, details))
    about_tls = told.pop(0x20)
    assert told == {0x01: b"h2", 0x02: b"www.example.org", 0x05: b"f00f"}
    assert struct.unpack(">BI", about_tls[:5]) == (0x01 | 0x02, 0)
    assert tlvs(about_tls[5:]) == {
        0x21: b"TLSv1.3",
        0x22: "Jörg".encode(),
        0x23: b"TLS_AES_256_GCM_SHA384",
    }


def test_tls_without_a_certificate() -> None:
    _, _, told = decoded(encode_v2(CLIENT, SERVER, Details(tls=Tls("TLSv1.2"))))
    assert struct.unpack(">BI", told[0x20][:5]) == (0x01, 1)
    assert tlvs(told[0x20][5:]) == {0x21: b"TLSv1.2"}


def test_limits() -> None:
    """A name that no host can have is left out; the header stays within its 16 bits of length."""
    details = Details("a" * (MAX_VALUE + 1), "h2", "u" * 200)
    _, _, told = decoded(encode_v2(CLIENT, SERVER, details))
    assert told == {Tlv.ALPN: b"h2", Tlv.UNIQUE_ID: b"u" * 128}
