"""Which HTTP a connection speaks, and who speaks it with the client.

Over TLS the handshake has settled it (ALPN, RFC 7301).  In clear text the first bytes tell: the
HTTP/2 preface (RFC 9113 section 3.4), or else HTTP/1.  A version that is not in the table is not
spoken; its preface is then a bad HTTP/1 request line, and refused as such.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..config.model import Features
from ..errors import ClientGone
from ..message import ConnInfo
from ..net.blocking import BlockingPort
from ..net.port import Port
from ..protocol.h2_frames import PREFACE
from .connection import Connection, Service
from .exchange import Handler
from .h1 import SHORT_LINGER, H1Connection
from .h2 import H2Connection

log = logging.getLogger(__name__)

VERSIONS: dict[str, Callable[[BlockingPort, ConnInfo, Service], Connection]] = {
    "http/1.1": H1Connection,
    "h2": H2Connection,
}
"""ALPN name (RFC 7301) to the class that speaks it."""

PREFERENCE = ("h2", "http/1.1")


def offered(features: Features) -> tuple[str, ...]:
    """What a TLS handshake may agree on, the best first."""
    return tuple(
        name for name in PREFERENCE if name in VERSIONS and (name != "h2" or features.h2proto)
    )


def serve_connection(port: Port, info: ConnInfo, service: Service, handle: Handler) -> None:
    """Serve the client at *port* in this greenlet, until it has left or its port is a tunnel's."""
    blocking = BlockingPort(port, looks=True)
    name = info.alpn or "http/1.1"
    if not info.tls and "h2" in VERSIONS and service.config.server.features.h2proto:
        name = _spoken(blocking, info, service)
    if name:
        VERSIONS[name](blocking, info, service).serve(handle)
    else:
        blocking.close()


def refuse_plain(port: BlockingPort, info: ConnInfo, service: Service) -> None:
    """Answer a client that speaks HTTP in the clear where TLS is spoken, and close."""
    H1Connection(port, info, service).refuse_plain()


def _spoken(port: BlockingPort, info: ConnInfo, service: Service) -> str:
    """The version that the first bytes announce, "" when they do not come; they stay unread."""
    settings = service.config.base
    silent = _Silent(port)
    service.connections.add(silent)
    data = b""
    try:
        while len(data) < len(PREFACE) and PREFACE.startswith(data):
            more = port.recv(settings.limits.max_read_idle)
            if not more:
                break
            data += more
            silent.is_silent = False
    except TimeoutError as error:
        if settings.debug.timeouts:
            log.info("%s: closed, %s", info.peer, error)
        return ""
    except ClientGone:
        return ""
    finally:
        service.connections.discard(silent)
    port.unread(data)
    return "h2" if data.startswith(PREFACE) else "http/1.1"


class _Silent:
    """A connection of which nobody knows yet what it speaks."""

    def __init__(self, port: BlockingPort) -> None:
        self.is_silent = True
        self._port = port

    def serve(self, handle: Handler) -> None:
        """Whoever speaks its version does."""

    def drain(self) -> None:
        """It may still ask for something."""

    def close_if_idle(self) -> None:
        if self.is_silent:
            self._port.close(SHORT_LINGER)
