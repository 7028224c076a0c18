"""TLS over another port: an ``ssl.SSLObject`` between two buffers, and the port that it makes.

The handshake is a greenlet's: ``secure`` returns when it is done.  What then comes is decrypted at
once, all of it, so that nothing lies in a buffer when the time comes to send close_notify: OpenSSL
would take what is still unread for a violation, and end both directions.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from gevent import get_hub

from ..errors import ClientGone
from ..protocol.tunnel import Buffer
from .blocking import BlockingPort
from .port import READ_SIZE, Listener, Nobody, Peer, Port

RECORD = 16 * 1024  # bytes of content in one record (RFC 8446 section 5.1)
ALERT_LINGER = 1.0  # seconds for the other side to read why it was refused

_PLAIN = memoryview(bytearray(READ_SIZE + 2 * RECORD))  # shared by all ports, as a port's own is
_NOBODY = Nobody()

log = logging.getLogger(__name__)

Wrap = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]
"""Makes the session over what comes in and what goes out."""


class HandshakeFailed(ConnectionError):
    """No agreement, or the other side left; the text says which."""


class PlainText(Exception):
    """The client does not speak TLS.  ``port`` is open, and what has come is unread in it."""

    def __init__(self, port: BlockingPort) -> None:
        super().__init__("no TLS")
        self.port = port


# -- the handshake ----------------------------------------------------------------------------


def secure(port: Port, wrap: Wrap, timeout: float) -> TlsPort:
    """*port* with TLS over it, at most *timeout* seconds later; in a greenlet.

    Raises TimeoutError and HandshakeFailed, with *port* closed; PlainText.
    """
    handshake = _Handshake(port, wrap, time.monotonic() + timeout)
    try:
        return handshake.run()
    except PlainText:
        raise
    except ssl.SSLError as error:
        handshake.port.close(ALERT_LINGER)
        raise HandshakeFailed(f"TLS handshake: {_reason(error)}") from None
    except ClientGone as gone:
        handshake.port.abort("TLS handshake")
        raise HandshakeFailed(f"TLS handshake: {gone}") from None
    except TimeoutError:
        handshake.port.abort("TLS handshake")
        raise TimeoutError(f"TLS handshake after {timeout:g} s") from None
    except BaseException:
        handshake.port.abort("TLS handshake")
        raise


class _Handshake:
    """One side of it; *deadline* is monotonic."""

    def __init__(self, port: Port, wrap: Wrap, deadline: float) -> None:
        self.port = BlockingPort(port, looks=True)
        self._deadline = deadline
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = wrap(self._incoming, self._outgoing)

    def run(self) -> TlsPort:
        """Raises SSLError, TimeoutError, ClientGone, PlainText."""
        if self._session.server_side:
            self._receive_hello()
        while not self._step():
            self._incoming.write(self._receive())
        below, unread = self.port.detach()
        return TlsPort(below, self._session, self._incoming, self._outgoing, unread)

    def _step(self) -> bool:
        """As far as it goes with what has come; whether it is done."""
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            if self._outgoing.pending:  # an alert, where it has failed
                self.port.send(self._outgoing.read(), self._left())
        return True

    def _receive_hello(self) -> None:
        data = self._receive()
        if data[:1].isalpha():  # a method's name; TLS begins with a control character
            self.port.unread(data)
            raise PlainText(self.port)
        self._incoming.write(data)

    def _receive(self) -> bytes:
        data = self.port.recv(self._left())
        if not data:
            raise ClientGone("the other side has left")
        self.port.unread(data[RECORD:])  # see TlsPort._decrypt_pieces
        return data[:RECORD]

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def connect_tls(port: Port, context: ssl.SSLContext, name: str, timeout: float) -> TlsPort:
    """*port*, just connected, with TLS over it; the other side has to show that it is *name*.

    Raises OSError: TimeoutError after *timeout* seconds, 0 for none, or HandshakeFailed.
    """

    def wrap(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        return context.wrap_bio(incoming, outgoing, server_hostname=name)

    return secure(port, wrap, timeout or float("inf"))


# -- the port ---------------------------------------------------------------------------------


class TlsPort:
    """What is written is encrypted and goes to the port below; what that hears is decrypted.

    ``bytes_in`` and ``bytes_out`` count what is inside the records.  The end of the connection
    below without close_notify is an end of input where we serve; where we ask it is a failure,
    since an answer could have been cut short (RFC 9112 section 9.8).
    """

    __slots__ = (
        "_below",
        "_choked",
        "_closed_why",
        "_end_is_told",
        "_failure",
        "_has_ended",
        "_held",
        "_incoming",
        "_is_deaf",
        "_listener",
        "_marked_below",
        "_marked_written",
        "_outgoing",
        "_paused",
        "_session",
        "_wrote_eof",
        "_written",
        "bytes_in",
    )

    def __init__(
        self,
        below: Port,
        session: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        unread: bytes = b"",
    ) -> None:
        """Take over *below*, whose handshake is done; *unread* has come from it.

        Nothing is read before ``attach``.
        """
        self._below = below
        self._session = session
        self._incoming = incoming
        self._outgoing = outgoing
        self._listener: Listener = _NOBODY
        self._held: bytearray | None = None
        self._paused = True
        self._choked = False
        self._has_ended = self._end_is_told = False
        self._failure = ""
        self._is_deaf = False  # nothing that comes counts any more (RFC 8446 section 6.1)
        self._wrote_eof = False
        self._closed_why: str | None = None
        self.bytes_in = 0
        self._written = self._marked_written = self._marked_below = 0
        below.attach(self)
        below.pause()
        self.on_data(unread)

    @property
    def session(self) -> ssl.SSLObject:
        return self._session

    @property
    def queued(self) -> int:
        return self._below.queued

    @property
    def bytes_out(self) -> int:
        """Moves when the system takes something, never otherwise; exact when nothing is queued."""
        return min(self._written, self._marked_written + self._below.bytes_out - self._marked_below)

    @property
    def peer(self) -> Peer:
        """How the other side is, as far as the port below can tell."""
        peer: Peer = getattr(self._below, "peer", Peer.OPEN)
        return peer

    @property
    def is_readable(self) -> bool:
        """Whether anything has come that nobody has heard of; also after the end or a loss."""
        if self._held or self._has_ended or self._closed_why is not None:
            return True
        return bool(getattr(self._below, "is_readable", False))

    def attach(self, listener: Listener) -> None:
        self._listener = listener
        self.bytes_in = 0
        self._written = self._marked_written = 0
        self._marked_below = self._below.bytes_out
        if self._closed_why is not None:
            get_hub().loop.run_callback(listener.on_close, self._closed_why)
            return
        self._end_is_told = False
        self.resume()

    # -- reading ---------------------------------------------------------------------------------

    def pause(self) -> None:
        self._paused = True
        self._below.pause()

    def resume(self) -> None:
        self._paused = False
        if self._held or (self._has_ended and not self._end_is_told):
            get_hub().loop.run_callback(self._catch_up)
        self._read_on()

    def _read_on(self) -> None:
        if not (self._paused or self._choked or self._is_deaf):
            self._below.resume()

    def _catch_up(self) -> None:
        """In the loop: what could not be told when it came."""
        try:
            if self._held and not self._paused:
                held, self._held = self._held, None
                self._hand_on(memoryview(held))
            if self._has_ended:
                self._tell_end()
        except Exception:
            log.exception("port: listener failed")
            self.abort("internal error")

    def on_data(self, data: Buffer) -> None:
        """From below: decrypt it all."""
        if len(data) <= RECORD:
            self._incoming.write(data)
            filled = self._decrypt(0)
        else:
            filled = self._decrypt_pieces(data)
        if filled:
            self._hand_on(_PLAIN[:filled])
        if self._failure:
            self._fail(self._failure)
            return
        if not self._flush():
            # Answers to a client that asks for them and does not read them.
            self._choked = True
            self._below.pause()
        if self._has_ended:
            self._below.pause()
            self._tell_end()

    def _decrypt_pieces(self, data: Buffer) -> int:
        """In pieces, since a MemoryBIO never gives back what it has once grown to."""
        filled = 0
        for start in range(0, len(data), RECORD):
            self._incoming.write(data[start : start + RECORD])
            filled = self._decrypt(filled)
        return filled

    def _decrypt(self, filled: int) -> int:
        """Read what records are complete into the shared buffer, behind *filled* bytes there; how
        many there are then."""
        while self._incoming.pending and not self._is_deaf:
            if filled > len(_PLAIN) - RECORD:
                self._hand_on(_PLAIN[:filled])
                filled = 0
            try:
                count = cast(int, self._session.read(RECORD, _PLAIN[filled:]))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                count = 0
            except ssl.SSLError as error:
                self._failure = _reason(error)
                self._is_deaf = True
                break
            if not count:
                self._has_ended = self._is_deaf = True
            filled += count
        return filled

    def _hand_on(self, data: memoryview) -> None:
        if self._closed_why is not None:
            return
        if self._paused or self._held:
            self._held = (self._held or bytearray()) + data
            return
        self.bytes_in += len(data)
        self._listener.on_data(data)

    def _tell_end(self) -> None:
        if not (self._paused or self._held or self._end_is_told) and self._closed_why is None:
            self._end_is_told = True
            self._listener.on_eof()

    def on_eof(self) -> None:
        """From below."""
        if self._has_ended:
            return
        if not self._session.server_side:
            self._fail("TLS ended without close_notify")
            return
        self._has_ended = self._is_deaf = True
        self._tell_end()

    # -- writing ---------------------------------------------------------------------------------

    def write(self, data: Buffer) -> bool:
        size, below = len(data), self._below
        if not size or self._wrote_eof or self._closed_why is not None:
            return True
        if not below.queued:
            self._marked_written, self._marked_below = self._written, below.bytes_out
        self._written += size
        try:
            if size <= RECORD:
                self._session.write(data)
                return self._flush()
            return below.write(b"".join(self._encrypt(memoryview(data))))
        except ssl.SSLError as error:
            # Whoever called is in the middle of something: he hears of it from the loop.
            get_hub().loop.run_callback(self._fail, _reason(error))
            return True

    def _encrypt(self, data: memoryview) -> list[bytes]:
        """The records of *data*, each taken out at once: see ``_decrypt_pieces``."""
        records = []
        for start in range(0, len(data), RECORD):
            self._session.write(data[start : start + RECORD])
            records.append(self._outgoing.read())
        return records

    def _flush(self) -> bool:
        return not self._outgoing.pending or self._below.write(self._outgoing.read())

    def on_drain(self) -> None:
        """From below."""
        if self._choked:
            self._choked = False
            self._read_on()
        self._listener.on_drain()

    def write_eof(self) -> None:
        if self._wrote_eof or self._closed_why is not None:
            return
        self._wrote_eof = True
        with suppress(ssl.SSLError):  # SSLWantReadError is one: the answer may come, or not
            self._session.unwrap()
        self._flush()
        self._below.write_eof()

    # -- the end ---------------------------------------------------------------------------------

    def close(self, linger: float = 5.0) -> None:
        if self._closed_why is None:
            self.write_eof()
            self._below.close(linger)

    def abort(self, why: str) -> None:
        self._below.abort(why)

    def on_close(self, why: str) -> None:
        """From below."""
        self._over(why)

    def _fail(self, why: str) -> None:
        """What came was no TLS, or not all of it: the alert goes out, the port is closed."""
        if self._closed_why is None:
            self._flush()
            self._over(why)
            self._below.close(ALERT_LINGER)

    def _over(self, why: str) -> None:
        if self._closed_why is None:
            self._closed_why = why
            self._is_deaf = True
            self._held = None
            listener, self._listener = self._listener, _NOBODY
            listener.on_close(why)


def _reason(error: ssl.SSLError) -> str:
    """Without the place in OpenSSL's source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    return (error.reason or error.strerror or str(error)).replace("_", " ").lower()
