"""The standard error of a slot's process: a pipe that the master reads, line by line."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from ..stderr import StderrLines
from .loop import Loop

READ_SIZE = 65536  # bytes; what a pipe holds (pipe(7))

log = logging.getLogger(__name__)


class StderrPipe:
    """What a process says goes to the error log; the last lines are kept for ``status``.

    One pipe at a time: a new process has a new one.
    """

    def __init__(self, loop: Loop, name: str) -> None:
        self.fd = -1
        """The reading end, or -1."""
        self._loop = loop
        self._name = name
        self._lines = StderrLines()

    @property
    def last(self) -> Sequence[str]:
        """The last lines, those of processes before included."""
        return self._lines.last

    def open(self) -> int:
        """Make a pipe in place of the one before; its writing end is the caller's to close."""
        self.read()
        self.close()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.watch(reader)
        return writer

    def restore(self, reader: int, last: Sequence[str]) -> None:
        """The pipe of the program before this one, or -1, and what came through it."""
        self._lines.last.extend(last)
        if reader >= 0:
            self.watch(reader)

    def watch(self, reader: int) -> None:
        """Read from *reader*, which is ours from here."""
        os.set_blocking(reader, False)
        self.fd = reader
        self._loop.watch(reader, self.read)

    def read(self) -> None:
        """Log what is there."""
        if self.fd < 0:
            return
        now = self._loop.now()
        try:
            data = os.read(self.fd, READ_SIZE)
        except BlockingIOError:
            return
        for line in self._lines.feed(data, now) if data else self._lines.end(now):
            log.warning("%s: %s", self._name, line)
        if not data:
            self.close()

    def close(self) -> None:
        if self.fd >= 0:
            self._loop.unwatch(self.fd)
            os.close(self.fd)
            self.fd = -1
