"""The numbers that a process shows on the scoreboard: one column each, with its unit.

A number lives on the scoreboard and nowhere else: the process that owns a row adds to it, the
master and ``status`` read it.  Adding a metric is a line in ``Column`` and a row in ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, unique


@unique
class Column(IntEnum):
    """Cells of a row, in their order in memory."""

    PID = 0
    NUMBER = 1
    GENERATION = 2
    STATE = 3
    STARTED = 4
    TICK = 5
    CONNECTIONS = 6
    TUNNELS = 7
    ACCEPTED = 8
    REQUESTS = 9
    TUNNELS_OPENED = 10
    BYTES_IN = 11
    BYTES_OUT = 12
    MESSAGES_FROM_CLIENT = 13
    MESSAGES_FROM_BACKEND = 14
    RESPONSES_1XX = 15
    RESPONSES_2XX = 16
    RESPONSES_3XX = 17
    RESPONSES_4XX = 18
    RESPONSES_5XX = 19
    CGI_PROGRAMS = 20


class Kind(Enum):
    """What becomes of a number when its process ends."""

    MARK = "mark"
    """Says who the process is and how it is; forgotten."""
    GAUGE = "gauge"
    """How much there is now; forgotten."""
    COUNTER = "counter"
    """How much there ever was; carried in the master's row, so that a sum never goes back."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What one column means."""

    kind: Kind
    unit: str
    text: str


METRICS: Mapping[Column, Metric] = {
    Column.PID: Metric(Kind.MARK, "", "process id"),
    Column.NUMBER: Metric(Kind.MARK, "", "number of the worker, from 0"),
    Column.GENERATION: Metric(Kind.MARK, "", "which load of the configuration it serves"),
    Column.STATE: Metric(Kind.MARK, "", "a WorkerState"),
    Column.STARTED: Metric(Kind.MARK, "ms", "monotonic clock when the process started"),
    Column.TICK: Metric(Kind.MARK, "ms", "monotonic clock at its last sign of life"),
    Column.CONNECTIONS: Metric(Kind.GAUGE, "connections", "client connections, tunnels included"),
    Column.TUNNELS: Metric(Kind.GAUGE, "tunnels", "live tunnels"),
    Column.ACCEPTED: Metric(Kind.COUNTER, "connections", "client connections accepted"),
    Column.REQUESTS: Metric(Kind.COUNTER, "requests", "requests with a complete head"),
    Column.TUNNELS_OPENED: Metric(Kind.COUNTER, "tunnels", "upgrades that succeeded"),
    Column.BYTES_IN: Metric(Kind.COUNTER, "bytes", "received from clients"),
    Column.BYTES_OUT: Metric(Kind.COUNTER, "bytes", "sent to clients"),
    Column.MESSAGES_FROM_CLIENT: Metric(Kind.COUNTER, "messages", "WebSocket messages received"),
    Column.MESSAGES_FROM_BACKEND: Metric(Kind.COUNTER, "messages", "WebSocket messages sent"),
    Column.RESPONSES_1XX: Metric(Kind.COUNTER, "responses", "responses with status 101"),
    Column.RESPONSES_2XX: Metric(Kind.COUNTER, "responses", "responses with status 2xx"),
    Column.RESPONSES_3XX: Metric(Kind.COUNTER, "responses", "responses with status 3xx"),
    Column.RESPONSES_4XX: Metric(Kind.COUNTER, "responses", "responses with status 4xx"),
    Column.RESPONSES_5XX: Metric(Kind.COUNTER, "responses", "responses with status 5xx"),
    Column.CGI_PROGRAMS: Metric(Kind.GAUGE, "processes", "CGI programs that run"),
}

GAUGES = tuple(column for column, metric in METRICS.items() if metric.kind is Kind.GAUGE)
COUNTERS = tuple(column for column, metric in METRICS.items() if metric.kind is Kind.COUNTER)

Read = Callable[[Column], int]


def responses(status: int) -> Column:
    """The column that counts responses of *status* (100 to 599)."""
    return Column(Column.RESPONSES_1XX + status // 100 - 1)


def totals(rows: Iterable[Read]) -> dict[str, int]:
    """Every gauge and counter summed over *rows*, by lower-case name, in the order of Column."""
    reads = list(rows)
    return {
        column.name.lower(): sum(read(column) for read in reads) for column in (*GAUGES, *COUNTERS)
    }
