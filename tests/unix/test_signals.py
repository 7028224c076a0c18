"""The self-pipe and the masks, with real signals."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from forkd.unix import signals
from forkd.unix.signals import SignalPipe


@pytest.fixture
def pipe() -> Iterator[SignalPipe]:
    one = SignalPipe((signal.SIGUSR1, signal.SIGUSR2))
    yield one
    one.close()


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_signals_are_taken_in_their_order(pipe: SignalPipe) -> None:
    assert not is_readable(pipe.fd)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        signal.raise_signal(number)
    assert is_readable(pipe.fd)
    assert pipe.take() == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1]
    assert not is_readable(pipe.fd)
    assert pipe.take() == []


def test_a_full_pipe_loses_no_signal(pipe: SignalPipe) -> None:
    for _ in range(70000):  # a pipe holds 65536 bytes
        signal.raise_signal(signal.SIGUSR1)
    assert len(pipe.take()) == 70000


def test_close_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    SignalPipe((signal.SIGUSR1,)).close()
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_blocked_signals_come_at_the_end(pipe: SignalPipe) -> None:
    with signals.blocked():
        signal.raise_signal(signal.SIGUSR1)
        assert pipe.take() == []
    assert pipe.take() == [signal.SIGUSR1]


def test_reset_leaves_only_what_every_python_ignores() -> None:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signals.reset()
        ignored = {n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN}
        caught = {n for n in signal.valid_signals() if callable(signal.getsignal(n))}
        own = ignored == set(signals.PYTHONS_OWN) and not caught
        signals.reset_for_program()
        none = all(signal.getsignal(n) == signal.SIG_DFL for n in signals.PYTHONS_OWN)
        os._exit(0 if own and none else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_one_at_a_time_and_the_rest_is_given_back(pipe: SignalPipe) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        signal.raise_signal(number)
    assert pipe.take_one() == signal.SIGUSR1
    with signals.blocked():
        pipe.give_back()
        assert signal.sigpending() == {signal.SIGUSR1, signal.SIGUSR2}
        assert pipe.take_one() is None
    assert {pipe.take_one(), pipe.take_one()} == {signal.SIGUSR1, signal.SIGUSR2}
