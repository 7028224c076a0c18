"""What each control command does: a table, and the functions it names.

A command answers with a message: ``ok``, and with ``ok`` false the ``error`` for people and the
``code`` that the command line ends with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import StartError
from ..metrics import COUNTERS, GAUGES, Column, totals
from ..scoreboard import Row
from .console import Answer, Message
from .slot import Slot
from .workers import Generation, Phase, Worker

if TYPE_CHECKING:
    from .master import Master

Arguments = Mapping[str, Any]
Command = Callable[["Master", Arguments, Answer], None]


def status(master: Master, _: Arguments, answer: Answer) -> None:
    """Everything about the server as it is now."""
    answer({"ok": True, **describe(master)})


def reload(master: Master, _: Arguments, answer: Answer) -> None:
    """The same as HUP; answered when the new generation serves, or when it was refused."""

    def on_outcome(error: StartError | None) -> None:
        if error is None:
            answer({"ok": True, "generation": master.generation_number})
        else:
            answer(refusal(error))

    master.reload(on_outcome)


def reopen(master: Master, _: Arguments, answer: Answer) -> None:
    """The same as USR1."""
    problems = master.reopen_logs()
    answer({"ok": False, "error": "\n".join(problems), "code": 1} if problems else {"ok": True})


def stop(master: Master, arguments: Arguments, answer: Answer) -> None:
    """The same as TERM, or as QUIT with ``now``; answered before it is done."""
    answer({"ok": True})
    if arguments.get("now"):
        master.quit()
    else:
        master.terminate()


COMMANDS: Mapping[str, Command] = {
    "status": status,
    "reload": reload,
    "reopen": reopen,
    "stop": stop,
}


def execute(master: Master, request: Message, answer: Answer) -> None:
    """Do what *request* says in ``do``."""
    command = COMMANDS.get(str(request.get("do")))
    if command is None:
        known = ", ".join(COMMANDS)
        answer({"ok": False, "error": f"no such command; there are {known}", "code": 2})
    else:
        command(master, request, answer)


def refusal(error: StartError) -> Message:
    return {"ok": False, "error": str(error), "code": error.exit_code}


# -- status -----------------------------------------------------------------------------------


def describe(master: Master) -> Message:
    """The server as JSON says it; times in seconds, sizes in bytes."""
    generations = master.generations
    rows = [row for generation in generations for row in generation.board.rows()]
    masters = [generation.board.master for generation in generations]
    return {
        "version": __version__,
        "pid": master.pid,
        "state": master.state,
        "file": master.config.file,
        "uptime": round(time.monotonic() - master.started, 3),
        "generation": master.generation_number,
        "last_reload": master.last_reload,
        "graceful_timeout": master.config.server.features.graceful_shutdown_timeout,
        "listeners": [str(spec.address) for spec in master.listeners.specs],
        "workers": [
            _worker(generation, worker)
            for generation in generations
            for worker in generation.workers
        ],
        "backends": [_proc(slot) for slot in master.backends],
        "totals": totals(row.__getitem__ for row in (*masters, *rows)),
    }


def _worker(generation: Generation, worker: Worker) -> Message:
    row = generation.board.row(worker.row)
    numbers = {column.name.lower(): row[column] for column in (*GAUGES, *COUNTERS)}
    return {
        "number": worker.number,
        "generation": worker.generation,
        "pid": worker.pid,
        "state": _worker_state(worker, row),
        "tick_age": round(row.age(), 3) if row[Column.PID] else None,
        **numbers,
    }


def _worker_state(worker: Worker, row: Row) -> str:
    if worker.phase is Phase.ENDING:
        return "draining"
    return "ready" if worker.phase is Phase.READY else row.state.name.lower()


def _proc(slot: Slot) -> Message:
    return {
        "gateway": slot.spec.gateway,
        "backend": str(slot.spec),
        "number": slot.number,
        "address": str(slot.address),
        "state": slot.state.name.lower(),
        "pid": slot.pid,
        "load": slot.load,
        "deaths": slot.deaths,
        "last_status": slot.last_status,
        "last_failure": slot.last_failure,
        "stderr": list(slot.stderr.last),
    }
