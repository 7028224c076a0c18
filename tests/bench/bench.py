"""forkd against Debian's lighttpd as WebSocket tunnels, in paired runs.

A round runs the same load on both servers, one after the other in random order, and divides
forkd's figure by lighttpd's of the same round; the median of the rounds' ratios is the result.
CPU time is that of the server's own processes while messages flow (schedstat), so that other load
of the machine matters little; messages per second need an idle machine.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from servers import CannotStart, Subject, tunnels, workshop
from tables import Run, print_table


def main() -> None:
    options = _options()
    try:
        with (
            workshop("wsload", "echo_backend") as folder,
            tunnels(folder, binary=not options.text) as servers,
        ):
            Bench(folder / "wsload", servers, options).run()
    except CannotStart as error:
        sys.exit(f"bench: {error}")


class Bench:
    """One sitting: which cases, how many rounds, and where each run is noted."""

    def __init__(self, wsload: Path, servers: list[Subject], options: argparse.Namespace) -> None:
        self.wsload = wsload
        self.servers = servers
        self.options = options

    def run(self) -> None:
        options = self.options
        for size in options.size:
            load = ["echo", "-s", size, "-d", options.depth, "-c", options.connections]
            load += ["-n", 100_000_000, "--max-time", options.seconds]
            title = f"{size} B, {options.connections} connections, depth {options.depth}"
            self.compare(title, load)
        if options.idle:
            load = ["idle", "-c", options.idle, "--hold", 1]
            for server in self.servers:  # what is made once is not the tunnels'
                self._one(server, ["idle", "-c", 8, "--hold", 0.1])
            runs = self.rounds(load, 1)
            print_table(f"{options.idle} idle tunnels", {"PSS KiB/tunnel": "pss_per_tunnel"}, runs)

    def compare(self, title: str, load: list[Any]) -> None:
        rates = {"per second": "per_s", "p50 us": "p50_us", "p99 us": "p99_us"}
        print_table(title, {"CPU us/message": "cpu_us_per_op"} | rates, self.rounds(load))

    def rounds(self, load: list[Any], rounds: int = 0) -> dict[str, list[Run]]:
        """Each server's runs of *load*, those of one round at the same place."""
        runs: dict[str, list[Run]] = {server.name: [] for server in self.servers}
        for _ in range(rounds or self.options.rounds):
            for server in random.sample(self.servers, len(self.servers)):
                runs[server.name].append(self._one(server, load))
        return runs

    def _one(self, server: Subject, load: list[Any]) -> Run:
        command = [self.wsload, *load, "--json", "--label", server.name, "--timeout", 30]
        command += ["--pid", server.pid, "--tree", *(["--text"] if self.options.text else [])]
        command += ["--path", server.path, f"127.0.0.1:{server.port}"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise CannotStart(f"{server.name}: {done.stderr.strip()}")
        run: Run = json.loads(done.stdout)
        run["pss_per_tunnel"] = run["pss_delta_kb"] / run["connections"]
        if self.options.json:
            with open(self.options.json, "a") as file:
                file.write(json.dumps(run) + "\n")
        return run


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("--size", type=int, nargs="*", default=[16, 1024], help="bytes a message")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--depth", type=int, default=1, help="messages under way on each")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run")
    parser.add_argument("--idle", type=int, default=2000, help="idle tunnels; 0: do not measure")
    parser.add_argument("--text", action="store_true", help="text messages (default: binary)")
    parser.add_argument("--json", help="append every run to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
