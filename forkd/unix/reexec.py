"""Another program in the place of this one (execve(2)): the same pid, the same children.

What the next program has to know comes as a text in a memfd, whose number is in the environment;
the descriptors that the text speaks of go with it, and no others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import NoReturn

VARIABLE = "FORKD_STATE"
_NAME = "forkd-state"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """How a program is called."""

    argv: tuple[str, ...]
    """The first is the file; it is not searched for in PATH."""
    folder: str
    """Where relative names begin."""

    @classmethod
    def own(cls) -> CommandLine:
        """How this process was called, if it still stands in the same folder."""
        return cls((sys.executable, *sys.orig_argv[1:]), os.getcwd())

    @property
    def cwd(self) -> str:
        """The folder, or ``/`` when it is gone: then nothing relative to it is found either."""
        return self.folder if os.path.isdir(self.folder) else "/"


def hold(text: bytes) -> int:
    """A memfd with *text*, read from its beginning.  The caller closes it."""
    fd = os.memfd_create(_NAME, os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(text)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read(fd: int) -> bytes:
    """What ``hold`` was given.  Raises OSError."""
    return os.pread(fd, os.fstat(fd).st_size, 0)


def execute(
    command: CommandLine, environment: Mapping[str, str], text: bytes, fds: Iterable[int]
) -> NoReturn:
    """Become *command*, which gets *text* and the descriptors *fds*; everything else is closed.

    Signals that are blocked stay so.  Raises OSError, and nothing has changed then.
    """
    home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(command.cwd)
        _execute(command.argv, environment, text, fds)
    finally:
        os.fchdir(home)
        os.close(home)


def _execute(
    argv: tuple[str, ...], environment: Mapping[str, str], text: bytes, fds: Iterable[int]
) -> NoReturn:
    state = hold(text)
    handed = [state, *fds]
    try:
        for fd in handed:
            os.set_inheritable(fd, True)
        os.execve(argv[0], argv, {**environment, VARIABLE: str(state)})
    finally:
        for fd in handed:
            os.set_inheritable(fd, False)
        os.close(state)


def take(environment: MutableMapping[str, str]) -> bytes | None:
    """The text that the program before this one has left; None: this is the first.

    The variable is taken out: it means this process alone.  Raises OSError, ValueError.
    """
    number = environment.pop(VARIABLE, None)
    if number is None:
        return None
    fd = int(number)
    if _NAME not in os.readlink(f"/proc/self/fd/{fd}"):
        raise ValueError(f"descriptor {fd} is not what {VARIABLE} says")
    text = read(fd)
    os.close(fd)
    return text
