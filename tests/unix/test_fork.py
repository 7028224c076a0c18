"""A forked child has what it was given, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

from forkd.unix import fork, signals


def exit_of(run: Callable[[], int], keep: tuple[int, ...] = ()) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(fork.fork(run, keep), 0)[1])


def test_result_is_the_exit_status() -> None:
    assert exit_of(lambda: 7) == 7


def test_exception_and_system_exit_end_the_child() -> None:
    def fail() -> int:
        raise RuntimeError("x")

    def leave() -> int:
        raise SystemExit(9)

    assert exit_of(fail) == 1
    assert exit_of(leave) == 9


def test_child_has_only_the_descriptors_on_its_list() -> None:
    one, other = socket.socketpair()
    keep = (one.fileno(), os.dup(0) + 0)

    def count() -> int:
        # The listing itself opens one.
        fds = {int(fd) for fd in os.listdir("/proc/self/fd")}
        return 0 if {0, 1, 2, *keep} <= fds and len(fds) == 6 else 1

    assert exit_of(count, keep) == 0
    assert one.fileno() >= 0
    one.close()
    other.close()
    os.close(keep[1])


def test_child_leads_a_session_with_default_handlers_and_nothing_blocked() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        def check() -> int:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            default = signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
            return 0 if os.getsid(0) == os.getpid() and default and not blocked else 1

        assert exit_of(check) == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_signal_to_a_fresh_child_does_not_reach_the_parents_pipe() -> None:
    pipe = signals.SignalPipe((signal.SIGTERM,))
    try:
        def die() -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return 0

        assert exit_of(die) == -signal.SIGTERM
        assert pipe.take() == []
    finally:
        pipe.close()


def test_child_dies_with_its_parent() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(reader)
        me = os.getpid()

        def live() -> int:
            fork.die_with_parent(me, signal.SIGKILL)
            os.write(writer, b"%d" % os.getpid())
            time.sleep(1000)
            return 0

        fork.fork(live, (writer,))
        time.sleep(1000)
    os.close(writer)
    assert os.read(reader, 20)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert os.read(reader, 1) == b""  # the last that held the other end is gone
    os.close(reader)


def test_child_whose_parent_is_gone_already_dies_at_once() -> None:
    def late() -> int:
        fork.die_with_parent(1 << 22, signal.SIGKILL)
        return 0

    assert exit_of(late) == -signal.SIGKILL


def test_share_heap_can_be_done_again() -> None:
    fork.share_heap()
    fork.share_heap()
