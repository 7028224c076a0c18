"""A port whose client may say only so many messages a second: a layer over its real port.

Between a tunnel and its client only where a rate is configured, so that others pay nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gevent import get_hub

from ..protocol.message_meter import MessageMeter
from ..protocol.tunnel import Buffer
from .port import Listener, Nobody, Peer, Port

TURNS = 20  # a second, at most: many messages go by at once where many may


@dataclass(frozen=True, slots=True)
class MessageRate:
    """A token bucket that begins full."""

    per_second: int
    """Also how many may come at once after a second of silence."""
    closes: bool = False
    """Whether more of them end the tunnel, rather than wait."""


class RatedPort:
    """*port* with what comes from it held to *rate*.

    What is over the rate waits here, at most what one read brings, and nothing more is read; or
    ``on_excess`` is called, once, and the rest is dropped.  *early* has come already.
    """

    __slots__ = (
        "_clock",
        "_ended",
        "_held",
        "_listener",
        "_meter",
        "_paused",
        "_port",
        "_rate",
        "_seen",
        "_timer",
        "_tokens",
        "on_excess",
        "write",
    )

    def __init__(
        self,
        port: Port,
        rate: MessageRate,
        early: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_excess: Callable[[], None] | None = None
        self.write: Callable[[Buffer], bool] = port.write
        self._port = port
        self._rate = rate
        self._clock = clock
        self._seen = clock()
        self._tokens = float(rate.per_second)
        self._meter = MessageMeter()
        self._listener: Listener = _NOBODY
        self._held = bytearray(early)
        self._ended = False  # an end came behind what is held, or in a pause
        self._paused = True
        self._timer: Any = None

    # -- the port -------------------------------------------------------------------------------

    @property
    def bytes_in(self) -> int:
        """Less what is held, so below 0 while that came early: for a client that is slowed it
        grows as its messages go by."""
        return self._port.bytes_in - len(self._held)

    @property
    def bytes_out(self) -> int:
        return self._port.bytes_out

    @property
    def queued(self) -> int:
        return self._port.queued

    @property
    def peer(self) -> Peer | None:
        """As the port below has it, where it has it."""
        return getattr(self._port, "peer", None)

    def attach(self, listener: Listener) -> None:
        self._listener = listener
        self._port.attach(self)
        self._port.pause()
        self.resume()

    def pause(self) -> None:
        self._paused = True
        self._port.pause()

    def resume(self) -> None:
        self._paused = False
        if self._held or self._ended:
            if self._timer is None:
                self._wait(0.0)
        else:
            self._port.resume()

    def write_eof(self) -> None:
        self._port.write_eof()

    def close(self, linger: float = 5.0) -> None:
        self._forget()
        self._port.close(linger)

    def abort(self, why: str) -> None:
        self._forget()
        self._port.abort(why)

    # -- what the port below says ---------------------------------------------------------------

    def on_data(self, data: Buffer) -> None:
        if self._held:
            self._held += data
            self._port.pause()
        else:
            self._pass(data)

    def on_eof(self) -> None:
        if self._held or self._paused:
            self._ended = True
        else:
            self._listener.on_eof()

    def on_drain(self) -> None:
        self._listener.on_drain()

    def on_close(self, why: str) -> None:
        self._forget()
        self._listener.on_close(why)

    # -- the rate -------------------------------------------------------------------------------

    def _pass(self, data: Buffer) -> None:
        """Hand on what there are tokens for; the rest waits, or is too much."""
        now = self._clock()
        limit = self._rate.per_second
        self._tokens = min(limit, self._tokens + (now - self._seen) * limit)
        self._seen = now
        view = memoryview(data)
        size, messages = self._meter.cut(view, int(self._tokens))
        self._tokens -= messages
        if size < len(view):
            # Before the listener is called, which may pause or close this port.
            self._held += view[size:]
            self._port.pause()
        if size:
            self._listener.on_data(view[:size])
        if self._held:
            self._over()

    def _over(self) -> None:
        if self._rate.closes:
            self._forget()
            on_excess, self.on_excess = self.on_excess, None
            if on_excess is not None:
                on_excess()
        else:
            turn = max(1.0, self._rate.per_second / TURNS)
            self._wait((turn - self._tokens) / self._rate.per_second)

    def _wait(self, seconds: float) -> None:
        self._timer = get_hub().loop.timer(seconds)
        self._timer.start(self._go_on, update=True)

    def _go_on(self) -> None:
        self._stop_timer()
        if self._held and not self._paused:
            data, self._held = self._held, bytearray()
            self._pass(data)
        if self._held or self._paused:
            return
        if self._ended:
            self._ended = False
            self._listener.on_eof()
        else:
            self._port.resume()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _forget(self) -> None:
        self._stop_timer()
        self._held = bytearray()
        self._ended = False


_NOBODY = Nobody()
