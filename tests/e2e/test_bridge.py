"""bin/scgi-cgi and bin/fcgi-cgi: real processes, and a client that plays the server in front."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from e2e.bridges import NAMES, Bridge, Client, FcgiClient, encoded, wait_for_file
from e2e.harness import DEADLINE, wait_for

from forkd.protocol.fastcgi import (
    ProtocolStatus,
    RecordType,
    Role,
    decode_pairs,
    encode_record,
)

Start = Callable[..., Bridge]

MIB = 1 << 20


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts bridges; fails when one leaves a process behind or does not end well."""
    bridges: list[Bridge] = []

    def start(name: str, *options: str, tcp: bool = False) -> Bridge:
        bridges.append(Bridge(name, tmp_path, options, tcp))
        return bridges[-1]

    yield start
    problems = [problem for bridge in bridges for problem in bridge.finish()]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bridge]]:
    """One of each for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("bridges")
    bridges = {name: Bridge(name, folder, (), tcp=False) for name in NAMES}
    yield bridges
    problems = [problem for bridge in bridges.values() for problem in bridge.finish()]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture(params=NAMES)
def bridge(
    request: pytest.FixtureRequest, running: dict[str, Bridge], tmp_path: Path
) -> Iterator[Bridge]:
    yield from borrowed(running[request.param], tmp_path)


@pytest.fixture
def fcgi(running: dict[str, Bridge], tmp_path: Path) -> Iterator[Bridge]:
    yield from borrowed(running["fcgi-cgi"], tmp_path)


@pytest.fixture
def scgi(running: dict[str, Bridge], tmp_path: Path) -> Iterator[Bridge]:
    yield from borrowed(running["scgi-cgi"], tmp_path)


@pytest.fixture(params=NAMES)
def own(request: pytest.FixtureRequest, start: Start) -> Bridge:
    """One that the test may end."""
    return start(request.param)


def borrowed(bridge: Bridge, directory: Path) -> Iterator[Bridge]:
    bridge.renew(directory)
    yield bridge
    left = bridge.forget()
    assert bridge.process.poll() is None
    if left:
        pytest.fail("\n".join(left), pytrace=False)


# -- programs -------------------------------------------------------------------------------------

REPORT = """#!/usr/bin/python3 -IS
import json, os, sys
fds = os.listdir("/proc/self/fd")
with open("/proc/self/environ", encoding="latin-1") as file:
    environment = dict(pair.split("=", 1) for pair in file.read().split("\\0") if pair)
print("Content-Type: application/json", end="\\n\\n")
print(json.dumps({
    "environment": environment, "argv": sys.orig_argv, "cwd": os.getcwd(),
    "body": sys.stdin.read(), "fds": len(fds) - 1, "leads": os.getpgrp() == os.getpid(),
}))
"""

# Ends with its input; a word on standard error in between.
ECHO = """#!/bin/sh
echo ready
cat
echo done >&2
echo bye
"""

# Closes its output first, and goes on reading.
TAKER = """#!/bin/sh
echo over
exec >&-
cat > taken
echo more >> taken
"""

STUBBORN = """#!/bin/sh
trap 'date +%s.%N > terminated' TERM
echo $$
sleep 1000 &
while :; do sleep 0.1; done
"""


def report(bridge: Bridge, script: Path | str, body: bytes = b"", **more: str) -> dict:
    head, _, text = bridge.run(script, body, **more).partition(b"\n\n")
    assert head == b"Content-Type: application/json"
    return json.loads(text)


# -- what is run, and with what -------------------------------------------------------------------


def test_a_program_gets_what_was_sent_and_the_path_and_nothing_else(bridge: Bridge) -> None:
    script = bridge.script(REPORT)
    found = report(bridge, script, b"the body", QUERY_STRING="", X="\xff=1")
    sent = bridge.environment(script, CONTENT_LENGTH="8", QUERY_STRING="", X="\xff=1")
    if bridge.name == "scgi-cgi":
        sent["SCGI"] = "1"
    assert found["environment"] == {**sent, "PATH": os.environ["PATH"]}
    assert found["cwd"] == str(script.parent)
    assert found["argv"][-1] == str(script)
    assert found["body"] == "the body"
    assert found["fds"] == 3
    assert found["leads"]


def test_an_interpreter_gets_the_script(bridge: Bridge) -> None:
    script = bridge.script(REPORT, mode=0o644)
    found = report(bridge, script, INTERPRETER="/usr/bin/python3")
    assert found["argv"] == ["/usr/bin/python3", str(script)]
    assert found["cwd"] == str(script.parent)


@pytest.mark.parametrize("options", [["-b", "script"], ["./script"]], ids=" ".join)
def test_one_program_for_all_requests(start: Start, options: list[str]) -> None:
    bridge = start("scgi-cgi", *options)
    script = bridge.script(REPORT)
    assert report(bridge, "/nowhere")["argv"][-1] == str(script)


def test_what_cannot_be_run_is_answered_with_a_status(bridge: Bridge) -> None:
    folder = bridge.directory
    for path, status in (
        (folder / "missing", "404 Not Found"),
        (folder, "403 Forbidden"),
        (bridge.script("", "plain", 0o644), "403 Forbidden"),
        (folder / "plain" / "below", "403 Forbidden"),
        ("", "500 Internal Server Error"),
        ("x" * 5000, "500 Internal Server Error"),
        (bridge.script("#!/no/such/interpreter\n", "bad"), "500 Internal Server Error"),
    ):
        answer = bridge.run(path).decode()
        assert answer.startswith(f"Status: {status}\r\nContent-Type: text/plain\r\n\r\n"), path
    assert f"{folder}/missing: not there" in bridge.log.read_text()


def test_statuses_while_a_body_comes(bridge: Bridge) -> None:
    client = bridge.client()
    client.request(bridge.environment("/missing"), 3 * MIB)
    client.send(b"x" * MIB)
    assert client.read(11) == b"Status: 404"


def test_what_a_program_complains_of(bridge: Bridge) -> None:
    script = bridge.script("#!/bin/sh\necho 'first\nsecond' >&2\nprintf last >&2\necho out\n")
    client = bridge.client()
    client.request(bridge.environment(script))
    assert client.read_all() == b"out\n"
    if isinstance(client, FcgiClient):
        assert client.stderr == b"first\nsecond\nlast"
    else:
        wait_for(lambda: str(script) in bridge.log.read_text() and "last" in bridge.log.read_text())
        lines = [line for line in bridge.log.read_text().splitlines() if str(script) in line]
        tags = {line.rpartition(": ")[0] for line in lines}
        assert [line.rpartition(": ")[2] for line in lines] == ["first", "second", "last"]
        assert len(tags) == 1
        assert tags.pop().startswith(f"scgi-cgi: {script} pid ")


# -- bytes ----------------------------------------------------------------------------------------


def test_a_large_body_comes_back(bridge: Bridge) -> None:
    script = bridge.script("#!/bin/sh\nexec cat\n")
    body = os.urandom(3 * MIB)
    client = bridge.client()
    client.request(bridge.environment(script), len(body))
    child = os.fork()
    if child == 0:
        client.send(body)
        client.send_end()
        os._exit(0)
    answer = client.read_all()
    os.waitpid(child, 0)
    assert answer == body


def test_input_ends_with_the_body(scgi: Bridge) -> None:
    client = scgi.client()
    client.request(scgi.environment(scgi.script(ECHO)), 5)
    client.send(b"hello and more")
    assert client.read_all() == b"ready\nhellobye\n"


def test_a_tunnel(bridge: Bridge) -> None:
    client = bridge.client()
    client.request(bridge.environment(bridge.script(ECHO), HTTP_UPGRADE="websocket"))
    assert client.read(6) == b"ready\n"
    for message in (b"a", b"bc" * 50_000, b"d"):
        client.send(message)
        assert client.read(len(message)) == message
    client.send_end()
    assert client.read_all() == b"bye\n"


def test_a_program_that_has_said_all_still_hears(bridge: Bridge) -> None:
    client = bridge.client()
    client.request(bridge.environment(bridge.script(TAKER), HTTP_UPGRADE="websocket"))
    assert client.read(5) == b"over\n"
    if isinstance(client, FcgiClient):
        wait_for(lambda: client.record_or_fail() and client.output_over, what="end of STDOUT")
    else:
        assert client.read_all() == b""
    client.send(b"late")
    client.send_end()
    wait_for_file(bridge.directory / "taken", "latemore")
    if isinstance(client, FcgiClient):
        assert client.read_all() == b""
    assert not bridge.programs()


def test_last_words_before_a_hang_up_reach_the_program(bridge: Bridge) -> None:
    script = bridge.script("#!/bin/sh\necho ready\nsleep 0.5\ncat > taken\n")
    client = bridge.client()
    client.request(bridge.environment(script, HTTP_UPGRADE="websocket"))
    assert client.read(6) == b"ready\n"
    client.send(bytes(400_000))
    client.send(b"good bye")
    client.close()
    wait_for_file(bridge.directory / "taken", "good bye")
    assert (bridge.directory / "taken").stat().st_size == 400_008
    wait_for(lambda: not bridge.programs())


def test_a_client_that_does_not_read_pauses_the_program(bridge: Bridge) -> None:
    size = 64 * MIB
    client = bridge.client()
    client.request(bridge.environment(bridge.script(f"#!/bin/sh\nhead -c {size} /dev/zero\n")))
    assert client.read(1) == b"\0"
    before = bridge.memory()
    wait_for(lambda: is_quiet(bridge), what="a pause")
    assert bridge.memory() - before < 2 * MIB
    assert bridge.programs()
    assert len(client.read_all()) == size - 1


def test_a_program_that_does_not_read_pauses_the_client(bridge: Bridge) -> None:
    size = 64 * MIB
    script = bridge.script(
        "#!/bin/sh\necho ready\nwhile ! [ -e go ]; do sleep 0.1; done\nwc -c\n"
    )
    client = bridge.client()
    client.request(bridge.environment(script), size)
    assert client.read(6) == b"ready\n"
    before = bridge.memory()
    child = os.fork()
    if child == 0:
        client.send(bytes(size))
        client.send_end()
        os._exit(0)
    wait_for(lambda: is_quiet(bridge), what="a pause")
    assert bridge.memory() - before < 3 * MIB
    (bridge.directory / "go").touch()
    assert client.read_all() == b"%d\n" % size
    os.waitpid(child, 0)


def is_quiet(bridge: Bridge) -> bool:
    """Whether the bridge does nothing for a while."""
    process = psutil.Process(bridge.process.pid)
    before = process.cpu_times(), process.num_ctx_switches()
    time.sleep(0.2)
    return (process.cpu_times(), process.num_ctx_switches()) == before


# -- ends -----------------------------------------------------------------------------------------


def lost(bridge: Bridge, script: str, read: int, **more: str) -> list[psutil.Process]:
    """The processes of a request whose client has gone after *read* bytes."""
    client = bridge.client()
    client.request(bridge.environment(bridge.script(script), **more))
    client.read(read)
    processes = bridge.programs()
    assert processes
    client.close()
    return processes


def test_the_program_of_a_lost_client_is_told_and_then_killed(bridge: Bridge) -> None:
    processes = lost(bridge, STUBBORN, 1, HTTP_UPGRADE="websocket")
    gone_at = time.time()
    told = bridge.directory / "terminated"
    wait_for_file(told, ".")
    assert 0.5 < float(told.read_text()) - gone_at < 3
    _, alive = psutil.wait_procs(processes, DEADLINE)
    assert not alive
    assert 4 < time.time() - gone_at < 9
    assert not bridge.programs()


def test_a_program_that_ends_with_its_input_is_not_told(bridge: Bridge) -> None:
    lost(bridge, "#!/bin/sh\ntrap 'echo > told' TERM\necho r\ncat\necho > ended\n", 2,
         HTTP_UPGRADE="x")  # fmt: skip
    wait_for_file(bridge.directory / "ended", "\n")
    assert not (bridge.directory / "told").exists()


def test_a_client_that_goes_while_the_program_writes(bridge: Bridge) -> None:
    lost(bridge, "#!/bin/sh\nyes\n", 100)
    wait_for(lambda: not bridge.programs(), 4)


def test_a_client_that_goes_while_the_program_does_not_read(bridge: Bridge) -> None:
    client = bridge.client()
    client.request(bridge.environment(bridge.script("#!/bin/sh\necho r\nsleep 1000\n")), 8 * MIB)
    assert client.read(2) == b"r\n"
    client.socket.setblocking(False)
    while True:
        try:
            client.socket.send(bytes(8) if bridge.name == "scgi-cgi" else
                               encode_record(RecordType.STDIN, 1, bytes(60_000)))  # fmt: skip
        except BlockingIOError:
            break
    client.close()
    wait_for(lambda: not bridge.programs(), 4)


@pytest.mark.parametrize("name", NAMES)
def test_over_tcp_a_reset_is_a_loss(start: Start, name: str) -> None:
    bridge = start(name, tcp=True)
    client = bridge.client()
    client.request(bridge.environment(bridge.script("#!/bin/sh\necho r\nsleep 1000\n")))
    client.read(2)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_for(lambda: not bridge.programs(), 4)


def test_over_tcp_the_end_of_a_body_in_the_middle_is_a_loss(start: Start) -> None:
    bridge = start("scgi-cgi", tcp=True)
    client = bridge.client()
    client.request(bridge.environment(bridge.script("#!/bin/sh\necho r\nsleep 1000\n")), 10)
    client.send(b"half")
    assert client.read(2) == b"r\n"
    client.send_end()
    wait_for(lambda: not bridge.programs(), 4)


def test_what_a_program_leaves_in_its_group_goes_with_it(bridge: Bridge) -> None:
    script = bridge.script("#!/bin/sh\nsleep 1000 >/dev/null 2>&1 &\necho out\n")
    assert bridge.run(script) == b"out\n"
    wait_for(lambda: not bridge.programs())


def test_output_of_a_descendant_is_waited_for(bridge: Bridge) -> None:
    assert bridge.run(bridge.script("#!/bin/sh\n(sleep 0.5; echo late) &\necho out\n")) == (
        b"out\nlate\n"
    )


# -- how many, and until when ----------------------------------------------------------------------


def ready(bridge: Bridge) -> Client:
    client = bridge.client()
    client.request(bridge.environment(bridge.script(ECHO), HTTP_UPGRADE="x"))
    assert client.read(6) == b"ready\n"
    return client


@pytest.mark.parametrize("name", NAMES)
def test_more_connections_than_allowed_wait(start: Start, name: str) -> None:
    bridge = start(name, "-c", "2")
    first, _ = ready(bridge), ready(bridge)
    third = bridge.client()
    third.request(bridge.environment(bridge.directory / "script", HTTP_UPGRADE="x"))
    third.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        third.read(1)
    first.send_end()
    assert first.read_all() == b"bye\n"
    first.close()
    third.socket.settimeout(DEADLINE)
    assert third.read(6) == b"ready\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_end_it_ends_when_its_programs_have(own: Bridge, number: int) -> None:
    client = ready(own)
    process = psutil.Process(own.process.pid)
    before = process.num_fds()
    idle = own.client()
    wait_for(lambda: process.num_fds() > before, what="an accepted connection")
    own.process.send_signal(number)
    idle.socket.settimeout(DEADLINE)
    assert idle.socket.recv(1) == b""
    with pytest.raises(OSError):
        own.client()
    client.send(b"still here")
    assert client.read(10) == b"still here"
    client.send_end()
    assert client.read_all() == b"bye\n"
    client.close()
    assert own.process.wait(DEADLINE) == 0


def test_told_twice_it_ends_at_once(own: Bridge) -> None:
    client = own.client()
    client.request(own.environment(own.script(STUBBORN)))
    client.read(1)
    own.process.terminate()
    wait_for(lambda: not listens(own), what="a closed socket")
    began = time.monotonic()
    own.process.terminate()
    assert own.process.wait(DEADLINE) == 0
    assert time.monotonic() - began < 4
    assert not own.programs()


def listens(bridge: Bridge) -> bool:
    try:
        bridge.client()
    except ConnectionRefusedError:
        return False
    return True


def test_told_to_end_it_is_quick_with_what_nobody_waits_for(own: Bridge) -> None:
    client = own.client()
    client.request(own.environment(own.script(STUBBORN)))
    client.read(1)
    client.close()
    began = time.monotonic()
    own.process.terminate()
    assert own.process.wait(DEADLINE) == 0
    assert time.monotonic() - began < 4
    assert not own.programs()


@pytest.mark.parametrize("name", NAMES)
def test_command_line(name: str, start: Start) -> None:
    for option, status, text in (
        ("-v", 0, ""), ("-h", 0, ""), ("-c", 2, "expected one argument"), ("-c0", 2, "invalid"),
        ("--frobnicate", 2, "unrecognized"),
    ):  # fmt: skip
        bridge = start(name, option)
        assert bridge.process.wait(DEADLINE) == status
        assert text in bridge.log.read_text()
        bridge.process.returncode = 0  # as it should be
        (bridge.directory / f"{name}.sock").unlink()


# -- SCGI ------------------------------------------------------------------------------------------


def test_what_is_not_scgi_is_dropped(scgi: Bridge) -> None:
    client = scgi.client()
    client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises((EOFError, ConnectionResetError)):
        client.read(1)
    wait_for_file(scgi.log, "connection dropped: SCGI: no netstring")


# -- FastCGI ---------------------------------------------------------------------------------------


def test_a_connection_is_kept_if_that_is_wanted(fcgi: Bridge) -> None:
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    for number, keep in ((1, True), (5, True), (1, False)):
        client.number, client.keep_conn = number, keep
        client.request(fcgi.environment(fcgi.script("#!/bin/sh\nhead -c 2; exit 3\n")), 2)
        client.send(b"ab")
        client.send_end()
        assert client.read_all() == b"ab"
    assert client.ends == [(3, ProtocolStatus.REQUEST_COMPLETE)] * 3
    assert client.record() is None


def test_a_program_that_died_has_a_status_of_its_own(fcgi: Bridge) -> None:
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    client.request(fcgi.environment(fcgi.script("#!/bin/sh\necho part\nkill -9 $$\n")))
    assert client.read_all() == b"part\n"
    assert client.ends == [(137, ProtocolStatus.REQUEST_COMPLETE)]


def turn_to(client: FcgiClient, number: int) -> None:
    """From now on *client* speaks of request *number*."""
    client.number, client.output_over = number, False


def test_requests_at_a_time_each_with_its_own_output(fcgi: Bridge) -> None:
    """One program does not read what it is sent, and keeps nobody waiting."""
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    client.keep_conn = True
    size = 4 * MIB
    turn_to(client, 7)
    deaf = fcgi.environment(fcgi.script("#!/bin/sh\nread go < go\nwc -c\n", "deaf"))
    os.mkfifo(fcgi.directory / "go")
    client.request(deaf, size)
    client.send(bytes(size))
    client.send_end()
    echo = fcgi.environment(fcgi.script("#!/bin/sh\nhead -c 5\n", "echo"))
    for number in (1, 2, 3):
        turn_to(client, number)
        client.request(echo, 5)
    for number in (3, 1, 2):
        turn_to(client, number)
        client.send(b"word%d" % number)
        assert client.read_all() == b"word%d" % number
    (fcgi.directory / "go").write_text("go\n")
    turn_to(client, 7)
    assert client.read_all() == b"%d\n" % size


def test_a_program_that_never_reads_is_given_up(fcgi: Bridge) -> None:
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    client.keep_conn = True
    script = fcgi.script("#!/bin/sh\necho here\nexec sleep 1000\n")
    client.request(fcgi.environment(script, HTTP_UPGRADE="raw"))
    assert client.read(5) == b"here\n"
    for _ in range(66):
        client.send(bytes(MIB))
    assert client.read_all() == b""
    assert client.ends == [(128 + signal.SIGTERM, ProtocolStatus.REQUEST_COMPLETE)]
    assert fcgi.memory() < 100 * MIB


@pytest.mark.parametrize(
    ("limit", "status"), [(1, ProtocolStatus.CANT_MPX_CONN), (2, ProtocolStatus.OVERLOADED)]
)
def test_no_more_requests_than_allowed(
    start: Start, limit: int, status: ProtocolStatus
) -> None:
    fcgi = start("fcgi-cgi", "-c", str(limit))
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    client.keep_conn = True
    for number in range(1, limit + 1):
        turn_to(client, number)
        client.request(fcgi.environment(fcgi.script(ECHO)), 1)
        assert client.read(6) == b"ready\n"
    turn_to(client, 9)
    client.request(fcgi.environment(fcgi.script(ECHO)), 1)
    assert client.read_all() == b""
    assert client.ends == [(0, status)]
    if limit > 1:
        other = fcgi.client()
        assert isinstance(other, FcgiClient)
        other.request(fcgi.environment(fcgi.script(ECHO)), 1)
        assert other.read_all() == b""
        assert other.ends == [(0, status)]
    for number in range(1, limit + 1):
        turn_to(client, number)
        client.send_end()
        assert client.read_all() == b"bye\n"


def test_told_to_end_it_begins_nothing_more(start: Start) -> None:
    fcgi = start("fcgi-cgi")
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    client.keep_conn = True
    client.request(fcgi.environment(fcgi.script(ECHO)), 1)
    assert client.read(6) == b"ready\n"
    fcgi.process.terminate()

    def is_refused() -> bool:
        turn_to(client, client.number + 1)
        client.request(fcgi.environment(fcgi.script("#!/bin/sh\n", "nothing")))
        client.read_all()
        return client.ends[-1][1] == ProtocolStatus.OVERLOADED

    wait_for(is_refused, what="it has heard")
    turn_to(client, 1)
    client.send_end()
    assert client.read_all() == b"bye\n"
    assert fcgi.process.wait(DEADLINE) == 0


def test_roles(fcgi: Bridge) -> None:
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    script = fcgi.script("#!/bin/sh\ncat\necho fine\n")
    client.keep_conn = True
    client.role = Role.FILTER
    client.request(fcgi.environment(script))
    assert client.read_all() == b""
    client.role = Role.AUTHORIZER
    client.request({**fcgi.environment(script), "HTTP_UPGRADE": "keeps the client from STDIN"})
    assert client.read_all() == b"fine\n"
    assert client.ends == [(0, ProtocolStatus.UNKNOWN_ROLE), (0, ProtocolStatus.REQUEST_COMPLETE)]


def test_what_it_says_of_itself(start: Start) -> None:
    client = start("fcgi-cgi", "--max-connections", "7").client()
    assert isinstance(client, FcgiClient)
    names = ("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS", "OTHER")
    question = encoded((name, "") for name in names)
    client.socket.sendall(encode_record(RecordType.GET_VALUES, 0, question))
    answer = client.record()
    assert answer is not None
    assert answer.type == RecordType.GET_VALUES_RESULT
    assert decode_pairs(answer.content) == [
        (b"FCGI_MAX_CONNS", b"7"), (b"FCGI_MAX_REQS", b"7"), (b"FCGI_MPXS_CONNS", b"1")
    ]  # fmt: skip
    client.socket.sendall(b"\x01\x63\x00\x00\x00\x00\x00\x00")
    answer = client.record()
    assert answer is not None
    assert (answer.type, answer.content) == (RecordType.UNKNOWN_TYPE, b"\x63" + bytes(7))


def test_an_aborted_request_ends_and_the_connection_goes_on(fcgi: Bridge) -> None:
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    client.keep_conn = True
    client.request(fcgi.environment(fcgi.script("#!/bin/sh\necho r\nsleep 1000\n")))
    assert client.read(2) == b"r\n"
    client.socket.sendall(encode_record(RecordType.ABORT_REQUEST, 1))
    assert client.read_all() == b""
    assert client.ends == [(128 + signal.SIGTERM, ProtocolStatus.REQUEST_COMPLETE)]
    client.request(fcgi.environment(fcgi.script("#!/bin/sh\necho again\n")))
    assert client.read_all() == b"again\n"


def test_idle_connections_do_not_keep_it_from_ending(start: Start) -> None:
    fcgi = start("fcgi-cgi")
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    client.keep_conn = True
    client.request(fcgi.environment(fcgi.script("#!/bin/sh\necho out\n")))
    assert client.read_all() == b"out\n"
    fcgi.process.terminate()
    assert client.record() is None
    assert fcgi.process.wait(DEADLINE) == 0


def test_questions_without_end_do_not_fill_the_memory(fcgi: Bridge) -> None:
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    question = encode_record(RecordType.GET_VALUES, 0, encoded([("FCGI_MAX_CONNS", "")])) * 1000
    client.socket.settimeout(1)
    with pytest.raises(TimeoutError):
        while True:
            client.socket.sendall(question)
    assert fcgi.memory() < 40 * MIB


def test_what_is_not_fastcgi_is_dropped(fcgi: Bridge) -> None:
    client = fcgi.client()
    client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises((EOFError, ConnectionResetError)):
        client.read(1)
    wait_for_file(fcgi.log, "connection dropped: FastCGI: version 71")


def test_a_process_that_holds_standard_error_is_not_waited_for(fcgi: Bridge) -> None:
    script = fcgi.script("#!/bin/sh\nsetsid sleep 1000 >/dev/null &\necho oops >&2\necho out\n")
    client = fcgi.client()
    assert isinstance(client, FcgiClient)
    client.request(fcgi.environment(script))
    assert client.read_all() == b"out\n"
    assert client.stderr == b"oops\n"
    for process in fcgi.programs():
        process.kill()
