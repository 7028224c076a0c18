"""echo_app as a CGI program."""

from __future__ import annotations

import os
import signal
import sys

from echo_app import handle


class Process:
    """The process is the request."""

    def __init__(self) -> None:
        self.environ = dict(os.environ)

    def read(self) -> bytes:
        return os.read(0, 65536)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    def complain(self, text: bytes) -> None:
        sys.stderr.buffer.write(text)
        sys.stderr.flush()

    def end_output(self) -> None:
        os.close(1)

    def reset(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


handle(Process())
