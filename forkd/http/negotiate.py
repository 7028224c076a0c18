"""Which HTTP a connection speaks, and who speaks it with the client.

In clear text the first bytes tell: the HTTP/2 preface (RFC 9113 section 3.4), or else HTTP/1.
A version that is not in the table is not spoken; its preface is then a bad HTTP/1 request line,
and refused as such.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ClientGone
from ..message import ConnInfo
from ..net.blocking import BlockingPort
from ..net.port import Port
from .connection import Connection, Service
from .exchange import Handler
from .h1 import H1Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

VERSIONS: dict[str, Callable[[BlockingPort, ConnInfo, Service], Connection]] = {
    "http/1.1": H1Connection,
}
"""ALPN name (RFC 7301) to the class that speaks it."""


def serve_connection(port: Port, info: ConnInfo, service: Service, handle: Handler) -> None:
    """Serve the client at *port* in this greenlet, until it has left or its port is a tunnel's."""
    blocking = BlockingPort(port, looks=True)
    name = "http/1.1"
    if "h2" in VERSIONS and service.config.server.features.h2proto:
        name = _spoken(blocking, service.config.base.limits.max_read_idle)
    if name:
        VERSIONS[name](blocking, info, service).serve(handle)
    else:
        blocking.close()


def _spoken(port: BlockingPort, timeout: float) -> str:
    """The version that the first bytes announce, "" when they do not come; they stay unread."""
    data = b""
    while len(data) < len(PREFACE) and PREFACE.startswith(data):
        try:
            more = port.recv(timeout)
        except (TimeoutError, ClientGone):
            return ""
        if not more:
            break
        data += more
    port.unread(data)
    return "h2" if data.startswith(PREFACE) else "http/1.1"
