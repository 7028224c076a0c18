"""scgi-cgi: one request for each connection, which ends with the program's output."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from ..errors import ForkdError
from ..protocol.scgi_app import RequestDecoder, ScgiRequest
from ..protocol.tunnel import Buffer
from .connection import Connection, Service, status_reply
from .launch import command_of
from .run import Run

log = logging.getLogger(__name__)


class ScgiConnection(Connection):
    """One request, or one tunnel.

    The program's input ends with the request's body; when an upgrade is asked for, with what the
    client sends.
    """

    def __init__(
        self,
        sock: socket.socket,
        service: Service,
        on_end: Callable[[Connection], None],
    ) -> None:
        self._decoder: RequestDecoder | None = RequestDecoder()
        self._run: Run | None = None
        self._missing: int | None = None
        """Bytes of the body that have not come; None: input has no end but the client's."""
        self._output_over = False
        super().__init__(sock, service, on_end)

    # -- from the client --------------------------------------------------------------------------

    def received(self, data: Buffer) -> None:
        if self._decoder is None:
            self._pass_on(data)
            return
        request = self._decoder.feed(data)
        if request is not None:
            self._decoder = None
            self._start(request)

    def _start(self, request: ScgiRequest) -> None:
        environment = request.environment
        self._missing = None if environment.get(b"HTTP_UPGRADE") else request.content_length
        try:
            command = command_of(environment, self.service.binary)
            self._run = Run(command, environment, self, self.service.runs)
        except ForkdError as error:
            log.warning("%s", error)
            self._output_over = True
            self.client.write(status_reply(error))
            self.end()
            return
        self._pass_on(request.rest)

    def _pass_on(self, data: Buffer) -> None:
        """To the program; what follows the body is nobody's."""
        if self._run is None:
            return
        if self._missing is not None:
            data = data[: self._missing]
            self._missing -= len(data)
        if data and not self._run.write(data):
            self.client.pause()
        if self._missing == 0:
            self._run.write_eof()

    def input_ended(self) -> None:
        if self._run is None:
            self.end()
            return
        self._run.write_eof()
        if self._missing:
            self.lose()  # nobody stops in the middle of a body who wants an answer
        self._end_if_said()

    # -- from the program -------------------------------------------------------------------------

    def on_output(self, data: Buffer) -> None:
        assert self._run is not None
        if not self.client.write(data):
            self._run.pause()

    def on_output_end(self) -> None:
        self._output_over = True
        self.client.write_eof()
        self._end_if_said()

    def _end_if_said(self) -> None:
        """Both directions are over; the program may go on."""
        if self._output_over and self.is_at_eof:
            self.end()

    def on_stderr(self, data: Buffer) -> None:
        """The log has it."""

    def on_room(self) -> None:
        self.client.resume()

    def on_over(self, status: int) -> None:
        self._run = None
        self._output_over = True
        self.end()
        self.end_if_idle()

    # -- the connection ---------------------------------------------------------------------------

    def has_room(self) -> None:
        if self._run is not None:
            self._run.resume()

    def lost(self) -> None:
        if self._run is not None:
            self._run.lose()

    @property
    def is_busy(self) -> bool:
        return self._run is not None

    @property
    def has_said_all(self) -> bool:
        return self._output_over and not self.client.queued

    def drain(self) -> None:
        if self._decoder is not None and self._decoder.is_fresh:
            self.client.close(0)
