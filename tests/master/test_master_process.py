"""The master as a whole: real processes, real signals, workers that need no gevent."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forkd.address import Address
from forkd.config.model import Features, ListenerSpec
from forkd.config.tls import CertificateFiles, TlsSpec
from forkd.unix import pidfile

Eventually = Callable[..., Any]


def echo(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        try:
            client.sendall(data)
            return client.recv(100)
        except (ConnectionResetError, BrokenPipeError):
            return b""


# -- start ------------------------------------------------------------------------------------


def test_ready_means_that_workers_accept(server: Any) -> None:
    assert server.start().ready == "ready"
    _, worker, generation = server.connect()
    assert generation == 1
    assert int(server.pid_file.read_text()) == server.pid == pidfile.holder(str(server.pid_file))
    assert stat.S_IMODE(os.stat(server.control_socket).st_mode) == 0o600
    status = server.ask("status")
    assert status["state"] == "serving"
    assert worker in [one["pid"] for one in status["workers"]]
    assert {one["number"] for one in status["workers"]} == {0, 1}


def test_a_pid_file_that_cannot_be_written_ends_the_start(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: pidfile.PidFile, pid: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pidfile.PidFile, "write", write)
    server.start()
    assert server.ready == f"1 pid file {server.pid_file}: No space left on device"
    assert server.wait() == 101
    assert not server.pid_file.exists()


def test_titles(server: Any) -> None:
    server.start()
    assert Path(f"/proc/{server.pid}/cmdline").read_bytes().startswith(
        b"forkd: master [/etc/x.conf]"
    )
    titles = {
        Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") for pid in server.worker_pids()
    }
    assert titles == {b"forkd: worker 0", b"forkd: worker 1"}


def test_a_worker_has_only_the_descriptors_it_is_meant_to_have(server: Any) -> None:
    server.config = replace(server.config, backends=(server.backend("echo"),))
    server.start()
    pid = server.worker_pids()[0]
    targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    sockets = [one for one in targets if one.startswith("socket:")]
    assert len(sockets) == 3  # a listener, its channel, the system's log
    assert not [one for one in targets if "x.pid" in one or "memfd" in one or "epoll" in one]


def test_second_master_leaves_the_first_alone(server: Any, tmp_path: Path) -> None:
    server.start()
    second = type(server)(tmp_path, server.config)
    second.start()
    assert second.ready == f"0 already running, pid {server.pid}"
    assert second.wait() == 100
    assert server.ask("status")["pid"] == server.pid


def test_port_in_use_is_said_and_leaves_nothing(server: Any, tmp_path: Path) -> None:
    server.start()
    other = tmp_path / "other"
    other.mkdir()
    second = type(server)(other, replace(server.config, backends=()))
    second.start()
    address = server.config.listeners[0].address
    assert second.ready == f"1 cannot listen on {address}: Address already in use"
    second.wait()
    assert sorted(os.listdir(other)) == ["error.log", "next"]


def test_left_over_pid_file_makes_the_start_wait_for_the_address(
    server: Any, eventually: Eventually
) -> None:
    address = server.config.listeners[0].address
    occupier = socket.socket()
    occupier.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    occupier.bind((address.host, address.port))
    occupier.listen()
    server.pid_file.write_text("4194304\n")
    child = os.fork()
    if child == 0:
        time.sleep(0.5)  # what a dying server takes; the other end of the race is the start
        os._exit(0)
    occupier.close()
    assert server.start().ready == "ready"
    os.waitpid(child, 0)


def test_worker_that_dies_before_it_is_ready_ends_the_start(server: Any, mains: Any) -> None:
    server.start(mains["never_ready"])
    assert server.ready.startswith("1 worker ")
    assert server.ready.endswith("died before it was ready, status 7")
    assert server.wait() == 101
    assert not server.pid_file.exists()


def test_backend_that_dies_before_the_workers_are_ready_ends_the_start(
    server: Any, programs: Any
) -> None:
    def slow(start: Any) -> int:
        time.sleep(20)
        return 0

    server.config = replace(server.config, backends=(server.backend("b", programs["dies"]),))
    server.start(slow)
    assert server.ready == (
        f"1 backend {server.folder}/b-0: died before serving, status 3: no such module"
    )
    server.wait()
    assert sorted(os.listdir(server.folder)) == ["b.prog", "error.log", "next"]


def test_missing_program_ends_the_start_with_5(server: Any) -> None:
    spec = server.backend("b")
    os.unlink(spec.bin_path[0])
    server.config = replace(server.config, backends=(spec,))
    server.start()
    assert server.ready == (
        f"5 backend {server.folder}/b-0: cannot start: {spec.bin_path[0]}: "
        "No such file or directory"
    )
    server.wait()
    assert not (server.folder / "b-0").exists()


def test_stale_socket_of_a_listener_is_replaced_and_a_live_one_is_not(server: Any) -> None:
    path = server.folder / "client.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    spec = ListenerSpec(Address(str(path)), socket_mode=0o660)
    server.config = replace(server.config, listeners=(*server.config.listeners, spec))
    assert server.start().ready == "ready"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    other = server.folder / "other"
    other.mkdir()
    second = type(server)(other, replace(server.config, listeners=(spec,)))
    assert second.start().ready == f"1 cannot listen on {path}: somebody listens there"
    second.wait()
    assert path.exists()


# -- backends' sockets and users --------------------------------------------------------------


def test_tcp_backend_and_its_successor_share_the_socket(
    server: Any, eventually: Eventually
) -> None:
    port = server.config.listeners[0].address.port
    spec = replace(server.backend("tcp"), address=Address("127.0.0.3", port))
    server.config = replace(server.config, backends=(spec,))
    assert server.start().ready == "ready"

    def talk() -> bytes:
        with socket.create_connection(("127.0.0.3", port), timeout=10) as client:
            client.sendall(b"x")
            return client.recv(10)

    assert talk() == b"x"
    server.next(replace(server.config, backends=(replace(spec, disable_time=9),)))
    assert server.ask("reload")["ok"]
    assert talk() == b"x"
    eventually(lambda: len(server.procs()) == 1)
    assert talk() == b"x"


def test_what_a_tcp_backend_accepts_sends_at_once(server: Any, programs: Any) -> None:
    port = server.config.listeners[0].address.port
    spec = replace(server.backend("t", programs["nodelay"]), address=Address("127.0.0.4", port))
    server.config = replace(server.config, backends=(spec,))
    assert server.start().ready == "ready"
    with socket.create_connection(("127.0.0.4", port), timeout=10) as client:
        assert client.recv(10) == b"yes"


def test_program_of_the_same_user_that_serves_the_path_is_adopted(
    server: Any, eventually: Eventually, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(tmp_path / "b-0"))
        stranger.listen()
        server.config = replace(server.config, backends=(server.backend("b"),))
        assert server.start().ready == "ready"
        assert (server.procs()[0]["state"], server.procs()[0]["pid"]) == ("running", 0)
        backend = server.backend("b", disable_time=7)
        server.next(replace(server.config, backends=(backend,)))
        assert server.ask("reload")["ok"]
        eventually(lambda: len(server.procs()) == 1)
        assert (server.procs()[0]["state"], server.procs()[0]["pid"]) == ("running", 0)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert (tmp_path / "b-0").exists()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "b-0"))


def test_socket_that_another_forkd_serves_is_fatal(server: Any, tmp_path: Path) -> None:
    server.config = replace(server.config, backends=(server.backend("b"),))
    server.start()
    other = tmp_path / "other"
    other.mkdir()
    listener = ListenerSpec(Address("127.0.0.4", server.config.listeners[0].address.port))
    second = type(server)(other, replace(server.config, listeners=(listener,)))
    assert second.start().ready == f"1 cannot listen on {tmp_path}/b-0: is served by somebody else"
    second.wait()
    assert echo(tmp_path / "b-0", b"x") == b"x"


def test_what_a_dead_maker_left_is_taken_over(server: Any, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    maker = os.fork()
    if maker == 0:
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(tmp_path / "b-0"))
        left.listen()
        if os.fork():
            os._exit(0)
        os.close(writer)
        os.read(reader, 1)  # it still listens
        os._exit(0)
    os.waitpid(maker, 0)
    server.config = replace(server.config, backends=(server.backend("b"),))
    assert server.start().ready == "ready"
    assert server.procs()[0]["pid"]
    assert echo(tmp_path / "b-0", b"x") == b"x"
    os.close(writer)
    os.close(reader)


def test_breakage_log_takes_standard_error_raw(server: Any, eventually: Eventually) -> None:
    raw = server.folder / "breakage.log"
    server.with_server(breakagelog=str(raw))
    server.config = replace(server.config, backends=(server.backend("b"),))
    server.start()
    eventually(lambda: raw.exists() and raw.read_text())
    assert raw.read_text() == f"echo pid {server.procs()[0]['pid']}\n"
    assert server.procs()[0]["stderr"] == []


def test_workers_and_backends_run_as_the_user(server: Any, eventually: Eventually) -> None:
    for folder in (server.folder, *server.folder.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    server.with_server(username="nobody")
    server.config = replace(server.config, backends=(server.backend("b"),))
    assert server.start().ready == "ready"
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    for pid in (*server.worker_pids(), server.procs()[0]["pid"]):
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert (server.folder / "b-0").stat().st_uid == uid
    pids = [*server.worker_pids(), server.procs()[0]["pid"]]
    server.signal(signal.SIGKILL)
    server.wait()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_root_is_no_user_to_become(server: Any) -> None:
    server.with_server(username="root")
    assert server.start().ready.startswith("6 'root' is root")
    assert server.wait() == 106


# -- death of others --------------------------------------------------------------------------


def test_killed_worker_is_replaced_and_the_others_go_on(
    server: Any, eventually: Eventually
) -> None:
    server.start()
    client, worker, _ = server.connect()
    victim = next(pid for pid in server.worker_pids() if pid != worker)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in server.worker_pids() and len(server.worker_pids()) == 2)
    assert {one["number"] for one in server.workers()} == {0, 1}
    client.settimeout(0.1)
    client.send(b"still there")
    assert worker in server.worker_pids()
    assert "died, signal 9 (SIGKILL)" in server.log


def test_counters_of_a_dead_worker_are_kept(server: Any, eventually: Eventually) -> None:
    server.start()
    for _ in range(4):
        server.connect()
    eventually(lambda: server.ask("status")["totals"]["requests"] == 4)
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(server.worker_pids()) == 2)
    assert server.ask("status")["totals"]["requests"] == 4


def test_killed_backend_is_respawned_and_its_backlog_waits(
    server: Any, eventually: Eventually
) -> None:
    server.config = replace(server.config, backends=(server.backend("echo"),))
    server.start()
    path = server.folder / "echo-0"
    assert echo(path, b"one") == b"one"
    begun = time.monotonic()
    eventually(lambda: time.monotonic() - begun > 1.0)  # a death before would be an early one
    first = server.procs()[0]["pid"]
    os.kill(first, signal.SIGSTOP)
    eventually(lambda: ") T " in Path(f"/proc/{first}/stat").read_text())
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.settimeout(10)
        waiting.connect(str(path))
        waiting.sendall(b"two")
        os.kill(first, signal.SIGKILL)
        assert waiting.recv(100) == b"two"
    second = eventually(lambda: [one for one in server.procs() if one["pid"] not in (0, first)])[0]
    assert second["deaths"] == 1
    assert second["last_status"] == -9
    assert echo(path, b"three") == b"three"


def test_backend_lives_in_its_own_group_with_its_listener_and_nothing_else(server: Any) -> None:
    server.config = replace(server.config, backends=(server.backend("echo"),))
    server.start()
    assert echo(server.folder / "echo-0", b"x") == b"x"
    pid = server.procs()[0]["pid"]
    assert os.getpgid(pid) == pid
    assert sorted(os.listdir(f"/proc/{pid}/fd"))[:3] == ["0", "1", "2"]
    assert os.readlink(f"/proc/{pid}/cwd") == str(server.folder)
    assert os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"
    assert stat.S_IMODE(os.stat(server.folder / "echo-0").st_mode) == 0o600


def test_stderr_of_a_backend_is_in_the_log_and_in_the_status(
    server: Any, eventually: Eventually
) -> None:
    server.config = replace(server.config, backends=(server.backend("echo"),))
    server.start()
    assert echo(server.folder / "echo-0", b"x") == b"x"
    proc = eventually(lambda: [one for one in server.procs() if one["stderr"]])[0]
    assert proc["stderr"] == [f"echo pid {proc['pid']}"]
    assert f"backend {server.folder}/echo-0: echo pid {proc['pid']}" in server.log


def test_crash_loop_is_throttled_and_clients_are_refused_meanwhile(
    server: Any, eventually: Eventually
) -> None:
    """The program lives through the start and dies at its first connection from then on."""
    crashes = "#!/usr/bin/perl\nopen(my $l, '+<&=0'); accept(my $c, $l); exit 1;\n"
    server.config = replace(server.config, backends=(server.backend("b", crashes),))
    server.start()
    path = server.folder / "b-0"
    assert echo(path, b"x") == b""
    eventually(lambda: server.procs()[0]["state"] == "throttled")
    begun = time.monotonic()
    assert echo(path, b"x") == b""
    assert time.monotonic() - begun < 0.5
    assert "next try in 1 s" in server.log
    eventually(lambda: server.procs()[0]["state"] in ("starting", "running"))


def test_stuck_worker_is_aborted_and_replaced(server: Any, eventually: Eventually) -> None:
    server.with_server(worker_timeout=1.0)
    server.start()
    client, worker, _ = server.connect()
    client.sendall(b"hang")
    eventually(lambda: worker not in server.worker_pids() and len(server.worker_pids()) == 2)
    assert f"pid {worker}: stuck, no sign of life for 1 s; aborted" in server.log
    assert "died, signal 6 (SIGABRT)" in server.log


def test_nothing_survives_a_killed_master(
    server: Any, eventually: Eventually, is_alive: Any
) -> None:
    server.config = replace(server.config, backends=(server.backend("echo"),))
    server.start()
    pids = [*server.worker_pids(), server.procs()[0]["pid"]]
    server.signal(signal.SIGKILL)
    begun = time.monotonic()
    assert server.wait() == -9
    eventually(lambda: not any(map(is_alive, pids)))
    assert time.monotonic() - begun < 2
    assert pidfile.holder(str(server.pid_file)) == 0
    again = type(server)(server.folder, server.config)
    assert again.start().ready == "ready"
    again.signal(signal.SIGTERM)
    assert again.wait() == 0


# -- stop -------------------------------------------------------------------------------------


def test_term_leaves_nothing_behind(server: Any, is_alive: Any) -> None:
    path = server.folder / "client.sock"
    server.config = replace(
        server.config,
        backends=(server.backend("echo"),),
        listeners=(*server.config.listeners, ListenerSpec(Address(str(path)))),
    )
    server.start()
    pids = [*server.worker_pids(), server.procs()[0]["pid"]]
    begun = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert time.monotonic() - begun < 2
    assert not any(map(is_alive, pids))
    assert sorted(os.listdir(server.folder)) == ["echo.prog", "error.log", "next"]


def test_quit_is_quick_even_with_a_deaf_worker_and_a_stubborn_backend(
    server: Any, mains: Any, programs: Any
) -> None:
    server.config = replace(
        server.config, backends=(server.backend("b", programs["stubborn"]),)
    )
    server.start(mains["deaf"])
    begun = time.monotonic()
    server.signal(signal.SIGQUIT)
    assert server.wait() == 0
    assert time.monotonic() - begun < 4
    assert "killed, it did not end when told" in server.log


def test_graceful_stop_ends_at_its_deadline(server: Any, mains: Any) -> None:
    server.with_server(features=Features(graceful_shutdown_timeout=1))
    server.start(mains["deaf"])
    begun = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert 1 <= time.monotonic() - begun < 3


def test_second_term_is_a_quit(server: Any, mains: Any, eventually: Eventually) -> None:
    server.with_server(features=Features(graceful_shutdown_timeout=60))
    server.start(mains["deaf"])
    server.signal(signal.SIGTERM)
    eventually(lambda: server.ask("status")["state"] == "stopping")
    server.signal(signal.SIGTERM)
    begun = time.monotonic()
    assert server.wait() == 0
    assert time.monotonic() - begun < 3


def test_listeners_are_closed_at_once_by_a_stop(server: Any, eventually: Eventually) -> None:
    server.with_server(features=Features(graceful_shutdown_timeout=60))
    server.start()
    address = server.config.listeners[0].address
    server.signal(signal.SIGTERM)
    with socket.socket() as client:
        eventually(lambda: client.connect_ex((address.host, address.port)) != 0)
    assert server.wait() == 0


def test_stop_by_the_control_socket(server: Any) -> None:
    server.start()
    assert server.ask("stop", now=True) == {"ok": True}
    assert server.wait() == 0


def test_term_while_starting_ends_the_start(server: Any, eventually: Eventually) -> None:
    def slow(start: Any) -> int:
        time.sleep(20)
        return 0

    child = os.fork()
    if child == 0:
        eventually(lambda: pidfile.holder(str(server.pid_file)))
        os.kill(pidfile.holder(str(server.pid_file)), signal.SIGTERM)
        os._exit(0)
    server.start(slow)
    os.waitpid(child, 0)
    assert server.ready == "1 stopped while it was starting"
    assert server.wait() == 101


# -- workers more and fewer -------------------------------------------------------------------


def test_ttin_and_ttou(server: Any, eventually: Eventually) -> None:
    server.start()
    for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1)):
        server.signal(number)
        eventually(lambda count=count: len(server.ask("status")["workers"]) == count)
    server.signal(signal.SIGTTOU)
    eventually(lambda: "1 workers, no change possible" in server.log)
    assert [one["number"] for one in server.workers()] == [0]


def test_winch_drains_all_workers_and_ttin_starts_one(
    server: Any, eventually: Eventually
) -> None:
    server.start()
    server.signal(signal.SIGWINCH)
    eventually(lambda: server.ask("status")["workers"] == [])
    address = server.config.listeners[0].address
    waiting = socket.create_connection((address.host, address.port), timeout=10)
    server.signal(signal.SIGTTIN)
    assert waiting.recv(100)


# -- reload -----------------------------------------------------------------------------------


def test_reload_drains_the_old_generation(server: Any, eventually: Eventually) -> None:
    server.start()
    client, worker, generation = server.connect()
    assert server.ask("reload") == {"ok": True, "generation": 2}
    assert server.connect()[2] == 2
    draining = server.workers("draining")
    assert [one["pid"] for one in draining if one["pid"] == worker] == [worker]
    client.close()
    eventually(lambda: not server.workers("draining"))
    assert "generation 1: gone" in server.log
    assert server.ask("status")["generation"] == 2


def test_hup_reloads_and_reopens_the_logs(server: Any, eventually: Eventually) -> None:
    server.start()
    os.rename(server.folder / "error.log", server.folder / "error.log.1")
    server.signal(signal.SIGHUP)
    eventually(lambda: server.ask("status")["generation"] == 2)
    assert "generation 2: serves" in server.log


def test_reload_keeps_what_did_not_change(server: Any, eventually: Eventually) -> None:
    kept, dropped = server.backend("kept"), server.backend("dropped")
    server.config = replace(server.config, backends=(kept, dropped))
    server.start()
    client = server.connect()[0]
    before = {one["address"]: one["pid"] for one in server.procs()}
    server.next(replace(server.config, backends=(kept, server.backend("added"))))
    assert server.ask("reload")["ok"]
    # Whoever is still with the old generation may want the dropped backend.
    assert echo(server.folder / "dropped-0", b"x") == b"x"
    client.close()
    eventually(lambda: not (server.folder / "dropped-0").exists())
    after = {one["address"]: one["pid"] for one in server.procs()}
    assert after[f"{server.folder}/kept-0"] == before[f"{server.folder}/kept-0"]
    assert echo(server.folder / "added-0", b"x") == b"x"


def test_changed_backend_takes_the_path_over(server: Any, eventually: Eventually) -> None:
    server.config = replace(server.config, backends=(server.backend("b"),))
    server.start()
    path = server.folder / "b-0"
    assert echo(path, b"x") == b"x"
    old = server.procs()[0]["pid"]
    server.next(replace(server.config, backends=(server.backend("b", disable_time=7),)))
    assert server.ask("reload")["ok"]
    assert echo(path, b"y") == b"y"
    eventually(lambda: len(server.procs()) == 1)
    assert server.procs()[0]["pid"] != old
    assert echo(path, b"z") == b"z"


def test_bad_configuration_keeps_everything_and_says_why(server: Any) -> None:
    server.start()
    pids = server.worker_pids()
    server.next("x.conf:3:1: error: what is this\n  oops")
    answer = server.ask("reload")
    assert answer == {"ok": False, "error": "x.conf:3:1: error: what is this\n  oops", "code": 6}
    assert server.worker_pids() == pids
    status = server.ask("status")
    assert status["generation"] == 1
    assert status["last_reload"]["ok"] is False
    assert "reload: x.conf:3:1: error: what is this" in server.log


def test_reload_that_cannot_bind_is_undone(server: Any) -> None:
    server.start()
    pids = server.worker_pids()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        more = ListenerSpec(Address("127.0.0.1", port))
        server.next(replace(server.config, listeners=(*server.config.listeners, more)))
        answer = server.ask("reload")
    assert answer["error"] == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert server.worker_pids() == pids
    assert server.ask("status")["listeners"] == [str(server.config.listeners[0].address)]
    assert server.connect()[2] == 1


def test_reload_whose_certificate_has_vanished_is_undone(server: Any) -> None:
    """It was there when the configuration was checked."""
    server.start()
    (spec,) = server.config.listeners
    tls = TlsSpec(CertificateFiles(str(server.folder / "gone.pem")))
    server.next(replace(server.config, listeners=(replace(spec, tls=tls),)))
    answer = server.ask("reload")
    assert (answer["ok"], answer["code"]) == (False, 6)
    assert "gone.pem: No such file" in answer["error"]
    assert server.connect()[2] == 1
    assert server.ask("status")["generation"] == 1
    server.next(server.config)
    assert server.ask("reload") == {"ok": True, "generation": 2}


def test_reload_whose_backend_dies_is_undone(
    server: Any, programs: Any, eventually: Eventually
) -> None:
    server.start()
    crashes = server.backend("b", programs["dies"])
    server.next(replace(server.config, backends=(server.backend("fine"), crashes)))
    answer = server.ask("reload")
    if answer["ok"]:  # the workers were quicker than the program's death
        assert answer["generation"] == 2
        return
    assert "b-0: died before serving, status 3" in answer["error"]
    eventually(lambda: not (server.folder / "fine-0").exists())
    assert server.connect()[2] == 1


def test_reload_whose_program_is_missing_is_undone(server: Any, eventually: Eventually) -> None:
    server.start()
    spec = server.backend("b")
    os.unlink(spec.bin_path[0])
    server.next(replace(server.config, backends=(server.backend("fine"), spec)))
    answer = server.ask("reload")
    assert answer["code"] == 5
    eventually(lambda: not list(server.folder.glob("fine-*")))
    assert server.procs() == []


def test_listener_moves_with_a_reload(server: Any, eventually: Eventually) -> None:
    server.start()
    old = server.config.listeners[0].address
    new = ListenerSpec(Address("127.0.0.2", old.port))
    server.next(replace(server.config, listeners=(new,)))
    assert server.ask("reload")["ok"]
    with socket.create_connection((new.address.host, new.address.port), timeout=10) as client:
        assert client.recv(100).endswith(b" 2\n")
    with socket.socket() as client:
        eventually(lambda: client.connect_ex((old.host, old.port)) != 0)


def test_reloads_that_come_meanwhile_share_one_run(server: Any, eventually: Eventually) -> None:
    server.start()
    for _ in range(5):
        server.signal(signal.SIGHUP)
        server.ask("status")
    assert server.ask("reload")["ok"]
    eventually(lambda: not server.workers("draining"))
    assert 3 <= server.ask("status")["generation"] <= 7


def test_no_client_is_refused_during_reloads(server: Any) -> None:
    server.start()
    for generation in range(2, 6):
        asked = socket.socket(socket.AF_UNIX)
        asked.connect(str(server.control_socket))
        asked.sendall(b'{"do":"reload"}\n')
        asked.setblocking(False)
        answered = False
        while not answered:
            client, _, _ = server.connect()
            client.close()
            try:
                answered = bool(asked.recv(4096))
            except BlockingIOError:
                time.sleep(0.005)
        assert server.connect()[2] == generation


# -- the control socket -----------------------------------------------------------------------


def test_control_answers_nonsense(server: Any) -> None:
    server.start()
    assert server.ask("dance")["code"] == 2
    for line in (b"nonsense\n", b"[]\n", b"\xff\n"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(server.control_socket))
            client.sendall(line)
            assert client.recv(4096).startswith(b'{"ok":false,"error":"the request is not')


def test_control_has_no_patience_with_silence(server: Any) -> None:
    server.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(8)
        client.connect(str(server.control_socket))
        assert client.recv(100) == b""


def test_reopen_moves_all_writers_to_the_new_file(server: Any, eventually: Eventually) -> None:
    server.start()
    old = server.folder / "error.log.1"
    os.rename(server.folder / "error.log", old)
    assert server.ask("reopen") == {"ok": True}
    held = [
        os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.pid}/fd")
    ]
    assert str(old) not in held
    for pid in server.worker_pids():
        eventually(
            lambda pid=pid: str(old)
            not in [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        )
