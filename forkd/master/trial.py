"""The program on disk, tried before it takes the place of this one.

It is started beside us, as it would be in our place, with ``--preflight 0``: it imports everything,
loads its configuration, reads our state from standard input, and says what is wrong.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping

from ..errors import StartError
from ..unix import reexec, spawn
from ..unix.reap import Reaper, describe, kill_group
from .failure import BAD_CONFIG, cause
from .loop import Loop

TIME_LIMIT = 30.0  # seconds
OBJECTION = "forkd: "  # what it says begins so, unless it fails without knowing why
MAX_REPORT = 1 << 16  # bytes of what it says, the last ones

OnVerdict = Callable[[StartError | None], None]

log = logging.getLogger(__name__)


class Trial:
    """One run.  *on_verdict* is called once, with None when the program may take over, unless
    ``cancel`` comes first."""

    def __init__(
        self,
        command: reexec.CommandLine,
        environment: Mapping[str, str],
        state: bytes,
        loop: Loop,
        reaper: Reaper,
        on_verdict: OnVerdict,
    ) -> None:
        """Raises StartError when it cannot even be started."""
        self._on_verdict = on_verdict
        self._is_late = False
        program = spawn.Program(
            argv=(*command.argv, "--preflight", "0"),
            env=environment,
            cwd=command.cwd,
            death_signal=signal.SIGKILL,
        )
        try:
            self._pid, self._report = _start(program, state)
        except OSError as error:
            raise StartError(f"the program cannot be started: {cause(error)}") from None
        reaper.add(self._pid, self._exited, leads_group=True)
        self._timer = loop.call_later(TIME_LIMIT, self._too_late)

    def cancel(self) -> None:
        """Nobody wants the verdict any more."""
        self._on_verdict = lambda verdict: None
        self._kill()

    def _kill(self) -> None:
        if self._pid:
            kill_group(self._pid, signal.SIGKILL)

    def _too_late(self) -> None:
        self._is_late = True
        self._kill()

    def _exited(self, status: int) -> None:
        self._pid = 0
        self._timer.cancel()
        beginning = max(0, os.fstat(self._report).st_size - MAX_REPORT)
        said = os.pread(self._report, MAX_REPORT, beginning).decode("utf-8", "replace").rstrip()
        os.close(self._report)
        self._on_verdict(self._verdict(status, said))

    def _verdict(self, status: int, said: str) -> StartError | None:
        if status == 0:
            return None
        if self._is_late:
            return StartError(f"the program was not ready within {TIME_LIMIT:g} s")
        if status == BAD_CONFIG:
            return StartError(said, BAD_CONFIG)
        if said.startswith(OBJECTION):
            return StartError(said.removeprefix(OBJECTION))
        *before, last = said.split("\n")
        for line in before:  # a traceback
            log.error("upgrade: %s", line)
        return StartError(f"the program does not start: {last or describe(status)}")


def _start(program: spawn.Program, state: bytes) -> tuple[int, int]:
    """The process, and the memfd that gets what it says.  Raises OSError."""
    stdin = reexec.hold(state)
    try:
        report = reexec.hold(b"")
        try:
            return spawn.spawn_proc(program, stdin, report), report
        except OSError:
            os.close(report)
            raise
    finally:
        os.close(stdin)
