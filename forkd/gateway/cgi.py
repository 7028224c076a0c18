"""cgi: a program for each request (RFC 3875; cgi.md), or for each tunnel.

It reads the request's body, later what the client sends through the tunnel, and its output is the
response, later what the client gets: over two pipes, so that each direction can end by itself.
"""

from __future__ import annotations

import os
from functools import partial

from ..config.model import CgiSettings
from ..errors import BackendTimeout, ForkdError, NoBackend
from ..http.exchange import Exchange
from ..message import Pair, Request, os_path
from ..protocol.cgi import CgiParser
from ..protocol.conversation import RequestEncoder, ResponseParser
from ..protocol.environment import encoded
from ..protocol.scgi import RawEncoder
from ..protocol.tunnel import BlindCodec, Buffer, TunnelCodec
from ..unix.spawn import spawn_cgi
from .base import WorkerContext, serve
from .conversation import Backend, Conversation, Terms
from .environ import Dialect, environ_for
from .program import Program
from .run import Descriptors, Run

VERDICT_TIME = 0.1  # seconds from the end of its output in which a program that dies has died
# Without them a program might not find its libraries.
_INHERITED = {
    name: os.environb[name]
    for name in (b"LD_PRELOAD", b"LD_LIBRARY_PATH")
    if name in os.environb
}


def interpreter_of(path: str, is_executable: bool, settings: CgiSettings) -> str | None:
    """What runs the regular file *path*: an interpreter, "" for the file itself, None for nothing.

    *is_executable*: whether anybody may execute it.
    """
    if settings.execute_x_only and not is_executable:
        return None
    for suffix, interpreter in settings.assign:
        if path.endswith(suffix):
            return interpreter
    return None


def serve_program(exchange: Exchange, interpreter: str, worker: WorkerContext) -> None:
    """Run the program at the request's physical path.

    Raises ForkdError, ClientGone, LocalRedirected.
    """
    conversation = Cgi(exchange, interpreter, worker)
    try:
        serve(conversation, exchange, worker)
    except BackendTimeout:
        conversation.terminate()
        raise


class Cgi(Conversation):
    """One request served by one program."""

    needs_length = True
    authorizes = False

    def __init__(self, exchange: Exchange, interpreter: str, worker: WorkerContext) -> None:
        assert exchange.request.physical is not None
        self._path = exchange.request.physical[1]
        self._name = f"cgi {self._path}"
        self._exchange = exchange
        self._interpreter = interpreter
        self._settings = exchange.settings.cgi
        self._worker = worker
        self._run: Run | None = None

    # -- its beginning ----------------------------------------------------------------------------

    def connect(self, fresh: bool = False) -> Backend:
        limits = self._settings.limits
        if limits.max_processes and self._worker.programs.count() >= limits.max_processes:
            raise NoBackend(f"{self._name}: {limits.max_processes} programs run already")
        try:
            self._run = Run(self._takes_input, limits.grace_timeout)
        except OSError as error:
            raise ForkdError(f"{self._name}: {error.strerror}") from error
        return Backend(self._run.port, self._name)

    @property
    def _takes_input(self) -> bool:
        request = self._exchange.request
        may_upgrade = bool(request.protocol) or "upgrade" in request.fields
        return request.content_length != 0 or (self._settings.upgrade and may_upgrade)

    def begin(
        self, request: Request, length: int | None, backend: Backend
    ) -> tuple[RequestEncoder, ResponseParser]:
        exchange = self._exchange
        environment = environ_for(request, exchange.settings, length, Dialect())
        exchange.environment = tuple(environment)
        run = self._start(environment)
        exchange.gone.rawlink(run.watch)
        return RawEncoder(b""), CgiParser(
            bare_body=True,
            head_only=request.method == "HEAD",
            script=request.decoded_path if self._settings.local_redir else None,
        )

    def _start(self, environment: list[Pair]) -> Run:
        assert self._run is not None
        worker, log = self._worker, self._exchange.settings.breakagelog
        try:
            program = self._run.start(
                self._name,
                partial(self._spawn, environment),
                worker.raw_stderr(log) if log else None,
                worker.programs.discard,
            )
        except OSError as error:
            raise ForkdError(f"{self._name}: {error.strerror}") from error
        worker.programs.add(program)
        return self._run

    def _spawn(self, environment: list[Pair], descriptors: Descriptors) -> int:
        file = os.path.abspath(os_path(self._path))
        argv = [os_path(self._interpreter), file] if self._interpreter else [file]
        env = _INHERITED | dict(encoded(environment))
        return spawn_cgi(argv, env, os.path.dirname(file), descriptors)

    # -- while it runs ----------------------------------------------------------------------------

    def terms(self, backend: Backend) -> Terms:
        settings = self._settings
        return Terms(
            upgrade=settings.upgrade,
            read_timeout=settings.limits.read_timeout,
            write_timeout=settings.limits.write_timeout,
            fin_propagate=bool(settings.limits.tcp_fin_propagate),
            eof_after_body=True,
            send_file_fields=("x-sendfile",) if settings.x_sendfile else (),
            send_file_docroots=settings.x_sendfile_docroot,
        )

    def half_close(self, backend: Backend) -> None:
        if self._program is not None:
            self._program.signal(self._settings.limits.tcp_fin_propagate)

    def ended_well(self, backend: Backend) -> bool:
        program = self._program
        return program is None or not program.wait(VERDICT_TIME) or program.status >= 0

    @property
    def _program(self) -> Program | None:
        return self._run.program if self._run is not None else None

    def terminate(self) -> None:
        """It has had its time."""
        if self._run is not None:
            self._run.terminate()

    def tunnel_codec(self) -> TunnelCodec:
        assert self._run is not None
        self._forget_client()
        return _ProgramCodec(self._run)

    # -- its end ----------------------------------------------------------------------------------

    def done(self, backend: Backend, reusable: bool) -> None:
        self._forget_client()
        backend.port.close()

    def abort(self, backend: Backend, why: str) -> None:
        # Its output is read on, and dropped: a program that tidies up is not to die of it.
        self._forget_client()
        backend.port.close(self._settings.limits.grace_timeout)

    def _forget_client(self) -> None:
        if self._run is not None:
            self._exchange.gone.unlink(self._run.watch)


class _ProgramCodec(BlindCodec):
    """Passes everything on, and has an eye on a program whose client is done."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def client_eof(self) -> tuple[Buffer, Buffer]:
        self._run.watch()
        return super().client_eof()
