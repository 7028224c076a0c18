"""What a master hands on to the program that takes its place in the same process.

Plain facts: whatever the next program is to supervise and cannot see for itself.  Fields called
``fd``, or that end so, are descriptors, which go with it; -1 is none.  Times are of the monotonic
clock.

FORMAT counts what an older program could not read rightly, and what its workers would not
understand: see ``channel``.  A new field with a default is no change: see ``record``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from .. import record
from ..config.backend import BackendSpec
from ..config.conditions import ConditionSet
from ..config.model import Config, ListenerSpec, RequestConfig, ServerSettings
from ..errors import StartError
from ..log import LogsRecord
from ..scoreboard import BoardRecord, ProcState
from ..unix.listen import PlaceRecord
from ..unix.pidfile import PidFileRecord
from .habitat import Habitat

FORMAT = 1


@dataclass(frozen=True, slots=True)
class BackOffRecord:
    """The deaths of one place that processes are started for."""

    delay: float = 0
    deaths: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker.  Its generation is what it belongs to."""

    number: int
    row: int
    pid: int
    fd: int
    """The master's end of its channel."""
    forked: float
    phase: str
    aborted_at: float | None = None
    drained_at: float | None = None


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """A generation: as much of its configuration as it takes to supervise it."""

    number: int
    file: str
    server: ServerSettings
    listeners: tuple[ListenerSpec, ...]
    board: BoardRecord
    logs: LogsRecord
    workers: tuple[WorkerRecord, ...]
    wanted: int
    is_over: bool = False
    lives_on: bool = True
    drained_at: float | None = None

    @property
    def config(self) -> Config:
        """As far as it is known."""
        backends = dict.fromkeys(proc.backend for proc in self.board.procs)
        return Config(
            self.file, self.server, self.listeners, tuple(backends), RequestConfig(), ConditionSet()
        )


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """A slot, and whatever process runs in it."""

    spec: BackendSpec
    number: int
    habitat: Habitat
    state: ProcState
    boards: tuple[int, ...]
    """Generations that know it."""
    pid: int
    socket_fd: int
    place: PlaceRecord | None
    """None for TCP, and for a program that is not ours."""
    stderr_fd: int
    stderr_last: tuple[str, ...]
    predecessor: int
    """The slot that listened at its address before, as an index into all slots; -1: none."""
    due: float | None
    """When its state is looked at again."""
    backoff: BackOffRecord
    starts: int
    deaths: int
    ends: int
    last_status: int
    last_failure: str
    started: float
    retired: float
    quiet_since: float
    taken_before: int
    """Connections that workers of generations that are gone ever made to it."""
    taken_at_start: int
    taken_by_predecessor: int
    taken_seen: int
    has_waited: bool
    is_superseded: bool
    is_leaving: bool


@dataclass(frozen=True, slots=True)
class BackendsRecord:
    """All slots: those of each backend, then those that are on their way out."""

    living: tuple[tuple[SlotRecord, ...], ...]
    leaving: tuple[SlotRecord, ...]


@dataclass(frozen=True, slots=True)
class FdRecord:
    """One of several descriptors."""

    fd: int


@dataclass(frozen=True, slots=True)
class ListenerRecord:
    """Where one spec listens."""

    spec: ListenerSpec
    sockets: tuple[FdRecord, ...]
    place: PlaceRecord | None = None
    """None for TCP, and for what was inherited."""


@dataclass(frozen=True, slots=True)
class InheritedRecord:
    """A socket of a service manager."""

    name: str
    fd: int


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A client of the control socket that has no answer yet."""

    fd: int
    line: str = ""
    """What it has sent of its request."""
    waits: bool = False
    """Its request is understood; the answer is due."""


@dataclass(frozen=True, slots=True)
class ConsoleRecord:
    """The control socket and its clients."""

    fd: int
    place: PlaceRecord
    clients: tuple[ClientRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class MasterRecord:
    """Everything."""

    format: int
    pid: int
    version: str
    """Of the program that writes."""
    started: float
    next_number: int
    """Of the generation that comes next."""
    current: int
    """Of the one that serves."""
    last_reload: dict[str, Any] | None
    pid_file: PidFileRecord
    console: ConsoleRecord
    inherited: tuple[InheritedRecord, ...]
    listeners: tuple[ListenerRecord, ...]
    backends: BackendsRecord
    generations: tuple[GenerationRecord, ...]
    strays: tuple[int, ...] = ()
    """Leaders of groups that are being ended."""

    @property
    def config(self) -> Config:
        """Of the generation that serves.  Nothing in it says how a request is served."""
        return next(one.config for one in self.generations if one.number == self.current)


def write(state: MasterRecord) -> bytes:
    return record.encode(state)


def read(data: bytes) -> MasterRecord:
    """Raises StartError for what another version has written and this one cannot read."""
    try:
        found = json.loads(data)["format"]
        if found != FORMAT:
            raise ValueError(f"has format {found}, this program reads {FORMAT}")
        return record.decode(MasterRecord, data)
    except (ValueError, KeyError, TypeError) as error:
        raise StartError(f"the state of the running server: {error}") from None


def descriptors(part: Any) -> Iterator[int]:
    """Every descriptor in a record and the records in it."""
    if isinstance(part, tuple):
        for one in part:
            yield from descriptors(one)
    elif is_dataclass(part):
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name == "fd" or field.name.endswith("_fd"):
                if value >= 0:
                    yield value
            else:
                yield from descriptors(value)
