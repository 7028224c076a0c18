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
from .port import Peer, Port

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

    def look(self) -> None:
        """End the tunnel if its client was lost while nobody could hear of it."""

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
        "_backend_stopped",
        "_client",
        "_client_full",
        "_client_open",
        "_codec",
        "_ending",
        "_judge",
        "_on_close",
        "_stopping",
        "_timer",
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
        self._on_close = on_close
        self._judge = judge
        # An end is full while its queue is over the mark, open until its port has closed.
        self._client_full = self._backend_full = False
        self._client_open = self._backend_open = True
        self._backend_stopped = False  # it is told nothing more
        self._ending = self._stopping = False
        self._timer: Any = None
        self.times = times
        self.clocks = Clocks()
        self.reason = ""

    def start(self, early: bytes, unread: bytes, greeting: bytes) -> None:
        """Take both ports over; *early* came from the client before, *unread* from the backend,
        and *greeting* too, but it is past the codec."""
        self._backend.attach(from_backend := _FromBackend(self))
        self._client.attach(from_client := _FromClient(self))
        if greeting and not self._client.write(greeting):
            self._client_full = True
            self._client.pause()
            self._backend.pause()
        if early:
            from_client.on_data(early)
        if unread:
            from_backend.on_data(unread)
        if self._codec.end is not None:
            self._end(self._codec.end)

    # -- what is known of it ---------------------------------------------------------------------

    @property
    def traffic(self) -> Traffic:
        client, backend = self._client, self._backend
        return Traffic(
            client.bytes_in,
            client.bytes_out,
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

    # -- the end ---------------------------------------------------------------------------------

    def _say(self, to_client: Buffer, to_backend: Buffer) -> None:
        """The last words of a codec, and what they mean."""
        if to_backend and not self._backend_stopped:
            self._backend.write(to_backend)
        if to_client:
            self._client.write(to_client)
        if self._codec.end is not None:
            self._end(self._codec.end)

    def _stop_backend_input(self) -> None:
        self._backend_stopped = True
        last_words = self._codec.end_of_input
        if last_words is None:
            self._backend.write_eof()
        else:
            self._backend.write(last_words)

    def _abandon_backend(self) -> None:
        """Nobody wants its output."""
        if self._codec.loss:
            self._backend.write(self._codec.loss)

    def _client_lost(self, why: str) -> None:
        self._ending = True
        self.reason = f"client_lost:{why}"
        if why and self._codec.passes_reset and not self._codec.loss:
            self._backend.abort(why)
        else:
            self._abandon_backend()
            self._backend.close(self.times.close)

    def _backend_lost(self, why: str) -> None:
        reason = f"backend_lost:{why}"
        if why and self._codec.passes_reset:
            self._ending = True
            self.reason = reason
            self._client.abort(why)
        else:
            self.close(CLOSE_INTERNAL, reason)

    def _end(self, end: End) -> None:
        """The codec is done: the backend gets its EOF, the client a time to answer its Close."""
        if end.one_way:
            self._codec.end = None
            self._client.write_eof()
            self._half_closed(end.reason)
            return
        if not self._ending:
            self._ending = self._backend_stopped = True
            self.reason = end.reason
            self._backend.close(self.times.close)
            if end.await_peer and not self._codec.peer_closed:
                self._client.resume()
                self._timer = get_hub().loop.timer(self.times.close)
                self._timer.start(self._client.close, 0.0)
                return
        if self._codec.peer_closed or not end.await_peer:
            self._client.close(self.times.close)

    def _half_closed(self, reason: str) -> None:
        """One direction is over; after the second the tunnel is, and the first was the reason."""
        if not self.reason:
            self.reason = reason
        else:
            self._ending = True
            self._client.close(self.times.close)
            self._backend.close(self.times.close)

    def _backend_ended(self, well: bool) -> None:
        if self._ending:
            return
        if self._stopping:
            self.close(CLOSE_GOING_AWAY, "stop")
        elif not well:
            self.close(CLOSE_INTERNAL, "backend_died")
        else:
            self._say(*self._codec.backend_eof())
            if self._codec.end is None:
                self._client.write_eof()
                self._half_closed("backend_eof")

    def _over_if_closed(self) -> None:
        if self._client_open or self._backend_open:
            return
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        on_close, self._on_close = self._on_close, _forget
        on_close(self)

    # -- the handle ------------------------------------------------------------------------------

    def ping(self) -> bool:
        # A client that is not being read could not be heard answering.
        if self._ending or self._client_full or self._backend_full:
            return False
        data = self._codec.ping()
        if data:
            self._client.write(data)
        return bool(data)

    def close(self, code: int, reason: str) -> None:
        if not self._ending:
            self._abandon_backend()
            self._say(self._codec.close(code, reason), b"")

    def finish(self) -> None:
        if not self._ending and not self._stopping:
            self._stopping = True
            self._stop_backend_input()

    def look(self) -> None:
        # A port that is paused hears nothing, and a backend may be full for ever.
        if self._backend_full and getattr(self._client, "peer", None) is Peer.LOST:
            self._client.abort("connection lost")

    def abort(self, why: str) -> None:
        if not self._ending:
            self._ending = True
            self.reason = why
        self._client.abort(why)
        self._backend.abort(why)


class _FromClient:
    """Hears the client's port."""

    __slots__ = ("_tunnel",)

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def on_data(self, data: Buffer) -> None:
        tunnel = self._tunnel
        to_client, to_backend = tunnel._codec.from_client(data)
        if to_backend and not tunnel._backend_stopped and not tunnel._backend.write(to_backend):
            tunnel._backend_full = True
            tunnel._client.pause()
        if to_client and not tunnel._client.write(to_client):
            tunnel._client_full = True
            tunnel._client.pause()
            tunnel._backend.pause()
        if tunnel._codec.end is not None:
            tunnel._end(tunnel._codec.end)

    def on_eof(self) -> None:
        tunnel = self._tunnel
        if tunnel._ending:
            tunnel._client.close(tunnel.times.close)
            return
        tunnel._say(*tunnel._codec.client_eof())
        if tunnel._codec.end is None:
            tunnel._stop_backend_input()
            tunnel._half_closed("client_eof")

    def on_drain(self) -> None:
        tunnel = self._tunnel
        if tunnel._client_full:
            tunnel._client_full = False
            tunnel._backend.resume()
            if not tunnel._backend_full:
                tunnel._client.resume()

    def on_close(self, why: str) -> None:
        tunnel = self._tunnel
        tunnel._client_open = False
        if not tunnel._ending:
            tunnel._client_lost(why)
        tunnel._over_if_closed()


class _FromBackend:
    """Hears the backend's port."""

    __slots__ = ("_tunnel",)

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def on_data(self, data: Buffer) -> None:
        tunnel = self._tunnel
        to_client, to_backend = tunnel._codec.from_backend(data)
        if to_client and not tunnel._client.write(to_client):
            tunnel._client_full = True
            tunnel._client.pause()
            tunnel._backend.pause()
        if to_backend and not tunnel._backend_stopped:
            tunnel._backend.write(to_backend)
        if tunnel._codec.end is not None:
            tunnel._end(tunnel._codec.end)

    def on_eof(self) -> None:
        tunnel = self._tunnel
        if tunnel._judge is None:
            tunnel._backend_ended(True)
        else:
            tunnel._judge(tunnel._backend_ended)

    def on_drain(self) -> None:
        tunnel = self._tunnel
        if tunnel._backend_full:
            tunnel._backend_full = False
            if not tunnel._client_full:
                tunnel._client.resume()

    def on_close(self, why: str) -> None:
        tunnel = self._tunnel
        tunnel._backend_open = False
        if not tunnel._ending:
            tunnel._backend_lost(why)
        tunnel._over_if_closed()


def start_tunnel(
    client: Port,
    backend: Port,
    codec: TunnelCodec,
    times: TunnelTimes,
    on_close: OnTunnelClose,
    early: bytes = b"",
    unread: bytes = b"",
    greeting: bytes = b"",
    judge: Judge | None = None,
) -> TunnelHandle:
    """Start relaying; the one place that decides which machinery does it.

    *early* came from the client behind its request, *unread* from the backend behind its head,
    both for *codec*; before all else *greeting* goes to the client as it is.  *on_close* is called
    once, when both ports are closed.
    """
    tunnel = Tunnel(client, backend, codec, times, on_close, judge)
    tunnel.start(early, unread, greeting)
    return tunnel


def _forget(tunnel: TunnelHandle) -> None:
    """Stands where ``on_close`` was."""
