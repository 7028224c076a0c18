"""The master as an object that is not run: what it keeps in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from master.conftest import a_config

from forkd.errors import StartError
from forkd.master.master import Master
from forkd.master.options import MasterOptions
from forkd.unix import signals
from forkd.unix.signals import SignalPipe


@pytest.fixture
def master() -> Iterator[Master]:
    nothing: Any = None
    options = MasterOptions("/x.pid", "/x.sock", nothing, nothing, nothing, nothing)
    one = Master(a_config(), options, nothing)
    yield one
    one.loop.close()


def a_generation(number: int) -> Any:
    return SimpleNamespace(
        number=number,
        stop=lambda: None,
        reopen_logs=lambda: (f"log of {number}",),
    )


def test_signals_that_wait_their_turn_are_not_lost_in_an_upgrade(master: Master) -> None:
    master._signals = SignalPipe((signal.SIGCHLD, signal.SIGTERM))
    os.kill(os.getpid(), signal.SIGCHLD)
    os.kill(os.getpid(), signal.SIGTERM)
    master._take()
    with signals.blocked():
        master._signals.give_back()
        assert signal.sigpending() == {signal.SIGTERM}
    master._signals.close()


def test_one_that_was_undone_is_not_taken_for_the_one_that_serves(master: Master) -> None:
    serves, undone = a_generation(1), a_generation(2)
    master.generations.append(serves)
    rollout: Any = SimpleNamespace(generation=undone)
    master._rolled_out(rollout, StartError("no"), lambda error: None)
    assert master.generations == [undone, serves]


def test_logs_of_a_generation_on_its_way_are_opened_anew_too(master: Master) -> None:
    master.generations.append(a_generation(1))
    coming: Any = SimpleNamespace(generation=a_generation(2))
    master._rollout = coming
    assert master.reopen_logs() == ("log of 1", "log of 2")
