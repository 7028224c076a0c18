"""A process that is not ours and serves a slot's path: left alone for as long as it lives."""

from __future__ import annotations

import errno
import os
import select

from ..unix import listen, proctitle


class Stranger:
    """Known by a descriptor (pidfd_open(2)): a pid may be somebody else's by tomorrow."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    @classmethod
    def at(cls, path: str, owner: int, kind: int) -> Stranger | None:
        """Who serves *path*; None: nobody does, or it is what a dead server has left behind.

        Raises OSError, EADDRINUSE when it is another forkd, or *owner* (a uid) has not the file, or
        its socket is not of *kind* (SOCK_STREAM, SOCK_SEQPACKET).
        """
        found = listen.occupant(path)
        if found is None:
            return None
        if found.pid:
            try:
                one = cls(found.pid)
            except ProcessLookupError:
                return None
            if one.has_ended:
                one.close()
                return None
            is_ours = found.owner == owner and found.kind == kind
            if is_ours and not proctitle.is_forkd(found.pid):
                return one
            one.close()
        raise OSError(errno.EADDRINUSE, "is served by somebody else", path)

    @property
    def has_ended(self) -> bool:
        """A zombie has."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Forget it."""
        os.close(self._pidfd)
