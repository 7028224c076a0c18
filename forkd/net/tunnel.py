"""A live tunnel: two ports, a codec, back-pressure.  Callbacks only; no greenlet, no timer.

Who is paused while a queue is over its mark:

    backend's queue   the client: its bytes have nowhere to go
    client's queue    the backend, likewise; and the client: its pings make pongs, and who does
                      not read is not read

A codec that makes much of little input holds some of it back (``MORE``): meanwhile the client is
paused, too.

The two directions end apart where the codec lets them (a blind tunnel's half-close); the tunnel is
over when both ports are closed, and then ``on_close`` is called, once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gevent import get_hub

from ..protocol.tunnel import MORE, Buffer, End, TunnelCodec
from .port import Peer, Port
from .rated_port import MessageRate, RatedPort
from .tunnel_handle import (
    CLOSE_GOING_AWAY,
    CLOSE_INTERNAL,
    CLOSE_POLICY,
    CLOSE_RESTART,
    Clocks,
    OnTunnelClose,
    Traffic,
    TunnelHandle,
    TunnelTimes,
)

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
        "_client_held",
        "_client_open",
        "_codec",
        "_ending",
        "_judge",
        "_last_words",
        "_on_close",
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
        self._client_held = False  # the codec has some of what it sent, and goes on with that
        self._backend_stopped = False  # it is told nothing more
        self._ending = False
        self._last_words: tuple[int, str] | None = None  # once it is told to finish
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
        if self._backend_stopped:
            return
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
        if self._codec.peer_closed:  # it had said its last word, which is the true reason
            self._codec.close(0, self.reason)
            self.reason = self._codec.end.reason if self._codec.end is not None else self.reason
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
        if end is MORE or end.one_way or end.after_backend:
            self._codec.end = None
            self._half_end(end)
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

    def _half_end(self, end: End) -> None:
        """The codec is not done, but has stopped with what comes from one end."""
        if end is MORE:
            self._client_held = True
            self._client.pause()
            # Not a callback: the loop runs dozens of those before it looks at any descriptor.
            get_hub().loop.timer(0.0).start(self._go_on)
        elif end.one_way:
            self._client.write_eof()
            self._half_closed(end.reason)
        else:
            # The last answers of the backend go before our Close, unless it takes its time.
            self.finish()
            self._timer = get_hub().loop.timer(self.times.close)
            self._timer.start(self.close, CLOSE_GOING_AWAY, "stop")

    def _go_on(self) -> None:
        """Take more from the client, the codec's share first, where nothing is full."""
        if self._client_full or self._backend_full or self._ending:
            return
        if self._client_held:
            self._client_held = False
            _FromClient(self).on_data(b"")
        if not (self._client_held or self._client_full or self._backend_full):
            self._client.resume()

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
        if self._last_words is not None and not self._codec.peer_closed:
            self.close(*self._last_words)
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
        self._finish(CLOSE_GOING_AWAY, "stop")

    def expire(self) -> None:
        if not self._codec.passes_reset:
            self.close(CLOSE_RESTART, "drain")
        elif self._finish(CLOSE_RESTART, "drain"):
            self._timer = get_hub().loop.timer(self.times.close)
            self._timer.start(self.close, CLOSE_RESTART, "drain")

    def _finish(self, code: int, reason: str) -> bool:
        """Whether it had not been told before."""
        if self._ending or self._last_words is not None:
            return False
        self._last_words = code, reason
        self._stop_backend_input()
        return True

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
            tunnel._go_on()

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
            tunnel._go_on()

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
    rate: MessageRate | None = None,
) -> TunnelHandle:
    """Start relaying; the one place that decides which machinery does it.

    *early* came from the client behind its request, *unread* from the backend behind its head,
    both for *codec*; before all else *greeting* goes to the client as it is.  *on_close* is called
    once, when both ports are closed.  *rate* is for the messages of a WebSocket client.
    """
    rated = RatedPort(client, rate, early) if rate is not None else None
    tunnel = Tunnel(rated or client, backend, codec, times, on_close, judge)
    if rated is not None:
        rated.on_excess = partial(tunnel.close, CLOSE_POLICY, "message_rate")
        early = b""  # it comes from there
    tunnel.start(early, unread, greeting)
    return tunnel


def _forget(tunnel: TunnelHandle) -> None:
    """Stands where ``on_close`` was."""
