"""A slot as the scoreboards show it: what they say of it, and what the workers do with it."""

from __future__ import annotations

from ..config.backend import Proc
from ..scoreboard import Board, ProcCell, ProcState


class Presence:
    """The boards of all generations that know the slot, each with the proc that stands for it."""

    def __init__(self) -> None:
        self.boards: dict[Board, Proc] = {}
        self.taken_before = 0
        """Connections of workers whose generations are gone."""

    def show(self, board: Board, proc: Proc) -> None:
        """From now on *proc* of *board* is this slot."""
        self.boards[board] = proc

    def hide(self, board: Board) -> None:
        """*board* goes, with all its workers; what they took stays counted."""
        proc = self.boards.pop(board, None)
        if proc is not None:
            self.taken_before += board.taken(proc)
            self.share_load()

    def write(
        self, state: ProcState, pid: int, ends: int, last_status: int, retry_at: float
    ) -> None:
        """Show this on every board."""
        for board, proc in self.boards.items():
            board.set_proc(proc, ProcCell.RETRY_AT, int(retry_at * 1000))
            # A worker that sees a new number of ends reads the status of the last: it goes first.
            board.set_proc(proc, ProcCell.LAST_STATUS, last_status)
            board.set_proc(proc, ProcCell.DEATHS, ends)
            board.set_proc(proc, ProcCell.PID, pid)
            board.set_proc(proc, ProcCell.STATE, state)

    def share_load(self) -> None:
        """Tell each board what the workers of the others hold."""
        loads = {board: board.load_here(proc) for board, proc in self.boards.items()}
        total = sum(loads.values())
        for board, proc in self.boards.items():
            board.set_proc(proc, ProcCell.ELSEWHERE, total - loads[board])

    @property
    def load(self) -> int:
        """Connections that the workers of all generations hold."""
        return sum(board.load_here(proc) for board, proc in self.boards.items())

    @property
    def taken(self) -> int:
        """How many they ever made."""
        return self.taken_before + sum(board.taken(p) for board, p in self.boards.items())
