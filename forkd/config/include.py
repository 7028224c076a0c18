"""Finding and reading what ``include`` and ``include_shell`` name (config.md 7).

Operands are Latin-1 text as in the configuration; paths handed out are OS strings.
"""

from __future__ import annotations

import glob
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise

MAX_SIZE = 32 << 20  # bytes, of one file or of what a command prints
COMMAND_TIMEOUT = 30.0  # seconds

_GLOB_CHARACTERS = re.compile(r"[*?\[{]")
_BRACE_MARKS = re.compile(r"[{},]")


class IncludeError(Exception):
    """It cannot be read; the text (Latin-1) names it and the reason."""


def find_files(operand: str, folder: str) -> list[str]:
    """The files that *operand* names, a relative one starting at *folder* (an OS string).

    With glob characters: those that exist, in sorted order for each ``{alternative}``; none is
    fine.  Without: the one file, which need not exist.
    """
    name = os.fsdecode(operand.encode("latin-1"))
    if not _GLOB_CHARACTERS.search(name):
        return [os.path.join(folder, name)]
    return [
        os.path.join(folder, found)
        for pattern in _expanded(name)
        for found in sorted(glob.glob(pattern, root_dir=folder or None), key=os.fsencode)
    ]


def _expanded(pattern: str) -> Iterator[str]:
    """*pattern* without its ``{a,b}``, once for each alternative; braces may nest."""
    cuts = _outer_braces(pattern)
    if not cuts:
        yield pattern
        return
    before, after = pattern[: cuts[0]], pattern[cuts[-1] + 1 :]
    for begin, end in pairwise(cuts):
        yield from _expanded(before + pattern[begin + 1 : end] + after)


def _outer_braces(pattern: str) -> list[int]:
    """Where the first pair of outer braces opens, where its commas stand, and where it closes."""
    depth = 0
    cuts: list[int] = []
    for mark in _BRACE_MARKS.finditer(pattern):
        at, character = mark.start(), mark.group()
        if character == "{":
            depth += 1
        elif character == "}" and depth:
            depth -= 1
            if depth == 0:
                return [*cuts, at]
        if depth == 1 and character in "{,":
            cuts.append(at)
    return []


def read_file(path: str) -> bytes:
    """The bytes of the file at *path*, at most 32 MiB.  Raises IncludeError."""
    shown = os.fsencode(path).decode("latin-1")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise IncludeError(f"cannot read {shown}: {error.strerror}") from None
    return limited(data, shown)


def run_command(command: str, folder: str) -> bytes:
    """What the shell command prints, run in *folder*, at most 32 MiB.  Raises IncludeError.

    It gets the environment, no standard input, and 30 seconds.
    """
    shown = f'command "{command}"'
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command.encode("latin-1")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=folder or None,
            start_new_session=True,  # a group of its own, which can be ended whole
        )
    except OSError as error:
        raise IncludeError(f"{shown} cannot be run: {error.strerror}") from None
    output, in_time = _output(process)
    if not in_time:
        raise IncludeError(f"{shown} did not end within {COMMAND_TIMEOUT:g} s")
    output = limited(output, f"the output of {shown}")
    if process.returncode < 0:
        raise IncludeError(f"{shown} was ended by signal {-process.returncode}")
    if process.returncode:
        raise IncludeError(f"{shown} exited non-zero: {process.returncode}")
    return output


def _output(process: subprocess.Popen[bytes]) -> tuple[bytes, bool]:
    """What *process* printed until it ended or had printed too much; whether it ended in time.

    A timer ends its group: one left behind in the background may keep the pipe open.
    """
    late = threading.Event()

    def end_late() -> None:
        late.set()
        _end_group(process)

    timer = threading.Timer(COMMAND_TIMEOUT, end_late)
    timer.start()
    assert process.stdout is not None
    try:
        with process.stdout as pipe:
            output = pipe.read(MAX_SIZE + 1)
        if len(output) > MAX_SIZE:
            _end_group(process)
        process.wait()
    finally:  # a signal may end us meanwhile: that would wait for the timer
        timer.cancel()
        _end_group(process)
    return output, not late.is_set()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # not reaped: its number is still its own
        os.killpg(process.pid, signal.SIGKILL)


def limited(data: bytes, what: str) -> bytes:
    """*data*, unless it is too large: then IncludeError about *what*."""
    if len(data) > MAX_SIZE:
        raise IncludeError(f"{what} is larger than {MAX_SIZE >> 20} MiB")
    return data
