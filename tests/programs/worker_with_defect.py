#!/usr/bin/env python3
"""A worker whose answer to the first order fails, then an order to stop.  Usage: FOLDER

In a process of its own: a fork of the tests' would inherit what other tests have left in memory,
and what is collected there closes descriptors that are the worker's by then.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, NoReturn

from forkd.certs import Contexts
from forkd.channel import READY, REOPEN, STOP, WorkerStart
from forkd.config.model import Config, RequestConfig, ServerSettings
from forkd.log import LogFiles, LogPlan, set_up
from forkd.scoreboard import Board
from forkd.unix import fork
from forkd.worker import worker

ours, theirs = socket.socketpair()
ours.settimeout(30)
config = Config("/x.conf", ServerSettings(), (), (), RequestConfig(), None)  # type: ignore[arg-type]
board, logs = Board.create(1, 2, ()), LogFiles(LogPlan(os.path.join(sys.argv[1], "error.log")))


def fail(*_: Any) -> NoReturn:
    raise RuntimeError("a defect")


def run() -> int:
    set_up(logs)
    logs.adopt = fail  # type: ignore[method-assign]
    board.claim(1)
    return worker.main(WorkerStart(config, 1, 0, board, (), theirs, logs, Contexts(config)))


pid = fork.fork(run, (theirs.fileno(), *logs.fds()))
theirs.close()
assert ours.recv(1) == READY
ours.send(REOPEN)
ours.send(STOP)
assert ours.recv(1) == b""  # it has ended
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
