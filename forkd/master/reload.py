"""Reload: a new configuration in place of the old one, without a moment in which nobody serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from ..config.backend import BackendSpec
from ..config.model import Config, ListenerSpec
from ..errors import StartError
from .failure import cause
from .loading import Loading, Result

log = logging.getLogger(__name__)

OnOutcome = Callable[[StartError | None], None]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new configuration means for what runs.  Equal by value is the same."""

    listeners_added: tuple[ListenerSpec, ...]
    listeners_dropped: tuple[ListenerSpec, ...]
    backends_kept: tuple[BackendSpec, ...]
    backends_added: tuple[BackendSpec, ...]
    backends_dropped: tuple[BackendSpec, ...]
    ignored: tuple[str, ...]
    """Directives whose new value takes a restart."""

    def __str__(self) -> str:
        return (
            f"listeners +{len(self.listeners_added)} -{len(self.listeners_dropped)}, "
            f"backends +{len(self.backends_added)} -{len(self.backends_dropped)} "
            f"={len(self.backends_kept)}"
        )


def plan(old: Config, new: Config) -> Changes:
    """What is kept, added and dropped on the way from *old* to *new*."""
    _, listeners_added, listeners_dropped = _compare(old.listeners, new.listeners)
    kept, added, dropped = _compare(old.backends, new.backends)
    ignored = () if old.server.pid_file == new.server.pid_file else ("server.pid-file",)
    return Changes(listeners_added, listeners_dropped, kept, added, dropped, ignored)


def _compare(
    old: Iterable[_T], new: Iterable[_T]
) -> tuple[tuple[_T, ...], tuple[_T, ...], tuple[_T, ...]]:
    """(kept, added, dropped), each in its order."""
    before, after = dict.fromkeys(old), dict.fromkeys(new)
    return (
        tuple(one for one in after if one in before),
        tuple(one for one in after if one not in before),
        tuple(one for one in before if one not in after),
    )


class Reloads:
    """One reload at a time; whoever asks meanwhile shares the one that comes after it.

    *start_loading* begins to load, or raises OSError, and gets the callback for the result;
    *roll_out* raises the generation of a configuration and calls back when it serves or has been
    undone; *on_outcome* hears of every reload that was not cancelled, once, before those who asked
    for it.
    """

    def __init__(
        self,
        start_loading: Callable[[Callable[[Result], None]], Loading],
        roll_out: Callable[[Config, OnOutcome], None],
        on_outcome: OnOutcome,
    ) -> None:
        self._on_outcome = on_outcome
        self._start_loading = start_loading
        self._roll_out = roll_out
        self._loading: Loading | None = None
        self._running: list[OnOutcome] = []
        self._waiting: list[OnOutcome] = []
        self._on_idle: Callable[[], object] = _nothing

    def request(self, on_outcome: OnOutcome) -> None:
        """Reload once more, after now; *on_outcome* gets None or why it was refused."""
        self._waiting.append(on_outcome)
        if not self._running:
            self._begin()

    @property
    def is_idle(self) -> bool:
        return not self._running

    def when_idle(self, act: Callable[[], object]) -> None:
        """Call *act* once, when no reload is under way."""
        self._on_idle = act
        self._rest()

    def _rest(self) -> None:
        if self.is_idle:
            act, self._on_idle = self._on_idle, _nothing
            act()

    def cancel(self, why: StartError) -> None:
        """The server stops: nothing is loaded or waited for any more."""
        if self._loading is not None:
            self._loading.cancel()
        outcomes = self._running + self._waiting
        self._running, self._waiting, self._loading = [], [], None
        self._on_idle = _nothing
        for on_outcome in outcomes:
            on_outcome(why)

    def _begin(self) -> None:
        self._running, self._waiting = self._waiting, []
        try:
            self._loading = self._start_loading(self._loaded)
        except OSError as error:  # out of processes or descriptors
            self._finish(StartError(f"the configuration cannot be loaded: {cause(error)}"))

    def _loaded(self, result: Result) -> None:
        self._loading = None
        if isinstance(result, StartError):
            self._finish(result)
        else:
            self._roll_out(result, self._finish)

    def _finish(self, error: StartError | None) -> None:
        outcomes, self._running = self._running, []
        if outcomes:
            self._on_outcome(error)
        for on_outcome in outcomes:
            on_outcome(error)
        if self._waiting and not self._running:
            self._begin()
        self._rest()


def _nothing() -> None:
    """Nobody waits for the end of a reload."""
