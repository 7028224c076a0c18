"""A generation on its way: everything it adds, until all its workers are ready or all is undone.

The first one is the start of the server, a later one a reload; the steps are the same.  What fails
leaves everything as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..certs import Contexts
from ..channel import worker_count
from ..config.model import Config
from ..errors import StartError
from ..log import LogFiles
from ..scoreboard import MASTER_ROW, Board, procs_for, rows_for
from ..unix import user
from .backends import Backends
from .failure import BAD_CONFIG, cause
from .habitat import Habitat
from .listeners import Listeners
from .loop import Timer
from .slot import Slot
from .workers import Crew, Generation

TIME_LIMIT = 30.0  # seconds until every worker has to be ready

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Site:
    """Where generations are raised."""

    crew: Crew
    listeners: Listeners
    backends: Backends
    open_logs: Callable[[Config], LogFiles]
    use_logs: Callable[[LogFiles], None]
    """Makes them the master's own."""
    open_tls: Callable[[Config], Contexts]
    """Reads keys and certificates.  Raises StartError."""


class Rollout:
    """Bring up the generation of *config*, in place of *old* if there is one.

    *on_end* is called once, with None when it serves, or with the reason when all was undone.
    Either way ``generation`` is the caller's then; one that was undone may have workers to stop.
    """

    def __init__(
        self,
        site: Site,
        number: int,
        config: Config,
        old: Generation | None,
        on_end: Callable[[Rollout, StartError | None], None],
    ) -> None:
        self.config = config
        self.generation: Generation | None = None
        self._site = site
        self._number = number
        self._old = old
        self._on_end = on_end
        self._added: list[Slot] = []
        self._board: Board | None = None
        self.logs: LogFiles | None = None
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Bind, spawn and fork.  *on_end* may be called before this returns."""
        try:
            self._raise_generation()
        except StartError as error:
            self.fail(error)
            return
        except OSError as error:  # out of descriptors or memory
            self.fail(StartError(cause(error)))
            return
        except Exception:
            log.exception("generation %d: a defect", self._number)
            self.fail(StartError("a defect; the error log has it"))
            return
        self._timer = self._site.crew.loop.call_later(TIME_LIMIT, self._too_late)
        assert self.generation is not None
        self.generation.tend()

    def _raise_generation(self) -> None:
        site, config = self._site, self.config
        identity = identity_of(config)
        tls = site.open_tls(config)
        self.logs = site.open_logs(config)
        if self._old is None:
            site.use_logs(self.logs)
        listeners = site.listeners.open(config.listeners, config.server.socket_activation)
        self._board = Board.create(
            self._number, rows_for(worker_count(config)), procs_for(config.backends)
        )
        self._board.claim(MASTER_ROW)
        habitat = Habitat(
            identity, chroot=config.server.chroot, breakagelog=config.server.breakagelog
        )
        self._added = site.backends.add(self._board, habitat)
        self.generation = Generation(
            self._number, config, self._board, self.logs, listeners, tls, identity, site.crew
        )

    # -- what happens meanwhile -----------------------------------------------------------------

    def worker_ready(self) -> None:
        if self.generation is not None and self.generation.is_ready:
            self._commit()

    def proc_died(self, slot: Slot, why: str) -> None:
        """Only what this generation adds counts against it."""
        if slot in self._added:
            self.fail(StartError(why))

    def _too_late(self) -> None:
        self.fail(StartError(f"the workers were not ready within {TIME_LIMIT:g} s"))

    # -- the two ends ---------------------------------------------------------------------------

    def _commit(self) -> None:
        self._stop_clock()
        try:
            self._site.backends.publish()
        except OSError as error:
            self.fail(StartError(f"cannot take over a backend's socket: {cause(error)}"))
            return
        self._site.listeners.settle(self.config.listeners)
        if self.logs is not None:
            self._site.use_logs(self.logs)
        assert self.generation is not None
        # Not before: whom they connect to at a path that changes hands would end with the old ones.
        self.generation.serve()
        self._on_end(self, None)

    def fail(self, error: StartError) -> None:
        """Undo everything that was added."""
        self._stop_clock()
        self._site.listeners.settle(self._old.config.listeners if self._old else ())
        if self._board is not None:
            self._site.backends.remove(self._board)
        if self.generation is None:
            if self._board is not None:
                self._board.close()
            if self.logs is not None and self._old is not None:
                self.logs.close()
        self._on_end(self, error)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def identity_of(config: Config) -> user.Identity | None:
    """Whom workers and backends run as.  Raises StartError."""
    try:
        return user.look_up(config.server.username, config.server.groupname)
    except ValueError as error:
        raise StartError(str(error), BAD_CONFIG) from None
