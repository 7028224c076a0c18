"""Which program a request names, whether it may run, and its start."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import BadRequest, Forbidden, ForkdError, NoBackend, NotFound
from ..unix.spawn import spawn_cgi

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP)
_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""What may be different in a moment."""


class Command(NamedTuple):
    """What to execute.  Paths are absolute."""

    argv: tuple[bytes, ...]
    folder: bytes


class Pipes(NamedTuple):
    """Our ends of a program's pipes, non-blocking; it is ours to close them."""

    stdin: int
    stdout: int
    stderr: int


def command_of(environment: Mapping[bytes, bytes], binary: bytes) -> Command:
    """What *environment* asks for, or *binary* unless it is empty.

    Raises NotFound, Forbidden; ForkdError for what is not the client's fault.
    """
    if binary:
        return Command((binary,), os.path.dirname(binary))
    path = environment.get(b"SCRIPT_FILENAME", b"")
    if not path:
        raise ForkdError("no SCRIPT_FILENAME")
    script = _absolute(path)
    interpreter = environment.get(b"INTERPRETER", b"")
    _check(script, needs_mode=os.R_OK if interpreter else os.X_OK)
    argv = (_absolute(interpreter), script) if interpreter else (script,)
    return Command(argv, os.path.dirname(script))


def _absolute(path: bytes) -> bytes:
    return os.path.join(b"/", path)


def _check(script: bytes, needs_mode: int) -> None:
    name = os.fsdecode(script)
    try:
        mode = os.stat(script).st_mode
    except FileNotFoundError:
        raise NotFound(f"{name}: not there") from None
    except OSError as error:
        kind = Forbidden if error.errno in _FORBIDDEN else ForkdError
        raise kind(f"{name}: {error.strerror}") from None
    except ValueError:
        raise BadRequest("NUL in SCRIPT_FILENAME") from None
    if not stat.S_ISREG(mode):
        raise Forbidden(f"{name}: is not a regular file")
    if not os.access(script, needs_mode, effective_ids=True):
        raise Forbidden(f"{name}: must not be {'executed' if needs_mode == os.X_OK else 'read'}")


def launch(command: Command, environment: Mapping[bytes, bytes]) -> tuple[int, Pipes]:
    """Start *command* with *environment* and our own PATH; the pid, and the pipes.

    Raises NoBackend when there is no room for it now, BadRequest for variables that cannot be,
    ForkdError when it cannot be executed.
    """
    env = dict(environment)
    if b"PATH" in os.environb:
        env.setdefault(b"PATH", os.environb[b"PATH"])
    ends: list[int] = []
    try:
        for _ in Pipes._fields:
            ends += os.pipe()
        stdin, ours_in, ours_out, stdout, ours_err, stderr = ends
        pid = spawn_cgi(list(command.argv), env, command.folder, (stdin, stdout, stderr))
    except (OSError, ValueError) as error:
        for fd in ends:
            os.close(fd)
        raise _refusal(command, error) from error
    for fd in (stdin, stdout, stderr):
        os.close(fd)
    pipes = Pipes(ours_in, ours_out, ours_err)
    for fd in pipes:
        os.set_blocking(fd, False)
    return pid, pipes


def _refusal(command: Command, error: OSError | ValueError) -> ForkdError:
    name = os.fsdecode(b" ".join(command.argv))
    if not isinstance(error, OSError):
        return BadRequest(f"{name}: {error}")
    kind = NoBackend if error.errno in _PASSING else ForkdError
    return kind(f"{name}: not started: {error.strerror}")
