"""Where a server's pid file, control socket and log are when nobody says (admin.md 13).

Names are OS strings.  RUN is ``/run/forkd`` for root, else ``$XDG_RUNTIME_DIR/forkd``, else
``/tmp/forkd-UID``.  A server whose configuration names a pid file elsewhere leaves a symlink to it
under the name it would have had, so that it is found by its configuration file alone, even when
that file has been edited or broken since.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from .errors import StartError
from .unix import pidfile

MAX_SOCKET_PATH = 107  # bytes of sun_path without its NUL (unix(7))
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Identity:
    """The names that a configuration gives its server."""

    name: str
    """Of the file, without folder and suffix."""
    digest: str
    """Eight hex digits over its real path; over its text when it came by standard input."""

    @property
    def pid_file(self) -> str:
        return f"{self.name}-{self.digest}.pid"


def identity(file: str, text: bytes | None = None) -> Identity:
    """The names for configuration *file*; *text* is what standard input held when it is ``-``."""
    if file == STDIN:
        return Identity("stdin", _digest(text or b""))
    name = os.path.splitext(os.path.basename(file))[0]
    return Identity(name or "forkd", _digest(os.fsencode(os.path.realpath(file))))


def run_dirs() -> tuple[str, ...]:
    """Where RUN may be, the preferred one first: another login may not know the same variable."""
    if os.geteuid() == 0:
        return ("/run/forkd",)
    fallback = f"/tmp/forkd-{os.geteuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.path.isdir(runtime):
        return (os.path.join(runtime, "forkd"), fallback)
    return (fallback,)


def make_run_dir() -> str:
    """RUN, made when missing.  Raises StartError when it is somebody else's."""
    path = run_dirs()[0]
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755 if os.geteuid() == 0 else 0o700)
        found = os.lstat(path)
    except OSError as error:
        code = 4 if isinstance(error, PermissionError) else 1
        raise StartError(f"{path}: {error.strerror}", code) from None
    # /tmp is everybody's: whoever made the folder first would hold our lock and our socket.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StartError(f"{path}: not a folder that only this user may write to", 4)
    return path


def pid_file_for(who: Identity, option: str, directive: str) -> str:
    """The pid file of a server that starts: *option*, else *directive*, else in RUN.

    Makes RUN when needed.  Raises StartError.
    """
    if option or directive:
        return os.path.abspath(option or directive)
    path = os.path.join(make_run_dir(), who.pid_file)
    if os.path.islink(path):  # left by a server that did not end in order
        with contextlib.suppress(OSError):
            os.unlink(path)
    return path


def control_socket_for(pid_file: str) -> str:
    """The control socket of the server with *pid_file*: its name with ``.sock`` behind it.

    In RUN, under a digest, where that is longer than a socket's name may be.
    """
    path = f"{pid_file}.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    return os.path.join(run_dirs()[0], f"{_digest(os.fsencode(pid_file))}.sock")


def log_file_for(who: Identity) -> str:
    """The error log of a daemon whose configuration names none.  Raises StartError."""
    return os.path.join(make_run_dir(), f"{who.name}.log")


def leave_link(who: Identity, pid_file: str) -> None:
    """Let *pid_file* be found by the configuration file, by a symlink where it is not in RUN.

    A failure is no reason not to start: ``--pid-file`` still finds the server.  A link to another
    server that runs, with the same file and another pid file, stays.
    """
    with contextlib.suppress(OSError, StartError):
        link = os.path.join(make_run_dir(), who.pid_file)
        # Our own pid file must not be opened: closing it again would end our lock on it.
        if os.path.realpath(link) == os.path.realpath(pid_file) or pidfile.holder(link):
            return
        staged = f"{link}.{os.getpid()}"
        os.symlink(pid_file, staged)
        os.replace(staged, link)


def remove_link(who: Identity, pid_file: str) -> None:
    """Undo ``leave_link``, unless another server has put its own there since."""
    for run in run_dirs():
        link = os.path.join(run, who.pid_file)
        with contextlib.suppress(OSError):  # none, or the pid file itself
            if os.readlink(link) == pid_file:
                os.unlink(link)


def known_pid_files(who: Identity) -> tuple[str, ...]:
    """Where a server of this configuration may have its pid file, links followed."""
    return tuple(os.path.realpath(os.path.join(run, who.pid_file)) for run in run_dirs())


def find_pid_file(
    who: Identity, option: str, directive: Callable[[], str], is_locked: Callable[[str], bool]
) -> str:
    """The pid file of the server that a command means, whether or not it runs.

    *option* wins.  Else the first of those known by the configuration's name that *is_locked*;
    else what *directive* says (it loads the configuration, so it is asked last); else RUN's.
    """
    if option:
        return os.path.abspath(option)
    known = known_pid_files(who)
    for path in known:
        if is_locked(path):
            return path
    named = directive()
    return os.path.abspath(named) if named else known[0]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
