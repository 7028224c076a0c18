"""Signals for a loop: the handler stores a number and writes a byte, the loop does the work."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


class SignalPipe:
    """Caught signals as numbers to take.  ``fd`` is readable when there may be some."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        """Catch *numbers* from now on; only one pipe can be open in a process."""
        self.fd, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._caught: deque[signal.Signals] = deque()
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._catch) for number in numbers}

    def take(self) -> list[signal.Signals]:
        """The signals caught since the last call, in their order."""
        # The pipe is emptied first: what comes from here on makes it readable again.
        drain(self.fd)
        caught, self._caught = self._caught, deque()
        return list(caught)

    def take_one(self) -> signal.Signals | None:
        """The oldest signal that is not taken; None: there is none, and ``fd`` says when."""
        drain(self.fd)
        return self._caught.popleft() if self._caught else None

    def give_back(self) -> None:
        """Make what was caught and not taken pending again.  For the caller of an exec, who has
        blocked all signals: pending ones stay so."""
        for number in self.take():
            signal.raise_signal(number)

    def close(self) -> None:
        """Handle the signals as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._writer)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        self._caught.append(signal.Signals(number))


def drain(fd: int) -> None:
    """Read what a non-blocking pipe holds, and forget it."""
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass


def end_on(*numbers: signal.Signals) -> None:
    """End this process in order on each of *numbers*, until somebody else handles them."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, end)


@contextmanager
def blocked() -> Iterator[None]:
    """No signal is delivered inside; those that came are delivered at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Let all signals come, those that waited first."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by every Python: errors come as OSError


def reset() -> None:
    """In a fresh child, signals blocked: every handler of the parent's becomes the default."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in PYTHONS_OWN and signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)


def reset_for_program() -> None:
    """As ``reset``, and what Python ignores is not ignored by the program that comes."""
    reset()
    for number in PYTHONS_OWN:
        signal.signal(number, signal.SIG_DFL)
