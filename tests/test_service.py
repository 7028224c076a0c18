"""A server seen from outside: state by the lock, stop with its steps, answers and refusals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkd import service as service_module
from forkd.service import Refused, Service, State, children_of, is_forkd
from forkd.unix import pidfile, proctitle

Body = Callable[[], None]


def handle(**actions: Callable[[], None]) -> Body:
    """The body of a process that does what *actions* say at each signal (``sigterm=…``)."""

    def body() -> None:
        for name, action in actions.items():
            signal.signal(signal.Signals[name.upper()], lambda *_, action=action: action())

    return body


def leave() -> None:
    os._exit(0)


def ignore() -> None:
    pass


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts processes that hold the lock of ``x.pid`` and do with signals what they are told."""
    started: list[int] = []

    def start(body: Body, child: bool = False) -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                own = pidfile.PidFile.acquire(str(tmp_path / "x.pid"))
                own.write(os.getpid())
                proctitle.set_title("master [x]")
                body()
                if child and os.fork() == 0:
                    while True:
                        signal.pause()
                os.write(writer, b"x")
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        started.append(pid)
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        # Reaped as soon as it ends, as init would do with a daemon.
        threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
        return pid

    yield start
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(str(tmp_path / "x.pid"))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "QUIT_PATIENCE", 0.2)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_the_lock_decides_not_the_number(
    service: Service, holder: Callable[..., int], tmp_path: Path
) -> None:
    assert (service.state, service.pid) == (State.STOPPED, 0)
    (tmp_path / "x.pid").write_text(f"{os.getpid()}\n")
    assert (service.state, service.pid) == (State.DEAD, 0)
    pid = holder(ignore)
    assert (service.state, service.pid) == (State.RUNNING, pid)


def test_a_pid_file_that_may_not_be_read(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pidfile, "holder", refuse)
    with pytest.raises(Refused, match="Permission denied") as caught:
        service.state  # noqa: B018
    assert caught.value.exit_code == 4


def test_stop_of_a_stopped_server(service: Service) -> None:
    assert service.stop(5) is False


def test_term_is_enough(service: Service, holder: Callable[..., int]) -> None:
    pid = holder(handle(sigterm=leave, sigquit=lambda: os._exit(9)))
    assert service.stop(10) is True
    assert is_gone(pid)
    assert service.state is State.DEAD  # the fake one does not remove its file


def test_now_is_quit_at_once(service: Service, holder: Callable[..., int]) -> None:
    holder(handle(sigterm=ignore, sigquit=leave))
    start = time.monotonic()
    assert service.stop(60, now=True) is True
    assert time.monotonic() - start < 10


def test_quit_comes_when_term_was_not_obeyed(
    service: Service, holder: Callable[..., int], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    holder(handle(sigterm=seen.touch, sigquit=leave))
    assert service.stop(0.2) is True
    assert seen.exists()


def test_kill_takes_the_children_and_cleans_up(
    service: Service, holder: Callable[..., int], tmp_path: Path
) -> None:
    pid = holder(handle(sigterm=ignore, sigquit=ignore), child=True)
    [child] = children_of(pid)
    Path(service.control_socket).touch()
    assert service.stop(0.1) is True
    assert is_gone(pid)
    deadline = time.monotonic() + 5
    while not is_gone(child):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert service.state is State.STOPPED
    assert not os.path.exists(service.control_socket)


def test_a_stranger_with_the_lock_is_not_signalled(
    service: Service, holder: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder(ignore)
    monkeypatch.setattr(service_module, "is_forkd", lambda pid: False)
    with pytest.raises(Refused, match="not forkd"):
        service.stop(5)
    assert service.state is State.RUNNING


def test_not_allowed_to_signal(
    service: Service, holder: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    holder(ignore)
    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with pytest.raises(Refused) as caught:
        service.stop(5)
    assert caught.value.exit_code == 4


def test_who_is_forkd(holder: Callable[..., int]) -> None:
    assert is_forkd(holder(ignore))
    assert not is_forkd(os.getpid())
    assert not is_forkd(1 << 22)


def test_one_that_is_just_starting_is_forkd_too() -> None:
    program = "import time  # from forkd.cli import main\ntime.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        deadline = time.monotonic() + 10
        try:
            while not is_forkd(child.pid):  # until it has executed Python
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("answer", "text", "code"),
    [
        ({"ok": False, "error": "why"}, "why", 1),
        ({"ok": False, "error": "x:1: bad", "code": 6}, "x:1: bad", 6),
        ({}, "refused", 1),
    ],
)
def test_a_refusal_has_its_exit_code(
    service: Service, answer: dict, text: str, code: int
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(service.control_socket)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Refused, match=text) as caught:
            service.ask("reload", 5)
        thread.join()
    assert caught.value.exit_code == code


def test_nobody_answers(service: Service) -> None:
    with pytest.raises(Refused, match="nobody listens") as caught:
        service.ask("status", 1)
    assert caught.value.exit_code == 1
