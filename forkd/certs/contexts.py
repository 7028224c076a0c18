"""The TLS contexts of one configuration: one for each certificate that a listener may show, and
those towards backends.

The name in a handshake (RFC 6066 section 3) changes the certificate and nothing else: with TLS 1.3
a context that is put in at that moment does not get to demand anything of the client.
"""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from ..config.model import Config, ListenerSpec
from ..config.tls import BackendTls, CertificateFiles, TlsSpec
from ..errors import PatternTooSlow, StartError
from ..message import ConnInfo, Fields, Request
from . import variables
from .files import BadFile, apply_policy, load_authorities, load_certificate, load_crl

BAD_CONFIG = 6  # exit code of forkd(8)

log = logging.getLogger(__name__)


class Session(ssl.SSLObject):
    """One client's TLS."""

    connection: ConnInfo
    """What is known of the client before the handshake."""
    server_name: str = ""
    """The name that the client asks for, as it wrote it; "" for none."""


class Contexts:
    """All contexts of one configuration; they go when its last process does."""

    def __init__(self, config: Config, alpn: Sequence[str] = ()) -> None:
        """Reads the files.  *alpn*: the names to offer to clients, the best first (RFC 7301).

        Raises StartError.
        """
        specs = {spec.tls for spec in config.listeners if spec.tls is not None}
        files = {one.tls.ca_file for one in config.backends if one.tls is not None}
        try:
            self._servers = {spec: ServerTls(config, spec, alpn) for spec in specs}
            self._clients = {file: _client_context(file) for file in files}
        except (BadFile, ValueError) as error:
            raise StartError(str(error), BAD_CONFIG) from None

    def server(self, listener: ListenerSpec) -> ServerTls | None:
        """Of *listener*; None: it does not speak TLS."""
        return None if listener.tls is None else self._servers[listener.tls]

    def client(self, tls: BackendTls) -> ssl.SSLContext:
        """For connections to a backend."""
        return self._clients[tls.ca_file]

    def close(self) -> None:
        """Let the contexts go, which know those who know them."""
        for server in self._servers.values():
            server.close()


class ServerTls:
    """How the clients of a listener are spoken to."""

    def __init__(self, config: Config, spec: TlsSpec, alpn: Sequence[str]) -> None:
        """Raises BadFile; ValueError for what OpenSSL does not know."""
        self.spec = spec
        self._config = config
        self._contexts = {
            files: _server_context(spec, files, alpn)
            for files in (spec.certificate, *spec.others)
        }
        self._main = self._contexts[spec.certificate]
        self._main.sslobject_class = Session
        self._main.sni_callback = self._named
        self._key_sizes = {
            cipher["name"]: int(cipher["alg_bits"]) for cipher in self._main.get_ciphers()
        }

    def session(
        self, connection: ConnInfo, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> Session:
        """For one client, before its handshake."""
        session = cast(Session, self._main.wrap_bio(incoming, outgoing, server_side=True))
        session.connection = replace(connection, tls=True)
        return session

    def described(self, session: ssl.SSLObject) -> ConnInfo:
        """The connection as it is known after the handshake of a ``session``."""
        assert isinstance(session, Session)
        found = variables.of_session(session, session.server_name, self._key_sizes)
        if self.spec.clients.activate:
            found += variables.of_client(session, self.spec.clients)
        alpn = session.selected_alpn_protocol() or ""
        return replace(session.connection, alpn=alpn, environment=found)

    def close(self) -> None:
        self._main.sni_callback = None

    def _named(self, session: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        """The client has asked for *name*, if for any."""
        if not name or not isinstance(session, Session):
            return
        session.server_name = name
        try:
            files = self._config.select(_probe(session.connection, name)).certificate
        except PatternTooSlow:
            log.warning("%s: no certificate chosen for %r", session.connection.peer, name)
            return
        chosen = self._contexts.get(files, context)
        if chosen is not context:
            session.context = chosen


def hush_bad_names() -> None:
    """Let this process say nothing of clients whose server name is not ASCII.

    ``ssl`` refuses such a handshake by itself, but reports the name as an exception that nobody
    could have caught: anybody could fill the error log.
    """

    def report(found: Any) -> None:
        if isinstance(found.exc_value, UnicodeDecodeError) and isinstance(found.object, bytes):
            log.debug("server name %r: not ASCII", found.object)
        else:
            sys.__unraisablehook__(found)

    sys.unraisablehook = report


def _probe(connection: ConnInfo, name: str) -> Request:
    """As much of a request as is known when a certificate is chosen."""
    return Request(
        method="",
        target="/",
        version="HTTP/1.1",
        host=name.lower().removesuffix("."),
        path="/",
        query=None,
        decoded_path="/",
        fields=Fields(),
        content_length=0,
        keep_alive=True,
        connection=connection,
        remote=connection.peer,
    )


def _server_context(
    spec: TlsSpec, files: CertificateFiles, alpn: Sequence[str]
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    apply_policy(context, spec.policy, spec.ciphers)
    load_certificate(context, files)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    _trust(context, spec)
    return context


def _trust(context: ssl.SSLContext, spec: TlsSpec) -> None:
    """Who vouches for clients; where nobody has to, who completes our own chain."""
    clients = spec.clients
    file = clients.ca_file if clients.activate and clients.ca_file else spec.ca_file
    if file:
        load_authorities(context, file)
    if clients.activate:
        context.verify_mode = ssl.CERT_REQUIRED if clients.enforce else ssl.CERT_OPTIONAL
        if clients.crl_file:
            load_crl(context, clients.crl_file)


def _client_context(ca_file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_authorities(context, ca_file)
    return context
