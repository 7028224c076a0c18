"""What a worker does when the master is dead: nobody else ends the backends now (decisions 3).

Every worker does it, the first one in vain for none: a signal to a group that is gone is nothing.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from ..scoreboard import Board


def end_backends(board: Board, *, now: bool) -> None:
    """Send each spawned backend's process group its kill-signal; KILL if *now*."""
    for proc in board.procs:
        pid = board.pid(proc)
        if proc.backend.is_spawned and pid > 1:
            # Its own process group, made by the master.  Not ours to signal: another user's.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL if now else proc.backend.kill_signal)
