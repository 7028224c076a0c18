"""How long to wait before a process that has died is started again.

A death is early when the process lived less than a second and failed or never served anybody, or
when it is the third within ten seconds.  Early deaths are answered with 1, 2, 4 … seconds; any
other at once.  A minute of life makes everything good.
"""

from __future__ import annotations

from collections import deque

from .state import BackOffRecord

EARLY = 1.0  # seconds of life
BURST, BURST_TIME = 3, 10.0  # so many deaths within so many seconds
RECOVERY = 60.0  # seconds of life
PROC_CEILING = 60.0
WORKER_CEILING = 30.0


class BackOff:
    """The deaths of one place that processes are started for.  Times come from the caller."""

    def __init__(self, ceiling: float) -> None:
        self._ceiling = ceiling
        self._delay = 0.0
        self._deaths: deque[float] = deque(maxlen=BURST)

    @classmethod
    def restore(cls, ceiling: float, record: BackOffRecord) -> BackOff:
        self = cls(ceiling)
        self._delay = record.delay
        self._deaths.extend(record.deaths)
        return self

    def snapshot(self) -> BackOffRecord:
        return BackOffRecord(self._delay, tuple(self._deaths))

    def died(self, now: float, lived: float, *, served: bool, failed: bool) -> float:
        """Seconds to wait after this death, 0 for none.

        *served*: somebody was served or could have been; *failed*: the exit status was not 0.
        """
        if lived >= RECOVERY:
            self._delay = 0.0
            self._deaths.clear()
        self._deaths.append(now)
        if not (self._is_burst(now) or (lived < EARLY and (failed or not served))):
            return 0.0
        self._delay = min(self._ceiling, self._delay * 2 or 1.0)
        return self._delay

    def _is_burst(self, now: float) -> bool:
        return len(self._deaths) == BURST and now - self._deaths[0] <= BURST_TIME
