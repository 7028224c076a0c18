"""Start a program: with exactly these descriptors, this environment, this user.

``spawn_proc`` is the master's: a backend, which stays and may become another user.  ``spawn_cgi``
is a worker's: a program for one request, started without a copy of the worker's memory.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from . import signals
from .fork import close_others, die_with_parent
from .user import Identity

NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS",
                    "LISTEN_FDNAMES")  # systemd speaks to the master alone  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """What to execute and as what.  Paths are OS strings."""

    argv: tuple[str, ...]
    """The first is the file; it is not searched for in PATH."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    identity: Identity | None = None
    """None: stay who we are."""
    chroot: str = ""
    umask: int | None = None
    """None: keep ours."""
    rlimits: tuple[tuple[str, int, int], ...] = ()
    """(name in lower case without ``RLIMIT_``, soft limit, hard limit); -1 is unlimited."""
    death_signal: int = 0
    """What the program gets when the process that started it ends; 0: nothing."""


def environment(
    base: Mapping[str, str], copy: Iterable[str], extra: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """A backend's environment (gateway.md 6): all of *base* or, if any, the names in *copy*.

    *extra* comes on top.
    """
    names = list(copy) or list(base)
    env = {name: base[name] for name in names if name in base and name not in NOT_FOR_CHILDREN}
    env.update(extra)
    env.setdefault("PHP_FCGI_CHILDREN", "1")
    return env


def spawn_proc(program: Program, stdin: int, stderr: int) -> int:
    """Start *program* as leader of a group of its own; the pid.

    Its descriptors: *stdin*, /dev/null, *stderr*, no others; the caller's own 0, 1 and 2 are open
    (``daemon.open_standard``).  Raises OSError with the errno of the step that failed, ``filename``
    being the path that was looked for.  Nothing is left behind then.
    """
    report, answer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            with signals.blocked():
                parent = os.getpid()
                pid = os.fork()
                if pid == 0:
                    _become(program, stdin, stderr, answer, parent)
        finally:
            os.close(answer)
        failure = os.read(report, 512)  # empty: the exec closed it
    finally:
        os.close(report)
    if failure:
        os.waitpid(pid, 0)
        raise _decode(failure)
    return pid


def spawn_cgi(
    argv: list[bytes], env: Mapping[bytes, bytes], cwd: bytes, fds: tuple[int, int, int]
) -> int:
    """Start ``argv[0]``, a path, in folder *cwd* as leader of a group of its own; the pid.

    Its descriptors are *fds*, as 0, 1 and 2: every other of ours is close-on-exec.  It gets the
    default for every signal and none blocked.  Raises OSError; ValueError for a NUL in the text.
    """
    # The child of posix_spawn borrows our memory until its exec, and the folder is the process's:
    # no other greenlet runs in between.
    home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(cwd)
        try:
            return os.posix_spawn(
                argv[0],
                argv,
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(fds)],
                setpgroup=0,
                setsigmask=(),
                setsigdef=signals.PYTHONS_OWN,
            )
        finally:
            os.fchdir(home)
    finally:
        os.close(home)


def _become(program: Program, stdin: int, stderr: int, answer: int, parent: int) -> NoReturn:
    step = program.argv[0]
    try:
        os.setpgid(0, 0)
        _arrange(stdin, stderr, answer)
        file = os.path.abspath(program.argv[0])
        for name, *limits in program.rlimits:
            step = f"limit {name}"
            _limit(name, *limits)
        if program.chroot:
            step = program.chroot
            os.chroot(step)
            os.chdir("/")
        if program.identity is not None:
            step = ""
            program.identity.drop()
        step = program.cwd
        os.chdir(step)
        step = program.argv[0]
        if program.umask is not None:
            os.umask(program.umask)
        signals.reset_for_program()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if program.death_signal:
            die_with_parent(parent, program.death_signal)
        os.execve(file, program.argv, program.env)
    except OSError as error:
        os.write(answer, _encode(error, step))
    except BaseException as error:  # a NUL in the environment
        os.write(answer, _encode(OSError(22, str(error)), step))
    finally:
        os._exit(127)


def _arrange(stdin: int, stderr: int, answer: int) -> None:
    """Put *stdin*, /dev/null and *stderr* under 0, 1 and 2; close all the rest but *answer*."""
    copies = [os.dup(fd) for fd in (stdin, os.open(os.devnull, os.O_RDWR), stderr)]
    for number, fd in enumerate(copies):
        os.dup2(fd, number)
    close_others((answer,))


def _limit(name: str, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))
    except ValueError:  # Python's word for EPERM
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from None


def _encode(error: OSError, path: str) -> bytes:
    return f"{error.errno or 0} {path}".encode("utf-8", "surrogateescape")[:512]


def _decode(failure: bytes) -> OSError:
    number, _, path = failure.decode("utf-8", "surrogateescape").partition(" ")
    return OSError(int(number), os.strerror(int(number)), *([path] if path else []))
