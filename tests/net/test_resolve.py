from __future__ import annotations

import gevent
from gevent.event import Event

from forkd.net.resolve import RETRY, TTL, Resolver


class Names:
    """A name server whose answers are set, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answer: list[str] | OSError = ["10.0.0.1"]
        self.asked = 0
        self.open = Event()
        self.open.set()
        self.resolver = Resolver(self.ask, lambda: self.now)

    def ask(self, name: str) -> list[str]:
        assert name == "be.example"
        self.asked += 1
        self.open.wait()
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    def hosts(self, timeout: float = 5) -> tuple[str, ...]:
        return self.resolver.hosts("be.example", "10.9.9.9", timeout)


def settle() -> None:
    """Let greenlets that were spawned run."""
    for _ in range(3):
        gevent.sleep(0)


def test_answer_is_kept_for_its_time() -> None:
    names = Names()
    assert names.hosts() == ("10.0.0.1",)
    names.answer = ["10.0.0.2"]
    names.now = TTL - 0.1
    assert names.hosts() == ("10.0.0.1",)
    assert names.asked == 1


def test_old_answer_is_used_while_a_new_one_is_on_its_way() -> None:
    names = Names()
    names.hosts()
    names.answer = ["10.0.0.2", "10.0.0.3"]
    names.now = TTL
    names.open.clear()
    assert names.hosts() == names.hosts() == ("10.0.0.1",)
    settle()
    assert names.hosts() == ("10.0.0.1",)
    assert names.asked == 2
    names.open.set()
    settle()
    assert names.hosts() == ("10.0.0.2", "10.0.0.3")


def test_failure_keeps_the_old_answer_and_asks_again_soon() -> None:
    names = Names()
    names.hosts()
    names.answer = OSError("server failed")
    names.now = TTL
    names.hosts()
    settle()
    assert names.hosts() == ("10.0.0.1",)
    assert names.asked == 2
    names.now += RETRY
    names.answer = ["10.0.0.4"]
    names.hosts()
    settle()
    assert names.hosts() == ("10.0.0.4",)


def test_without_any_answer_the_address_of_the_start_is_used() -> None:
    names = Names()
    names.answer = OSError("server failed")
    assert names.hosts() == ("10.9.9.9",)
    names.answer = []
    names.now = RETRY
    names.hosts()
    settle()
    assert names.hosts() == ("10.9.9.9",)
    assert names.asked == 2


def test_first_answer_is_waited_for_so_long_and_no_longer() -> None:
    names = Names()
    names.open.clear()
    assert names.hosts(0.01) == ("10.9.9.9",)
    names.open.set()
    settle()
    assert names.hosts(0.01) == ("10.0.0.1",)
    assert names.asked == 1


def test_one_question_for_many_who_wait() -> None:
    names = Names()
    names.open.clear()
    waiting = [gevent.spawn(names.hosts) for _ in range(5)]
    settle()
    names.open.set()
    gevent.joinall(waiting, timeout=5)
    assert [greenlet.value for greenlet in waiting] == [("10.0.0.1",)] * 5
    assert names.asked == 1


def test_families_take_turns() -> None:
    names = Names()
    names.answer = ["::1", "::2", "::2", "::3", "10.0.0.1", "10.0.0.2"]
    assert names.hosts() == ("::1", "10.0.0.1", "::2", "10.0.0.2", "::3")
    names = Names()
    names.answer = ["10.0.0.1", "::1"]
    assert names.hosts() == ("10.0.0.1", "::1")


def test_system_is_asked() -> None:
    hosts = Resolver().hosts("localhost", "none", 10)
    assert set(hosts) <= {"127.0.0.1", "::1"}
    assert hosts
