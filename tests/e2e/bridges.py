"""scgi-cgi and fcgi-cgi as processes, and clients that play the server in front of them."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil
from e2e.harness import DEADLINE, MARK, REPOSITORY, is_alive, kill_all, wait_for

from forkd.protocol import fastcgi
from forkd.protocol.fastcgi import Record, RecordDecoder, RecordType, Role
from forkd.protocol.scgi import encode_environment

Environment = Mapping[str, str]

NAMES = ("scgi-cgi", "fcgi-cgi")


class Client(Protocol):
    """One request, as the server in front makes it."""

    def request(self, environment: Environment, length: int = 0) -> None: ...
    def send(self, data: bytes) -> None: ...
    def send_end(self) -> None:
        """No more input; there may be output."""

    def read(self, count: int) -> bytes:
        """Exactly so many bytes of output; EOFError at its earlier end."""

    def read_all(self) -> bytes: ...
    def close(self) -> None: ...


class ScgiClient:
    """A connection with the one request that it can carry."""

    def __init__(self, path: Path | str) -> None:
        self.socket = connect(path)

    def request(self, environment: Environment, length: int = 0) -> None:
        pairs = [("CONTENT_LENGTH", str(length)), *environment.items(), ("SCGI", "1")]
        self.socket.sendall(encode_environment(pairs))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_end(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError(data)
            data += piece
        return data

    def read_all(self) -> bytes:
        pieces = []
        while piece := self.socket.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.socket.close()


class FcgiClient:
    """A connection, and request *number* of it at a time."""

    def __init__(self, path: Path | str) -> None:
        self.socket = connect(path)
        self.number = 1
        self.keep_conn = False
        self.role = Role.RESPONDER
        self.stderr = b""
        self.ends: list[tuple[int, int]] = []
        """(application status, protocol status) of the requests that are over."""
        self.output_over = False
        self._decoder = RecordDecoder()
        self._records: list[Record] = []
        self._output = b""

    def request(self, environment: Environment, length: int = 0) -> None:
        pairs = {"CONTENT_LENGTH": str(length), **environment}
        self.output_over = False
        self.socket.sendall(
            fastcgi.encode_begin(self.number, self.role, self.keep_conn)
            + self.stream(RecordType.PARAMS, encoded(pairs.items()))
            + self.stream(RecordType.PARAMS)
        )
        if not length and "HTTP_UPGRADE" not in environment:
            self.send_end()

    def stream(self, kind: RecordType, data: bytes = b"") -> bytes:
        encode = fastcgi.encode_stream if data else fastcgi.encode_record
        return encode(kind, self.number, data)

    def send(self, data: bytes) -> None:
        self.socket.sendall(self.stream(RecordType.STDIN, data))

    def send_end(self) -> None:
        self.socket.sendall(self.stream(RecordType.STDIN))

    def record(self) -> Record | None:
        """The next record of any kind; None at the end of the connection."""
        while not self._records:
            data = self.socket.recv(1 << 20)
            if not data:
                return None
            self._records += self._decoder.feed(data)
        record = self._records.pop(0)
        return Record(record.type, record.request_id, bytes(record.content))

    def read(self, count: int) -> bytes:
        while len(self._output) < count:
            if not self._step():
                raise EOFError(self._output)
        data, self._output = self._output[:count], self._output[count:]
        return data

    def read_all(self) -> bytes:
        """Up to END_REQUEST; EOFError when the connection ends without."""
        before = len(self.ends)
        pieces = []
        while len(self.ends) == before:
            if self.record_or_fail():
                pieces.append(self._output)
                self._output = b""
        return b"".join(pieces)

    def record_or_fail(self) -> bool:
        if not self._step():
            raise EOFError(self._output)
        return True

    def _step(self) -> bool:
        record = self.record()
        if record is None:
            return False
        assert record.request_id == self.number
        if record.type == RecordType.STDOUT:
            assert not self.output_over
            self.output_over = not record.content
            self._output += record.content
        elif record.type == RecordType.STDERR:
            self.stderr += record.content
        else:
            assert record.type == RecordType.END_REQUEST
            self.ends.append(fastcgi.decode_end(record.content))
        return True

    def close(self) -> None:
        self.socket.close()


def encoded(pairs: Iterable[tuple[str, str]]) -> bytes:
    return fastcgi.encode_pairs(
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs
    )


def connect(place: Path | str) -> socket.socket:
    """*place*: a path, or ``host:port``."""
    if isinstance(place, Path):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(str(place))
        return sock
    host, _, port = place.rpartition(":")
    return socket.create_connection((host, int(port)), DEADLINE)


class Bridge:
    """One scgi-cgi or fcgi-cgi, with a socket of its own as descriptor 0."""

    def __init__(self, name: str, directory: Path, options: Sequence[str], tcp: bool) -> None:
        self.name = name
        self.directory = directory
        self.mark = uuid.uuid4().hex
        self.log = directory / f"{name}.log"
        self._clients: list[Client] = []
        listener = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        listener.bind(("127.0.0.1", 0) if tcp else str(directory / f"{name}.sock"))
        listener.listen(64)
        self.place: Path | str = (
            "{}:{}".format(*listener.getsockname()) if tcp else directory / f"{name}.sock"
        )
        with listener, self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [REPOSITORY / "bin" / name, *options],
                stdin=listener,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, MARK: self.mark},
                cwd=directory,
            )

    def client(self) -> ScgiClient | FcgiClient:
        made = (ScgiClient if self.name == "scgi-cgi" else FcgiClient)(self.place)
        self._clients.append(made)
        return made

    def script(self, text: str, name: str = "script", mode: int = 0o755) -> Path:
        """An executable file that holds *text*."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def environment(self, script: Path | str, **more: str) -> dict[str, str]:
        return {"SCRIPT_FILENAME": str(script), "REQUEST_METHOD": "GET", MARK: self.mark, **more}

    def run(self, script: Path | str, body: bytes = b"", **more: str) -> bytes:
        """The whole output of a request."""
        client = self.client()
        client.request(self.environment(script, **more), len(body))
        if body:
            client.send(body)
            if isinstance(client, FcgiClient):
                client.send_end()
        try:
            return client.read_all()
        finally:
            client.close()

    def programs(self) -> list[psutil.Process]:
        """Everything that runs for this test but the bridge itself, wherever it got to."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == self.process.pid or not is_alive(process):
                return False
            return process.environ().get(MARK) == self.mark
        except (psutil.Error, OSError):
            return False

    def memory(self) -> int:
        """Bytes of its own."""
        return int(psutil.Process(self.process.pid).memory_full_info().uss)

    def renew(self, directory: Path) -> None:
        """Begin another test in *directory*."""
        self.directory = directory
        self.mark = uuid.uuid4().hex

    def forget(self) -> list[str]:
        """Let all clients go; what is left of their programs, as sentences."""
        while self._clients:
            self._clients.pop().close()
        try:
            wait_for(lambda: not self.programs())
        except AssertionError:
            return [f"left over: {process}" for process in self.programs()]
        return []

    def finish(self) -> list[str]:
        """End it; what was wrong, as sentences."""
        problems = self.forget()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                problems.append("did not end")
                self.process.kill()
                self.process.wait()
        if self.process.returncode:
            problems.append(f"exit status {self.process.returncode}")
        kill_all(self.programs())
        if "Traceback" in (text := self.log.read_text()):
            problems.append(text)
        return problems


def wait_for_file(path: Path, text: str) -> None:
    wait_for(lambda: path.exists() and text in path.read_text(), what=f"{text} in {path}")
