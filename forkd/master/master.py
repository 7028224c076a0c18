"""The master: owns every listening socket and every process, and serves nobody itself.

One thread, one loop.  It reads no byte of a client and never runs gevent.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial

from .. import __version__
from .. import log as error_log
from ..channel import WorkerMain
from ..config.model import Config
from ..errors import StartError
from ..unix import daemon, fork, proctitle, signals
from ..unix.pidfile import PidFile
from ..unix.reap import Reaper
from ..unix.signals import SignalPipe
from . import commands, old_generation
from .backends import Backends
from .console import Console, Message
from .failure import NO_PERMISSION, AddressInUse
from .herald import Herald
from .idle import IdleWatch
from .listeners import Listeners
from .loading import Loading, Result
from .loop import Loop
from .old_generation import OldGeneration
from .options import MasterOptions
from .reload import OnOutcome, Reloads, plan
from .rollout import Rollout, Site
from .shutdown import Shutdown
from .slot import Slot
from .state import FORMAT, InheritedRecord, MasterRecord
from .strays import Strays
from .upgrade import Upgrades
from .workers import Crew, Generation

TICK = 1.0  # seconds
LATE = 2.0  # seconds beyond a tick that say that the master itself has slept
RETRY_TIME = 3.0  # seconds for the workers of a dead server to leave our addresses
RETRY_INTERVAL = 0.1

log = logging.getLogger(__name__)


class Master:
    """The server as one object.  ``run`` returns when it has ended."""

    def __init__(self, config: Config, options: MasterOptions, worker_main: WorkerMain) -> None:
        self.config = config
        self.pid = os.getpid()
        self.started = time.monotonic()
        self.last_reload: Message | None = None
        self.generations: list[Generation] = []
        """All that have workers and are not on their way, the one that serves last."""
        self.loop = Loop()
        self.reaper = Reaper()
        self.listeners = Listeners(options.inherited)
        self._herald = Herald(options.notifier, self.loop, lambda: self.generations)
        self.backends = Backends(self.loop, self.reaper, self._raw_stderr, self._proc_died)
        self._options = options
        self._strays = Strays(self.loop, self.reaper)
        self._crew = Crew(
            self.loop,
            self.reaper,
            self._strays,
            worker_main,
            on_ready=self._worker_ready,
            on_death=self._worker_died,
            on_empty=self._generation_empty,
            on_need=self.backends.tend,
        )
        self._current: Generation | None = None
        self._rollout: Rollout | None = None
        self._next_number = 1
        self._reloads = Reloads(self._start_loading, self._roll_out, self._reloaded)
        self._upgrades = Upgrades(
            options, self.loop, self.reaper, self._reloads, self._herald, self.snapshot
        )
        self._shutdown: Shutdown | None = None
        self._failure: StartError | None = None
        self._last_tick = self.loop.now()

    @property
    def generation_number(self) -> int:
        """Of the generation that serves; 0 before there is one."""
        return self._current.number if self._current is not None else 0

    @property
    def state(self) -> str:
        if self._shutdown is not None:
            return "stopping"
        return "serving" if self._current is not None else "starting"

    # -- from beginning to end ------------------------------------------------------------------

    def run(self, before: MasterRecord | None = None) -> int:
        """Serve until stopped; the exit status.

        *before*: what the program before this one in this process has left; the server goes on
        from there.  Raises StartError when it could not start; nothing is left behind then.
        """
        self.pid = os.getpid()
        fork.adopt_orphans()
        proctitle.set_title(f"master [{self.config.file}]")
        # Whoever sees the lock may signal its holder: the signals are caught before.
        self._signals = SignalPipe(SIGNALS)
        try:
            self._pid_file = (
                PidFile.restore(before.pid_file) if before else _acquire(self._options.pid_file)
            )
            try:
                self.loop.watch(self._signals.fd, self._take)
                self._serve(before)
            finally:
                error_log.flush()
                self._pid_file.release()
        finally:
            self._signals.close()
            self.loop.close()
        if self._failure is not None:
            raise self._failure
        return 0

    def _serve(self, before: MasterRecord | None) -> None:
        self._console = self._open_console(before)
        try:
            if before is None:
                self._start()
            else:
                self._go_on(before)
            self.loop.run()
        finally:
            self._console.close()

    def _open_console(self, before: MasterRecord | None) -> Console:
        handle = partial(commands.execute, self)
        if before is not None:
            return Console.restore(before.console, self.loop, handle)
        path = self._options.control_socket
        try:
            return Console.open(path, self.loop, handle)
        except OSError as error:
            raise _refused(f"control socket {path}", error) from None

    def _take(self) -> None:
        # One at a time: what is taken and not handled would be lost in an upgrade.
        number = self._signals.take_one()
        if number is not None:
            self.loop.call_later(0, self._take)
            SIGNALS[number](self)

    def _tick(self) -> None:
        self.loop.call_later(TICK, self._tick)
        now = self.loop.now()
        is_late = now - self._last_tick > TICK + LATE
        self._last_tick = now
        for generation in self._everyone():
            if is_late:
                generation.forgive(now)
            generation.board.master.tick()
            generation.tend()
        self.backends.tick()
        error_log.flush()

    # -- start ----------------------------------------------------------------------------------

    def _start(self) -> None:
        self._tick()
        patience = RETRY_TIME if self._pid_file.left_over else 0.0
        deadline = self.loop.now() + patience

        def on_outcome(error: StartError | None) -> None:
            if self._shutdown is not None:
                return
            if isinstance(error, AddressInUse) and self.loop.now() < deadline:
                # The pid file says that a server of ours was killed: its children are just leaving.
                self.loop.call_later(RETRY_INTERVAL, attempt)
            elif error is not None:
                self._give_up(error)
            else:
                self._started()

        def attempt() -> None:
            if self._shutdown is None:
                self._roll_out(self.config, on_outcome)

        attempt()

    def _started(self) -> None:
        try:
            self._pid_file.write(self.pid)
        except OSError as error:
            self._give_up(_refused(f"pid file {self._pid_file.path}", error))
            return
        log.info("master pid %d: serves %s", self.pid, self.config.file)
        self._options.on_ready()
        self._serving()

    def _serving(self) -> None:
        self._herald.ready()
        if self._options.idle_limit:
            IdleWatch(self.loop, self._options.idle_limit, lambda: self.generations, self._idle)

    # -- from one program to the next -----------------------------------------------------------

    def upgrade(self, on_refusal: OnOutcome = lambda error: None) -> None:
        """USR2: have the program on disk take our place.  *on_refusal* is told why not; else that
        program answers who waits at the console."""
        if self.state == "serving":
            self._upgrades.request(on_refusal)
        else:
            on_refusal(StartError(f"the server is {self.state}"))

    def snapshot(self) -> MasterRecord:
        """What the next program has to know, when no generation is on its way."""
        self._signals.give_back()
        inherited = self.listeners.inherited
        return MasterRecord(
            format=FORMAT,
            version=__version__,
            pid=self.pid,
            started=self.started,
            next_number=self._next_number,
            current=self.generation_number,
            last_reload=self.last_reload,
            pid_file=self._pid_file.snapshot(),
            console=self._console.snapshot(),
            inherited=tuple(InheritedRecord(one.name, one.socket.fileno()) for one in inherited),
            listeners=self.listeners.snapshot(),
            backends=self.backends.snapshot(),
            generations=tuple(map(old_generation.snapshot, self.generations)),
            strays=self._strays.snapshot(),
        )

    def _go_on(self, before: MasterRecord) -> None:
        """Where the program before this one was; then a reload, which lets this one serve."""
        self._restore(before)
        signals.unblock()
        log.info("master pid %d: goes on, forkd/%s behind forkd/%s", self.pid, __version__,
                 before.version)  # fmt: skip
        self._tick()
        self.reap()
        self._serving()
        self.reload(lambda error: self._console.answer_inherited(commands.outcome(self, error)))

    def _restore(self, before: MasterRecord) -> None:
        self.started, self.last_reload = before.started, before.last_reload
        self._next_number = before.next_number
        self.generations = [
            OldGeneration(record, self._crew, self._want_workers) for record in before.generations
        ]
        found = {generation.number: generation for generation in self.generations}
        self._current = found[before.current]
        self._options.use_logs(self._current.logs)
        for generation in self.generations:
            generation.drain_timeout = self.config.server.drain_timeout
        self.listeners.restore(before.listeners)
        boards = {number: generation.board for number, generation in found.items()}
        self.backends.restore(before.backends, boards)
        self._strays.restore(before.strays)

    def _want_workers(self) -> None:
        """Of the current generation, whose program is gone."""
        if self._reloads.is_idle:
            self.reload()

    def _give_up(self, error: StartError) -> None:
        self._failure = error
        self._begin_shutdown().cut()

    # -- generations ----------------------------------------------------------------------------

    def _roll_out(self, config: Config, on_outcome: OnOutcome) -> None:
        """Bring up the generation of *config*; *on_outcome* gets None when it serves."""
        options = self._options
        site = Site(
            self._crew,
            self.listeners,
            self.backends,
            options.open_logs,
            options.use_logs,
            options.open_tls,
        )
        self._rollout = Rollout(
            site,
            self._next_number,
            config,
            self._current,
            lambda rollout, error: self._rolled_out(rollout, error, on_outcome),
        )
        self._rollout.begin()

    def _rolled_out(
        self, rollout: Rollout, error: StartError | None, on_outcome: OnOutcome
    ) -> None:
        self._rollout = None
        generation = rollout.generation
        if generation is not None:
            self._next_number += 1
            if error is None:
                self.generations.append(generation)
                self._promote(generation)
            else:
                self.generations.insert(0, generation)
                generation.stop()
        on_outcome(error)

    def _promote(self, generation: Generation) -> None:
        old, self._current = self._current, generation
        self.config = generation.config
        if old is None:
            return
        changes = plan(old.config, generation.config)
        log.info("generation %d: serves; %s", generation.number, changes)
        for name in changes.ignored:
            log.warning("%s: the new value takes a restart", name)
        for one in self.generations:
            one.drain_timeout = self.config.server.drain_timeout
        old.drain()
        living = [one for one in self.generations if one.lives_on]
        for one in living[: -self.config.server.max_generations]:
            one.expire()

    def _generation_empty(self, generation: Generation) -> None:
        if generation not in self.generations:
            return
        self.generations.remove(generation)
        if self._shutdown is not None:
            self._shutdown.generation_gone()
            return
        if self._current is not None:
            self._current.board.inherit(generation.board)
        self.backends.remove(generation.board)
        generation.close()
        log.info("generation %d: gone", generation.number)

    def _everyone(self) -> list[Generation]:
        """All generations, the one that is on its way too."""
        coming = self._rollout.generation if self._rollout is not None else None
        return [*self.generations, *([coming] if coming is not None else [])]

    def _worker_ready(self, generation: Generation) -> None:
        if self._rollout is not None and generation is self._rollout.generation:
            self._rollout.worker_ready()

    def _worker_died(self, generation: Generation, why: str) -> None:
        if self._rollout is not None and generation is self._rollout.generation:
            self._rollout.fail(StartError(why))

    def _proc_died(self, slot: Slot, why: str) -> None:
        if self._rollout is not None:
            self._rollout.proc_died(slot, why)

    def _raw_stderr(self, name: str) -> int:
        """The breakage log *name*, of the newest generation that has one of that name."""
        logs = [generation.logs for generation in self.generations]
        if self._rollout is not None and self._rollout.logs is not None:
            logs.append(self._rollout.logs)
        return next(one.fd(name) for one in reversed(logs) if name in one)

    # -- what signals and commands ask for ------------------------------------------------------

    def reap(self) -> None:
        self.reaper.reap()

    def reload(self, on_outcome: OnOutcome = lambda error: None) -> None:
        """Load the configuration again and let its generation take over."""
        if self.state == "serving":
            self._reloads.request(on_outcome)
        else:
            on_outcome(StartError(f"the server is {self.state}"))

    def hang_up(self) -> None:
        """HUP: reload; the logs are reopened whatever comes of that."""
        self.reopen_logs()
        self.reload()

    def reopen_logs(self) -> tuple[str, ...]:
        """Reopen all logs, here and in the workers; what could not be, and why."""
        return tuple(
            problem for generation in self._everyone() for problem in generation.reopen_logs()
        )

    def add_worker(self) -> None:
        self._resize(1)

    def remove_worker(self) -> None:
        self._resize(-1)

    def rest(self) -> None:
        """WINCH: no workers any more; the listeners stay, and clients wait."""
        # A window that changes its size says the same to a server in its foreground.
        if self._current is not None and not daemon.has_terminal():
            log.info("generation %d: all workers drain", self._current.number)
            self._current.rest()

    def terminate(self) -> None:
        """TERM, INT: stop in order; the second time at once."""
        if self._shutdown is not None:
            self._shutdown.cut()
        elif self._current is None:
            self._give_up(StartError("stopped while it was starting"))
        else:
            timeout = self.config.server.features.graceful_shutdown_timeout
            log.info("master pid %d: stops, %g s at most", self.pid, timeout)
            self._begin_shutdown().finish(timeout)

    def _idle(self) -> None:
        if self._shutdown is None:
            log.info("server stopped after idle timeout")
            self.terminate()

    def quit(self) -> None:
        """QUIT: stop now."""
        if self._shutdown is None and self._current is not None:
            log.info("master pid %d: stops now", self.pid)
            self._begin_shutdown().cut()
        else:
            self.terminate()

    def _resize(self, by: int) -> None:
        if self._current is None or self._shutdown is not None:
            return
        changed = self._current.resize(by)
        wanted = self._current.wanted
        log.info("generation %d: %d workers%s", self._current.number, wanted,
                 "" if changed else ", no change possible")  # fmt: skip

    def _start_loading(self, on_result: Callable[[Result], None]) -> Loading:
        assert self._current is not None
        keep = self._current.logs.fds()
        log.info("reload: loads %s", self.config.file)
        self._herald.reloading()
        return Loading(self._options.load, self.loop, self.reaper, on_result, keep)

    def _reloaded(self, error: StartError | None) -> None:
        self.last_reload = {"ok": error is None, "time": time.time()}
        if error is not None:
            self.last_reload["error"] = str(error)
            for line in str(error).splitlines():
                log.error("reload: %s", line)
            log.error("reload: refused, generation %d goes on", self.generation_number)
        if self._shutdown is None:
            self._herald.reloaded()

    def _begin_shutdown(self) -> Shutdown:
        stopping = StartError("the server is stopping")
        self._shutdown = Shutdown(
            self.loop, self.generations, self.backends, self._strays, self.loop.stop
        )
        self._herald.stopping()
        self._reloads.cancel(stopping)
        self._upgrades.cancel(stopping)
        if self._rollout is not None:
            self._rollout.fail(stopping)
        self.listeners.close()
        return self._shutdown


SIGNALS: Mapping[signal.Signals, Callable[[Master], object]] = {
    signal.SIGCHLD: Master.reap,
    signal.SIGTERM: Master.terminate,
    signal.SIGINT: Master.terminate,
    signal.SIGQUIT: Master.quit,
    signal.SIGHUP: Master.hang_up,
    signal.SIGUSR1: Master.reopen_logs,
    signal.SIGUSR2: Master.upgrade,
    signal.SIGTTIN: Master.add_worker,
    signal.SIGTTOU: Master.remove_worker,
    signal.SIGWINCH: Master.rest,
}


def _acquire(path: str) -> PidFile:
    try:
        return PidFile.acquire(path)
    except OSError as error:
        raise _refused(f"pid file {path}", error) from None


def _refused(subject: str, error: OSError) -> StartError:
    refusals = (errno.EACCES, errno.EPERM, errno.EROFS)
    code = NO_PERMISSION if error.errno in refusals else 1
    return StartError(f"{subject}: {error.strerror or error}", code)
