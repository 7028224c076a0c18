"""forkd against Debian's lighttpd and HAProxy at WebSocket tunnels in HTTP/2, in paired runs.

Rounds, ratios and CPU time are as in ``bench.py``.  HAProxy cannot end a WebSocket: it relays to a
program that does, and so does forkd beside it.  Idle tunnels are forkd's alone, over TLS: what the
worker's memory (PSS) grows by with each connection full of them, the first one left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import psutil
from bench import Bench
from servers import CannotStart, Subject, forkd_over_tls, tunnels_over_h2, workshop

sys.path.insert(0, str(Path(__file__).parents[1]))
from authority import Authority
from h2_client import H2Client

SETTLED = 2.5  # seconds: what a worker does once a second has been done to them


def main() -> None:
    options = _options()
    try:
        with workshop("wsload", "echo_backend") as folder:
            if options.rounds:
                with tunnels_over_h2(folder) as servers:
                    _messages(Bench(folder / "wsload", servers, options))
            if options.idle:
                authority = Authority(folder)
                authority.issue("127.0.0.1").in_one_file()
                with forkd_over_tls(folder) as server:
                    _idle(server, authority, options)
    except CannotStart as error:
        sys.exit(f"bench: {error}")


def _messages(bench: Bench) -> None:
    options = bench.options
    for size in options.size:
        load = ["echo", "--h2", "--streams", options.streams, "-c", options.connections]
        load += ["-s", size, "-d", options.depth, "-n", 100_000_000, "--max-time", options.seconds]
        title = f"{size} B, {options.connections} connections of {options.streams} tunnels, "
        bench.compare(f"{title}depth {options.depth}", load)


def _idle(server: Subject, authority: Authority, options: argparse.Namespace) -> None:
    context = authority.client()
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    sizes = []
    with ExitStack() as stack:
        for _ in range(1 + options.idle_connections):
            client = stack.enter_context(H2Client(server.port, context))
            for _ in range(options.idle):
                client.tunnel("/")
            time.sleep(SETTLED)
            (worker,) = psutil.Process(server.pid).children()
            sizes.append(worker.memory_full_info().pss)
    each = [(after - before) / options.idle / 1024 for before, after in pairwise(sizes)]
    print(f"\n## {options.idle} idle tunnels on one TLS connection\n")
    print(f"PSS KiB/tunnel: mean {statistics.mean(each):.2f}; connection by connection:")
    print(*(f"{size:.2f}" for size in each))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run h2", description=__doc__)
    parser.add_argument("--size", type=int, nargs="*", default=[16, 1024], help="bytes a message")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--streams", type=int, default=8, help="tunnels on each; lighttpd: max. 8")
    parser.add_argument("--depth", type=int, default=1, help="messages under way in each")
    parser.add_argument("--rounds", type=int, default=9, help="0: do not measure")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run")
    parser.add_argument("--idle", type=int, default=100, help="tunnels; 0: do not measure")
    parser.add_argument("--idle-connections", type=int, default=8, help="connections of them")
    parser.add_argument("--json", help="append every run to this file")
    parser.set_defaults(text=False)
    return parser.parse_args()


if __name__ == "__main__":
    main()
