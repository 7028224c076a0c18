"""forkd in front of a backend that a test scripts, one server for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from e2e.harness import Forkd, Server
from e2e.http_backend import HttpBackend, answer_each


@dataclass
class Proxied:
    """``server`` relays to ``backend`` over TCP, below ``/unix/`` to ``unix`` over its socket."""

    forkd: Forkd
    server: Server
    backend: HttpBackend
    unix: HttpBackend

    def reset(self) -> None:
        """Ready for the next test."""
        for backend in (self.backend, self.unix):
            backend.hang_up()
            backend.wait_idle()
            backend.script = answer_each
            backend.connections = 0


@contextmanager
def proxied(factory: pytest.TempPathFactory, config: str) -> Iterator[Proxied]:
    """With *config*, in which ``@BACKEND@`` and ``@UNIX@`` stand for the options of a host and
    ``@BACKEND_PORT@`` for a number; fails when the server leaves a process or an error behind."""
    directory = factory.mktemp("proxied")
    path = directory / "backend.sock"
    with HttpBackend() as backend, HttpBackend(str(path)) as unix:
        forkd = Forkd(directory)
        config = config.replace("@BACKEND@", backend.host)
        config = config.replace("@BACKEND_PORT@", str(backend.port))
        config = config.replace("@UNIX@", f'"socket" => "{path}"')
        try:
            yield Proxied(forkd, forkd.start(config), backend, unix)
        finally:
            problems = forkd.finish()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
