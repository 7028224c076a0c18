"""Backends under load, seen by clients: procs come and go, and nobody is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psutil
import pytest
from e2e.harness import DEADLINE, Forkd, Server, wait_for
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

CONFIG = """
server.max-worker = 4
server.modules = ("mod_wstunnel")
wstunnel.server = ( "/ws/" => (( "socket" => "@DIR@/b.sock", "bin-path" => "@DIR@/echo.pl", {} )) )
"""

ECHO = """#!/usr/bin/perl
use strict; use warnings; use IO::Select; use IO::Socket;
my $listener = IO::Socket->new_from_fd(0, 'r+') or die "fd 0: $!";
my $select = IO::Select->new($listener);
while (1) {
    for my $one ($select->can_read) {
        if ($one == $listener) { my $client = $listener->accept; $select->add($client) if $client }
        elsif (sysread($one, my $data, 65536)) { syswrite($one, $data) }
        else { $select->remove($one); close($one) }
    }
}
"""


def start(forkd: Forkd, options: str, program: str = ECHO) -> Server:
    return forkd.start(CONFIG.format(options), files={"echo.pl": program})


def procs(server: Server, *states: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.status()["backends"]
    return [proc for proc in found if proc["state"] in states]


async def true(condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """``wait_for``, while the clients go on."""
    return await asyncio.to_thread(wait_for, condition, deadline)


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{server.port}/ws/"
    async with connect(url, proxy=None, compression=None, ping_interval=None) as one:
        yield one


async def echoes(one: ClientConnection, text: str = "x") -> None:
    await one.send(text)
    assert await asyncio.wait_for(one.recv(), DEADLINE) == text


def test_procs_follow_the_load_of_all_workers(forkd: Forkd) -> None:
    server = start(forkd, """
        "min-procs" => 1, "max-procs" => 8, "max-load-per-proc" => 4, "idle-timeout" => 1
    """)  # fmt: skip

    def has_room() -> bool:
        serving = procs(server, "running", "starting")
        return len(serving) == 8 or any(proc["load"] <= 4 for proc in serving)

    async def follow() -> None:
        async with client(server) as first, AsyncExitStack() as others:
            await echoes(first)
            for _ in range(39):
                await true(has_room)
                await echoes(await others.enter_async_context(client(server)))
            await true(lambda: len(procs(server, "running")) == 8)
            assert [proc["load"] for proc in procs(server, "running")] == [5] * 8
            await others.aclose()
            await true(lambda: len(procs(server, "listening")) == 7, 3 * DEADLINE)
            (left,) = procs(server, "running")
            assert (left["load"], left["starts"], left["deaths"]) == (1, 1, 0)
            await echoes(first)

    asyncio.run(follow())


def test_first_client_starts_the_first_proc(forkd: Forkd) -> None:
    server = start(forkd, '"min-procs" => 0, "max-procs" => 2, "idle-timeout" => 1')
    assert server.backends() == []
    for starts in (1, 2):
        wait_for(lambda: not server.backends())
        with server.websocket() as one:
            one.send("hello")
            assert one.recv(DEADLINE) == "hello"
            (proc,) = procs(server, "starting", "running")
            assert (proc["number"], proc["starts"]) == (0, starts)


def test_nobody_is_refused_while_every_proc_is_killed_in_turn(forkd: Forkd) -> None:
    server = start(forkd, '"max-procs" => 3')
    victims = server.backends()
    begun = time.monotonic()
    wait_for(lambda: time.monotonic() - begun > 1.0)  # a death before would be an early one
    answers: list[str] = []
    is_over = False

    async def one_after_another() -> None:
        while not is_over:
            async with client(server) as one:  # InvalidStatus unless the answer is a 101
                try:
                    await echoes(one)
                    answers.append("echo")
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None and closed.rcvd.code == 1011
                    answers.append("was with the one that died")

    async def kill() -> None:
        nonlocal is_over
        for victim in victims:
            before = len(answers)
            await true(lambda: len(answers) > before + 20)  # noqa: B023
            victim.kill()
            await true(lambda: len(server.backends()) == 3 and not victim.is_running())  # noqa: B023
        before = len(answers)
        await true(lambda: len(answers) > before + 20)
        is_over = True

    async def run() -> None:
        await asyncio.gather(kill(), *(one_after_another() for _ in range(8)))

    asyncio.run(run())
    assert answers.count("echo") > 80
    assert {proc["pid"] for proc in procs(server, "running", "starting")} == {
        one.pid for one in server.backends()
    }
    assert not {one.pid for one in victims} & {one.pid for one in server.backends()}
    assert [proc["deaths"] for proc in procs(server, "running", "starting")] == [1, 1, 1]


def test_program_that_cannot_serve_costs_a_503_until_the_next_try(forkd: Forkd) -> None:
    forkd.allow_errors("died before serving, status 3; next try in")
    server = start(
        forkd, '"min-procs" => 0, "max-procs" => 4', "#!/bin/sh\necho no database >&2\nexit 3\n"
    )
    with server.websocket() as one, pytest.raises(ConnectionClosed) as caught:
        one.recv(DEADLINE)
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1011
    wait_for(lambda: procs(server, "throttled"))
    with pytest.raises(InvalidStatus) as refused:
        server.websocket()
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    (proc,) = procs(server, "throttled", "starting")
    assert proc["last_failure"] == "died before serving, status 3"
    assert proc["stderr"][-1] == "no database"


def test_reload_that_changes_the_numbers_leaves_no_gap(forkd: Forkd) -> None:
    server = start(forkd, '"min-procs" => 1, "max-procs" => 6, "max-load-per-proc" => 1')
    is_over = False
    served = 0

    async def one_after_another() -> None:
        nonlocal served
        while not is_over:
            async with client(server) as one:
                await echoes(one)
            served += 1

    async def reload() -> None:
        nonlocal is_over
        async with client(server) as old:
            await echoes(old)
            await true(lambda: served > 20)
            forkd.write(
                "forkd.conf",
                server.config.read_text().replace(
                    '"min-procs" => 1, "max-procs" => 6', '"min-procs" => 2, "max-procs" => 3'
                ),
            )
            result = await asyncio.to_thread(server.control, "reload")
            assert result["ok"]
            before = served
            await true(lambda: served > before + 20)
            await echoes(old)
        # The old generation has ended now, and its procs with it.
        await true(lambda: len(server.status()["backends"]) == 3)
        before = served
        await true(lambda: served > before + 20)
        is_over = True

    async def run() -> None:
        await asyncio.gather(reload(), *(one_after_another() for _ in range(4)))

    asyncio.run(run())
    names = sorted(path.name for path in forkd.directory.glob("b.sock-*"))
    assert names == ["b.sock-0", "b.sock-1", "b.sock-2"]
    assert all(psutil.pid_exists(proc["pid"]) for proc in procs(server, "running", "starting"))
