"""A worker process, and what it hears from the master."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, NoReturn

from forkd.certs import Contexts
from forkd.channel import READY, REOPEN, STOP, WorkerStart
from forkd.config.model import Config, RequestConfig, ServerSettings
from forkd.log import LogFiles, LogPlan, set_up
from forkd.scoreboard import Board
from forkd.unix import fork
from forkd.worker import worker


def test_it_listens_even_after_a_defect(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(15)
    config = Config("/x.conf", ServerSettings(), (), (), RequestConfig(), None)  # type: ignore[arg-type]
    board, logs = Board.create(1, 2, ()), LogFiles(LogPlan(str(tmp_path / "error.log")))

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
    assert os.waitpid(pid, 0)[1] == 0
    assert "RuntimeError: a defect" in (tmp_path / "error.log").read_text()
    ours.close()
    logs.close()
    board.close()
