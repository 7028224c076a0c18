"""The logs of one generation, and Python's logging on top of them.

``LogFiles`` are opened by the master and inherited by workers; the master reopens them and sends
workers the new descriptors, which take the place of the old ones under the same numbers.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import StartError
from .logfile import STDERR, LogFile, LogInherited, LogPipe, Syslog, is_inherited, replace

MAX_FILES = 250  # descriptors that one SCM_RIGHTS message may carry are 253 (unix(7))

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogPlan:
    """Which logs a configuration needs.  Names are OS strings: files or ``|command``."""

    error: str = STDERR
    others: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None
    """(uid, gid) that log files are given to; None when they stay whose they are."""
    facility: str = "daemon"
    error_to_syslog: bool = False


@dataclass(frozen=True, slots=True)
class OpenLog:
    """One log of a LogsRecord."""

    name: str
    fd: int


@dataclass(frozen=True, slots=True)
class LogsRecord:
    """Open logs, for a program that goes on in this process."""

    plan: LogPlan
    files: tuple[OpenLog, ...]
    captures: bool = False


class LogFiles:
    """The open logs of one generation, by name.  The master closes them; workers just end."""

    def __init__(
        self,
        plan: LogPlan,
        previous: LogFiles | None = None,
        handed: Mapping[str, int] | None = None,
    ) -> None:
        """Open everything; commands that *previous* runs are shared with it.

        *handed*: descriptors of those that are open already.  Raises StartError: the first log that
        cannot be opened, and why.
        """
        self.plan = plan
        self._files: dict[str, LogFile] = {}
        self._captures = False
        try:
            self._syslog = Syslog(plan.facility)
        except ValueError as error:
            raise StartError(str(error), 6) from None
        try:
            self._open({} if previous is None else previous._files, handed or {})
        except StartError:
            self.close()
            raise

    @classmethod
    def restore(cls, record: LogsRecord) -> LogFiles:
        """The logs of the program before this one, nothing opened anew.  Raises StartError."""
        self = cls(record.plan, handed={file.name: file.fd for file in record.files})
        self._captures = record.captures
        return self

    def snapshot(self) -> LogsRecord:
        files = (OpenLog(name, file.fd) for name, file in self._files.items())
        return LogsRecord(self.plan, tuple(files), self._captures)

    def _open(self, running: Mapping[str, LogFile], handed: Mapping[str, int]) -> None:
        names = dict.fromkeys((self.plan.error, *self.plan.others))
        if len(names) > MAX_FILES:
            raise StartError(f"{len(names)} log files; {MAX_FILES} are possible", 6)
        for name in names:
            try:
                self._files[name] = self._open_one(name, running.get(name), handed.get(name))
            except OSError as error:
                code = 4 if isinstance(error, PermissionError) else 1
                raise StartError(f"log {name}: {_reason(error)}", code) from None

    def _open_one(self, name: str, running: LogFile | None, fd: int | None) -> LogFile:
        if is_inherited(name):
            return LogInherited(name, fd=fd)
        if not name.startswith("|"):
            return LogFile(name, self.plan.owner, fd)
        stderr = None if name == self.plan.error else self.error_fd
        return LogPipe(name, stderr, running if isinstance(running, LogPipe) else None, fd)

    @property
    def error_fd(self) -> int:
        return self._files[self.plan.error].fd

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def fd(self, name: str) -> int:
        """The descriptor of log *name*.  Raises KeyError when the plan does not name it."""
        return self._files[name].fd

    def fds(self) -> tuple[int, ...]:
        """Every descriptor, in an order that master and worker agree on: those a worker keeps."""
        return (*(file.fd for file in self._files.values()), self._syslog.fd)

    def append(self, name: str, data: bytes) -> int:
        """Append the whole lines *data* to log *name*; how many bytes were taken or given up.

        Less than all only where a ``|command`` is slow; the rest is to be offered again.
        """
        return self._files[name].write(data)

    def write_error(self, priority: int, line: str) -> None:
        """One line, without its line feed, to the error log; *priority* as in syslog."""
        if self.plan.error_to_syslog:
            self._syslog.send(priority, line)
        else:
            self._files[self.plan.error].write(line.encode("utf-8", "surrogateescape") + b"\n")

    def to_syslog(self, priority: int, line: str) -> None:
        self._syslog.send(priority, line)

    def capture_stderr(self) -> None:
        """From now on standard output and error go to the error log, over reopens too."""
        self._captures = True
        self._redirect()

    def reopen(self) -> tuple[str, ...]:
        """In the master: open every file anew by its name; what could not be, and why.

        A log that cannot be opened stays the file it was.  Commands start again if they died.
        """
        problems = []
        for name, file in self._files.items():
            try:
                file.reopen()
            except OSError as error:
                problems.append(f"log {name}: {_reason(error)}")
        self._redirect()
        for problem in problems:
            log.error("%s; the old one is kept", problem)
        return tuple(problems)

    def adopt(self, fds: Sequence[int]) -> None:
        """In a worker: take the files that the master has reopened, in the order of ``fds()``.

        *fds* are closed.  Raises ValueError when their number is not that of the logs.
        """
        own = self.fds()
        if len(fds) != len(own):
            for fd in fds:
                os.close(fd)
            raise ValueError(f"{len(fds)} log descriptors came, {len(own)} were due")
        for fd, new in zip(own, fds, strict=True):
            replace(fd, new)
        self._redirect()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._syslog.close()

    def _redirect(self) -> None:
        if self._captures:
            os.dup2(self.error_fd, 1)
            os.dup2(self.error_fd, 2)


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a symbolic link, not followed"
    if error.errno == errno.ENXIO:
        return "is a pipe or device that nobody reads"
    return error.strerror or str(error)


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def one_line(text: str) -> str:
    """*text* with control characters as ``\\xHH``: nobody from outside writes lines of his own."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class LineFormatter(logging.Formatter):
    """``YYYY-MM-DD HH:MM:SS [pid] level: text`` (core.md 18.2), a traceback below it."""

    def __init__(self, stamped: bool = True) -> None:
        """*stamped*: with time and pid, which syslog adds itself."""
        super().__init__()
        self._stamped = stamped
        self._second, self._text = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname.lower()}: {one_line(record.getMessage())}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return f"{self._stamp(record)}{line}" if self._stamped else line

    def _stamp(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._text} [{os.getpid()}] "


class ErrorLog(logging.Handler):
    """Log records to the error log.  A warning that only repeats the last one is counted."""

    def __init__(self, logs: LogFiles) -> None:
        super().__init__()
        self.logs = logs
        self.setFormatter(LineFormatter(stamped=not logs.plan.error_to_syslog))
        self._last = ""
        self._repeated = 0
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self._is_repetition(record):
                self.logs.write_error(PRIORITIES.get(record.levelno, 6), self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Say how often the last warning was repeated; once a second is enough."""
        repeated, self._repeated = self._repeated, 0
        if repeated:
            text = f"last message repeated {repeated} times"
            record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)
            self.logs.write_error(PRIORITIES[logging.WARNING], self.format(record))

    def _is_repetition(self, record: logging.LogRecord) -> bool:
        if self._pid != os.getpid():  # what the master repeated is not the worker's to count
            self._pid, self._last, self._repeated = os.getpid(), "", 0
        text = f"{record.levelno}{record.getMessage()}" if record.levelno > logging.INFO else ""
        if text and text == self._last and not record.exc_info:
            self._repeated += 1
            return True
        self.flush()
        self._last = text
        return False


PRIORITIES = {  # of syslog(3)
    logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7,
}  # fmt: skip


def set_up(logs: LogFiles, level: int = logging.INFO) -> ErrorLog:
    """From now on log records go to *logs*; an earlier set-up is replaced."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, ErrorLog):
            handler.flush()
            root.removeHandler(handler)
    handler = ErrorLog(logs)
    root.addHandler(handler)
    root.setLevel(level)
    logging.raiseExceptions = False
    return handler


def flush() -> None:
    """Write what is held back: repeated warnings.  For the 1 Hz sweep and the end of a process."""
    for handler in logging.getLogger().handlers:
        handler.flush()
