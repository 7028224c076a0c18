"""What a proc depends on beside its spec."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..config.backend import BackendSpec
from ..unix.spawn import Program, environment
from ..unix.user import Identity


@dataclass(frozen=True, slots=True)
class Habitat:
    """With equal ones a proc may stay over a reload."""

    identity: Identity | None = None
    """Who connects to its socket, and owns that; None: whoever we are."""
    runs_as: Identity | None = None
    """Whom the program runs as; None: the same."""
    chroot: str = ""
    breakagelog: str = ""
    """Name of the log that takes standard error as it is; "" for tagged lines in the error log."""

    @property
    def uid(self) -> int:
        """Of the user who owns the socket."""
        return os.geteuid() if self.identity is None else self.identity.uid

    def program(self, spec: BackendSpec) -> Program:
        """What is spawned for *spec*."""
        return Program(
            argv=spec.bin_path,
            env=environment(os.environ, spec.bin_copy_environment, spec.bin_environment),
            cwd=spec.cwd or os.path.dirname(spec.bin_path[0]) or ".",
            identity=self.runs_as,
            chroot=self.chroot,
            umask=spec.umask,
            rlimits=spec.rlimits,
            death_signal=spec.kill_signal,
        )
