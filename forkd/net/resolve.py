"""Names of backends to addresses, while the server runs (RFC 8305 section 4 for the order).

An answer is asked for anew when it has grown old, without anybody waiting for it: only the first
question for a name is waited for.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import gevent
from gevent import get_hub

log = logging.getLogger(__name__)

TTL = 30.0  # seconds that an answer is believed; the system's resolver does not tell its own
RETRY = 5.0  # seconds between questions while there is no answer


class _Answer(NamedTuple):
    hosts: tuple[str, ...]
    expires: float


class Resolver:
    """The names of one worker."""

    def __init__(
        self,
        ask: Callable[[str], Iterable[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*ask* gives the addresses of a name, best first, or raises OSError."""
        self._ask = ask or _ask_system
        self._clock = clock
        self._answers: dict[str, _Answer] = {}
        self._asking: dict[str, Any] = {}

    def hosts(self, name: str, known: str, timeout: float) -> tuple[str, ...]:
        """The addresses of *name*, in the order to try them; *known*, which it had once, when
        there is no answer.  Waits at most *timeout* seconds (0: as long as it takes)."""
        answer = self._answers.get(name)
        if answer is None or self._clock() >= answer.expires:
            asking = self._asking.get(name)
            if asking is None:
                asking = self._asking[name] = gevent.spawn(self._refresh, name)
            if answer is None:
                asking.join(timeout or None)
                answer = self._answers.get(name)
        return answer.hosts if answer and answer.hosts else (known,)

    def _refresh(self, name: str) -> None:
        before = self._answers.get(name)
        hosts = before.hosts if before else ()
        lasts = TTL
        try:
            found = _interleaved(self._ask(name))
            if before and set(found) != set(hosts):
                log.info("host %s: now %s", name, ", ".join(found))
            hosts = found
        except OSError as error:
            log.warning("host %s: not resolved, %s", name, error.strerror or error)
            lasts = RETRY
        finally:
            self._answers[name] = _Answer(hosts, self._clock() + lasts)
            del self._asking[name]


def _ask_system(name: str) -> list[str]:
    """In a thread of gevent's: the resolver of the C library blocks."""
    found = get_hub().resolver.getaddrinfo(name, None, 0, socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _interleaved(hosts: Iterable[str]) -> tuple[str, ...]:
    """Each once, the families by turns: if one of them is cut off, the next try is of the other."""
    unique = list(dict.fromkeys(hosts))
    if not unique:
        raise OSError("no address")
    first = [host for host in unique if (":" in host) == (":" in unique[0])]
    other = [host for host in unique if host not in first]
    return tuple(host for host in chain(*zip_longest(first, other)) if host is not None)
