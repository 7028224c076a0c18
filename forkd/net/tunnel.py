"""A live tunnel: two ports, a codec, back-pressure.  Callbacks only; no greenlet, no timer.

Who is paused while a queue is over its mark:

    backend's queue   the client: its bytes have nowhere to go
    client's queue    the backend, likewise; and the client: its pings make pongs, and who does
                      not read is not read

The two directions end apart where the codec lets them (a blind tunnel's half-close); the tunnel is
over when both ports are closed, and then ``on_close`` is called, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gevent import get_hub

from ..protocol.tunnel import Buffer, End, TunnelCodec
from .port import Port

CLOSE_GOING_AWAY = 1001  # RFC 6455 section 7.4.1
CLOSE_INTERNAL = 1011


class Traffic(NamedTuple):
    """Bytes of a tunnel so far; ``client_out`` counts what the system took."""

    client_in: int
    client_out: int
    client_queued: int
    backend_in: int
    backend_out: int
    backend_queued: int


@dataclass(frozen=True, slots=True)
class TunnelTimes:
    """Seconds; 0 is none.  Shared by all tunnels of one configuration."""

    idle: float = 60
    """No byte in either direction for longer: Close 1001."""
    write_idle: float = 360
    """Bytes wait for the client, and it takes none for longer: cut."""
    backend_read: float = 0
    """The backend sends nothing for longer: Close 1011."""
    backend_write: float = 0
    """Bytes wait for the backend, and it takes none for longer: Close 1011."""
    ping_interval: float = 0
    pong: float = 0
    close: float = 5
    """How long the other side's end is awaited after ours."""


class Clocks:
    """What the once-a-second pass remembers of a tunnel (``net.sweep``); seconds."""

    __slots__ = (
        "backend_quiet",
        "backend_stuck",
        "client_stuck",
        "idle",
        "last",
        "ping",
        "pong",
        "pongs",
    )

    def __init__(self) -> None:
        self.idle = self.client_stuck = self.backend_quiet = self.backend_stuck = 0
        self.ping = 0
        self.pong: int | None = None
        """Since the first ping that is still unanswered; None when all are."""
        self.pongs = 0
        self.last: Traffic | None = None


class TunnelHandle(Protocol):
    """What everybody above sees of a tunnel, whichever machinery moves its bytes."""

    reason: str
    """Why it ended, one true reason; "" while both directions live."""
    times: TunnelTimes
    clocks: Clocks

    @property
    def code(self) -> int:
        """The close code sent to the client, 0 for none."""

    @property
    def traffic(self) -> Traffic: ...

    @property
    def messages(self) -> tuple[int, int]:
        """Whole messages (from client, from backend)."""

    @property
    def pongs(self) -> int: ...

    def ping(self) -> bool:
        """Send a keep-alive; False when the client cannot take one now or has none."""

    def close(self, code: int, reason: str) -> None:
        """Tell the client with *code* where the protocol can, and end."""

    def finish(self) -> None:
        """End of input to the backend now; what it still sends is delivered, then 1001."""

    def abort(self, why: str) -> None:
        """Cut both ends."""


OnTunnelClose = Callable[[TunnelHandle], None]
Judge = Callable[[Callable[[bool], None]], None]
"""Asked when the backend's stream ends: calls back, once, with whether it ended well."""


class Tunnel:
    """Bytes from *client* go through *codec* to *backend*, and back."""

    __slots__ = (
        "_backend",
        "_backend_full",
        "_backend_open",
        "_client",
        "_client_base",
        "_client_full",
        "_client_open",
        "_codec",
        "_codec_from_backend",
        "_codec_from_client",
        "_ending",
        "_judge",
        "_on_close",
        "_stopping",
        "_timer",
        "_write_backend",
        "_write_client",
        "clocks",
        "reason",
        "times",
    )

    def __init__(
        self,
        client: Port,
        backend: Port,
        codec: TunnelCodec,
        times: TunnelTimes,
        on_close: OnTunnelClose,
        judge: Judge | None = None,
    ) -> None:
        self._client = client
        self._backend = backend
        self._codec = codec
        self._codec_from_client = codec.from_client
        self._codec_from_backend = codec.from_backend
        self._write_client = client.write
        self._write_backend: Callable[[Buffer], bool] = backend.write
        self._on_close = on_close
        self._judge = judge
        # An end is full while its queue is over the mark, open until its port has closed.
        self._client_full = self._backend_full = False
        self._client_open = self._backend_open = True
        self._ending = self._stopping = False
        self._timer: Any = None
        self._client_base = (client.bytes_in, client.bytes_out)
        self.times = times
        self.clocks = Clocks()
        self.reason = ""

    def start(self, early: bytes, unread: bytes) -> None:
        """Take both ports over; *early* came from the client before, *unread* from the backend."""
        self._backend.attach(
            self._from_backend, self._backend_eof, self._backend_drained, self._backend_closed
        )
        self._client.attach(
            self._from_client, self._client_eof, self._client_drained, self._client_closed
        )
        if early:
            self._from_client(early)
        if unread:
            self._from_backend(unread)

    # -- what is known of it ---------------------------------------------------------------------

    @property
    def traffic(self) -> Traffic:
        client, backend = self._client, self._backend
        base_in, base_out = self._client_base
        return Traffic(
            client.bytes_in - base_in,
            client.bytes_out - base_out,
            client.queued,
            backend.bytes_in,
            backend.bytes_out,
            backend.queued,
        )

    @property
    def messages(self) -> tuple[int, int]:
        return self._codec.messages

    @property
    def pongs(self) -> int:
        return self._codec.pongs

    @property
    def code(self) -> int:
        end = self._codec.end
        return end.code if end is not None else 0

    # -- data ------------------------------------------------------------------------------------

    def _from_client(self, data: Buffer) -> None:
        to_client, to_backend = self._codec_from_client(data)
        if to_backend and not self._write_backend(to_backend):
            self._backend_full = True
            self._client.pause()
        if to_client and not self._write_client(to_client):
            self._client_filled()
        if self._codec.end is not None:
            self._end(self._codec.end)

    def _from_backend(self, data: Buffer) -> None:
        to_client, to_backend = self._codec_from_backend(data)
        if to_client and not self._write_client(to_client):
            self._client_filled()
        if to_backend:
            self._write_backend(to_backend)
        if self._codec.end is not None:
            self._end(self._codec.end)

    def _client_filled(self) -> None:
        self._client_full = True
        self._client.pause()
        self._backend.pause()

    def _client_drained(self) -> None:
        if self._client_full:
            self._client_full = False
            self._backend.resume()
            if not self._backend_full:
                self._client.resume()

    def _backend_drained(self) -> None:
        if self._backend_full:
            self._backend_full = False
            if not self._client_full:
                self._client.resume()

    # -- ends of streams -------------------------------------------------------------------------

    def _client_eof(self) -> None:
        if self._ending:
            self._client.close(self.times.close)
            return
        to_client, to_backend = self._codec.client_eof()
        self._say(to_client, to_backend)
        if self._codec.end is None:
            self._stop_backend_input()
            self._half_closed("client_eof")

    def _backend_eof(self) -> None:
        if self._judge is None:
            self._backend_ended(True)
        else:
            self._judge(self._backend_ended)

    def _backend_ended(self, well: bool) -> None:
        if self._ending:
            return
        if self._stopping:
            self.close(CLOSE_GOING_AWAY, "stop")
        elif not well:
            self.close(CLOSE_INTERNAL, "backend_died")
        else:
            to_client, to_backend = self._codec.backend_eof()
            self._say(to_client, to_backend)
            if self._codec.end is None:
                self._client.write_eof()
                self._half_closed("backend_eof")

    def _half_closed(self, reason: str) -> None:
        """One direction is over; after the second the tunnel is, and the first was the reason."""
        if not self.reason:
            self.reason = reason
        else:
            self._ending = True
            self._client.close(self.times.close)
            self._backend.close(self.times.close)

    def _client_closed(self, why: str) -> None:
        self._client_open = False
        if not self._ending:
            self._ending = True
            self.reason = f"client_lost:{why}"
            self._backend.close(self.times.close)
        self._over_if_closed()

    def _backend_closed(self, why: str) -> None:
        self._backend_open = False
        if not self._ending:
            self.close(CLOSE_INTERNAL, f"backend_lost:{why}")
        self._over_if_closed()

    def _say(self, to_client: Buffer, to_backend: Buffer) -> None:
        """The last words of a codec, and what they mean."""
        if to_backend:
            self._write_backend(to_backend)
        if to_client:
            self._write_client(to_client)
        if self._codec.end is not None:
            self._end(self._codec.end)

    def _stop_backend_input(self) -> None:
        self._write_backend = _taken
        self._backend.write_eof()

    # -- the end of the tunnel -------------------------------------------------------------------

    def _end(self, end: End) -> None:
        """The codec is done: the backend gets its EOF, the client a time to answer its Close."""
        if not self._ending:
            self._ending = True
            self.reason = end.reason
            self._write_backend = _taken
            self._backend.close(self.times.close)
            if end.await_peer and not self._codec.peer_closed:
                self._client.resume()
                self._timer = get_hub().loop.timer(self.times.close)
                self._timer.start(self._client.close, 0.0)
                return
        if self._codec.peer_closed or not end.await_peer:
            self._client.close(self.times.close)

    def _over_if_closed(self) -> None:
        if self._client_open or self._backend_open:
            return
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        on_close, self._on_close = self._on_close, _forget
        on_close(self)

    def ping(self) -> bool:
        # A client that is not being read could not be heard answering.
        if self._ending or self._client_full or self._backend_full:
            return False
        data = self._codec.ping()
        if data:
            self._write_client(data)
        return bool(data)

    def close(self, code: int, reason: str) -> None:
        if not self._ending:
            self._say(self._codec.close(code, reason), b"")

    def finish(self) -> None:
        if not self._ending and not self._stopping:
            self._stopping = True
            self._stop_backend_input()

    def abort(self, why: str) -> None:
        if not self._ending:
            self._ending = True
            self.reason = why
        self._client.abort(why)
        self._backend.abort(why)


def start_tunnel(
    client: Port,
    backend: Port,
    codec: TunnelCodec,
    times: TunnelTimes,
    on_close: OnTunnelClose,
    early: bytes = b"",
    unread: bytes = b"",
    judge: Judge | None = None,
) -> TunnelHandle:
    """Start relaying; the one place that decides which machinery does it.

    *early* came from the client behind its request, *unread* from the backend behind its head.
    *on_close* is called once, when both ports are closed.
    """
    tunnel = Tunnel(client, backend, codec, times, on_close, judge)
    tunnel.start(early, unread)
    return tunnel


def _taken(data: Buffer) -> bool:
    """Writes to a backend that wants no more."""
    return True


def _forget(tunnel: TunnelHandle) -> None:
    """Stands where ``on_close`` was."""
