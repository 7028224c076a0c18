"""A real master in a child process, with workers that need no gevent and a backend in Perl."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from forkd import control, log
from forkd.address import Address
from forkd.channel import DRAIN, FINISH, READY, REOPEN, SERVE, STOP, WorkerStart
from forkd.config.backend import BackendSpec
from forkd.config.model import Config, ListenerSpec, RequestConfig, ServerSettings
from forkd.errors import ConfigError, StartError
from forkd.log import LogFiles, LogPlan
from forkd.master.master import Master, MasterOptions
from forkd.metrics import Column
from forkd.scoreboard import WorkerState

DEADLINE = 10.0  # seconds until a condition that does not come true fails the test

ECHO = """#!/usr/bin/perl
use strict; use warnings; use IO::Socket; use Socket;
my $l = IO::Socket->new_from_fd(0, 'r+') or die "fd 0: $!";
print STDERR "echo pid $$\\n";
while (1) {
    accept(my $c, $l) or die "accept: $!";
    while (sysread($c, my $data, 4096)) { syswrite($c, $data) }
    close($c);
}
"""
NODELAY = """#!/usr/bin/perl
use strict; use warnings; use IO::Socket; use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);
my $l = IO::Socket->new_from_fd(0, 'r+') or die "fd 0: $!";
while (accept(my $c, $l)) {
    syswrite($c, unpack('i', getsockopt($c, IPPROTO_TCP, TCP_NODELAY)) ? 'yes' : 'no');
    close($c);
}
"""
DIES = '#!/bin/sh\necho "no such module" >&2\nexit 3\n'
STUBBORN = "#!/usr/bin/perl\n$SIG{TERM} = 'IGNORE'; $| = 1; sleep 1000 while 1;\n"


def eventually(condition: Callable[[], Any], timeout: float = DEADLINE) -> Any:
    """The first true value of *condition*; fails after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout:g} s"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether *pid* runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def serve(start: WorkerStart) -> int:
    """A worker: greets each client with ``pid generation``, holds him until he leaves."""
    start.board.mine[Column.STATE] = WorkerState.READY
    start.channel.send(READY)
    listeners: list[socket.socket] = []
    clients: list[socket.socket] = []
    drains = False
    while not drains or clients:
        start.board.mine.tick()
        ready, _, _ = select.select([start.channel, *listeners, *clients], [], [], 0.05)
        for sock in ready:
            if sock is start.channel:
                order, fds, _, _ = socket.recv_fds(start.channel, 1, 250)
                if order == REOPEN:
                    start.logs.adopt(fds)
                elif order == SERVE:
                    listeners = [sock for _, sock in start.listeners]
                elif order == DRAIN:
                    listeners, drains = [], True
                elif order in (FINISH, STOP, b""):
                    return 0
            elif sock in listeners:
                with suppress(BlockingIOError):
                    client, _ = sock.accept()
                    client.sendall(b"%d %d\n" % (os.getpid(), start.generation))
                    start.board.mine.add(Column.REQUESTS)
                    clients.append(client)
            else:
                data = sock.recv(100)
                if data == b"hang":
                    time.sleep(1000)
                if not data:
                    clients.remove(sock)
    return 0


def never_ready(start: WorkerStart) -> int:
    """A worker whose start fails."""
    return 7


def deaf(start: WorkerStart) -> int:
    """A worker that never does what it is told."""
    start.channel.send(READY)
    while True:
        start.board.mine.tick()
        time.sleep(0.05)


@dataclass
class Server:
    """A master under test.  ``config`` is what it starts with."""

    folder: Path
    config: Config
    pid: int = 0
    ready: str = ""

    @property
    def pid_file(self) -> Path:
        return self.folder / "x.pid"

    @property
    def control_socket(self) -> Path:
        return self.folder / "x.pid.sock"

    @property
    def log(self) -> str:
        return (self.folder / "error.log").read_text()

    def start(self, main: Callable[[WorkerStart], int] = serve) -> Server:
        """Fork the master; ``ready`` says "ready" or why it did not start."""
        self.next(self.config)
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            os._exit(self._be_master(main, writer))
        os.close(writer)
        with open(reader, "rb") as pipe:
            self.ready = os.read(pipe.fileno(), 4096).decode()
        return self

    def _be_master(self, main: Callable[[WorkerStart], int], writer: int) -> int:
        os.setsid()
        options = MasterOptions(
            pid_file=str(self.pid_file),
            control_socket=str(self.control_socket),
            load=self._load,
            open_logs=lambda config: self._open_logs(config),
            use_logs=lambda logs: None if log.set_up(logs) else None,
            on_ready=lambda: None if os.write(writer, b"ready") else None,
        )
        try:
            return Master(self.config, options, main).run()
        except StartError as error:
            os.write(writer, f"{error.exit_code} {error}".encode())
            return 100 + error.exit_code

    def _open_logs(self, config: Config) -> LogFiles:
        others = tuple(name for name in (config.server.breakagelog,) if name)
        return LogFiles(LogPlan(str(self.folder / "error.log"), others))

    def next(self, config: Config | str) -> None:
        """What the next reload loads; text is an error in it."""
        (self.folder / "next").write_bytes(pickle.dumps(config))

    def _load(self) -> Config:
        config = pickle.loads((self.folder / "next").read_bytes())
        if isinstance(config, str):
            raise ConfigError(config)
        assert isinstance(config, Config)
        return config

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        return control.ask(str(self.control_socket), do, DEADLINE, **arguments)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit status, or minus the signal."""
        found: list[int] = []

        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                found.append(os.waitstatus_to_exitcode(status))
            return bool(pid)

        eventually(ended)
        self.pid = 0
        return found[0]

    def workers(self, state: str = "ready") -> list[dict[str, Any]]:
        return [one for one in self.ask("status")["workers"] if one["state"] == state]

    def worker_pids(self) -> list[int]:
        return [one["pid"] for one in self.workers()]

    def procs(self) -> list[dict[str, Any]]:
        backends: list[dict[str, Any]] = self.ask("status")["backends"]
        return backends

    def backend(self, name: str, text: str = ECHO, **options: Any) -> BackendSpec:
        """A backend whose program is *text*."""
        program = self.folder / f"{name}.prog"
        program.write_text(text)
        program.chmod(0o755)
        return BackendSpec(
            gateway="wstunnel", key="/", label="", address=Address(str(self.folder / name)),
            bin_path=(str(program),), **options,
        )  # fmt: skip

    def with_server(self, **settings: Any) -> None:
        """Change what is in ``config.server``."""
        self.config = replace(self.config, server=replace(self.config.server, **settings))

    def connect(self) -> tuple[socket.socket, int, int]:
        """A client: its socket, and the pid and generation of its worker."""
        address = self.config.listeners[0].address
        client = socket.create_connection((address.host, address.port), timeout=DEADLINE)
        greeting = client.makefile("rb").readline().split()
        return client, int(greeting[0]), int(greeting[1])

    def close(self) -> None:
        """End it, whatever state it is in."""
        if not self.pid:
            return
        children: list[int] = []
        with suppress(OSError):
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            children = [int(word) for word in text.split()]
        for pid in (self.pid, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def a_config(**settings: Any) -> Config:
    """Two workers on a free port of the loopback; no backends."""
    listener = ListenerSpec(Address("127.0.0.1", free_port()))
    return Config(
        file="/etc/x.conf",
        server=ServerSettings(max_worker=2, **settings),
        listeners=(listener,),
        backends=(),
        base=RequestConfig(),
        conditions=None,  # type: ignore[arg-type]
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A master that is not started yet."""
    one = Server(tmp_path, a_config())
    yield one
    one.close()


@pytest.fixture
def programs() -> dict[str, str]:
    return {"dies": DIES, "echo": ECHO, "nodelay": NODELAY, "stubborn": STUBBORN}


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


@pytest.fixture(name="is_alive")
def _is_alive() -> Callable[[int], bool]:
    return is_alive


@pytest.fixture
def mains() -> dict[str, Callable[[WorkerStart], int]]:
    return {"deaf": deaf, "never_ready": never_ready, "serve": serve}
