"""What the command line says and ends with, when real servers are behind it."""

from __future__ import annotations

import subprocess

import pytest
from e2e.harness import COMMAND, DEADLINE, Forkd, free_port

CONFIG = """
server.modules = ("mod_wstunnel")
server.max-worker = 1
wstunnel.server = ("/ws/" => (("socket" => "@DIR@/b.sock", "bin-path" => "/bin/sleep 1000")))
"""
FILES = {"root/x": "served"}


def test_one_life(forkd: Forkd) -> None:
    server = forkd.prepare(CONFIG, files=FILES)
    arguments = ("-f", str(server.config))
    assert forkd.run("start", *arguments).returncode == 0
    assert server.get("/x").body == b"served"
    pid = server.pid
    again = forkd.run("start", *arguments)
    assert (again.returncode, again.stdout) == (0, f"already running, pid {pid}\n")

    other = str(forkd.directory / "other.pid")
    second = forkd.run("start", *arguments, "--pid-file", other)
    assert second.returncode == 1
    assert f"127.0.0.1:{server.port}: Address already in use" in second.stderr
    status = forkd.run("status", *arguments)
    assert (status.returncode, server.pid) == (0, pid)
    assert status.stdout.startswith(f"running, pid {pid}, generation 1, 1 workers, ")
    assert server.get("/x").body == b"served"

    processes = server.processes()
    left_behind = (server.pid_file, server.control_socket, forkd.directory / "b.sock-0")
    assert all(path.exists() for path in left_behind)
    assert forkd.run("stop", *arguments).returncode == 0
    server.wait_gone(processes)
    assert not any(path.exists() for path in left_behind)
    stopped = forkd.run("stop", *arguments)
    assert (stopped.returncode, stopped.stdout) == (0, "not running\n")
    assert forkd.run("status", *arguments).returncode == 3


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("-t", "-f", "good"), 0, "Syntax OK\n"),
        (("-t", "-f", "bad"), 255, "bad:1:"),
        ((), 255, "Try using -f option"),
        (("frobnicate",), 2, "unknown action frobnicate"),
    ],
)
def test_exit_status(forkd: Forkd, words: tuple[str, ...], status: int, text: str) -> None:
    forkd.write("good", f'server.document-root = "/"\nserver.port = {free_port()}\n')
    forkd.write("bad", "nonsense\n")
    done = forkd.run(*words)
    assert done.returncode == status
    assert text in done.stdout + done.stderr


def test_root_serves_nobody(forkd: Forkd) -> None:
    server = forkd.prepare('server.username = "root"\n')
    refused = forkd.run("start", "-f", str(server.config))
    assert refused.returncode == 6
    assert f"{server.config}:" in refused.stderr and '"root" is root' in refused.stderr
    assert not server.pid_file.exists()


def test_a_start_without_the_pid_file_leaves_the_control_socket_alone(forkd: Forkd) -> None:
    server = forkd.start(CONFIG, files=FILES)
    assert server.process is not None
    server.pid_file.unlink()
    second = forkd.run("start", "-f", str(server.config))
    assert second.returncode == 1
    assert f"control socket {server.control_socket}: somebody listens there" in second.stderr
    assert server.status()["pid"] == server.process.pid


def test_a_full_disk_for_the_pid_file(forkd: Forkd) -> None:
    server = forkd.prepare('server.pid-file = "@DIR@/full/x.pid"\n')
    (forkd.directory / "full").mkdir()
    full = 'mount -t tmpfs -o size=4k none full; echo x >full/x; exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", full, "sh", *COMMAND)
    done = subprocess.run(
        [*command, "start", "-f", str(server.config)],
        capture_output=True,
        text=True,
        env=forkd.environment(),
        cwd=forkd.directory,
        timeout=DEADLINE * 2,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("/full/x.pid: No space left on device\n")
