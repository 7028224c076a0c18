"""The balancers as tables (gateway.md 4, 5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forkd.address import Address
from forkd.config.backend import BackendSpec, GatewayServer, Proc, Route
from forkd.gateway.balance import (
    Balancer,
    backend_hash,
    djb2a,
    highest_score,
    is_short,
    least_loaded,
    next_in_turn,
)
from forkd.message import ConnInfo, Fields, Request
from forkd.scoreboard import ProcState

R, S, L, D, X, T, U = (
    ProcState.RUNNING,
    ProcState.STARTING,
    ProcState.LISTENING,
    ProcState.DRAINING,
    ProcState.STOPPING,
    ProcState.THROTTLED,
    ProcState.UNBOUND,
)


class Board:
    """Loads and states by hand."""

    def __init__(self, **procs: list[tuple[ProcState, int]]) -> None:
        self.backends = {
            name: BackendSpec("wstunnel", "/", name, Address(f"/{name}"), max_load_per_proc=2)
            for name in procs
        }
        self._procs = {
            self.backends[name]: tuple(
                Proc(self.backends[name], n, Address(f"/{name}-{n}"), n) for n in range(len(cells))
            )
            for name, cells in procs.items()
        }
        self.cells = {
            proc: cells[proc.number]
            for (name, cells) in procs.items()
            for proc in self._procs[self.backends[name]]
        }

    def procs_of(self, backend: BackendSpec) -> tuple[Proc, ...]:
        return self._procs[backend]

    def load(self, proc: Proc) -> int:
        return self.cells[proc][1]

    def state(self, proc: Proc) -> ProcState:
        return self.cells[proc][0]

    def retry_at(self, proc: Proc) -> float:
        return 130.0

    def route(self) -> Route:
        return Route("wstunnel", "/", tuple(self.backends.values()))


def request(path: str = "/", host: str = "h", remote: str = "10.0.0.1") -> Request:
    peer = Address(remote, 1234)
    info = ConnInfo(peer, Address("127.0.0.1", 80), Address("127.0.0.1", 80))
    return Request(
        "GET", path, "HTTP/1.1", host, path, None, path, Fields(), 0, True, info, peer
    )


SERVER = GatewayServer("wstunnel", ())


@pytest.mark.parametrize(
    "cells, chosen",
    [
        ([(R, 0)], 0),
        ([(R, 3), (R, 1), (R, 1)], 1),  # ties go to the lower index
        ([(L, 0), (R, 9)], 1),  # what runs before what has to be started
        ([(L, 0), (L, 0)], 0),
        ([(T, 0), (U, 0)], None),
        ([(L, 0), (D, 5)], 1),  # what is about to go before what has to be started
        ([(D, 0), (R, 5)], 1),
        ([(X, 0), (L, 5)], 1),
        ([(X, 0)], 0),  # who waits there is served by the next in its place
        ([(X, 0), (T, 0)], None),
        ([(T, 0), (L, 0)], None),  # nothing is started beside one that cannot be
        ([(T, 0), (L, 0), (R, 9)], 2),
        ([(T, 0), (D, 0)], 1),
        ([(S, 0), (R, 1)], 1),  # one that has not accepted yet counts as full
        ([(S, 0), (R, 3)], 0),
        ([(S, 2), (S, 0)], 1),  # two that start: the one that nobody waits for
        ([(L, 1), (L, 0)], 0),  # one is started for as many as it takes
        ([(L, 2), (L, 0)], 0),
        ([(L, 3), (L, 0)], 1),
        ([(L, 3), (L, 3), (L, 0)], 2),
    ],
)
def test_least_loaded(cells, chosen):
    board = Board(a=cells)
    proc = least_loaded(board.backends["a"], board, lambda _: False)
    assert (None if proc is None else proc.number) == chosen


@pytest.mark.parametrize(
    "cells, short",
    [
        ([(R, 3), (L, 0)], True),  # a proc takes 2
        ([(R, 2), (L, 0)], False),
        ([(R, 3), (R, 2), (L, 0)], False),
        ([(R, 3), (S, 0), (L, 0)], False),
        ([(R, 3), (S, 3), (L, 0)], True),
        ([(R, 3), (R, 3)], False),  # as many as may be
        ([(R, 3), (T, 0)], True),
        ([(L, 0), (L, 0)], False),  # who waits there is seen by the master
    ],
)
def test_is_short(cells, short):
    board = Board(a=cells)
    assert is_short(board.backends["a"], board) is short


def test_the_master_is_asked_for_procs_now_and_then():
    clock = [100.0]
    asked: list[float] = []
    board = Board(a=[(R, 3), (L, 0)])
    board.backends["a"] = spec = replace(board.backends["a"], min_procs=1, max_procs=2)
    first, second = (Proc(spec, n, Address(f"/a-{n}"), n) for n in range(2))
    board._procs = {spec: (first, second)}
    board.cells = {first: (R, 2), second: (L, 0)}
    balancer = Balancer(board, lambda: clock[0], lambda: asked.append(clock[0]))
    balancer.taken(first)
    assert asked == []
    board.cells[first] = (R, 3)
    balancer.taken(first)
    balancer.taken(first)
    clock[0] += 0.1
    balancer.taken(first)
    assert asked == [100.0, 100.1]


def test_djb2a_is_the_published_hash():
    # h = 5381; h = h * 33 ^ byte, 32 bits, worked out by hand for "a" and "ab".
    assert djb2a("") == 5381
    assert djb2a("a") == (5381 * 33) ^ 97
    assert djb2a("ab") == ((((5381 * 33) ^ 97) * 33) ^ 98) & 0xFFFFFFFF


def test_highest_score_ties_go_to_the_higher_index():
    first = BackendSpec("wstunnel", "/", "x", Address("/a"))
    second = replace(first, label="y")
    assert highest_score([first, second], 7) is second
    assert backend_hash(first) == djb2a("/a")


@pytest.mark.parametrize(
    "usable, last, chosen",
    [
        ([1, 1, 1], -1, 0),
        ([1, 1, 1], 0, 1),
        ([1, 1, 1], 2, 0),
        ([1, 0, 1], 0, 2),
        ([1, 0, 0], 0, 0),
        ([0, 0, 0], 0, None),
    ],
)
def test_next_in_turn(usable, last, chosen):
    assert next_in_turn(len(usable), lambda n: bool(usable[n]), last) == chosen


def names(balancer: Balancer, server: GatewayServer, board: Board, count: int) -> list[str]:
    out = []
    for _ in range(count):
        proc = balancer.choose(server, board.route(), request())
        out.append(proc.backend.label if proc else "-")
    return out


def test_round_robin_rotates_and_skips_what_is_down():
    board = Board(a=[(R, 0)], b=[(R, 0)], c=[(R, 0)])
    server = replace(SERVER, balance="round-robin")
    balancer = Balancer(board)
    assert names(balancer, server, board, 4) == ["a", "b", "c", "a"]
    board.cells[board.procs_of(board.backends["b"])[0]] = (T, 0)
    assert names(balancer, server, board, 3) == ["c", "a", "c"]


def test_least_connection_sums_the_procs_of_a_backend():
    board = Board(a=[(R, 1), (R, 1)], b=[(R, 1)])
    assert names(Balancer(board), SERVER, board, 1) == ["b"]


def test_hash_depends_on_path_and_host_sticky_on_the_client():
    board = Board(a=[(R, 0)], b=[(R, 0)], c=[(R, 0)], d=[(R, 0)])
    balancer = Balancer(board)

    def spread(server: GatewayServer, requests: list[Request]) -> set[str]:
        chosen = (balancer.choose(server, board.route(), r) for r in requests)
        return {proc.backend.label for proc in chosen if proc}

    by_hash, sticky = replace(SERVER, balance="hash"), replace(SERVER, balance="sticky")
    paths = [request(path=f"/{n}") for n in range(40)]
    clients = [request(remote=f"10.0.0.{n}") for n in range(40)]
    assert len(spread(by_hash, paths)) > 1 and len(spread(by_hash, clients)) == 1
    assert len(spread(sticky, clients)) > 1 and len(spread(sticky, paths)) == 1


def test_clients_of_a_throttled_proc_are_told_when_it_is_started_again():
    board = Board(a=[(T, 0), (L, 0)])
    balancer = Balancer(board, lambda: 100.0)
    assert balancer.choose(SERVER, board.route(), request()) is None
    assert balancer.retry_after(board.route()) == 30


def test_a_failed_proc_is_avoided_for_its_disable_time():
    clock = [100.0]
    board = Board(a=[(R, 0), (R, 5)])
    balancer = Balancer(board, lambda: clock[0])
    first, second = board.procs_of(board.backends["a"])
    route = board.route()
    assert balancer.choose(SERVER, route, request()) is first
    balancer.avoid(first)
    assert balancer.choose(SERVER, route, request()) is second
    balancer.avoid(second)
    assert balancer.choose(SERVER, route, request()) is None
    assert balancer.retry_after(route) >= 1
    clock[0] += 1.0
    assert balancer.choose(SERVER, route, request()) is first
