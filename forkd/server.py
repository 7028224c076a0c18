"""The composition root: a configuration, a master and workers become one running server.

The only module that knows both the master and the worker.  Before the fork the workers' code is
imported, so that its pages are shared; gevent makes no hub until a worker does.
"""

from __future__ import annotations

import faulthandler
import logging
from collections.abc import Callable
from dataclasses import dataclass

import gevent

from . import __version__, log, paths
from .certs import Contexts
from .channel import WorkerStart
from .config.model import Config
from .errors import StartError
from .http.negotiate import offered
from .log import LogFiles, LogPlan
from .master.master import Master, MasterOptions
from .unix import daemon, fork, user
from .unix.daemon import Outcome, ReadyPipe
from .worker import worker

FAILED = 1  # exit codes of forkd(8)
BAD_CONFIG = 6

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
    fork.close_others((caller.fd,))  # whoever waits for the end of some pipe does not wait for us
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

    def __init__(self, config: Config, options: Options, caller: ReadyPipe | None = None) -> None:
        """*caller* waits for a daemon; None: the server stays in the foreground."""
        self.is_ready = False
        self._config = config
        self._options = options
        self._caller = caller
        self._logs: LogFiles | None = None

    def run(self) -> int:
        """Serve until stopped; the exit status.  Raises StartError."""
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
            ),
            self._be_worker,
        )
        try:
            status = master.run()
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
        if not error and self._caller is not None and not server.errorlog_use_syslog:
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
        if self.is_ready and self._caller is not None:
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
        if self._caller is not None:
            # Not the caller's any more: who waits for the end of his output would wait for us.
            start.logs.capture_stderr()
        try:
            return worker.main(start)
        finally:
            log.flush()


def _owner(config: Config) -> tuple[int, int] | None:
    try:
        identity = user.look_up(config.server.username, config.server.groupname)
    except ValueError as error:
        raise StartError(str(error), BAD_CONFIG) from None
    return None if identity is None else (identity.uid, identity.gid)
