"""The sample mux-echo.fcgi with a diary, more to ask for, and bad habits.

``EVENTS`` names the diary.  ``HABIT`` is one of

    (none)    says that it multiplexes, and does
    single    says that it does not
    silent    does not answer GET_VALUES
    unknown   answers that there is no such type of record
    close     closes when it is asked
    garbage   answers with what is no record
    cant      says that it multiplexes, and refuses a second request at a time
    full      says that it multiplexes, and is overloaded
    broken    says that it multiplexes, and answers /break with what is no record
    deaf      says that it multiplexes, and never ends what was aborted

``REQUESTS`` and ``CONNECTIONS`` are the limits that it tells.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

SAMPLE = Path(__file__).parents[2] / "conf" / "samples" / "bin" / "mux-echo.fcgi"
sample: Any = ModuleType("mux_echo")
exec(compile(SAMPLE.read_text(), SAMPLE, "exec"), sample.__dict__)

HABIT = os.environ.get("HABIT", "")
CANT_MPX_CONN, OVERLOADED = 1, 2
REFUSALS = {"cant": CANT_MPX_CONN, "full": OVERLOADED}


def note(event: str) -> None:
    with open(os.environ["EVENTS"], "a") as diary:
        diary.write(event + "\n")


class Connection(sample.Connection):  # type: ignore[misc]
    async def serve(self) -> None:
        note(f"accept {self.number}")
        await super().serve()
        note(f"end {self.number}")

    def answer_values(self, content: bytes) -> None:
        note("asked")
        if HABIT == "unknown":
            self.write(sample.UNKNOWN_TYPE, 0, bytes((sample.GET_VALUES, 0, 0, 0, 0, 0, 0, 0)))
        elif HABIT == "close":
            self.writer.close()
        elif HABIT == "garbage":
            self.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif HABIT != "silent":
            super().answer_values(content)

    def begin(self, number: int, keeps: bool) -> None:
        note(f"begin {self.number} {number} {'keeps' if keeps else 'closes'}")
        if HABIT == "full" or (HABIT == "cant" and self.requests):
            self.keeps = keeps
            self.write(sample.END_REQUEST, number, bytes((0, 0, 0, 0, REFUSALS[HABIT], 0, 0, 0)))
        else:
            self.keeps = keeps
            self.requests[number] = Request(self, number)


class Request(sample.Request):  # type: ignore[misc]
    counts = is_quiet = False

    def take(self, kind: int, content: bytes) -> None:
        if kind == sample.ABORT_REQUEST:
            note(f"abort {self.number}")
            if HABIT == "deaf":
                return
            self.is_quiet = False
        super().take(kind, content)

    def start(self, variables: dict[str, str]) -> None:
        path, _, query = variables["REQUEST_URI"].partition("?")
        if path == "/die":
            os._exit(3)
        if path == "/break":
            self.connection.writer.write(b"this is no record")
        elif path == "/count":
            self.counts, self.size, self.sum = True, 0, hashlib.sha1()
            self.heard = self.count
        elif path == "/quiet":
            self.is_quiet = True
            self.say(b"Content-Type: text/plain\r\n\r\nfirst words")
            note("quiet")
        else:
            super().start(variables)
            if path == "/flood":
                self.say(bytes(range(256)) * (int(query) // 256))

    def count(self, data: bytes) -> bytes:
        self.size += len(data)
        self.sum.update(data)
        return b""

    def end(self) -> None:
        if self.is_quiet:
            return
        if self.counts:
            self.say(f"X-Request: {self.number}\r\n\r\n{self.size} {self.sum.hexdigest()}".encode())
        super().end()


sample.Connection = Connection
for name, value in (("REQUESTS", "FCGI_MAX_REQS"), ("CONNECTIONS", "FCGI_MAX_CONNS")):
    if name in os.environ:
        sample.ABILITIES[value] = os.environ[name]
if HABIT == "single":
    sample.ABILITIES["FCGI_MPXS_CONNS"] = "0"
asyncio.run(sample.main())
