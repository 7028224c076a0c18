"""Upgrade in place: the program on disk takes the place of this one, in the same process.

When no reload is under way, it is tried and then executed.  From there on it is the next program's
business: it goes on with what this one has left, reloads, and tells whoever has asked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import NoReturn

from .. import log as error_log
from ..errors import StartError
from ..unix import reexec, signals
from ..unix.reap import Reaper
from . import state
from .failure import cause
from .herald import Herald
from .loop import Loop
from .options import MasterOptions
from .reload import OnOutcome, Reloads
from .state import MasterRecord
from .trial import Trial

log = logging.getLogger(__name__)


class Upgrades:
    """One upgrade at a time; whoever asks meanwhile shares it.

    *snapshot* is all that the next program has to know.  All signals are blocked then; those that
    were caught and not handled are pending again.
    """

    def __init__(
        self,
        options: MasterOptions,
        loop: Loop,
        reaper: Reaper,
        reloads: Reloads,
        herald: Herald,
        snapshot: Callable[[], MasterRecord],
    ) -> None:
        self._options = options
        self._loop = loop
        self._reaper = reaper
        self._reloads = reloads
        self._herald = herald
        self._snapshot = snapshot
        self._trial: Trial | None = None
        self._asked: list[OnOutcome] = []

    def request(self, on_refusal: OnOutcome) -> None:
        """Upgrade; *on_refusal* is told why not."""
        self._asked.append(on_refusal)
        if len(self._asked) > 1:
            return
        self._herald.reloading()
        self._try_if_idle()

    def cancel(self, why: StartError) -> None:
        """The server stops."""
        if self._trial is not None:
            self._trial.cancel()
            self._trial = None
        self._tell(why)

    def _refused_if_failing(self, step: Callable[[], None]) -> None:
        """A defect of ours refuses an upgrade too: nothing has changed yet."""
        try:
            step()
        except StartError as error:
            self._refuse(error)
        except Exception:
            log.exception("upgrade: a defect")
            self._refuse(StartError("a defect; the error log has it"))

    def _try_when_idle(self) -> None:
        # In a turn of its own: who calls us here has not finished what he does.
        self._reloads.when_idle(lambda: self._loop.call_later(0, self._try_if_idle))

    def _try_if_idle(self) -> None:
        if not self._reloads.is_idle:
            self._try_when_idle()
        elif self._asked:  # else it was cancelled
            log.info("upgrade: tries the program on disk")
            self._refused_if_failing(self._try)

    def _try(self) -> None:
        command = self._options.command
        if command is None:
            raise StartError("how this process was called is not known")
        with signals.blocked():
            left = state.write(self._snapshot())
        self._trial = Trial(
            command, os.environ, left, self._loop, self._reaper, self._judged
        )

    def _judged(self, error: StartError | None) -> None:
        self._trial = None
        if error is not None:
            self._refuse(error)
        else:
            self._loop.call_later(0, self._go_over)

    def _go_over(self) -> None:
        if not self._reloads.is_idle:
            self._try_when_idle()  # behind the reload there may be another program on disk
        elif self._asked:  # else it was cancelled
            self._refused_if_failing(self._execute)

    def _execute(self) -> NoReturn:
        """Become the program on disk.  Raises StartError if that cannot be done."""
        assert self._options.command is not None
        log.info("master pid %d: becomes the program on disk", os.getpid())
        error_log.flush()
        environment = {**os.environ, **self._options.notifier.variables}
        try:
            with signals.blocked():
                left = self._snapshot()
                reexec.execute(
                    self._options.command, environment, state.write(left), state.descriptors(left)
                )
        except OSError as error:
            raise StartError(f"the program cannot be executed: {cause(error)}") from None

    def _refuse(self, error: StartError) -> None:
        for line in str(error).splitlines():
            log.error("upgrade: %s", line)
        log.error("upgrade: refused, everything is as it was")
        self._herald.reloaded()
        self._tell(error)

    def _tell(self, error: StartError) -> None:
        asked, self._asked = self._asked, []
        for on_refusal in asked:
            on_refusal(error)
