"""The live tunnels of a worker: counted, swept once a second, ended when the worker ends."""

from __future__ import annotations

from random import random

from ..metrics import Column
from ..net.sweep import sweep
from ..net.tunnel_handle import CLOSE_GOING_AWAY, TunnelHandle
from ..scoreboard import Row


class TunnelSet:
    """What ``gateway.base.Tunnels`` asks for, over this worker's scoreboard row."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._live: set[TunnelHandle] = set()
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._live)

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def add(self, tunnel: TunnelHandle) -> None:
        self._live.add(tunnel)
        self._row.add(Column.TUNNELS)
        self._row.add(Column.TUNNELS_OPENED)

    def discard(self, tunnel: TunnelHandle) -> None:
        if tunnel in self._live:
            self._live.remove(tunnel)
            self._row.add(Column.TUNNELS, -1)

    def sweep(self, elapsed: int) -> None:
        """Time-outs and pings; *elapsed* whole seconds since the last call."""
        sweep(self._live, elapsed)

    def finish(self) -> None:
        """A graceful stop: end of input to every backend, its last output delivered, 1001."""
        for tunnel in list(self._live):
            tunnel.finish()

    def expire(self, share: float) -> None:
        """Another generation serves: end each with probability *share*."""
        for tunnel in list(self._live):
            if random() < share:
                tunnel.expire()

    def close(self) -> None:
        """Close 1001 to every client, now."""
        for tunnel in list(self._live):
            tunnel.close(CLOSE_GOING_AWAY, "stop")

    def abort(self) -> None:
        """Cut what is left."""
        for tunnel in list(self._live):
            tunnel.abort("stop")
