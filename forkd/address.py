"""Socket addresses and networks as values: parse, compare, print.  No sockets here.

Four kinds, told apart by the host text: a path is a unix socket, ``fd:NAME`` a socket that a
service manager hands over, other text with a colon is IPv6, anything else is IPv4 or a name that
somebody still has to resolve.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

INHERITED = "fd:"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where to listen or connect.  ``host`` is a path, an address without brackets, ``fd:NAME``, or
    a name."""

    host: str
    port: int = 0

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    @property
    def is_inherited(self) -> bool:
        return self.host.startswith(INHERITED)

    @property
    def is_inet6(self) -> bool:
        return ":" in self.host and not self.is_unix and not self.is_inherited

    @property
    def text(self) -> str:
        """``/path``, ``host:port``, ``[v6]:port`` or ``fd:NAME``."""
        if self.is_unix or self.is_inherited:
            return self.host
        return f"[{self.host}]:{self.port}" if self.is_inet6 else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.text


def split_port(authority: str) -> tuple[str, str]:
    """(host, port) of ``host:port``, ``[v6]:port`` or a host alone; no port is ""."""
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        return authority, ""
    return host, port


def canonical(text: str) -> str:
    """The IP address *text*, perhaps in brackets, as the system writes it.  Raises ValueError."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    value = ip_address(text)
    if isinstance(value, IPv6Address) and value.ipv4_mapped is not None:
        return f"::ffff:{value.ipv4_mapped}"
    return str(value)


def numbered(address: Address, number: int) -> Address:
    """The address of proc *number* of a spawned backend: ``/path-N``, or port + N."""
    if address.is_unix:
        return Address(f"{address.host}-{number}")
    return Address(address.host, address.port + number)


class Network:
    """An address or network that other addresses are compared with.

    An IPv4 network matches IPv4-mapped IPv6 addresses, and the other way round (config.md 8.4).
    """

    __slots__ = ("_base", "_is_everything", "_mask", "_network", "_version")

    def __init__(self, text: str) -> None:
        """Parse ``addr``, ``addr/bits`` or either with the IPv6 address in brackets.

        Raises ValueError when it is neither.  Host bits are ignored; ``/0`` matches everything.
        """
        host, slash, bits = text.partition("/")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if slash and not (bits.isascii() and bits.isdigit()):
            raise ValueError(f"bad prefix length in {text!r}")
        self._network = _unmap_network(
            ip_network(f"{host}/{bits}" if slash else host, strict=False)
        )
        self._version = self._network.version
        self._base = int(self._network.network_address)
        self._mask = int(self._network.netmask)
        self._is_everything = bits.strip("0") == "" and bool(slash)

    def __contains__(self, address: object) -> bool:
        readings = _readings(str(address))
        if self._is_everything:
            return bool(readings)
        for version, value in readings:
            if version == self._version and value & self._mask == self._base:
                return True
        return False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return (self._network, self._is_everything) == (other._network, other._is_everything)

    def __hash__(self) -> int:
        return hash(self._network)

    def __repr__(self) -> str:
        return f"Network({str(self._network)!r})"


@lru_cache(maxsize=1024)
def _readings(text: str) -> tuple[tuple[int, int], ...]:
    """(version, value) of each address that *text* may be compared as; () when it is none.

    An IPv4-mapped IPv6 address is both.
    """
    try:
        value = ip_address(text)
    except ValueError:
        return ()
    if isinstance(value, IPv6Address) and value.ipv4_mapped is not None:
        return (6, int(value)), (4, int(value.ipv4_mapped))
    return ((value.version, int(value)),)


def _unmap_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        base = network.network_address.ipv4_mapped
        if base is not None:
            return IPv4Network((base, network.prefixlen - 96))
    return network
