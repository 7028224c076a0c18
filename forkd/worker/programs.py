"""The CGI programs of a worker: counted for all workers to see, ended when the worker ends."""

from __future__ import annotations

from ..gateway.program import Program
from ..metrics import Column
from ..scoreboard import Board


class ProgramSet:
    """What ``gateway.program.Programs`` asks for, over this worker's scoreboard row."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._live: set[Program] = set()

    def __len__(self) -> int:
        return len(self._live)

    def count(self) -> int:
        return sum(row[Column.CGI_PROGRAMS] for row in self._board.rows())

    def add(self, program: Program) -> None:
        self._live.add(program)
        self._board.mine[Column.CGI_PROGRAMS] = len(self._live)

    def discard(self, program: Program) -> None:
        self._live.discard(program)
        self._board.mine[Column.CGI_PROGRAMS] = len(self._live)

    def finish(self) -> None:
        """A graceful stop: those that nobody waits for are given no more time."""
        for program in list(self._live):
            if program.is_dismissed:
                program.terminate()

    def terminate(self) -> None:
        """End all; whatever does not heed it is the master's to kill."""
        for program in list(self._live):
            program.terminate()

    def kill(self) -> None:
        """There is no master: KILL what is left."""
        for program in list(self._live):
            program.kill()
