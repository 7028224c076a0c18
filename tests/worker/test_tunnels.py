"""The tunnels of a worker: how many there are, and how they end together."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.metrics import Column
from forkd.scoreboard import LAYOUT, Board
from forkd.worker.tunnels import TunnelSet
from forkd.worker.worker import EXPIRY_PACE


class FakeTunnel:
    def __init__(self, live: TunnelSet) -> None:
        self._live = live

    def expire(self) -> None:
        self._live.discard(self)  # type: ignore[arg-type]


@pytest.fixture
def board() -> Board:
    return Board(bytearray(LAYOUT.size(2, 0)), 1, 2, ())


def filled(board: Board, count: int) -> TunnelSet:
    live = TunnelSet(board.claim(1))
    for _ in range(count):
        tunnel: Any = FakeTunnel(live)
        live.add(tunnel)
    return live


def test_every_tunnel_is_counted_once(board: Board) -> None:
    live = filled(board, 3)
    row = board.mine
    assert (len(live), row[Column.TUNNELS], row[Column.TUNNELS_OPENED]) == (3, 3, 3)
    tunnel = next(iter(live._live))
    live.discard(tunnel)
    live.discard(tunnel)
    assert (len(live), row[Column.TUNNELS], row[Column.TUNNELS_OPENED]) == (2, 2, 3)


def test_ends_are_spread_evenly_over_the_time(board: Board) -> None:
    """As the worker asks for it: every share is that of what is left of the time."""
    live = filled(board, 4000)
    left, ended = 1.0, []
    while live:
        before = len(live)
        live.expire(EXPIRY_PACE / left if left > EXPIRY_PACE else 1.0)
        ended.append(before - len(live))
        left -= EXPIRY_PACE
    assert 9 <= len(ended) <= 11  # the binary fractions of ten tenths are not one
    assert all(250 < count < 550 for count in ended[:9]), ended
