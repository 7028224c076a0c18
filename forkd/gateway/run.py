"""One run of a CGI program: the pipes to it, its process, and when nobody waits for it any more.

Small: of all that served the request, this alone lives as long as the tunnel that it may become.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from gevent import get_hub

from ..net.pipe_port import CLOSED, PipePort
from .program import Program

Descriptors = tuple[int, int, int]
"""Standard input, output and error of a program."""


class Run:
    """Opens the pipes; ``start`` starts the program.

    ``port`` is our end.  When it has been left, the program is dismissed.
    """

    __slots__ = ("_given", "_grace", "_timer", "port", "program")

    def __init__(self, takes_input: bool, grace: float) -> None:
        """*grace*: seconds for a program that nobody waits for.  Raises OSError."""
        opened: list[int] = []
        try:
            stdin, output = _pipe(opened) if takes_input else (_nothing(opened), CLOSED)
            ours, stdout = _pipe(opened)
        except OSError:
            _close(opened)
            raise
        for fd in (output, ours):
            if fd != CLOSED:
                os.set_blocking(fd, False)
        self.port = PipePort(output, ours, self._left)
        self.program: Program | None = None
        self._given = [stdin, stdout]
        """The program's ends, until it has them."""
        self._grace = grace
        self._timer: Any = None

    def start(
        self,
        name: str,
        spawn: Callable[[Descriptors], int],
        stderr: int | None,
        on_end: Callable[[Program], None],
    ) -> Program:
        """Start the program by *spawn*, which gives its pid.

        What it says on standard error goes to *stderr*, or to the error log under *name*.  *on_end*
        as for Program.  Raises OSError, and whatever *spawn* raises.
        """
        stdin, stdout = self._given
        heard: list[int] = []
        try:
            if stderr is None:
                _, stderr = _pipe(heard)
                self._given.append(heard.pop())
            pid = spawn((stdin, stdout, stderr))
            self.program = Program(pid, name, self._grace, heard[0] if heard else CLOSED, on_end)
        except BaseException:
            _close(heard)
            raise
        finally:
            _close(self._given)
        return self.program

    # -- who waits for it -------------------------------------------------------------------------

    def watch(self, _: object = None) -> None:
        """From now on the program must say something: if it is silent for the grace time it is
        told to end.

        For a client that will send nothing more: it may have left, which only a word to it shows.
        """
        self.unwatch()
        self._timer = get_hub().loop.timer(self._grace)
        self._timer.start(self._look, self.port.bytes_in, update=True)

    def _look(self, received: int) -> None:
        if self.port.bytes_in == received:
            self.terminate()
        else:
            self.watch()

    def unwatch(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def terminate(self) -> None:
        """It has had its time."""
        if self.program is not None:
            self.program.terminate()

    def _left(self) -> None:
        """Nobody hears the port any more."""
        self.unwatch()
        _close(self._given)
        if self.program is not None:
            self.program.dismiss()


def _pipe(opened: list[int]) -> tuple[int, int]:
    """Its reading and its writing end."""
    ends = os.pipe()
    opened += ends
    return ends


def _nothing(opened: list[int]) -> int:
    opened.append(os.open(os.devnull, os.O_RDONLY))
    return opened[-1]


def _close(opened: list[int]) -> None:
    while opened:
        os.close(opened.pop())
