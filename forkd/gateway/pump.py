"""A request on its way to a backend, while somebody else reads the response.

What is small goes out at once.  All else has a greenlet of its own, so that neither a program that
answers without reading, nor one that writes much before it reads, stands still.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Any

import gevent

from ..errors import BackendTimeout, ClientGone, ForkdError
from ..net.blocking import BlockingPort
from ..protocol.conversation import RequestEncoder
from .body import RequestBody
from .conversation import Terms

log = logging.getLogger(__name__)


class _BackendLeft(Exception):
    """The backend takes nothing more.  Its answer, if there is one, is heard elsewhere."""


class Pump:
    """Sends one request.  What goes wrong interrupts the port, and so is raised to its reader."""

    def __init__(
        self,
        port: BlockingPort,
        encoder: RequestEncoder,
        body: RequestBody,
        terms: Terms,
        holds_end: bool,
        on_over: Callable[[], None],
    ) -> None:
        """*holds_end*: the end of the body is not told before ``release_end``; *on_over* is called
        when all has been handed to the port."""
        self.is_over = False
        self._port = port
        self._encoder = encoder
        self._body = body
        self._terms = terms
        self._timeout = terms.write_timeout or inf
        self._holds_end = holds_end
        self._body_is_out = False
        self._on_over = on_over
        self._greenlet: Any = None

    @property
    def is_at_work(self) -> bool:
        return self._greenlet is not None and not self._greenlet.dead

    def start(self) -> None:
        port = self._port.port
        if not self._body.is_small:
            port.write(self._encoder.head())
            self._greenlet = gevent.spawn(self._run, self._send_body)
            return
        data = [self._encoder.head(), *map(self._encoder.body, self._body.pieces())]
        if not self._holds_end:
            data.append(self._encoder.end())
        port.write(b"".join(data))
        self._body_ended()
        if port.queued and self._terms.write_timeout:
            self._greenlet = gevent.spawn(self._run, self._drain)

    def release_end(self) -> None:
        """Tell the end of the body as soon as it has come, if that was held back."""
        if self._holds_end:
            self._holds_end = False
            if self._body_is_out:
                self._send_end()

    def wait(self) -> None:
        """Until the body has been handed to the port, or cannot be."""
        if self._greenlet is not None:
            self._greenlet.join()

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    # -- the greenlet -----------------------------------------------------------------------------

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except _BackendLeft:
            pass
        except (ForkdError, ClientGone) as error:
            self._port.interrupt(error)
        except Exception as error:
            log.exception("request body failed")
            self._port.interrupt(ForkdError(str(error)))

    def _send_body(self) -> None:
        for piece in self._body.pieces():
            self._send(self._encoder.body(piece))
        if not self._holds_end:
            self._send(self._encoder.end())
        self._body_ended()
        self._drain()

    def _send(self, data: Any) -> None:
        try:
            self._port.send(data, self._timeout)
        except TimeoutError as error:
            raise BackendTimeout(f"request, {error}") from error
        except ClientGone as error:
            raise _BackendLeft from error

    def _drain(self) -> None:
        try:
            self._port.drain(self._timeout)
        except TimeoutError as error:
            raise BackendTimeout(f"request, {error}") from error
        except ClientGone as error:
            raise _BackendLeft from error

    # -- the end ----------------------------------------------------------------------------------

    def _body_ended(self) -> None:
        self._body_is_out = True
        if not self._holds_end:
            self._over()

    def _send_end(self) -> None:
        data = self._encoder.end()
        if data:
            self._port.port.write(data)
        self._over()

    def _over(self) -> None:
        if self._terms.eof_after_body:
            self._port.port.write_eof()
        self.is_over = True
        self._on_over()
