"""Reload: what a change means, and who is answered when."""

from __future__ import annotations

import errno
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from forkd.address import Address
from forkd.config.backend import BackendSpec
from forkd.config.model import Config, ListenerSpec, RequestConfig, ServerSettings
from forkd.errors import ConfigError, StartError
from forkd.master.loading import Loading, Result, _unpack
from forkd.master.loop import Loop
from forkd.master.reload import OnOutcome, Reloads, plan
from forkd.unix.reap import Reaper

A, B = (ListenerSpec(Address("127.0.0.1", port)) for port in (1, 2))
X, Y = (BackendSpec("scgi", "/", "", Address(path), ("/bin/x",)) for path in ("/x", "/y"))
OLD = Config("f", ServerSettings(), (A,), (X, Y), RequestConfig(), None)  # type: ignore[arg-type]


def test_nothing_changed() -> None:
    found = plan(OLD, replace(OLD, base=RequestConfig(document_root="/elsewhere")))
    assert found.backends_kept == (X, Y)
    assert str(found) == "listeners +0 -0, backends +0 -0 =2"
    assert found.ignored == ()


def test_equal_is_the_same_whatever_the_order() -> None:
    found = plan(OLD, replace(OLD, backends=(replace(Y), replace(X))))
    assert found.backends_kept == (Y, X)
    assert found.backends_added == found.backends_dropped == ()


def test_any_option_makes_another_backend() -> None:
    changed = replace(X, kill_signal=9)
    found = plan(OLD, replace(OLD, backends=(changed, Y), listeners=(A, B)))
    assert found.backends_added == (changed,)
    assert found.backends_dropped == (X,)
    assert found.backends_kept == (Y,)
    assert found.listeners_added == (B,)
    assert found.listeners_dropped == ()


def test_pid_file_takes_a_restart() -> None:
    moved = replace(OLD, server=ServerSettings(pid_file="/run/other.pid"))
    assert plan(OLD, moved).ignored == ("server.pid-file",)


# -- one at a time ----------------------------------------------------------------------------


class Bench:
    """Loads and roll-outs that wait until they are told how they end."""

    def __init__(self) -> None:
        self.loads: list[Callable[[Result], None]] = []
        self.rollouts: list[OnOutcome] = []
        self.cancelled = 0
        self.outcomes: list[StartError | None] = []
        self.answers: list[tuple[str, StartError | None]] = []
        self.reloads = Reloads(self._load, self._roll_out, self.outcomes.append)

    def _load(self, on_result: Callable[[Result], None]) -> Any:
        self.loads.append(on_result)
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def _roll_out(self, config: Config, on_outcome: OnOutcome) -> None:
        self.rollouts.append(on_outcome)

    def ask(self, name: str) -> None:
        self.reloads.request(lambda error: self.answers.append((name, error)))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_answered_when_it_serves(bench: Bench) -> None:
    bench.ask("one")
    bench.loads[0](OLD)
    assert bench.answers == []
    bench.rollouts[0](None)
    assert bench.answers == [("one", None)]
    assert bench.outcomes == [None]


def test_bad_configuration_is_not_rolled_out(bench: Bench) -> None:
    error = StartError("bad", 6)
    bench.ask("one")
    bench.loads[0](error)
    assert bench.rollouts == []
    assert bench.answers == [("one", error)]
    bench.ask("two")
    assert len(bench.loads) == 2


def test_who_asks_meanwhile_gets_a_run_of_his_own(bench: Bench) -> None:
    for name in ("one", "two", "three"):
        bench.ask(name)
    assert len(bench.loads) == 1
    bench.loads[0](OLD)
    bench.rollouts[0](None)
    assert bench.answers == [("one", None)]
    assert len(bench.loads) == 2
    bench.loads[1](OLD)
    bench.rollouts[1](None)
    assert bench.answers[1:] == [("two", None), ("three", None)]
    assert len(bench.outcomes) == 2


def test_stop_drops_it_and_answers_all(bench: Bench) -> None:
    stopping = StartError("stopping")
    bench.ask("one")
    bench.ask("two")
    bench.reloads.cancel(stopping)
    assert bench.answers == [("one", stopping), ("two", stopping)]
    assert bench.cancelled == 1
    assert bench.outcomes == []


def test_what_cannot_even_be_loaded_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(on_result: Callable[[Result], None]) -> NoReturn:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(bench.reloads, "_start_loading", fail)
    bench.ask("one")
    assert str(bench.answers[0][1]) == "the configuration cannot be loaded: no more processes"
    assert bench.reloads.is_idle


# -- loading in a process of its own ----------------------------------------------------------


def outcome_of(load: Callable[[], Config]) -> tuple[Result, Reaper]:
    loop, reaper = Loop(), Reaper()
    results: list[Result] = []
    Loading(load, loop, reaper, results.append)
    deadline = time.monotonic() + 10
    while not results and time.monotonic() < deadline:
        loop.call_later(0.05, lambda: None)
        loop.run_once()
    loop.close()
    return results[0], reaper


def raises(error: Exception) -> Callable[[], Config]:
    def load() -> Config:
        raise error

    return load


def test_the_configuration_comes_back_equal() -> None:
    big = replace(OLD, base=RequestConfig(document_root="x" * 500_000))
    found, _ = outcome_of(lambda: big)
    assert found == big
    assert found is not big


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (ConfigError("f:1:2: error: ä\nmore"), "f:1:2: error: ä\nmore", 6),
        (StartError("no bin-path", 5), "no bin-path", 5),
        (RuntimeError("defect"), "loading the configuration failed; the error log says why", 1),
    ],
)
def test_refusals_come_back_with_their_code(error: Exception, text: str, code: int) -> None:
    found, _ = outcome_of(raises(error))
    assert isinstance(found, StartError)
    assert (str(found), found.exit_code) == (text, code)


def test_a_load_that_was_cut_off() -> None:
    assert isinstance(_unpack(b"C" + pickle.dumps(OLD)[:-9]), StartError)


def test_cancelled_load_ends_with_all_it_started() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)

    def load() -> Config:
        if os.fork() == 0:
            time.sleep(1000)
        os.write(writer, b"x")
        time.sleep(1000)
        return OLD

    loop, reaper = Loop(), Reaper()
    loading = Loading(load, loop, reaper, lambda result: pytest.fail("cancelled"), (writer,))
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    loading.cancel()
    assert os.read(reader, 1) == b""
    os.close(reader)
    loop.close()
