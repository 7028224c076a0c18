"""When a death is early, and what it costs."""

from __future__ import annotations

import pytest

from forkd.master.backoff import PROC_CEILING, WORKER_CEILING, BackOff

# (seconds of life, served, failed) of each death in turn, and the delays they bring.  A process is
# started again as soon as its delay is over.
HISTORIES = [
    ("an ordinary end costs nothing", [(5.0, True, False)], [0]),
    ("nor does a crash after a while", [(5.0, True, True)], [0]),
    ("nor a quick end in order that served", [(0.2, True, False)], [0]),
    ("a quick failure does", [(0.2, True, True)], [1]),
    ("a quick end that served nobody does", [(0.2, False, False)], [1]),
    ("each time twice as much", [(0.1, False, True)] * 8, [1, 2, 4, 8, 16, 32, 60, 60]),
    ("the third exit within ten seconds", [(2.0, True, False)] * 5, [0, 0, 1, 2, 4]),
    ("but not when they are far apart", [(6.0, True, True)] * 6, [0] * 6),
    ("it remembers through a life that is short",
     [(0.1, False, True), (5.0, True, True), (0.1, False, True)], [1, 0, 2]),
    ("and forgets after a minute",
     [(0.1, False, True), (0.1, False, True), (61.0, True, True), (0.1, False, True)],
     [1, 2, 0, 1]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("history", "delays"), [one[1:] for one in HISTORIES], ids=[one[0] for one in HISTORIES]
)
def test_delays(history: list[tuple[float, bool, bool]], delays: list[float]) -> None:
    backoff, now, found = BackOff(PROC_CEILING), 1000.0, []
    for lived, served, failed in history:
        now += lived
        found.append(backoff.died(now, lived, served=served, failed=failed))
        now += found[-1]
    assert found == delays


def test_workers_wait_half_a_minute_at_most() -> None:
    backoff = BackOff(WORKER_CEILING)
    delays = [backoff.died(n * 100.0, 0.0, served=False, failed=True) for n in range(7)]
    assert delays == [1, 2, 4, 8, 16, 30, 30]
