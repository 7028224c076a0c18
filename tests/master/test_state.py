"""What one program leaves to the next: all of it comes through, or it is refused with a reason."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from forkd import preflight, record
from forkd.address import Address
from forkd.config.backend import BackendSpec
from forkd.config.model import Config, ListenerSpec, ServerSettings
from forkd.config.tls import BackendTls, CertificateFiles, TlsSpec
from forkd.errors import StartError
from forkd.log import LogPlan, LogsRecord, OpenLog
from forkd.master import state
from forkd.master.habitat import Habitat
from forkd.master.reload import plan
from forkd.master.state import (
    BackendsRecord,
    BackOffRecord,
    ClientRecord,
    ConsoleRecord,
    FdRecord,
    GenerationRecord,
    InheritedRecord,
    ListenerRecord,
    MasterRecord,
    SlotRecord,
    WorkerRecord,
)
from forkd.scoreboard import BoardRecord, Layout, ProcState, procs_for
from forkd.unix.listen import PlaceRecord
from forkd.unix.pidfile import PidFileRecord
from forkd.unix.user import Identity

VECTORS = Path(__file__).parents[1] / "vectors"

BACKEND = BackendSpec(
    gateway="scgi",
    key="/x/",
    label="some",
    address=Address("/run/\udcff.sock"),
    tls=BackendTls("name"),
    bin_path=("/bin/x", "-y"),
    max_procs=2,
    bin_environment=(("A", "b"),),
)
SOME_LAYOUT = Layout(("PID", "STATE"), ("LOAD", "TAKEN"), ("STATE", "PID"))
LISTENER = ListenerSpec(
    Address("::", 443), tls=TlsSpec(CertificateFiles("/c.pem"), (CertificateFiles("/d.pem"),))
)
SLOT = SlotRecord(
    spec=BACKEND,
    number=1,
    habitat=Habitat(Identity(33, 33, (33, 4)), chroot="/srv"),
    state=ProcState.THROTTLED,
    boards=(3,),
    pid=0,
    socket_fd=20,
    place=PlaceRecord("/run/x.sock", "", 1, 2**60),
    stderr_fd=-1,
    stderr_last=("oh", "no"),
    predecessor=-1,
    due=12.5,
    backoff=BackOffRecord(4.0, (1.0, 2.0)),
    starts=3,
    deaths=2,
    ends=2,
    last_status=-9,
    last_failure="died",
    started=1.5,
    retired=0,
    quiet_since=3,
    taken_before=4,
    taken_at_start=5,
    taken_by_predecessor=6,
    taken_seen=7,
    has_waited=True,
    is_superseded=False,
    is_leaving=False,
)
STATE = MasterRecord(
    format=state.FORMAT,
    pid=99,
    version="1",
    started=1000.25,
    next_number=4,
    current=3,
    last_reload={"ok": False, "error": "why", "time": 1.5},
    pid_file=PidFileRecord("/run/x.pid", 7),
    console=ConsoleRecord(8, PlaceRecord("/run/x.pid.sock"), (ClientRecord(9, "", True),)),
    inherited=(InheritedRecord("web", 10),),
    listeners=(ListenerRecord(LISTENER, (FdRecord(11), FdRecord(12))),),
    backends=BackendsRecord(((SLOT,),), (replace(SLOT, socket_fd=-1, stderr_fd=21),)),
    generations=(
        GenerationRecord(
            number=3,
            file="/etc/x.conf",
            server=ServerSettings(username="www-data", max_worker=3),
            listeners=(LISTENER,),
            board=BoardRecord(13, 3, 77, procs_for((BACKEND,)), SOME_LAYOUT),
            logs=LogsRecord(LogPlan("/e.log", owner=(1, 2)), (OpenLog("/e.log", 14),), True),
            workers=(WorkerRecord(0, 1, 100, 15, 2.5, "READY"),),
            wanted=3,
        ),
    ),
    strays=(101,),
)


def test_everything_comes_through() -> None:
    assert state.read(state.write(STATE)) == STATE


def test_what_this_format_once_looked_like_can_still_be_read() -> None:
    """Whoever has to change the file has made another FORMAT."""
    assert state.FORMAT == 1
    assert state.read((VECTORS / "upgrade_state_1.json").read_bytes()) == STATE


def test_the_text_is_of_one_line_and_plain() -> None:
    assert state.write(STATE).isascii()
    assert b"\n" not in state.write(STATE)


def test_the_descriptors_that_go_with_it() -> None:
    assert sorted(state.descriptors(STATE)) == [*range(7, 16), 20, 21]


def test_every_descriptor_is_called_so() -> None:
    """Whoever holds one under another name would lose it on the way."""
    text = state.write(STATE).decode()
    assert "fileno" not in text
    assert text.count('fd":') == len(list(state.descriptors(STATE))) + 2  # two are -1


def test_the_configuration_of_the_generation_that_serves() -> None:
    config = STATE.config
    assert (config.file, config.server.max_worker) == ("/etc/x.conf", 3)
    assert config.listeners == (LISTENER,)
    assert config.backends == (BACKEND,)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": state.FORMAT + 1}, f"has format {state.FORMAT + 1}"),
        ({"format": None}, "has format None"),
        ({"pid": "x"}, "MasterRecord.pid is 'x'"),
        ({"generations": [{"number": 1}]}, r"generations\[0\].file is missing"),
    ],
)
def test_what_is_refused(change: dict[str, Any], complaint: str) -> None:
    found = json.loads(state.write(STATE)) | change
    with pytest.raises(StartError, match=complaint):
        state.read(json.dumps(found).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"nonsense"])
def test_what_is_no_state_at_all(data: bytes) -> None:
    with pytest.raises(StartError, match="the state of the running server"):
        state.read(data)


CONFIG = """
server.modules = ( "mod_scgi", "mod_proxy" )
server.document-root = "@DIR@"
server.bind = "127.0.0.1"
server.max-worker = 2
server.feature-flags = ( "server.graceful-shutdown-timeout" => 3 )
scgi.server = ( "/a/" => (( "socket" => "@DIR@/a.sock", "bin-path" => "/bin/cat",
    "bin-environment" => ( "A" => "b" ), "kill-signal" => 2, "umask" => "027",
    "rlimits" => ( "nofile" => 99 ), "cwd" => "/" )) )
proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => 81 )) )
$SERVER["socket"] == "@DIR@/s.sock" { server.socket-perms = "0660" }
"""


def test_a_configuration_that_has_not_changed_is_the_same(tmp_path: Path) -> None:
    """Else a reload would start every backend anew."""

    def load() -> Config:
        return preflight.load("x.conf", CONFIG.replace("@DIR@", str(tmp_path)).encode())

    before = load()
    generation = replace(
        STATE.generations[0],
        server=before.server,
        listeners=before.listeners,
        board=replace(STATE.generations[0].board, procs=procs_for(before.backends)),
    )
    left = replace(STATE, generations=(generation,))
    changes = plan(state.read(state.write(left)).config, load())
    assert (changes.listeners_added, changes.listeners_dropped) == ((), ())
    assert len(changes.backends_kept) == len(before.backends) == 2
    assert state.read(state.write(left)).config.server == before.server


@pytest.mark.parametrize("kind", [ServerSettings, BackendSpec, ListenerSpec])
def test_every_field_can_be_read(kind: type) -> None:
    """A type that ``record`` does not know would only be missed by an upgrade."""
    examples = {ServerSettings: ServerSettings(), BackendSpec: BACKEND, ListenerSpec: LISTENER}
    example = examples[kind]
    again = record.decode(kind, record.encode(example))
    assert all(getattr(again, one.name) == getattr(example, one.name) for one in fields(kind))
