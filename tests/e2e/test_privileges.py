"""Started as root: the master stays that, workers and programs become somebody else for good."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import psutil
from e2e.harness import Forkd, is_free, wait_for

NOBODY = pwd.getpwnam("nobody")
PROGRAM = """#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
id -u; id -g; id -G
"""


def low_port(start: int) -> int:
    """A free one that only root may bind."""
    return next(port for port in range(start, start + 100) if is_free(port))


def ids_of(process: psutil.Process) -> tuple[set[int], set[int], set[int]]:
    """(uids, gids, groups); of the first two the real, effective and saved ones."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    uids, gids, groups = (set(map(int, fields[name].split())) for name in ("Uid", "Gid", "Groups"))
    return uids, gids, groups


def test_root_serves_as_somebody_else(forkd: Forkd) -> None:
    assert os.geteuid() == 0, "this has to be run as root"
    forkd.directory.chmod(0o755)
    port, another = low_port(700), low_port(850)
    logs = forkd.directory / "log"
    logs.mkdir(mode=0o700)  # only the master can open what is in there
    config = """
        server.max-worker = 1
        server.username = "nobody"
        server.errorlog = "@DIR@/log/error.log"
        server.modules = ("mod_cgi", "mod_accesslog")
        accesslog.filename = "@DIR@/log/access.log"
        cgi.assign = ( ".sh" => "" )
        """
    server = forkd.start(config, files={"root/id.sh": PROGRAM}, port=port)
    for folder in (server.root, *server.root.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o711)
    (worker,) = server.workers()
    groups = set(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert ids_of(server.master())[0] == {0}
    assert ids_of(worker) == ({NOBODY.pw_uid}, {NOBODY.pw_gid}, groups)
    said = server.get("/id.sh").body.decode().split()
    assert said[:2] == [str(NOBODY.pw_uid), str(NOBODY.pw_gid)]
    assert set(map(int, said[2:])) == groups
    wait_for(lambda: "/id.sh" in (logs / "access.log").read_text())

    text = server.config.read_text()
    server.config.write_text(text.replace(f"server.port = {port}", f"server.port = {another}"))
    done = forkd.run("reload", "-f", str(server.config))
    assert done.returncode == 0, done.stderr
    server.port = another
    assert server.get("/id.sh").status == 200, "a low port bound by a reload"
    (logs / "access.log").rename(logs / "access.log.1")
    forkd.run("reopen", "-f", str(server.config)).check_returncode()
    server.get("/id.sh?after")
    wait_for(lambda: "after" in (logs / "access.log").read_text())


def test_workers_stand_in_their_own_root(forkd: Forkd) -> None:
    forkd.directory.chmod(0o755)
    jail = forkd.directory / "jail"
    (jail / "www").mkdir(parents=True)
    (jail / "www" / "index.html").write_text("inside")
    (jail / "www" / "escape").symlink_to("/etc/passwd")
    config = f"""
        server.max-worker = 1
        server.chroot = "{jail}"
        server.username = "nobody"
        server.document-root = "/www"
        """
    server = forkd.start(config)
    (worker,) = server.workers()
    assert os.readlink(f"/proc/{worker.pid}/root") == str(jail)
    assert ids_of(worker)[0] == {NOBODY.pw_uid}
    assert server.get("/index.html").body == b"inside"
    assert server.get("/escape").status == 404
    forkd.run("reload", "-f", str(server.config)).check_returncode()
    assert server.get("/index.html").body == b"inside"
