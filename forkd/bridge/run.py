"""A program at work for one request: its pipes, its process, its end.

It is over when it has exited and its output has ended.  One whose client is lost may say what it
likes, nobody hears it: it sees the end of its input, and if that does not end it, it gets TERM
after a moment, and KILL later, its whole process group with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from gevent import get_hub

from ..errors import NoBackend
from ..gateway.program import Program
from ..net.pipe_port import CLOSED, PipePort
from ..protocol.tunnel import Buffer
from .launch import Command, Pipes, launch

GRACE = 1.0  # seconds from the loss of the client to TERM; five more to KILL
HASTE = 0.5  # seconds from TERM to KILL when this process is about to end
PIPE_SIZE = 65536  # bytes that a pipe holds (pipe(7))

log = logging.getLogger(__name__)


class Audience(Protocol):
    """Who hears a run; called from the loop."""

    def on_output(self, data: Buffer) -> None:
        """It has written *data*, valid during the call only."""

    def on_output_end(self) -> None:
        """It will write nothing more."""

    def on_stderr(self, data: Buffer) -> None:
        """It has complained; only where that was asked for."""

    def on_room(self) -> None:
        """It has taken all that was written to it."""

    def on_over(self, status: int) -> None:
        """It has exited with *status*, or by the signal of number minus *status*.  The last call;
        after ``lose`` there is none but this and ``on_room``."""


class Runs:
    """All runs of this process."""

    def __init__(self) -> None:
        self._live: set[Run] = set()
        self.is_in_haste = False
        """This process has been told to end."""

    @property
    def count(self) -> int:
        return len(self._live)

    def add(self, run: Run) -> None:
        self._live.add(run)

    def discard(self, run: Run) -> None:
        self._live.discard(run)

    def hurry(self) -> None:
        """Whoever told us to end may not wait long: lost programs are given no more time."""
        self.is_in_haste = True
        for run in list(self._live):
            if run.is_lost:
                run.hurry()

    def terminate(self) -> None:
        """End all, now."""
        self.is_in_haste = True
        for run in list(self._live):
            run.write_eof()
            run.lose()


class Run:
    """One program, from its start to the end of its process group."""

    def __init__(
        self,
        command: Command,
        environment: Mapping[bytes, bytes],
        audience: Audience,
        runs: Runs,
        *,
        hears_stderr: bool = False,
    ) -> None:
        """Start it.  What it says on standard error goes to *audience* or into the log.

        Raises ForkdError: it has not started, and *audience* hears nothing.
        """
        pid, pipes = launch(command, environment)
        name = os.fsdecode(command.argv[-1])
        self._program = self._adopt(pid, name, pipes, hears_stderr)
        self.is_lost = False
        self._audience = audience
        self._runs = runs
        self._timer: Any = None
        self._output_over = self._is_over = False
        self._stderr = pipes.stderr if hears_stderr else CLOSED
        self._complaints = PipePort(CLOSED, pipes.stderr, _nothing) if hears_stderr else None
        self._port = PipePort(pipes.stdin, pipes.stdout, _nothing)
        self._program.ended.rawlink(self._exited)
        self._program.watch()
        self._port.attach(self)
        if self._complaints is not None:
            self._complaints.attach(_Complaints(self))
        runs.add(self)

    def _adopt(self, pid: int, name: str, pipes: Pipes, hears_stderr: bool) -> Program:
        stderr = CLOSED if hears_stderr else pipes.stderr
        try:
            return Program(pid, name, GRACE, stderr, self._buried)
        except OSError as error:  # no descriptor was left to watch it by: it is killed and reaped
            for fd in pipes:
                os.close(fd)
            raise NoBackend(f"{name}: {error.strerror}") from error

    # -- what the audience does -------------------------------------------------------------------

    def write(self, data: Buffer) -> bool:
        """To its input; False: it is slow, ``on_room`` will follow."""
        return self._port.write(data)

    def write_eof(self) -> None:
        self._port.write_eof()

    def pause(self) -> None:
        """Take no more of its output."""
        for port in self._outputs():
            port.pause()

    def resume(self) -> None:
        for port in self._outputs():
            port.resume()

    def lose(self) -> None:
        """Nobody wants its output; ``write_eof`` when its input has ended too."""
        if not self.is_lost:
            self.is_lost = True
            self.resume()
            self._program.dismiss()
            if self._runs.is_in_haste:
                self.hurry()

    def hurry(self) -> None:
        """TERM now, KILL soon."""
        if self._timer is None and not self._is_over:
            self._program.terminate()
            self._timer = get_hub().loop.timer(HASTE)
            self._timer.start(self.kill, update=True)

    def kill(self) -> None:
        self._program.kill()

    def _outputs(self) -> list[PipePort]:
        return [self._port] if self._complaints is None else [self._port, self._complaints]

    # -- what its output does ---------------------------------------------------------------------

    def on_data(self, data: Buffer) -> None:
        if not self.is_lost:
            self._audience.on_output(data)

    def on_eof(self) -> None:
        self._output_over = True
        if not self.is_lost:
            self._audience.on_output_end()
        self._over_if_ended()

    def on_drain(self) -> None:
        if not self._is_over:
            self._audience.on_room()

    def on_close(self, why: str) -> None:
        if not self._is_over:
            log.error("%s: %s", self._program, why)
            self.lose()

    def complain(self, data: Buffer) -> None:
        if self.is_lost:
            log.warning("%s: %s", self._program, bytes(data).decode("utf-8", "replace").rstrip())
        else:
            self._audience.on_stderr(data)

    # -- its end ----------------------------------------------------------------------------------

    def _exited(self, _: object) -> None:
        self._over_if_ended()

    def _over_if_ended(self) -> None:
        if self._output_over and self._program.ended.is_set():
            self._program.dismiss()  # it is reaped at once

    def _buried(self, program: Program) -> None:
        """The process is reaped; once it was lost, nothing else is waited for."""
        if self._is_over:
            return
        self._is_over = True
        self._drain_stderr()
        for port in self._outputs():
            port.abort("")
        if self._timer is not None:
            self._timer.close()
        self._runs.discard(self)
        self._audience.on_over(program.status)

    def _drain_stderr(self) -> None:
        """What it said last; a descendant that holds the pipe open is not waited for."""
        if self._stderr != CLOSED:
            with suppress(BlockingIOError):
                if data := os.read(self._stderr, PIPE_SIZE):
                    self.complain(data)


class _Complaints:
    """Hears the standard error of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_data(self, data: Buffer) -> None:
        self._run.complain(data)

    def on_eof(self) -> None: ...
    def on_drain(self) -> None: ...
    def on_close(self, why: str) -> None: ...


def _nothing() -> None:
    """Called when nobody hears a pipe any more."""
