"""Backends of a real master: as many procs as their load asks for, each as its options say."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forkd.address import Address
from forkd.channel import NEED, READY, WorkerStart
from forkd.metrics import Column
from forkd.scoreboard import Lease, WorkerState

Eventually = Callable[..., Any]


def lessee(start: WorkerStart) -> int:
    """A worker that takes and gives back leases as its one client says: ``+0`` and ``-0`` for proc
    0, ``!`` to tell the master that there is need of procs."""
    start.board.mine[Column.STATE] = WorkerState.READY
    start.channel.send(READY)
    leases: list[tuple[str, Lease]] = []
    ((_, listener),) = start.listeners
    listener.setblocking(True)
    client, _ = listener.accept()
    client.sendall(b"%d %d\n" % (os.getpid(), start.generation))
    for line in client.makefile("r"):
        start.board.mine.tick()
        if line[0] == "+":
            leases.append((line[1:], start.board.acquire(start.board.procs[int(line[1:])])))
        elif line[0] == "-":
            found = next(one for one in leases if one[0] == line[1:])
            leases.remove(found)
            found[1].release()
        else:
            start.channel.send(NEED)
        client.sendall(b"done\n")
    return 0


class Lessee:
    """The client of such a worker."""

    def __init__(self, server: Any) -> None:
        self._socket, _, _ = server.connect()
        self._answers = self._socket.makefile("r")

    def do(self, *orders: str) -> None:
        for order in orders:
            self._socket.sendall(f"{order}\n".encode())
            assert self._answers.readline() == "done\n"


def with_lessee(server: Any, *backends: Any) -> Lessee:
    server.with_server(max_worker=1)
    server.config = replace(server.config, backends=backends)
    assert server.start(lessee).ready == "ready"
    return Lessee(server)


def states(server: Any) -> str:
    return " ".join(proc["state"] for proc in server.procs())


def echo(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(data)
        return client.recv(100)


def open_to_all(folder: Path) -> None:
    for one in (folder, *folder.parents):
        if str(one).startswith("/tmp/"):
            one.chmod(0o755)


# -- as many as are needed --------------------------------------------------------------------


def test_min_procs_run_and_the_others_are_bound(server: Any) -> None:
    backend = server.backend("b", min_procs=2, max_procs=4)
    server.config = replace(server.config, backends=(backend,))
    server.start()
    assert states(server) == "starting starting listening listening"
    assert sorted(path.name for path in server.folder.glob("b-*")) == ["b-0", "b-1", "b-2", "b-3"]


def test_need_spawns_one_at_once_and_idleness_ends_it(server: Any, eventually: Eventually) -> None:
    backend = server.backend("b", min_procs=1, max_procs=3, max_load_per_proc=2, idle_timeout=1)
    worker = with_lessee(server, backend)
    worker.do("+0", "+0", "!")
    assert states(server).split()[1:] == ["listening", "listening"]
    worker.do("+0", "!")
    eventually(lambda: states(server).split()[1] == "starting")
    worker.do("!", "!")
    assert states(server).split()[2] == "listening"  # where one starts there is room
    worker.do("+1")
    eventually(lambda: states(server) == "running running listening")
    worker.do("-1", "-0")
    eventually(lambda: states(server) == "running draining listening")
    worker.do("+1")
    eventually(lambda: states(server) == "running running listening")
    worker.do("-1")
    eventually(lambda: states(server) == "running listening listening")
    second = server.procs()[1]
    assert (second["pid"], second["starts"], second["deaths"], second["taken"]) == (0, 1, 0, 2)
    assert echo(server.folder / "b-1", b"x") == b"x"


def test_who_waits_at_the_socket_of_a_proc_that_does_not_run_starts_it(
    server: Any, eventually: Eventually
) -> None:
    backend = server.backend("b", min_procs=0, max_procs=2, idle_timeout=1)
    server.config = replace(server.config, backends=(backend,))
    server.start()
    assert states(server) == "listening listening"
    assert echo(server.folder / "b-1", b"x") == b"x"
    eventually(lambda: states(server) == "listening running")
    eventually(lambda: states(server) == "listening listening")
    assert echo(server.folder / "b-1", b"y") == b"y"
    assert [proc["starts"] for proc in server.procs()] == [0, 2]


def test_program_that_ignores_its_signal_is_killed_when_it_is_idle(
    server: Any, programs: Any, eventually: Eventually
) -> None:
    program = programs["echo"].replace("use strict;", "use strict; $SIG{TERM} = 'IGNORE';")
    backend = server.backend("b", program, min_procs=0, max_procs=1, idle_timeout=0)
    server.config = replace(server.config, backends=(backend,))
    server.start()
    assert echo(server.folder / "b-0", b"x") == b"x"
    eventually(lambda: states(server) == "stopping")
    stubborn = server.procs()[0]["pid"]
    os.kill(stubborn, signal.SIGSTOP)  # it would accept once more
    eventually(lambda: ") T " in Path(f"/proc/{stubborn}/stat").read_text())
    assert echo(server.folder / "b-0", b"served by the next") == b"served by the next"
    assert "killed, it did not end when told" in server.log
    assert server.procs()[0]["starts"] == 2


def test_early_deaths_of_one_are_no_reason_to_start_the_others(
    server: Any, eventually: Eventually
) -> None:
    """One line in the log for each attempt; the others would die as well."""
    program = (
        "#!/bin/sh\nuntil [ -e go ]; do sleep 0.05; done\necho cannot read my.ini >&2\nexit 3\n"
    )
    backend = server.backend("b", program, min_procs=1, max_procs=4)
    server.config = replace(server.config, backends=(backend,))
    server.start()
    (server.folder / "go").touch()
    eventually(lambda: states(server) == "throttled listening listening listening")
    eventually(lambda: "next try in 2 s" in server.log)
    first = server.procs()[0]
    assert first["state"] == "throttled"
    assert first["starts"] == first["deaths"] == server.log.count("died before serving, status 3")
    assert first["stderr"] == ["cannot read my.ini"] * first["deaths"]
    assert (first["last_status"], first["last_failure"]) == (3, "died before serving, status 3")


# -- as the options say -----------------------------------------------------------------------

CONFESSES = """#!/bin/sh
echo "$(id -u) $(id -g) $(id -G) $(umask) $(ulimit -Sn):$(ulimit -Hn) $(ulimit -c) $(pwd)" >&2
exec sleep 1000
"""


def test_user_umask_limits_and_folder_of_a_program(server: Any, eventually: Eventually) -> None:
    open_to_all(server.folder)
    is_root = os.geteuid() == 0
    backend = server.backend(
        "b", CONFESSES, cwd="/usr/bin", umask=0o027, socket_mode=0o666,
        rlimits=(("nofile", 40, 50), ("core", 0, 0)), **({"user": "nobody"} if is_root else {}),
    )  # fmt: skip
    server.config = replace(server.config, backends=(backend,))
    assert server.start().ready == "ready"
    (line,) = eventually(lambda: server.procs()[0]["stderr"])
    user, group, groups, *others = line.split()
    assert others == ["0027", "40:50", "0", "/usr/bin"]
    if is_root:
        assert (user, group, groups) == ("65534", "65534", "65534")
    found = (server.folder / "b-0").stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o666, os.geteuid())


def test_its_socket_belongs_to_the_user_of_the_workers(server: Any, eventually: Eventually) -> None:
    if os.geteuid() != 0:
        return  # only root has a choice
    open_to_all(server.folder)
    server.with_server(username="nobody")
    backends = (
        server.backend("a", CONFESSES, user="daemon"),
        server.backend("b", CONFESSES, group="daemon"),
    )
    server.config = replace(server.config, backends=backends)
    assert server.start().ready == "ready"
    eventually(lambda: all(one["stderr"] for one in server.procs()))
    lines = [one["stderr"][0].split()[:3] for one in server.procs()]
    assert lines == [["1", "1", "1"], ["65534", "1", "1"]]
    assert [(server.folder / name).stat().st_uid for name in ("a-0", "b-0")] == [65534] * 2


def test_limit_that_cannot_be_ends_the_start_and_names_it(server: Any) -> None:
    wanted = 1 << 40  # descriptors: more than the kernel knows
    backend = server.backend("b", rlimits=(("nofile", wanted, wanted),))
    server.config = replace(server.config, backends=(backend,))
    ready = server.start().ready
    assert ready.startswith("4 ")
    assert ready.endswith("cannot start: limit nofile: Operation not permitted")


# -- over a reload ----------------------------------------------------------------------------


def test_other_numbers_make_another_backend_at_the_same_paths(
    server: Any, eventually: Eventually
) -> None:
    options = {"max_load_per_proc": 2, "idle_timeout": 1}
    many = server.backend("b", min_procs=1, max_procs=4, **options)
    few = server.backend("b", min_procs=2, max_procs=3, **options)
    server.config = replace(server.config, backends=(many,))
    server.start()
    client = server.connect()[0]  # keeps the first generation alive
    first = server.procs()[0]["pid"]
    assert echo(server.folder / "b-3", b"x") == b"x"
    server.next(replace(server.config, backends=(few,)))
    assert server.ask("reload")["ok"]
    old, new = server.procs()[:4], server.procs()[4:]
    assert old[0]["pid"] == first
    assert [one["pid"] > 0 for one in new] == [True, True, False]
    # What the old one has beyond the new one's paths is there for its own workers.
    for number in range(4):
        assert echo(server.folder / f"b-{number}", b"x") == b"x"
    # And back, while workers of all three have clients: its old sockets are at no path any more.
    second = server.connect()[0]
    server.next(replace(server.config, backends=(many,)))
    assert server.ask("reload")["ok"]
    assert len(server.procs()) == 11
    for number in range(4):
        assert echo(server.folder / f"b-{number}", b"x") == b"x"
    client.close()
    second.close()
    eventually(lambda: len(server.procs()) == 4)
    for number in range(4):
        assert echo(server.folder / f"b-{number}", b"x") == b"x"
    assert sorted(path.name for path in server.folder.glob("b-*")) == ["b-0", "b-1", "b-2", "b-3"]


def test_proc_of_an_older_generation_is_not_started_again_where_another_has_its_path(
    server: Any, eventually: Eventually
) -> None:
    server.config = replace(server.config, backends=(server.backend("b"),))
    server.start()
    client = server.connect()[0]  # keeps the first generation alive
    assert echo(server.folder / "b-0", b"x") == b"x"
    begun = time.monotonic()
    eventually(lambda: time.monotonic() - begun > 1.0)  # a death before would be an early one
    server.next(replace(server.config, backends=(server.backend("b", disable_time=7),)))
    assert server.ask("reload")["ok"]
    os.kill(server.procs()[0]["pid"], signal.SIGKILL)
    eventually(lambda: server.procs()[0]["state"] == "listening")
    assert echo(server.folder / "b-0", b"y") == b"y"
    assert [one["starts"] for one in server.procs()] == [1, 1]
    client.close()


def test_two_that_share_a_tcp_socket_know_each_other_when_one_between_them_has_gone(
    server: Any, eventually: Eventually
) -> None:
    """Else the later one would refuse clients that the earlier one could serve."""
    address = Address("127.0.0.3", server.config.listeners[0].address.port)
    first = replace(server.backend("b"), address=address)
    second = replace(first, disable_time=7)
    program = "#!/bin/sh\nuntil [ -e go ]; do sleep 0.05; done\nexit 3\n"
    third = replace(server.backend("c", program), address=address)
    server.config = replace(server.config, backends=(first,))
    server.start()
    client = server.connect()[0]  # keeps the first generation alive
    for spec in (second, third):
        server.next(replace(server.config, backends=(spec,)))
        assert server.ask("reload")["ok"]
    eventually(lambda: len(server.procs()) == 2)
    (server.folder / "go").touch()
    eventually(lambda: states(server).split()[1] == "throttled")
    for _ in range(3):
        with socket.create_connection((address.host, address.port), timeout=10) as one:
            one.sendall(b"x")
            assert one.recv(10) == b"x"
    assert server.procs()[0]["starts"] == 1
    client.close()


def test_breakage_log_that_only_an_older_generation_has(
    server: Any, eventually: Eventually
) -> None:
    raw = server.folder / "breakage.log"
    server.with_server(breakagelog=str(raw))
    server.config = replace(server.config, backends=(server.backend("b"),))
    server.start()
    client = server.connect()[0]  # keeps the first generation alive
    assert echo(server.folder / "b-0", b"x") == b"x"
    begun = time.monotonic()
    eventually(lambda: time.monotonic() - begun > 1.0)  # a death before would be an early one
    other = replace(server.config.server, breakagelog="")
    server.next(replace(server.config, server=other, backends=()))
    assert server.ask("reload")["ok"]
    os.kill(server.procs()[0]["pid"], signal.SIGKILL)
    eventually(lambda: raw.read_text().count("echo pid") == 2)
    assert echo(server.folder / "b-0", b"y") == b"y"
    client.close()


def test_nobody_of_a_new_generation_accepts_before_all_is_in_place(
    server: Any, mains: Any, eventually: Eventually
) -> None:
    """Else its clients would be with procs that end together with the old generation."""

    def late(start: WorkerStart) -> int:
        if start.generation == 2 and start.number == 1:
            eventually((server.folder / "go").exists)
        status: int = mains["serve"](start)
        return status

    server.config = replace(server.config, backends=(server.backend("b"),))
    server.start(late)
    server.next(replace(server.config, backends=(server.backend("b", disable_time=7),)))
    server.signal(signal.SIGHUP)
    eventually(lambda: "worker 0 gen 2" in server.log)
    assert {server.connect()[2] for _ in range(20)} == {1}
    (server.folder / "go").touch()
    eventually(lambda: server.ask("status")["generation"] == 2)
    assert server.connect()[2] == 2


# -- sockets that others have spoilt ----------------------------------------------------------

SHUTS = """#!/usr/bin/perl
use strict; use warnings; use IO::Socket;
my $l = IO::Socket->new_from_fd(0, 'r+') or die;
$SIG{TERM} = sub { shutdown($l, 2); exit 0 };
while (1) { accept(my $c, $l) or die; sysread($c, my $data, 4096); syswrite($c, $data); close($c) }
"""


@pytest.mark.parametrize("tcp", [False, True])
def test_socket_that_a_program_shuts_down_at_its_end_listens_again(
    server: Any, eventually: Eventually, tcp: bool
) -> None:
    spec = server.backend("b", SHUTS, min_procs=0, max_procs=1, idle_timeout=0)
    place: Any = str(server.folder / "b-0")
    if tcp:
        place = ("127.0.0.3", server.config.listeners[0].address.port)
        spec = replace(spec, address=Address(*place))
    server.config = replace(server.config, backends=(spec,))
    server.start()
    for starts in (1, 2):
        with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(place)
            client.sendall(b"x")
            assert client.recv(9) == b"x"
        eventually(lambda: states(server) == "listening")
        assert server.procs()[0]["starts"] == starts
    if not tcp:
        assert [path.name for path in server.folder.glob(".fk*")] == []


def test_path_of_an_adopted_program_is_taken_over_when_that_has_ended(
    server: Any, eventually: Eventually
) -> None:
    reader, writer = os.pipe()
    stranger = os.fork()
    if stranger == 0:
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(server.folder / "b-0"))
        left.listen()
        os.write(writer, b"x")
        time.sleep(1000)
    os.read(reader, 1)
    server.config = replace(server.config, backends=(server.backend("b"),))
    server.start()
    assert (states(server), server.procs()[0]["pid"]) == ("running", 0)
    os.kill(stranger, signal.SIGKILL)
    os.waitpid(stranger, 0)
    eventually(lambda: server.procs()[0]["pid"])
    assert echo(server.folder / "b-0", b"x") == b"x"
    assert "has ended: taken over" in server.log
    os.close(reader)
    os.close(writer)
