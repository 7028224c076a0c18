"""The composition root: a configuration, a master and workers become one running server.

The only module that knows both the master and the worker.  Before the fork the workers' code is
imported, so that its pages are shared; gevent makes no hub until a worker does.
"""

from __future__ import annotations

import faulthandler
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import gevent

from . import __version__, log, paths
from .certs import Contexts
from .channel import WorkerStart
from .config.model import Config
from .errors import StartError
from .http.negotiate import offered
from .log import LogFiles, LogPlan
from .master import state
from .master.master import Master
from .master.options import MasterOptions
from .master.rollout import identity_of
from .master.state import MasterRecord
from .unix import activation, daemon, fork
from .unix.activation import Inherited
from .unix.daemon import Outcome, ReadyPipe
from .unix.notify import Notifier
from .unix.reexec import CommandLine
from .worker import worker

FAILED = 1  # exit code of forkd(8)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How a server is to be started."""

    who: paths.Identity
    pid_file: str
    """Absolute."""
    foreground: bool
    load: Callable[[], Config]
    """Loads the configuration once more, for a reload.  Raises ConfigError, StartError."""
    inherited: Sequence[Inherited] = ()
    """Listening sockets that a service manager has opened."""
    notifier: Notifier = Notifier()
    """The way to that manager."""
    idle_limit: float = 0
    """Seconds without a connection after which it stops; 0: never."""
    command: CommandLine | None = None
    """How this process was called."""


def start(config: Config, options: Options) -> int:
    """Start the server: in the foreground until it has ended, else until the daemon is ready.

    The exit status.  Raises StartError, in the caller's process also for what fails in the daemon;
    there it does not return.
    """
    daemon.open_standard()
    preload()
    if options.foreground:
        return Server(config, options).run()
    outcome = daemon.daemonize()
    if isinstance(outcome, ReadyPipe):
        raise SystemExit(_run_daemon(config, options, outcome))
    return _told(outcome)


def resume(left: bytes, options: Options) -> int:
    """Go on where the program before this one in this process has *left* the server: an upgrade.

    The exit status.  *options*: its pid file and what it inherited are known from there.
    """
    before = _read(left)
    if not options.foreground:
        os.chdir("/")
    preload()
    options = replace(
        options,
        pid_file=before.pid_file.path,
        inherited=tuple(activation.adopt(one.fd, one.name) for one in before.inherited),
    )
    server = Server(before.config, options, is_daemon=not options.foreground)
    server.is_ready = True
    return _run_unattended(lambda: server.run(before))


def _read(left: bytes) -> MasterRecord:
    before = state.read(left)
    if before.pid != os.getpid():
        raise StartError(f"the state of process {before.pid} is not that of this one")
    for fd in state.descriptors(before):
        os.set_inheritable(fd, False)
    return before


def try_out(left: bytes) -> None:
    """Whether ``resume`` would do, as far as can be told from beside.  Raises StartError."""
    state.read(left)
    preload()


def _run_unattended(run: Callable[[], int]) -> int:
    try:
        return run()
    except StartError as error:
        logger.error("%s", error)
        return error.exit_code
    except BaseException:
        logger.exception("the master ends")
        return FAILED


def preload() -> None:
    """Import what gevent leaves for its first use.

    A worker that has become another user, or stands in a chroot, may not find the files any more;
    and what is imported before the fork is shared.
    """
    for setting in ("loop", "resolver", "threadpool", "format_context"):
        getattr(gevent.config, setting)


def _told(outcome: Outcome) -> int:
    if outcome.status or outcome.text:
        raise StartError(outcome.text, outcome.status)
    return 0


def _run_daemon(config: Config, options: Options, caller: ReadyPipe) -> int:
    """In the daemon.  Whatever happens before it is ready is the caller's to print."""
    # Whoever waits for the end of some pipe does not wait for us.
    fork.close_others((caller.fd, *(one.socket.fileno() for one in options.inherited)))
    server = Server(config, options, caller)
    try:
        return server.run()
    except StartError as error:
        if server.is_ready:
            logger.error("%s", error)
        else:
            caller.fail(error.exit_code, str(error))
        return error.exit_code
    except BaseException as error:
        logger.exception("the master ends")
        if not server.is_ready:
            caller.fail(FAILED, f"{type(error).__name__}: {error}")
        return FAILED


class Server:
    """One server in this process: what the master is given, and what is done around it."""

    def __init__(
        self,
        config: Config,
        options: Options,
        caller: ReadyPipe | None = None,
        is_daemon: bool = False,
    ) -> None:
        """*caller* waits for a daemon to be ready."""
        self.is_ready = False
        self._is_daemon = is_daemon or caller is not None
        self._config = config
        self._options = options
        self._caller = caller
        self._logs: LogFiles | None = None

    def run(self, before: MasterRecord | None = None) -> int:
        """Serve until stopped; the exit status.  Raises StartError.

        *before*: where the program before this one has left the server.
        """
        master = Master(
            self._config,
            MasterOptions(
                pid_file=self._options.pid_file,
                control_socket=paths.control_socket_for(self._options.pid_file),
                load=self._options.load,
                open_logs=self._open_logs,
                use_logs=self._use_logs,
                on_ready=self._on_ready,
                open_tls=lambda config: Contexts(config, offered(config.server.features)),
                inherited=self._options.inherited,
                notifier=self._options.notifier,
                idle_limit=self._options.idle_limit,
                command=self._options.command,
            ),
            self._be_worker,
        )
        try:
            status = master.run(before)
            logger.info("server stopped")
            return status
        finally:
            paths.remove_link(self._options.who, self._options.pid_file)
            log.flush()

    def _open_logs(self, config: Config) -> LogFiles:
        return LogFiles(self._log_plan(config), self._logs)

    def _log_plan(self, config: Config) -> LogPlan:
        server = config.server
        error = server.errorlog
        if not error and self._is_daemon and not server.errorlog_use_syslog:
            error = paths.log_file_for(self._options.who)
        return LogPlan(
            error,
            config.log_files,
            _owner(config),
            server.syslog_facility,
            server.errorlog_use_syslog,
        )

    def _use_logs(self, logs: LogFiles) -> None:
        """From now on the master writes to *logs*."""
        self._logs = logs
        log.set_up(logs)
        if self.is_ready and self._is_daemon:
            logs.capture_stderr()

    def _on_ready(self) -> None:
        logger.info("server started (forkd/%s)", __version__)
        paths.leave_link(self._options.who, self._options.pid_file)
        self.is_ready = True
        if self._caller is not None:
            self._caller.ready()
            if self._logs is not None:
                self._logs.capture_stderr()

    def _be_worker(self, start: WorkerStart) -> int:
        """In a worker, to its end."""
        log.set_up(start.logs)
        # The descriptor keeps its number over reopens.  A handler in Python would not run: the
        # master sends ABRT to a worker that is stuck.
        faulthandler.enable(start.logs.error_fd)
        if self._is_daemon:
            # Not the caller's any more: who waits for the end of his output would wait for us.
            start.logs.capture_stderr()
        try:
            return worker.main(start)
        finally:
            log.flush()


def _owner(config: Config) -> tuple[int, int] | None:
    identity = identity_of(config)
    return None if identity is None else (identity.uid, identity.gid)
