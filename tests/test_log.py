"""Logs: opened, written, reopened in place, handed to workers; and Python's logging on them."""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkd import log as log_module
from forkd.errors import StartError
from forkd.log import ErrorLog, LogFiles, LogPlan, one_line, set_up
from forkd.logfile import PIPE_BUF, LogFile, LogPipe, Syslog, open_log

DEADLINE = 10.0


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)


# -- one file ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_mode_0640_whatever_the_umask(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "a.log"))
    assert stat.S_IMODE(os.fstat(file.fd).st_mode) == 0o640
    assert not os.get_inheritable(file.fd)
    file.close()


def test_an_old_file_is_appended_to_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("old\n")
    path.chmod(0o600)
    file = LogFile(str(path))
    assert file.write(b"new\n") == 4
    file.close()
    assert path.read_text() == "old\nnew\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "a.log").symlink_to(target)
    with pytest.raises(OSError) as caught:
        LogFile(str(tmp_path / "a.log"))
    assert caught.value.errno == errno.ELOOP


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Whom files were given to: only root can really do it."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: calls.append((uid, gid)))
    return calls


def test_the_file_is_given_to_the_user(tmp_path: Path, given: list[tuple[int, int]]) -> None:
    os.close(open_log(str(tmp_path / "a.log"), (65534, 65533)))
    os.close(open_log(str(tmp_path / "a.log"), None))
    os.close(open_log(str(tmp_path / "a.log"), (os.getuid(), os.getgid())))
    os.close(open_log("/dev/null", (65534, 65533)))
    assert given == [(65534, 65533)]


def test_a_file_with_a_second_name_is_not_given_away(
    tmp_path: Path, given: list[tuple[int, int]]
) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("x")
    os.link(secret, tmp_path / "a.log")
    with pytest.raises(OSError, match="several names"):
        open_log(str(tmp_path / "a.log"), (65534, 65533))
    assert given == []


def test_reopen_follows_the_name_under_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = LogFile(str(path))
    number = file.fd
    file.write(b"1\n")
    path.rename(tmp_path / "a.log.1")
    file.write(b"2\n")
    file.reopen()
    file.write(b"3\n")
    assert file.fd == number
    assert (tmp_path / "a.log.1").read_text() == "1\n2\n"
    assert path.read_text() == "3\n"
    file.close()


def test_a_failed_reopen_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    file = LogFile(str(folder / "a.log"))
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        file.reopen()
    file.write(b"still\n")
    assert (tmp_path / "moved" / "a.log").read_text() == "still\n"
    file.close()


def test_a_full_disk_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    file = LogFile("/dev/full")
    assert file.write(b"1234\n") == 5
    assert file.write(b"1234\n") == 5
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text
    os.dup2(os.open("/dev/null", os.O_WRONLY), file.fd)
    assert file.write(b"1234\n") == 5
    assert file.write(b"1234\n") == 5
    assert len(caplog.records) == 2
    assert "10 bytes lost" in caplog.records[1].getMessage()
    file.close()


def test_a_write_that_is_cut_short_goes_on_then_gives_up(tmp_path: Path) -> None:
    """With a file size limit the first write is short, the second fails: no exception, no loop."""
    path = tmp_path / "a.log"
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        file = LogFile(str(path))
        os._exit(0 if file.write(b"x" * 19 + b"\n") == 20 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert path.read_bytes() == b"x" * 10


# -- commands ---------------------------------------------------------------------------------


def test_a_command_reads_lines(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipe = LogPipe(f"| cat > {out}")
    pipe.write(b"one\ntwo\n")
    wait_for(lambda: out.exists() and out.read_text() == "one\ntwo\n")
    pipe.close()


def test_reopen_starts_a_command_again_only_when_it_died(tmp_path: Path) -> None:
    starts, out = tmp_path / "starts", tmp_path / "out"
    pipe = LogPipe(f"|sh -c 'echo $$ >> {starts}; exec cat >> {out}'")
    wait_for(lambda: starts.exists() and starts.read_text())
    pipe.reopen()
    os.kill(int(starts.read_text()), signal.SIGKILL)
    wait_for(lambda: pipe.is_dead)
    assert pipe.write(b"lost\n") == 5
    number = pipe.fd
    pipe.reopen()
    assert pipe.fd == number
    pipe.write(b"again\n")
    wait_for(lambda: out.exists() and out.read_text() == "again\n")
    assert len(starts.read_text().splitlines()) == 2
    pipe.close()


def test_a_slow_command_gets_whole_lines_and_nobody_waits_for_it() -> None:
    pipe = LogPipe("|sleep 60")
    line = b"x" * 99 + b"\n"
    data = line * 2000
    start = time.monotonic()
    taken = pipe.write(data)
    assert 0 < taken < len(data)
    assert taken % len(line) == 0
    assert pipe.write(data[taken:]) == 0
    assert time.monotonic() - start < 5
    pipe.close()


def test_pieces_for_a_pipe_end_at_a_line(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    pipe = LogPipe("|true")
    os.dup2(writer, pipe.fd)
    assert pipe.write((b"y" * 999 + b"\n") * 9) == 9000
    pieces = []
    os.set_blocking(reader, False)
    while len(b"".join(pieces)) < 9000:
        pieces.append(os.read(reader, PIPE_BUF // 1000 * 1000))
    assert all(piece.endswith(b"\n") for piece in pieces)
    pipe.close()
    os.close(reader)
    os.close(writer)


def test_a_running_command_is_shared_with_the_next_generation(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    name = f"|sh -c 'echo x >> {starts}; cat > /dev/null'"
    old = LogFiles(LogPlan(others=(name,)))
    wait_for(starts.exists)
    new = LogFiles(LogPlan(others=(name,)), previous=old)
    assert new.fd(name) != old.fd(name)
    assert os.path.sameopenfile(new.fd(name), old.fd(name))
    old.close()
    assert new.append(name, b"x\n") == 2
    new.close()
    assert starts.read_text() == "x\n"


# -- all of a generation ----------------------------------------------------------------------


def plan(folder: Path, **changes: object) -> LogPlan:
    values = {"error": str(folder / "error.log"), "others": (str(folder / "access.log"),)}
    return LogPlan(**{**values, **changes})  # type: ignore[arg-type]


def test_every_log_once(tmp_path: Path) -> None:
    same = str(tmp_path / "one.log")
    logs = LogFiles(LogPlan(error=same, others=(same, same)))
    assert logs.error_fd == logs.fd(same)
    assert len(logs.fds()) == 2  # and the system's log
    logs.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/a.log", "No such file"), ("link.log", "symbolic link"), (".", "directory")],
)
def test_what_cannot_be_opened_is_said_and_nothing_stays_open(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "link.log").symlink_to(tmp_path / "x")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StartError, match=f"{re.escape(name)}: .*{reason}") as caught:
        LogFiles(plan(tmp_path, others=(str(tmp_path / "a.log"), f"{tmp_path}/{name}")))
    assert caught.value.exit_code == 1
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_unknown_facility_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="nosuch") as caught:
        LogFiles(plan(tmp_path, facility="nosuch"))
    assert caught.value.exit_code == 6


def test_more_logs_than_one_message_can_carry(tmp_path: Path) -> None:
    names = tuple(str(tmp_path / str(number)) for number in range(300))
    with pytest.raises(StartError, match="301"):
        LogFiles(plan(tmp_path, others=names))


def test_reopen_reports_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    lost, kept = str(tmp_path / "gone" / "a.log"), str(tmp_path / "b.log")
    logs = LogFiles(plan(tmp_path, others=(lost, kept)))
    os.rename(kept, f"{kept}.1")
    (tmp_path / "gone").rename(tmp_path / "moved")
    [problem] = logs.reopen()
    assert lost in problem
    logs.append(kept, b"new\n")
    assert Path(kept).read_text() == "new\n"
    logs.close()


def test_a_worker_adopts_what_the_master_reopened(tmp_path: Path) -> None:
    """Master and worker for once in one process: the worker's set is a copy by dup."""
    master = LogFiles(plan(tmp_path))
    worker = LogFiles(plan(tmp_path))
    numbers = worker.fds()
    for name in ("error.log", "access.log"):
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    assert master.reopen() == ()
    parent, child = socket.socketpair()
    socket.send_fds(parent, [b"L"], list(master.fds()))
    _, fds, _, _ = socket.recv_fds(child, 1, 253)
    worker.adopt(fds)
    assert worker.fds() == numbers
    worker.append(str(tmp_path / "access.log"), b"line\n")
    assert (tmp_path / "access.log").read_text() == "line\n"
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)
    for end in (parent, child, master, worker):
        end.close()


def test_a_wrong_number_of_descriptors_changes_nothing(tmp_path: Path) -> None:
    logs = LogFiles(plan(tmp_path))
    fd = os.open("/dev/null", os.O_WRONLY)
    with pytest.raises(ValueError, match="1 log descriptors came, 3"):
        logs.adopt([fd])
    with pytest.raises(OSError):
        os.fstat(fd)
    logs.append(str(tmp_path / "access.log"), b"line\n")
    assert (tmp_path / "access.log").read_text() == "line\n"
    logs.close()


def test_standard_error_captured_over_a_reopen(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    pid = os.fork()
    if pid == 0:
        logs = LogFiles(plan(tmp_path))
        logs.capture_stderr()
        os.write(2, b"before\n")
        path.rename(tmp_path / "error.log.1")
        logs.reopen()
        os.write(1, b"after\n")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "error.log.1").read_text() == "before\n"
    assert path.read_text() == "after\n"


# -- the system's log -------------------------------------------------------------------------


@pytest.fixture
def dev_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(Syslog, "PATH", str(tmp_path / "log"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(Syslog.PATH)
        server.settimeout(DEADLINE)
        yield server


def test_syslog_message(dev_log: socket.socket) -> None:
    syslog = Syslog("local3")
    syslog.send(4, "text")
    message = dev_log.recv(1024).decode()
    stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"<{19 * 8 + 4}>{stamp} forkd\[{os.getpid()}\]: text", message)
    syslog.close()


def test_syslog_connects_again_after_a_restart(dev_log: socket.socket) -> None:
    syslog = Syslog()
    dev_log.close()
    os.unlink(Syslog.PATH)
    syslog.send(6, "nobody hears this, and nobody minds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(Syslog.PATH)
        again.settimeout(DEADLINE)
        syslog.send(6, "heard")
        assert again.recv(1024).endswith(b"heard")
    syslog.close()


def test_syslog_never_waits(dev_log: socket.socket) -> None:
    syslog = Syslog()
    for _ in range(5000):
        syslog.send(6, "x" * 500)
    syslog.close()


def test_errors_to_syslog(
    tmp_path: Path, dev_log: socket.socket, logging_restored: None
) -> None:
    logs = LogFiles(plan(tmp_path, error_to_syslog=True))
    set_up(logs)
    logging.getLogger("x").error("bad %d", 1)
    assert re.match(rb"<27>.*\]: error: bad 1$", dev_log.recv(1024))
    assert (tmp_path / "error.log").read_text() == ""
    logs.close()


# -- Python's logging -------------------------------------------------------------------------


@pytest.fixture
def error_log(tmp_path: Path, logging_restored: None) -> Iterator[Path]:
    logs = LogFiles(plan(tmp_path))
    set_up(logs)
    yield tmp_path / "error.log"
    logs.close()


def test_a_line(error_log: Path) -> None:
    logging.getLogger("forkd.x").info("worker %d: ready", 2)
    logging.getLogger("forkd.x").debug("not shown")
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \[{os.getpid()}\] info: worker 2: ready\n",
        error_log.read_text(),
    )


def test_nobody_from_outside_writes_a_line_of_his_own(error_log: Path) -> None:
    logging.getLogger("x").info("path %s", "/a\n2026-01-01 00:00:00 [1] error: forged\x1b[2J")
    [line] = error_log.read_text().splitlines()
    assert "\\x0a2026" in line
    assert "\x1b" not in line
    assert one_line("tab\tstays") == "tab\tstays"


def test_a_traceback_follows_its_line(error_log: Path) -> None:
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        logging.getLogger("x").exception("bug")
    first, second, *_, last = error_log.read_text().splitlines()
    assert first.endswith("error: bug")
    assert second.startswith("Traceback")
    assert last == "ZeroDivisionError: oh"


def test_text_that_no_encoding_has(error_log: Path) -> None:
    # Given to our handler alone: whoever collects the logs of a test may be unable to pass it on.
    (ours,) = (one for one in logging.getLogger().handlers if isinstance(one, ErrorLog))
    text = "file " + os.fsdecode(b"/x\xff")
    ours.handle(logging.LogRecord("x", logging.INFO, "", 0, text, (), None))
    assert error_log.read_bytes().endswith(b"file /x\xff\n")


def test_repeated_warnings_are_counted(error_log: Path) -> None:
    log = logging.getLogger("x")
    for _ in range(4):
        log.warning("same")
    log.info("other")
    texts = [line.split("] ")[1] for line in error_log.read_text().splitlines()]
    assert texts == [
        "warning: same", "warning: last message repeated 3 times", "info: other",
    ]  # fmt: skip


def test_the_count_does_not_wait_for_another_message(error_log: Path) -> None:
    for _ in range(2):
        logging.getLogger("x").warning("same")
    log_module.flush()
    log_module.flush()
    assert error_log.read_text().count("repeated 1 times") == 1


def test_lines_of_information_are_never_folded(error_log: Path) -> None:
    for _ in range(3):
        logging.getLogger("x").info("tunnel opened")
    assert error_log.read_text().count("tunnel opened") == 3


def test_a_new_set_up_replaces_the_old(tmp_path: Path, error_log: Path) -> None:
    logs = LogFiles(LogPlan(error=str(tmp_path / "second.log")))
    set_up(logs)
    logging.getLogger("x").info("here")
    assert error_log.read_text() == ""
    assert (tmp_path / "second.log").read_text().endswith("here\n")
    logs.close()


def test_a_full_disk_under_the_error_log_stops_nobody(logging_restored: None) -> None:
    logs = LogFiles(LogPlan(error="/dev/full"))
    set_up(logs)
    for number in range(3):
        logging.getLogger("x").error("line %d", number)
    logs.close()
