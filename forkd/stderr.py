"""What a program says on standard error: whole lines for the log, the last ones for ``status``."""

from __future__ import annotations

from collections import deque

KEPT = 20  # lines
MAX_LINE = 4096  # bytes; what is longer is cut into lines
MAX_RATE = 1000  # lines a second; more are dropped and counted


class StderrLines:
    """Bytes in, lines out; no I/O and no clock."""

    def __init__(self) -> None:
        self.last: deque[str] = deque(maxlen=KEPT)
        self._rest = b""
        self._second = -1
        self._lines = 0
        self._dropped = 0

    def feed(self, data: bytes, now: float) -> list[str]:
        """The lines that *data* completes and that are to be logged.  *now* in seconds."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE:
            lines.append(self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]
        return self._admit(lines, now)

    def end(self, now: float) -> list[str]:
        """The line that the end of the stream completes, and what was dropped."""
        lines, self._rest = [self._rest] if self._rest else [], b""
        return self._admit(lines, now) + self._confess()

    def _admit(self, lines: list[bytes], now: float) -> list[str]:
        admitted: list[str] = []
        if int(now) != self._second:
            self._second, self._lines = int(now), 0
            admitted = self._confess()
        for line in lines:
            for start in range(0, max(1, len(line)), MAX_LINE):
                text = line[start : start + MAX_LINE].decode("utf-8", "replace").rstrip("\r")
                self.last.append(text)
                self._lines += 1
                if self._lines <= MAX_RATE:
                    admitted.append(text)
                else:
                    self._dropped += 1
        return admitted

    def _confess(self) -> list[str]:
        dropped, self._dropped = self._dropped, 0
        return [f"({dropped} lines dropped)"] if dropped else []
