"""forkd against Debian's lighttpd at running CGI programs, in paired runs.

A round asks both servers the same number of times, one after the other in random order; the
median of the rounds' ratios is the result.  CPU time is that of the server's own processes
(schedstat) and, apart from it, that of the programs they have run and reaped, which includes being
started.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
from contextlib import suppress

import psutil
from servers import CannotStart, Subject, subjects, workshop
from tables import Run, print_table

CGI = """
server.modules = ("mod_cgi")
cgi.assign = ("/hello" => "")
"""


def main() -> None:
    options = _options()
    try:
        with workshop("hello") as folder, subjects(folder, CGI) as servers:
            runs: dict[str, list[Run]] = {server.name: [] for server in servers}
            for _ in range(options.rounds):
                for server in random.sample(servers, len(servers)):
                    runs[server.name].append(_one(server, options))
    except CannotStart as error:
        sys.exit(f"bench: {error}")
    title = f"CGI, {options.connections} connections"
    print_table(f"{title}: the server", {"CPU us/request": "own"}, runs)
    print_table(f"{title}: with the programs", {"CPU us/request": "all"}, runs)
    print_table(f"{title}: rate", {"requests/s": "per_s"}, runs)


def _one(server: Subject, options: argparse.Namespace) -> Run:
    """One run: CPU microseconds for each request, and requests a second."""
    own, programs = _cpu(server.pid)
    command = ["h2load", "--h1", "-n", options.count, "-c", options.connections]
    command += [f"http://127.0.0.1:{server.port}/hello"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    if f" {options.count} 2xx" not in done.stdout:
        raise CannotStart(f"{server.name}: {done.stdout[-500:]} {done.stderr[-500:]}")
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    assert rate is not None
    own_after, programs_after = _cpu(server.pid)
    own_us, programs_us = (
        (after - before) / options.count * 1e6
        for before, after in ((own, own_after), (programs, programs_after))
    )
    return {"own": own_us, "all": own_us + programs_us, "per_s": float(rate[1])}


def _cpu(pid: int) -> tuple[float, float]:
    """Seconds of CPU time: of the process and those below it, and of those they have reaped."""
    leader = psutil.Process(pid)
    own = programs = 0.0
    for process in (leader, *leader.children(recursive=True)):
        with suppress(psutil.Error, OSError):  # a program that is just ending
            for thread in process.threads():
                with open(f"/proc/{process.pid}/task/{thread.id}/schedstat") as file:
                    own += int(file.read().split()[0]) / 1e9
            times = process.cpu_times()
            programs += times.children_user + times.children_system
    return own, programs


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run cgi", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="requests in one run")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
