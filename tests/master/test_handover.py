"""From one program to the next: each part is taken down, put up again, and goes on as it was.

Both programs are this process.  What the first has left open is the second's: the first is
forgotten, its descriptors detached.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from e2e.harness import free_port, is_free

from forkd import record
from forkd.address import Address
from forkd.config.backend import BackendSpec
from forkd.config.model import ListenerSpec
from forkd.log import LogFiles, LogPlan, LogsRecord
from forkd.master.backends import Backends
from forkd.master.backoff import BackOff
from forkd.master.console import Console
from forkd.master.habitat import Habitat
from forkd.master.listeners import Listeners
from forkd.master.loop import Loop
from forkd.master.state import BackendsRecord, BackOffRecord, ConsoleRecord
from forkd.scoreboard import Board, ProcState, procs_for
from forkd.unix import daemon, pidfile
from forkd.unix.listen import PlaceRecord, UnixSocket
from forkd.unix.pidfile import PidFile
from forkd.unix.reap import Reaper

R = TypeVar("R")


def written(part: R) -> R:
    """*part* as the next program reads it."""
    return record.decode(type(part), record.encode(part))


@pytest.fixture
def loop() -> Iterator[Loop]:
    daemon.open_standard()
    loop = Loop()
    yield loop
    loop.close()


def run_until(loop: Loop, condition: Callable[[], Any]) -> None:
    late = loop.now() + 15
    while not condition():
        assert loop.now() < late
        loop.call_later(0.01, lambda: None)
        loop.run_once()


def test_the_lock_of_the_pid_file(tmp_path: Path) -> None:
    path = str(tmp_path / "x.pid")
    first = PidFile.acquire(path)
    first.write(os.getpid())
    again = PidFile.restore(written(first.snapshot()))
    assert _locked_for_others(path)
    again.release()
    assert not os.path.exists(path)
    assert not _locked_for_others(path)


def _locked_for_others(path: str) -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(1 if pidfile.holder(path) else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


@pytest.mark.parametrize("published", [True, False])
def test_a_unix_socket_and_its_file(tmp_path: Path, published: bool) -> None:
    path = tmp_path / "x.sock"
    one = UnixSocket(str(path), 8, 0o600)
    if published:
        one.publish()
    left, sock = written(one.snapshot()), socket.socket(fileno=one.socket.detach())
    again = UnixSocket.restore(left, sock)
    again.publish()
    assert stat.S_ISSOCK(path.stat().st_mode)
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_somebody_elses_now(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.touch()
    UnixSocket.restore(PlaceRecord(str(path), "", 0, 0), socket.socket(socket.AF_UNIX)).close()
    assert path.exists()


def test_logs_are_not_opened_anew(loop: Loop, tmp_path: Path) -> None:
    error, piped = tmp_path / "error.log", tmp_path / "piped"
    command = f"|sh -c 'echo started >> {piped}; exec cat >> {piped}'"
    first = LogFiles(LogPlan(str(error), (command,), owner=(os.getuid(), os.getgid())))
    error.rename(tmp_path / "error.log.1")
    left: LogsRecord = written(first.snapshot())
    again = LogFiles.restore(left)
    assert (again.plan, again.fds()[:2]) == (first.plan, first.fds()[:2])
    again.append(command, b"line\n")
    again.write_error(3, "to the old file")
    assert again.reopen() == ()
    again.write_error(3, "to the new one")
    assert (tmp_path / "error.log.1").read_text() == "to the old file\n"
    assert error.read_text() == "to the new one\n"
    again.close()
    run_until(loop, lambda: piped.exists() and piped.read_text() == "started\nline\n")
    first._syslog.close()


def test_listeners_are_the_same_sockets(tmp_path: Path) -> None:
    unix = ListenerSpec(Address(str(tmp_path / "x.sock")), socket_mode=0o600)
    tcp = ListenerSpec(Address("127.0.0.1", 0))
    first = Listeners()
    numbers = [sock.fileno() for _, sock in first.open((unix, tcp))]
    again, left = Listeners(), tuple(map(written, first.snapshot()))
    for _, sock in first.open((unix, tcp)):
        sock.detach()
    again.restore(left)
    found = again.open((unix, tcp))
    assert [sock.fileno() for _, sock in found] == numbers
    assert not any(sock.getblocking() for _, sock in found)
    again.settle((tcp,))
    assert list(tmp_path.iterdir()) == []
    again.close()


# -- the control socket -----------------------------------------------------------------------


def ask(path: Path, text: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(15)
    client.connect(str(path))
    client.sendall(text)
    return client


def test_clients_of_the_console(loop: Loop, tmp_path: Path) -> None:
    path, asked = tmp_path / "x.sock", []
    first = Console.open(str(path), loop, lambda *request: asked.append(request))
    waiting = ask(path, b'{"do": "upgrade"}\n')
    halfway = ask(path, b'{"do": "st')
    run_until(loop, lambda: asked and len(first._clients) == 2)
    run_until(loop, lambda: any(client._data for client in first._clients))
    left: ConsoleRecord = written(first.snapshot())
    for client in first._clients:
        client._socket.detach()
    first._place.socket.detach()
    after = Loop()
    again = Console.restore(left, after, lambda request, answer: answer({"asked": request["do"]}))
    halfway.sendall(b'atus"}\n')
    late = ask(path, b'{"do": "reload"}\n')
    run_until(after, lambda: not again._clients - again._inherited)
    assert json.loads(halfway.recv(99)) == {"asked": "status"}
    assert json.loads(late.recv(99)) == {"asked": "reload"}
    again.answer_inherited({"ok": True})
    assert json.loads(waiting.recv(99)) == {"ok": True}
    again.close()
    assert not path.exists()
    after.close()
    for sock in (waiting, halfway, late):
        sock.close()


# -- backends ---------------------------------------------------------------------------------


def test_deaths_are_remembered() -> None:
    one = BackOff(60)
    assert one.died(1.0, 0.1, served=False, failed=True) == 1
    assert one.snapshot() == BackOffRecord(1.0, (1.0,))
    again = BackOff.restore(60, written(one.snapshot()))
    assert again.died(2.5, 0.1, served=False, failed=True) == 2


class Programs:
    """Backends of one program, and the loop that they live in."""

    def __init__(self) -> None:
        self.loop, self.reaper = Loop(), Reaper()
        self.backends = Backends(self.loop, self.reaper, lambda name: 2, lambda slot, why: None)

    def wait(self, condition: Callable[[], Any]) -> None:
        def met() -> Any:
            self.reaper.reap()
            return condition()

        run_until(self.loop, met)

    def hand_over(self, *boards: Board) -> Programs:
        """The next program, with what this one has left."""
        left: BackendsRecord = written(self.backends.snapshot())
        for slot in self.backends:
            if slot._socket.listener is not None:
                slot._socket.listener.detach()
        self.loop.close()
        after = Programs()
        after.backends.restore(left, {board.generation: board for board in boards})
        return after

    def end(self) -> None:
        done: list[bool] = []
        self.backends.end_all(1, lambda: done.append(True))
        self.wait(lambda: done)
        self.loop.close()


@pytest.mark.parametrize("tcp", [False, True])
def test_a_proc_goes_on(tmp_path: Path, tcp: bool) -> None:
    daemon.open_standard()
    program = tmp_path / "say"
    program.write_text("#!/bin/sh\necho one >&2\nsleep 100 & wait\n")
    program.chmod(0o755)
    address = Address("127.0.0.1", _two_free_ports()) if tcp else Address(str(tmp_path / "x"))
    spec = BackendSpec("scgi", "", "", address, bin_path=(str(program),), max_procs=2)
    board = Board.create(1, 3, procs_for((spec,)))
    first = Programs()
    first.backends.add(board, Habitat())
    slot, _ = first.backends
    first.wait(lambda: list(slot.stderr.last) == ["one"])
    pid = slot.pid
    after = first.hand_over(board)
    slot, unused = after.backends
    assert (slot.pid, slot.starts, list(slot.stderr.last)) == (pid, 1, ["one"])
    assert unused.state is ProcState.LISTENING
    os.kill(pid, 9)
    after.wait(lambda: slot.deaths == 1)
    after.wait(lambda: slot.pid not in (0, pid))
    after.wait(lambda: list(slot.stderr.last) == ["one", "one"])
    assert board.deaths(board.procs[0]) == 1
    with _client_of(unused.address):  # its socket still starts it
        after.wait(lambda: unused.pid)
    after.end()
    assert [path.name for path in tmp_path.iterdir()] == ["say"]
    board.close()


def test_a_proc_that_waits_after_an_early_death_goes_on_waiting(tmp_path: Path) -> None:
    daemon.open_standard()
    program = tmp_path / "dies"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    spec = BackendSpec("scgi", "", "", Address(str(tmp_path / "x")), bin_path=(str(program),))
    board = Board.create(1, 3, procs_for((spec,)))
    first = Programs()
    first.backends.add(board, Habitat())
    (slot,) = first.backends
    first.wait(lambda: slot.state is ProcState.THROTTLED)
    after = first.hand_over(board)
    (slot,) = after.backends
    assert slot.state is ProcState.THROTTLED
    with _client_of(slot.address) as client:  # who comes is told at once, as before
        refused: list[bytes] = []
        after.loop.watch(client.fileno(), lambda: refused.append(client.recv(1)))
        after.wait(lambda: refused)
        after.loop.unwatch(client.fileno())
    after.wait(lambda: slot.deaths == 2)
    assert slot._backoff.snapshot().delay == 2
    after.end()
    board.close()


def test_a_shared_socket_is_not_refused_by_the_one_that_waits(tmp_path: Path) -> None:
    daemon.open_standard()
    dies, stays = tmp_path / "dies", tmp_path / "stays"
    dies.write_text("#!/bin/sh\nexit 3\n")
    stays.write_text("#!/bin/sh\nsleep 100 & wait\n")
    address = Address("127.0.0.1", _two_free_ports())
    first, boards = Programs(), []
    for generation, program in enumerate((dies, stays), start=1):
        program.chmod(0o755)
        spec = BackendSpec("scgi", "", "", address, bin_path=(str(program),))
        boards.append(Board.create(generation, 3, procs_for((spec,))))
        first.backends.add(boards[-1], Habitat())
    old, new = first.backends
    first.wait(lambda: old.state is ProcState.THROTTLED)
    after = first.hand_over(*boards)
    old, new = after.backends
    assert (old._heir, new._predecessor) == (new, old)
    assert old.state is ProcState.THROTTLED
    assert old._socket.listener is not None
    assert old._socket.listener.fileno() not in after.loop._selector.get_map()
    assert new._socket.listener is not None
    assert os.get_blocking(new._socket.listener.fileno())
    after.end()
    for board in boards:
        board.close()


def _client_of(address: Address) -> socket.socket:
    if address.is_unix:
        client = socket.socket(socket.AF_UNIX)
        client.connect(address.host)
        return client
    return socket.create_connection((address.host, address.port))


def _two_free_ports() -> int:
    """The first of two: one for each proc."""
    return next(port for _ in range(200) if is_free((port := free_port()) + 1))
