"""A generation of the program before this one: its workers are supervised, and no more are forked.

Their code and their configuration went with that program.  One that dies while the generation still
serves, because the reload behind the upgrade was refused, asks for another reload.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import replace

from ..certs import Contexts
from ..log import LogFiles
from . import old_board
from .backoff import WORKER_CEILING
from .state import GenerationRecord, WorkerRecord
from .worker_policy import Phase
from .workers import Crew, Generation, Worker

log = logging.getLogger(__name__)


class OldGeneration(Generation):
    """*on_want* is called when it wants a worker, at most every WORKER_CEILING seconds."""

    def __init__(self, record: GenerationRecord, crew: Crew, on_want: Callable[[], None]) -> None:
        config = record.config
        super().__init__(
            record.number,
            config,
            old_board.restore(record.board),
            LogFiles.restore(record.logs),
            (),
            Contexts(replace(config, listeners=(), backends=())),  # none: nobody is forked
            None,
            crew,
        )
        self._on_want = on_want
        self.serves = True
        self.wanted = record.wanted
        self.is_over, self.lives_on = record.is_over, record.lives_on
        self.drained_at = record.drained_at
        for one in record.workers:
            self._enlist(self._restored(one))

    def _restored(self, record: WorkerRecord) -> Worker:
        channel = socket.socket(fileno=record.fd)
        channel.setblocking(False)
        return Worker(
            record.number,
            self.number,
            record.row,
            record.pid,
            channel,
            record.forked,
            Phase[record.phase],
            record.aborted_at,
            record.drained_at,
        )

    def _start(self, number: int, row: int) -> None:
        log.warning("generation %d: is of another program and gets no new workers", self.number)
        self._not_before[number] = self._crew.loop.now() + WORKER_CEILING
        self._on_want()


def snapshot(generation: Generation) -> GenerationRecord:
    """*generation* for a program that goes on in this process."""
    return GenerationRecord(
        number=generation.number,
        file=generation.config.file,
        server=generation.config.server,
        listeners=generation.config.listeners,
        board=generation.board.snapshot(),
        logs=generation.logs.snapshot(),
        workers=tuple(map(_worker, generation.workers)),
        wanted=generation.wanted,
        is_over=generation.is_over,
        lives_on=generation.lives_on,
        drained_at=generation.drained_at,
    )


def _worker(worker: Worker) -> WorkerRecord:
    return WorkerRecord(
        worker.number,
        worker.row,
        worker.pid,
        worker.channel.fileno(),
        worker.forked,
        worker.phase.name,
        worker.aborted_at,
        worker.drained_at,
    )
