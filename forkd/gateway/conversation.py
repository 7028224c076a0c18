"""One request as one gateway serves it: what ``base.serve`` asks of a gateway, and a backend that
has been reached.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..config.backend import BackendSpec, Proc
from ..message import Request
from ..net.port import Port
from ..protocol.conversation import RequestEncoder, ResponseParser
from ..protocol.tunnel import TunnelCodec
from ..scoreboard import Lease


class Terms(NamedTuple):
    """What is agreed with one backend: how long it may be silent and what it may ask for."""

    upgrade: bool = False
    """Whether it may switch protocols."""
    read_timeout: float = 0
    """Seconds; 0: none, like ``write_timeout``."""
    write_timeout: float = 0
    fin_propagate: bool = False
    """Whether it is told at once (``half_close``) that the client will send nothing more."""
    eof_after_body: bool = False
    """Whether end of input follows the request's body, as a program reads it."""
    send_file_fields: tuple[str, ...] = ()
    """In lower case: fields of its response that name a file to be sent; empty: it may not."""
    send_file_docroots: tuple[str, ...] = ()
    """Folders, with a slash at the end, that such files must lie under; empty: any."""
    docroot: str = ""
    """Where the files are that an authorizer gives access to; "": the document root."""

    @classmethod
    def of(cls, spec: BackendSpec, *, upgrade: bool = False) -> Terms:
        """The terms of *spec*; *upgrade*: switched on for the whole gateway."""
        return cls(
            upgrade=upgrade or spec.upgrade,
            read_timeout=spec.read_timeout,
            write_timeout=spec.write_timeout,
            fin_propagate=spec.tcp_fin_propagate,
            send_file_fields=_send_file_fields(spec) if spec.x_sendfile else (),
            send_file_docroots=spec.x_sendfile_docroot,
            docroot=spec.docroot,
        )


def _send_file_fields(spec: BackendSpec) -> tuple[str, ...]:
    old = ("x-lighttpd-send-file", "x-sendfile2") if spec.gateway == "fastcgi" else ()
    return ("x-sendfile", *old)


class Backend(NamedTuple):
    """A way to one backend, open for one request; whoever holds it ends it (``Conversation``)."""

    port: Port
    """Nobody hears it yet."""
    name: str
    """For messages."""
    proc: Proc | None = None
    """None where no proc was configured: a program of cgi."""
    lease: Lease | None = None
    """Counts the request; released when it is over."""
    is_kept: bool = False
    """Whether the connection has served a request before, and so may be dead already."""
    is_shared: bool = False
    """Whether other requests are on the connection: it may end before it has heard of this one."""


class Conversation(Protocol):
    """One request of one gateway.  All calls come from the greenlet of the exchange, in the order
    of the methods; ``connect`` to ``begin`` a second time when a kept connection proved dead.

    A backend that ``connect`` gave is ended by exactly one of ``done``, ``abort`` and, after an
    upgrade, the tunnel, which closes the port and releases the lease.
    """

    needs_length: bool
    """Whether the length of the body must be known before it is sent: else 411 when streaming."""
    authorizes: bool
    """Whether the backend is only asked for permission: no body, and a 200 lets the request on."""

    def connect(self, fresh: bool = False) -> Backend:
        """Reach a backend; *fresh*: over no kept connection.  Raises NoBackend.

        cgi opens its pipes here; as the environment is known in ``begin``, the program starts
        there.
        """

    def terms(self, backend: Backend) -> Terms:
        """What holds with *backend*."""

    def begin(
        self, request: Request, length: int | None, backend: Backend
    ) -> tuple[RequestEncoder, ResponseParser]:
        """The codecs of *request*, whose body has *length* bytes (None: to be seen at its end).

        *request* has lost its Upgrade field when no upgrade may come of it.  Raises ForkdError:
        ``abort`` follows.
        """

    def half_close(self, backend: Backend) -> None:
        """The client will send nothing more, all it sent has gone out, and the terms say
        ``fin_propagate``: SHUT_WR, or a signal.  Called in the hub: must not block."""

    def ended_well(self, backend: Backend) -> bool:
        """Whether *backend* ended its response, which only its closing delimits, on purpose: it did
        not die.  May wait a moment for the answer."""

    def tunnel_codec(self) -> TunnelCodec:
        """What relays after a 101."""

    def done(self, backend: Backend, reusable: bool) -> None:
        """The response is whole; *reusable*: the connection may be kept for another request."""

    def abort(self, backend: Backend, why: str) -> None:
        """Nobody wants the rest."""
