"""What a service manager is told about this process, and how (sd_notify(3)).

One datagram per message.  A manager that does not listen is none of our problems: nothing here
raises or blocks.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass

_SOCKET, _WATCHDOG_USEC, _WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


@dataclass(frozen=True, slots=True)
class Notifier:
    """A way to the manager; without an address everything is said to nobody."""

    address: str = ""
    """Path of the manager's socket, or ``@NAME`` for an abstract one."""
    watchdog_usec: int = 0
    """Microseconds after which a silent process is taken for stuck; 0: never."""
    watchdog_pid: int = 0
    """Whose silence is meant; 0: anybody's."""

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Notifier:
        """As *environment* says; the variables are taken out, for they mean this process alone."""
        address, usec, pid = (
            environment.pop(name, "") for name in (_SOCKET, _WATCHDOG_USEC, _WATCHDOG_PID)
        )
        if not address.startswith(("/", "@")):
            address = ""
        return cls(address, _number(usec), _number(pid))

    @property
    def variables(self) -> Mapping[str, str]:
        """What ``take`` understands: for a program that goes on in this process."""
        values = {
            _SOCKET: self.address,
            _WATCHDOG_USEC: self.watchdog_usec,
            _WATCHDOG_PID: self.watchdog_pid,
        }
        return {name: str(value) for name, value in values.items() if value}

    @property
    def interval(self) -> float:
        """Seconds between two signs of life, half of what the manager waits; 0: none wanted."""
        is_meant = self.watchdog_pid in (0, os.getpid())
        return self.watchdog_usec / 2e6 if self.address and is_meant else 0.0

    def say(self, *assignments: str) -> None:
        """Send *assignments*, each ``NAME=value``, together."""
        if not self.address:
            return
        path = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        message = "\n".join(assignments).encode("utf-8", "replace")
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message, path)

    def ready(self, status: str) -> None:
        """It serves; also the end of ``reloading``, whatever came of it."""
        self.say("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; the manager needs to know when, to tell it from the one before."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.say("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self) -> None:
        self.say("STOPPING=1", "STATUS=stopping")

    def status(self, text: str) -> None:
        self.say(f"STATUS={text}")

    def alive(self) -> None:
        self.say("WATCHDOG=1")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
