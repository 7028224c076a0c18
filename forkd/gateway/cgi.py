"""cgi: a program for each request (RFC 3875; cgi.md), or for each tunnel.

It reads the request's body, later what the client sends through the tunnel, and its output is the
response, later what the client gets: over two pipes, so that each direction can end by itself.
"""

from __future__ import annotations

import os
from typing import Any

from gevent import get_hub
from gevent.event import Event

from ..config.model import CgiSettings
from ..errors import BackendTimeout, ForkdError, NoBackend
from ..http.exchange import Exchange
from ..message import Pair, Request, os_path
from ..net.pipe_port import CLOSED, PipePort
from ..protocol.cgi import CgiParser
from ..protocol.conversation import RequestEncoder, ResponseParser
from ..protocol.environment import encoded
from ..protocol.scgi import RawEncoder
from ..protocol.tunnel import BlindCodec, TunnelCodec
from ..unix.spawn import spawn_cgi
from .base import WorkerContext, serve
from .conversation import Backend, Conversation, Terms
from .environ import Dialect, environ_for
from .program import Program

VERDICT_TIME = 0.1  # seconds from the end of its output in which a program that dies has died
_INHERITED = (b"LD_PRELOAD", b"LD_LIBRARY_PATH")  # without them it might not find its libraries


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
        self._exchange = exchange
        self._interpreter = interpreter
        self._settings = exchange.settings.cgi
        self._worker = worker
        self._program: Program | None = None
        self._vigil: _Vigil | None = None
        self._ends: list[int] = []
        """The program's ends of the pipes, until it has them."""

    # -- its beginning ----------------------------------------------------------------------------

    def connect(self, fresh: bool = False) -> Backend:
        limit = self._settings.limits.max_processes
        if limit and self._worker.programs.count() >= limit:
            raise NoBackend(f"cgi {self._path}: {limit} programs run already")
        try:
            port = self._open()
        except OSError as error:
            self._close_ends()
            raise ForkdError(f"cgi {self._path}: {error.strerror}") from error
        return Backend(port, f"cgi {self._path}")

    def _open(self) -> PipePort:
        ours, stdout = os.pipe()
        self._ends.append(stdout)
        os.set_blocking(ours, False)
        try:
            stdin, output = self._open_stdin()
        except OSError:
            os.close(ours)
            raise
        self._ends.insert(0, stdin)
        return PipePort(output, ours, self._left)

    def _open_stdin(self) -> tuple[int, int]:
        """The program's end and ours."""
        if not self._takes_input:
            return os.open(os.devnull, os.O_RDONLY), CLOSED
        theirs, ours = os.pipe()
        os.set_blocking(ours, False)
        return theirs, ours

    @property
    def _takes_input(self) -> bool:
        request = self._exchange.request
        may_upgrade = request.protocol or "upgrade" in request.fields
        return request.content_length != 0 or (self._settings.upgrade and bool(may_upgrade))

    def begin(
        self, request: Request, length: int | None, backend: Backend
    ) -> tuple[RequestEncoder, ResponseParser]:
        environment = environ_for(request, self._exchange.settings, length, Dialect())
        self._exchange.environment = tuple(environment)
        self._start(environment)
        self._vigil = _Vigil(self._exchange.gone, backend, self._settings.limits.grace_timeout,
                             self.terminate)
        return RawEncoder(b""), CgiParser(
            bare_body=True,
            head_only=request.method == "HEAD",
            script=request.decoded_path if self._settings.local_redir else None,
        )

    def _start(self, environment: list[Pair]) -> None:
        programs = self._worker.programs
        log = self._exchange.settings.breakagelog
        heard = -1
        try:
            if log:
                stderr = os.dup(self._worker.raw_stderr(log))
            else:
                heard, stderr = os.pipe()
            self._ends.append(stderr)
            pid = self._spawn(environment)
        except OSError as error:
            if heard >= 0:
                os.close(heard)
            raise ForkdError(f"cgi {self._path}: {error.strerror}") from error
        finally:
            self._close_ends()
        grace = self._settings.limits.grace_timeout
        self._program = Program(pid, f"cgi {self._path}", grace, heard, programs.discard)
        programs.add(self._program)

    def _spawn(self, environment: list[Pair]) -> int:
        file = os.path.abspath(os_path(self._path))
        argv = [os_path(self._interpreter), file] if self._interpreter else [file]
        env = {name: os.environb[name] for name in _INHERITED if name in os.environb}
        env.update(encoded(environment))
        stdin, stdout, stderr = self._ends
        return spawn_cgi(argv, env, os.path.dirname(file), (stdin, stdout, stderr))

    def _close_ends(self) -> None:
        while self._ends:
            os.close(self._ends.pop())

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
        return program is None or not program.ended.wait(VERDICT_TIME) or program.status >= 0

    def terminate(self) -> None:
        """It has had its time."""
        if self._program is not None:
            self._program.terminate()

    def tunnel_codec(self) -> TunnelCodec:
        self._stop_vigil()
        return BlindCodec()

    # -- its end ----------------------------------------------------------------------------------

    def done(self, backend: Backend, reusable: bool) -> None:
        self._stop_vigil()
        backend.port.close()

    def abort(self, backend: Backend, why: str) -> None:
        # Its output is read on, and dropped: a program that tidies up is not to die of it.
        self._stop_vigil()
        backend.port.close(self._settings.limits.grace_timeout)

    def _stop_vigil(self) -> None:
        if self._vigil is not None:
            self._vigil.stop()

    def _left(self) -> None:
        """Nobody hears the port any more."""
        self._close_ends()
        if self._program is not None:
            self._program.dismiss()


class _Vigil:
    """A client that will send nothing more may have left, which only an answer would show: a
    program that does not give one for *patience* seconds is told to end."""

    def __init__(self, gone: Event, backend: Backend, patience: float, on_silence: Any) -> None:
        self._gone = gone
        self._port = backend.port
        self._patience = patience
        self._on_silence = on_silence
        self._timer: Any = None
        gone.rawlink(self._begin)

    def _begin(self, _: Event) -> None:
        self._wait()

    def _wait(self) -> None:
        self._cancel()
        self._timer = get_hub().loop.timer(self._patience)
        self._timer.start(self._look, self._port.bytes_in, update=True)

    def _look(self, received: int) -> None:
        if self._port.bytes_in == received:
            self._on_silence()
        else:
            self._wait()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def stop(self) -> None:
        self._gone.unlink(self._begin)
        self._cancel()
