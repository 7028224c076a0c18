"""forkd/gateway/cgi.py: real programs in shell, a client that is a FakeExchange."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gevent
import psutil
import pytest
from fakes import FakeConfig, FakeExchange, make_request

from forkd.config.model import CgiLimits, CgiSettings, Limits, RequestConfig
from forkd.errors import BadRequest, ClientGone, ForkdError, NoBackend
from forkd.gateway import program as program_module
from forkd.gateway.cgi import interpreter_of, serve_program
from forkd.gateway.outcome import LocalRedirected
from forkd.gateway.program import Program
from forkd.message import Request
from forkd.scoreboard import LAYOUT, Board


@pytest.mark.parametrize(
    ("path", "is_executable", "interpreter"),
    [
        ("/x.pl", False, "/usr/bin/perl"),
        ("/x.PL", False, ""),
        ("/x.perl.pl", True, "/usr/bin/perl"),
        ("/bin/run", True, "first"),
        ("/x", True, ""),
    ],
)
def test_the_first_suffix_that_fits(path: str, is_executable: bool, interpreter: str) -> None:
    assign = (("/run", "first"), (".pl", "/usr/bin/perl"), ("run", "second"), ("", ""))
    settings = CgiSettings(assign)
    assert interpreter_of(path, is_executable, settings) == interpreter
    settings = replace(settings, execute_x_only=True)
    assert interpreter_of(path, is_executable, settings) == (interpreter if is_executable else None)
    assert interpreter_of(path, True, CgiSettings((("x.cgi", ""),))) is None


class Tunnels:
    def number(self) -> int:
        return 1

    def add(self, tunnel: object) -> None:
        pass

    def discard(self, tunnel: object) -> None:
        pass


class Worker:
    """As much of a worker as cgi sees."""

    def __init__(self) -> None:
        self.config = FakeConfig()
        self.programs = self
        self.tunnels = Tunnels()
        self.board = Board(bytearray(LAYOUT.size(1, 0)), 1, 1, ())
        self.live: set[Program] = set()
        self.elsewhere = 0
        self.started: list[Program] = []

    def count(self) -> int:
        return len(self.live) + self.elsewhere

    def add(self, program: Program) -> None:
        self.live.add(program)
        self.started.append(program)

    def discard(self, program: Program) -> None:
        self.live.discard(program)

    def raw_stderr(self, name: str) -> int:
        raise KeyError(name)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    for program in made.live:
        program.kill()
    until(lambda: not made.live)


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., FakeExchange]:
    """An exchange for a program in shell; the body, and what Request, CgiSettings and CgiLimits
    say."""

    def ask(code: str, /, *, body: bytes = b"", **changes: object) -> FakeExchange:
        script = tmp_path / "script"
        script.write_text(f"#!/bin/sh\n{code}\n")
        script.chmod(0o755)
        limits = CgiLimits(**{k: v for k, v in changes.items() if hasattr(CgiLimits, k)})
        own = {k: v for k, v in changes.items() if hasattr(CgiSettings, k)}
        settings = RequestConfig(
            cgi=CgiSettings(limits=limits, **own), limits=Limits(stream_response_body=1)
        )
        request = {k: v for k, v in changes.items() if hasattr(Request, k)}
        made = make_request(
            "/script",
            physical=(str(tmp_path), str(script)),
            content_length=len(body),
            **request,
        )
        return FakeExchange(made, settings, [body, b""])

    return ask


def until(condition: Callable[[], object], deadline: float = 5.0) -> None:
    with gevent.Timeout(deadline):
        while not condition():
            gevent.sleep(0.001)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run(exchange: FakeExchange, worker: Worker, interpreter: str = "") -> FakeExchange:
    with gevent.Timeout(10):
        serve_program(exchange, interpreter, worker)
    return exchange


def test_an_answer(ask, worker) -> None:
    before = descriptors()
    exchange = run(ask('echo "Content-Type: a/b"; echo; echo "$REQUEST_METHOD $0"'), worker)
    assert exchange.status == 200
    assert exchange.body == f"GET {exchange.request.physical[1]}\n".encode()
    assert exchange.is_finished
    assert ("SCRIPT_NAME", "/script") in exchange.environment
    until(lambda: not worker.live)
    until(lambda: descriptors() <= before)


def test_a_body_and_an_interpreter(ask, worker) -> None:
    exchange = run(ask("echo; exec cat", body=b"x" * 100_000), worker, "/bin/sh")
    assert exchange.body == b"x" * 100_000


def test_a_local_redirect(ask, worker) -> None:
    with pytest.raises(LocalRedirected, match="/there"):
        run(ask("printf 'Location: /there\\n\\n'", local_redir=True), worker)
    until(lambda: not worker.live)


@pytest.mark.parametrize("running", [2, 3])
def test_the_limit_holds_over_all_workers(ask, worker, running: int) -> None:
    worker.elsewhere = running
    exchange = ask("echo", max_processes=3)
    if running < 3:
        assert run(exchange, worker).status == 200
        return
    with pytest.raises(NoBackend) as caught:
        run(exchange, worker)
    assert caught.value.fields == (("Retry-After", "1"),)


def test_a_program_that_cannot_be_run(ask, worker) -> None:
    before = descriptors()
    with pytest.raises(ForkdError, match="No such file") as caught:
        run(ask("echo"), worker, "/nonexistent")
    assert caught.value.status == 500
    assert not worker.started
    until(lambda: descriptors() <= before)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_no_descriptors_left(ask, worker, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    before, calls, pipe = descriptors(), [], os.pipe

    def exhausted() -> tuple[int, int]:
        calls.append(1)
        if len(calls) == nth:
            raise OSError(errno.EMFILE, "Too many open files")
        return pipe()

    monkeypatch.setattr(os, "pipe", exhausted)
    with pytest.raises(ForkdError, match="Too many open files") as caught:
        run(ask("echo", body=b"x"), worker)
    assert caught.value.status == 500
    until(lambda: descriptors() <= before)


def test_no_descriptor_for_a_program_that_runs_already(
    ask, worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, children = descriptors(), psutil.Process().children()

    def exhausted(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", exhausted)
    with pytest.raises(ForkdError, match="Too many open files"):
        run(ask("exec sleep 60"), worker)
    assert psutil.Process().children() == children
    until(lambda: descriptors() <= before)


def test_fields_that_would_be_one_variable(ask, worker) -> None:
    before = descriptors()
    with pytest.raises(BadRequest):
        run(ask("echo", fields={"X-A": "1", "X_A": "2"}), worker)
    assert not worker.started
    until(lambda: descriptors() <= before)


def test_a_client_that_resets(ask, worker) -> None:
    exchange = ask("sleep 60 & wait", grace_timeout=0)
    greenlet = gevent.spawn(serve_program, exchange, "", worker)
    until(lambda: worker.live)
    exchange.leaves(by_reset=True)
    with pytest.raises(ClientGone), gevent.Timeout(5):
        greenlet.get()
    until(lambda: not worker.live)


def test_a_tunnel(ask, worker) -> None:
    code = "printf 'Status: 101\\nUpgrade: x\\n\\ngreeting '; cat; printf ' bye'"
    fields = {"Connection": "upgrade", "Upgrade": "x"}
    exchange = ask(code, upgrade=True, fields=fields)
    exchange.early = b"early"
    run(exchange, worker)
    assert exchange.status == 101
    exchange.port.receive(b" late")
    until(lambda: exchange.port.written == b"greeting early late")
    exchange.port.receive_eof()
    until(lambda: exchange.port.written == b"greeting early late bye")
    until(lambda: exchange.port.closing or exchange.port.closed is not None)
    until(lambda: not worker.live)


def test_a_tunnel_whose_client_is_done_and_whose_program_is_silent(
    ask, worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_module, "KILL_DELAY", 0.05)
    code = "trap '' TERM; printf 'Status: 101\\nUpgrade: x\\n\\n'; while :; do sleep 60; done"
    fields = {"Connection": "upgrade", "Upgrade": "x"}
    exchange = ask(code, upgrade=True, fields=fields, grace_timeout=0.1)
    run(exchange, worker)
    exchange.port.receive_eof()
    until(lambda: not worker.live)
