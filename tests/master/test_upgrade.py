"""The program on disk: tried, then executed when nothing else is under way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from forkd.errors import StartError
from forkd.master import trial, upgrade
from forkd.master.loop import Loop
from forkd.master.reload import Reloads
from forkd.master.trial import Trial
from forkd.master.upgrade import Upgrades
from forkd.unix import daemon
from forkd.unix.reap import Reaper
from forkd.unix.reexec import CommandLine

# -- the trial --------------------------------------------------------------------------------

CHECK = """
import os, signal, sys, time
assert sys.argv[1:] == ["--preflight", "0"]
assert os.pread(0, 99, 0) == b"state"
assert os.getcwd() == os.environ["FOLDER"]
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""

Verdict = StartError | None


@pytest.fixture
def loop() -> Iterator[Loop]:
    daemon.open_standard()
    loop = Loop()
    yield loop
    loop.close()


Tries = Callable[[str], tuple[Trial, list[Verdict]]]


@pytest.fixture
def tries(loop: Loop, tmp_path: Path) -> Iterator[Tries]:
    """Begins to try a program; the list gets the verdict."""
    reaper = Reaper()

    def tick() -> None:
        reaper.reap()
        loop.call_later(0.01, tick)

    def begin(code: str) -> tuple[Trial, list[Verdict]]:
        verdicts: list[Verdict] = []
        command = CommandLine((sys.executable, "-c", CHECK + code), str(tmp_path))
        environment = {"FOLDER": str(tmp_path)}
        return Trial(command, environment, b"state", loop, reaper, verdicts.append), verdicts

    tick()
    yield begin


def run_until(loop: Loop, condition: Callable[[], Any]) -> None:
    late = loop.now() + 30
    while not condition():
        assert loop.now() < late
        loop.run_once()


def test_a_program_that_would_do(loop: Loop, tries: Tries) -> None:
    _, verdicts = tries("print('never mind', file=sys.stderr)")
    run_until(loop, lambda: verdicts)
    assert verdicts == [None]


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        ("sys.exit('forkd: another format')", "another format", 1),
        ("import no_such_module", "does not start: ModuleNotFoundError: No module named", 1),
        ("print('x.conf:1:2: error: a', file=sys.stderr); sys.exit(6)", "x.conf:1:2: error: a", 6),
        ("os.kill(os.getpid(), 9)", "does not start: signal 9", 1),
        ("sys.exit(2)", "does not start: status 2", 1),
    ],
)
def test_a_program_that_would_not(
    loop: Loop, tries: Tries, code: str, text: str, status: int
) -> None:
    _, verdicts = tries(code)
    run_until(loop, lambda: verdicts)
    (error,) = verdicts
    assert error is not None
    assert text in str(error)
    assert "forkd:" not in str(error)
    assert error.exit_code == status


def test_a_program_that_hangs(
    loop: Loop, tries: Tries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "TIME_LIMIT", 0.3)
    _, verdicts = tries("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)")
    run_until(loop, lambda: verdicts)
    assert "not ready within 0.3 s" in str(verdicts[0])


def test_nobody_hears_of_what_was_cancelled(loop: Loop, tries: Tries) -> None:
    one, verdicts = tries("time.sleep(100)")
    one.cancel()
    run_until(loop, lambda: one._pid == 0)
    assert verdicts == []


def test_a_program_that_is_not_there(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="/no/such: No such file"):
        Trial(CommandLine(("/no/such",), "/"), {}, b"", loop, Reaper(), lambda verdict: None)


# -- the upgrade ------------------------------------------------------------------------------


class FakeTrial:
    """Judged by the test."""

    def __init__(self, *arguments: Any) -> None:
        self.judge = arguments[-1]
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Bench:
    """Upgrades of a pretended master."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.trials: list[FakeTrial] = []
        self.executed = 0
        self.told: list[str] = []
        self.loads: list[Any] = []
        self.rollouts: list[Any] = []
        self.reloads = Reloads(self._load, self._roll_out, lambda error: None)
        self.upgrades = Upgrades(
            self,  # type: ignore[arg-type]
            loop,
            Reaper(),
            self.reloads,
            self,  # type: ignore[arg-type]
            lambda: "state",  # type: ignore[arg-type,return-value]
        )

    command = CommandLine(("/bin/x",), "/")
    notifier: Any = property(lambda self: self)
    variables = {"NOTIFY_SOCKET": "@x"}  # noqa: RUF012

    def reloading(self) -> None:
        self.told.append("reloading")

    def reloaded(self) -> None:
        self.told.append("reloaded")

    def _load(self, on_result: Any) -> Any:
        self.loads.append(on_result)
        return self

    def cancel(self) -> None:
        pass

    def _roll_out(self, config: Any, on_outcome: Any) -> None:
        self.rollouts.append(on_outcome)

    def trial(self, *arguments: Any) -> FakeTrial:
        self.trials.append(FakeTrial(*arguments))
        return self.trials[-1]

    def execute(self, command: CommandLine, environment: Any, text: bytes, fds: Any) -> NoReturn:
        assert (command.argv, environment["NOTIFY_SOCKET"]) == (("/bin/x",), "@x")
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.executed += 1
        raise OSError(7, "Argument list too long", "/bin/x")

    def ask(self, name: str) -> None:
        self.upgrades.request(lambda error: self.told.append(f"{name}: {error}"))

    def turn(self) -> None:
        """Let the loop do what is due."""
        done: list[bool] = []
        self.loop.call_later(0, lambda: done.append(True))
        run_until(self.loop, lambda: done)


@pytest.fixture
def bench(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(loop)
    monkeypatch.setattr(upgrade, "Trial", bench.trial)
    monkeypatch.setattr(upgrade.reexec, "execute", bench.execute)
    monkeypatch.setattr(upgrade.state, "write", lambda state: b"text")
    return bench


FAILED = "the program cannot be executed: /bin/x: Argument list too long"


def test_what_cannot_be_executed_is_told(bench: Bench) -> None:
    bench.ask("a")
    bench.ask("b")  # shares it
    (trial,) = bench.trials
    trial.judge(None)
    bench.turn()
    assert bench.executed == 1
    assert bench.told == ["reloading", "reloaded", f"a: {FAILED}", f"b: {FAILED}"]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    bench.ask("c")
    assert len(bench.trials) == 2


def test_what_does_not_pass_is_not_executed(bench: Bench) -> None:
    bench.ask("a")
    bench.trials[0].judge(StartError("no"))
    bench.turn()
    assert bench.executed == 0
    assert bench.told == ["reloading", "reloaded", "a: no"]


def roll_out(bench: Bench, number: int) -> None:
    bench.loads[number]("config")
    bench.rollouts[number](None)
    bench.turn()


def test_it_waits_for_a_reload(bench: Bench) -> None:
    bench.reloads.request(lambda error: bench.told.append("served"))
    bench.ask("a")
    bench.turn()
    bench.reloads.request(lambda error: bench.told.append("served again"))
    roll_out(bench, 0)
    assert (bench.trials, bench.told) == ([], ["reloading", "served"])
    roll_out(bench, 1)
    (trial,) = bench.trials
    trial.judge(None)
    bench.turn()
    assert bench.executed == 1


@pytest.mark.parametrize("at_last", [False, True])
def test_behind_a_reload_it_is_tried_again(bench: Bench, at_last: bool) -> None:
    """By then the program on disk may be another."""
    bench.ask("a")
    if at_last:
        bench.trials[0].judge(None)
    bench.reloads.request(lambda error: None)
    if not at_last:
        bench.trials[0].judge(None)
    bench.turn()
    roll_out(bench, 0)
    assert bench.executed == 0
    _, trial = bench.trials
    trial.judge(None)
    bench.turn()
    assert bench.executed == 1


@pytest.mark.parametrize("judged", [False, True])
def test_a_stop_ends_it(bench: Bench, judged: bool) -> None:
    bench.ask("a")
    if judged:
        bench.trials[0].judge(None)
    bench.upgrades.cancel(StartError("the server is stopping"))
    bench.turn()
    assert bench.trials[0].cancelled is not judged
    assert (bench.executed, bench.told) == (0, ["reloading", "a: the server is stopping"])


def test_a_defect_of_ours_is_a_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.ask("a")
    monkeypatch.setattr(upgrade.state, "write", lambda state: 1 / 0)
    bench.trials[0].judge(None)
    bench.turn()
    assert bench.told[-1] == "a: a defect; the error log has it"
    bench.ask("b")
    assert bench.told[-1] == "b: a defect; the error log has it"


def test_a_process_that_does_not_know_its_program(bench: Bench) -> None:
    bench.command = None  # type: ignore[assignment]
    bench.ask("a")
    assert bench.told[-1] == "a: how this process was called is not known"
