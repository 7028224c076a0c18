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
from .worker_policy import Phase
from .workers import Generation, Worker

if TYPE_CHECKING:
    from .master import Master

Arguments = Mapping[str, Any]
Command = Callable[["Master", Arguments, Answer], None]


def status(master: Master, _: Arguments, answer: Answer) -> None:
    """Everything about the server as it is now."""
    answer({"ok": True, **describe(master)})


def reload(master: Master, _: Arguments, answer: Answer) -> None:
    """The same as HUP; answered when the new generation serves, or when it was refused."""
    master.reload(lambda error: answer(outcome(master, error)))


def upgrade(master: Master, _: Arguments, answer: Answer) -> None:
    """The same as USR2; answered by the new program, or when it was refused."""
    master.upgrade(lambda error: answer(outcome(master, error)))


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
    "upgrade": upgrade,
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


def outcome(master: Master, error: StartError | None) -> Message:
    """Of a reload or an upgrade; None: it is done."""
    if error is None:
        return {"ok": True, "generation": master.generation_number}
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
        "generations": [_generation(generation) for generation in generations],
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


def _generation(generation: Generation) -> Message:
    drained_at = generation.drained_at
    return {
        "number": generation.number,
        "workers": len(generation.workers),
        "tunnels": sum(row[Column.TUNNELS] for row in generation.board.rows()),
        "draining": None if drained_at is None else round(time.monotonic() - drained_at, 3),
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
        "load": slot.presence.load,
        "taken": slot.presence.taken,
        "starts": slot.starts,
        "deaths": slot.deaths,
        "last_status": slot.last_status,
        "last_failure": slot.last_failure,
        "stderr": list(slot.stderr.last),
    }
