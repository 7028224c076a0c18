"""Clients that keep coming while a test does something to the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.harness import Server


class Visitors:
    """A client every 10 ms, each asking for a file; what went wrong is kept."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.served = 0
        self.problems: list[str] = []
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.01):
            try:
                status = self.server.get("/x").status
            except OSError as error:
                self.problems.append(str(error))
            else:
                self.served += 1
                if status != 200:
                    self.problems.append(f"status {status}")

    @contextmanager
    def coming(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
