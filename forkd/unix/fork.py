"""Fork without exec: a child that shares nothing with its parent by accident."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

from . import signals

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)

log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)


def fork(run: Callable[[], int], keep: Iterable[int]) -> int:
    """Run *run* in a child, its result is the exit status; the pid, in the parent.

    The child leads a session.  It has the descriptors 0, 1, 2 and *keep*, the default handler for
    every signal, and none blocked.  It never returns into the caller's code.
    """
    with signals.blocked():
        pid = os.fork()
        if pid == 0:
            _be_child(run, keep)
    return pid


def _be_child(run: Callable[[], int], keep: Iterable[int]) -> NoReturn:
    # Objects of the parent that own descriptors live on, below us on the stack, until _exit: were
    # one collected, it would close a number that is somebody else's by then.
    status = 1
    try:
        signals.reset()
        os.setsid()
        close_others(keep)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        status = run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        log.exception("pid %d ends", os.getpid())
    finally:
        _flush()
        os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor but 0, 1, 2 and *keep*."""
    first = 3
    for fd in sorted({fd for fd in keep if fd > 2}):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _highest() + 1)


def _highest() -> int:
    return max(map(int, os.listdir("/proc/self/fd")))


def share_heap() -> None:
    """Before a round of forks: what lives now is never looked at again by the collector.

    The children's collections then leave the pages of the heap shared.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def adopt_orphans() -> None:
    """From now on this process is the parent of its descendants whose own parent has ended."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent(parent: int, number: int) -> None:
    """Get signal *number* when process *parent* ends; at once, if it has ended already.

    Changing the user clears this: call it afterwards.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
