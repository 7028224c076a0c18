"""What the composition root knows and the master does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..certs import Contexts
from ..config.model import Config
from ..log import LogFiles
from ..unix.activation import Inherited
from ..unix.notify import Notifier
from ..unix.reexec import CommandLine


@dataclass(frozen=True, slots=True)
class MasterOptions:
    """Paths are OS strings."""

    pid_file: str
    control_socket: str
    load: Callable[[], Config]
    """Loads the configuration again, in a process of its own.  Raises ConfigError, StartError."""
    open_logs: Callable[[Config], LogFiles]
    """The logs of a generation.  Raises StartError."""
    use_logs: Callable[[LogFiles], None]
    """Makes them this process's own."""
    on_ready: Callable[[], None]
    """The server serves: whoever waits for that may go."""
    open_tls: Callable[[Config], Contexts] = Contexts
    """The TLS contexts of a generation, its keys read anew.  Raises StartError."""
    inherited: Sequence[Inherited] = ()
    """Sockets of a service manager."""
    notifier: Notifier = Notifier()
    """The way to that manager."""
    command: CommandLine | None = None
    """How this process was called; None: it cannot be upgraded."""
    idle_limit: float = 0
    """Seconds without a connection after which it stops; 0: never."""
