"""Input of a program that is slow to read, on a connection that cannot wait for it.

FastCGI has no flow control for one request of several: what comes is kept, in memory and then in
files without a name, until the program takes it.
"""

from __future__ import annotations

import tempfile

from ..errors import PayloadTooLarge
from ..gateway.spool import PIECE, Spool
from ..protocol.tunnel import Buffer
from .run import Run

LIMIT = 64 * 1024 * 1024  # bytes; more are kept of a body whose length was announced
_FILE_SIZE = LIMIT  # bytes of one file: it goes when all of it has been taken


class Backlog:
    """Stands between a request and the input of its program."""

    def __init__(self, run: Run, limit: int) -> None:
        """At most *limit* bytes are kept."""
        self._run = run
        self._limit = limit
        self._spool = Spool((tempfile.gettempdir(),), _FILE_SIZE)
        self._given = 0
        self._is_full = False  # the program is slow, and ``refill`` will be called
        self._ends = False

    def write(self, data: Buffer) -> None:
        """Raises PayloadTooLarge, and ForkdError where there is no room for files."""
        if not self._is_full:
            self._is_full = not self._run.write(data)
            return
        self._spool.append(data)
        if self._spool.size - self._given > self._limit:
            raise PayloadTooLarge(f"more than {self._limit} bytes wait for the program")

    def write_eof(self) -> None:
        self._ends = True
        if not self._spool.size:
            self._run.write_eof()

    def refill(self) -> None:
        """The program has taken all that it was given."""
        self._is_full = False
        while self._spool.size and not self._is_full:
            piece = self._spool.read(self._given, PIECE)
            self._is_full = not self._run.write(piece)
            self._given += len(piece)
            self._spool.forget(self._given)
            if not self._spool.size:  # all of it has been forgotten
                self._given = 0
                if self._ends:
                    self._run.write_eof()

    def close(self) -> None:
        self._spool.close()
