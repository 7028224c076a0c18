"""Whom a gateway talks to, as frozen values: backends, their procs, and the routes to them.

Times are seconds.  Text that names files for the process (sockets, programs) is an OS string.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..address import Address
from .tls import BackendTls

Balance = Literal["least-connection", "round-robin", "hash", "sticky"]
Framing = Literal["stream", "line", "netstring", "typed", "seqpacket"]
LineNewline = Literal["refuse", "space"]
Metadata = Literal["none", "proxy-v1", "proxy-v2", "cgi"]


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One host of ``<gateway>.server`` (gateway.md 2).  Equal specs are the same backend."""

    gateway: str
    """Name of the module without ``mod_``."""
    key: str = field(compare=False)
    """The ext it was first defined under; for messages only, like ``label``."""
    label: str = field(compare=False)
    address: Address
    """The socket path (an OS string) or the resolved host; procs of a ``bin_path`` add their number
    to the path or port."""
    host_name: str = ""
    """What ``address`` was resolved from; "" when an address was configured."""
    tls: BackendTls | None = None
    bin_path: tuple[str, ...] = ()
    """argv (OS strings); empty for a remote backend."""
    min_procs: int = 1
    max_procs: int = 1
    max_load_per_proc: int = 1
    idle_timeout: float = 60
    listen_backlog: int = 4096
    kill_signal: int = 15
    disable_time: float = 1
    connect_timeout: float = 8
    """0: none, like the two below."""
    read_timeout: float = 0
    write_timeout: float = 0
    bin_environment: tuple[tuple[str, str], ...] = ()
    bin_copy_environment: tuple[str, ...] = ()
    user: str = ""
    """Whom the program runs as; "": as the server, like ``group``."""
    group: str = ""
    umask: int | None = None
    """None: the server's."""
    socket_mode: int | None = None
    """Of its unix sockets; None: for the server alone."""
    cwd: str = ""
    """An OS string; "": the folder of the program."""
    rlimits: tuple[tuple[str, int, int], ...] = ()
    """(name, soft, hard); -1: unlimited."""
    check_local: bool = True
    mode: Literal["responder", "authorizer"] = "responder"
    docroot: str = ""
    broken_scriptfilename: bool = False
    strip_request_uri: str = ""
    fix_root_scriptname: bool = False
    x_sendfile: bool = False
    x_sendfile_docroot: tuple[str, ...] = ()
    tcp_fin_propagate: bool = False
    upgrade: bool = False
    keep_alive: int = 0
    """proxy: idle connections kept per proc and worker."""
    keep_conn: int = 0
    """fastcgi: the same."""
    multiplex: int = 0
    """fastcgi: requests that may share a connection, if the application can; 0: none."""
    pool: int = 1
    """fastcgi: shared connections to one proc, of each worker."""
    pool_idle: float = 60
    """fastcgi: seconds that a shared connection is kept without a request."""
    framing: Literal[Framing, ""] = ""
    """wstunnel: how messages travel; "": as WsTunnelSettings has it."""
    line_newline: LineNewline = "refuse"
    """wstunnel: what a line feed inside a message is, where a message is a line."""
    metadata: Metadata = "none"
    """wstunnel: what the backend is told of the client before the first message."""

    @property
    def is_spawned(self) -> bool:
        return bool(self.bin_path)

    @property
    def takes_packets(self) -> bool:
        """Whether its socket is of SOCK_SEQPACKET."""
        return self.framing == "seqpacket"

    def __str__(self) -> str:
        return self.label or self.address.text


@dataclass(frozen=True, slots=True)
class Proc:
    """A process that may exist: number *number* of its backend.  Whether it does is the board's."""

    backend: BackendSpec
    number: int
    address: Address
    column: int
    """Its pair of cells on the scoreboard."""

    def __str__(self) -> str:
        return self.address.text


@dataclass(frozen=True, slots=True)
class Route:
    """One ext of ``<gateway>.server``: a URL prefix, a suffix, or "" for everything."""

    gateway: str
    key: str
    backends: tuple[BackendSpec, ...]


@dataclass(frozen=True, slots=True)
class GatewayServer:
    """``<gateway>.server`` with what belongs to it, as it stands in one RequestConfig."""

    name: str
    routes: tuple[Route, ...]
    """In the order of the configuration; the first match wins (gateway.md 3)."""
    balance: Balance = "least-connection"
    map_extensions: tuple[tuple[str, str], ...] = ()
    debug: int = 0
