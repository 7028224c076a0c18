#!/usr/bin/env python3
"""A CGI program that leaves HTTP for a protocol without rules, then does what its query says.

cat          what comes goes back, to the end of input; then "bye"
slow         the same, but it takes half a second to answer the request
half FILE    "half", the end of the output, and what still comes goes into FILE
flood N      N bytes
deaf         reads nothing and writes nothing, for ever
stubborn     the same, ignores TERM, and so does a child of its own
die-before   dies before it has said anything
die-in-head  dies in the head of its answer
die-behind   dies as soon as the protocol is switched
die-within   dies when the first byte has come

Without an Upgrade it answers 200 in the same way, its body being what would be said in the tunnel.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from urllib.parse import parse_qsl

PIECE = 65536


def main() -> None:
    ((mode, argument),) = parse_qsl(os.environ["QUERY_STRING"], keep_blank_values=True)
    if mode == "slow":
        time.sleep(0.5)
    elif mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
    elif mode == "die-before":
        die()
    elif mode == "die-in-head":
        say(b"Status: 200\r\nX-Half: ")
        die()
    say(head())
    try:
        TALKS[mode](argument)
    except BrokenPipeError:
        sys.exit(0)


def head() -> bytes:
    if os.environ.get("HTTP_UPGRADE"):
        return b"Status: 101\r\nUpgrade: rules-free/1\r\nConnection: upgrade\r\n\r\n"
    return b"Status: 200\r\nContent-Type: application/octet-stream\r\n\r\n"


def cat(_: str) -> None:
    while data := os.read(0, PIECE):
        say(data)
    say(b"bye")


def half(file: str) -> None:
    say(b"half")
    os.close(1)
    with open(file, "wb") as out:
        while data := os.read(0, PIECE):
            out.write(data)


def flood(size: str) -> None:
    left = int(size)
    piece = bytes(range(256)) * (PIECE // 256)
    while left:
        left -= os.write(1, piece[:left])


def deaf(_: str) -> None:
    while True:
        signal.pause()


def die_within(_: str) -> None:
    os.read(0, 1)
    die()


def die(_: str = "") -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


TALKS = {
    "cat": cat,
    "slow": cat,
    "half": half,
    "flood": flood,
    "deaf": deaf,
    "stubborn": deaf,
    "die-behind": die,
    "die-within": die_within,
}

if __name__ == "__main__":
    main()
