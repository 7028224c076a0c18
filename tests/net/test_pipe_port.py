"""PipePort over real pipes; what FdPort does already is tested there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import gevent
import pytest

from forkd.net.blocking import BlockingPort
from forkd.net.pipe_port import CLOSED, PipePort
from forkd.net.port import HIGH_WATER, FdPort, Peer


class Listener:
    """Records what a port says."""

    def __init__(self, port: PipePort) -> None:
        self.data = bytearray()
        self.said: list[str] = []
        port.attach(self)

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_eof(self) -> None:
        self.said.append("eof")

    def on_drain(self) -> None:
        self.said.append("drain")

    def on_close(self, why: str) -> None:
        self.said.append(f"close:{why}")


def until(condition, deadline: float = 5.0) -> None:
    """Let the loop run until *condition* holds."""
    with gevent.Timeout(deadline):
        while not condition():
            gevent.sleep(0.001)


@dataclass
class Program:
    """The program's ends of the pipes, and the port at ours."""

    port: PipePort
    stdin: int
    stdout: int
    left: list[bool] = field(default_factory=list)

    def close(self, name: str) -> None:
        fd = getattr(self, name)
        if fd >= 0:
            setattr(self, name, -1)
            os.close(fd)


def make(with_stdin: bool = True) -> Program:
    stdin, ours_in = os.pipe() if with_stdin else (-1, CLOSED)
    ours_out, stdout = os.pipe()
    for fd in (ours_in, ours_out):
        if fd >= 0:
            os.set_blocking(fd, False)
    left: list[bool] = []
    return Program(PipePort(ours_in, ours_out, lambda: left.append(True)), stdin, stdout, left)


@pytest.fixture
def program() -> Iterator[Program]:
    made = make()
    yield made
    made.port.abort("test over")
    made.close("stdin")
    made.close("stdout")


def fill(port: PipePort) -> int:
    """Write until the port is over its mark; the bytes written."""
    written = 0
    while True:
        written += 4096
        if not port.write(b"x" * 4096):
            return written


def read_available(fd: int) -> bytes:
    """Everything that can be read now, with what the loop sends meanwhile."""
    os.set_blocking(fd, False)
    out = bytearray()
    with suppress(BlockingIOError):
        while piece := os.read(fd, 65536):
            out += piece
    return bytes(out)


def test_bytes_both_ways(program: Program) -> None:
    heard = Listener(program.port)
    assert program.port.write(memoryview(b"request")) is True
    assert os.read(program.stdin, 100) == b"request"
    os.write(program.stdout, b"response")
    until(lambda: heard.data == b"response")
    assert (program.port.bytes_in, program.port.bytes_out) == (8, 7)


def test_half_close_is_the_end_of_input_and_output_goes_on(program: Program) -> None:
    heard = Listener(program.port)
    program.port.write(b"all")
    program.port.write_eof()
    assert os.read(program.stdin, 100) == b"all"
    assert os.read(program.stdin, 100) == b""
    os.write(program.stdout, b"still here")
    until(lambda: heard.data == b"still here")
    assert heard.said == []


def test_end_of_output_leaves_input_open(program: Program) -> None:
    heard = Listener(program.port)
    program.close("stdout")
    until(lambda: heard.said == ["eof"])
    program.port.write(b"more")
    assert os.read(program.stdin, 100) == b"more"
    assert not program.left


def test_half_close_comes_after_what_is_queued(program: Program) -> None:
    Listener(program.port)
    written = fill(program.port)
    program.port.write_eof()
    received = 0
    with gevent.Timeout(5):
        while received < written:
            received += len(read_available(program.stdin))
            gevent.sleep(0)
    until(lambda: os.read(program.stdin, 1) == b"")
    assert received == written


def test_a_full_pipe_queues_and_drains(program: Program) -> None:
    heard = Listener(program.port)
    written = fill(program.port)
    assert program.port.queued > HIGH_WATER
    received = 0
    with gevent.Timeout(5):
        while received < written:
            received += len(read_available(program.stdin))
            gevent.sleep(0)
    until(lambda: "drain" in heard.said)
    assert program.port.queued == 0


def test_input_that_the_program_has_closed_is_dropped(program: Program) -> None:
    heard = Listener(program.port)
    program.close("stdin")
    for _ in range(100):
        assert program.port.write(b"x" * 4096) is True
    os.write(program.stdout, b"not interested")
    until(lambda: heard.data == b"not interested")
    program.close("stdout")
    until(lambda: heard.said == ["eof"])


def test_a_queue_for_a_program_that_closes_its_input_drains(program: Program) -> None:
    heard = Listener(program.port)
    fill(program.port)
    program.close("stdin")
    until(lambda: "drain" in heard.said)
    assert program.port.queued == 0


def test_close_flushes_then_waits_for_the_end_of_output(program: Program) -> None:
    heard = Listener(program.port)
    program.port.write(b"last")
    program.port.close(5)
    assert program.left == [True]
    assert os.read(program.stdin, 100) == b"last"
    assert os.read(program.stdin, 100) == b""
    os.write(program.stdout, b"dropped")
    gevent.sleep(0.01)
    assert heard.said == []
    program.close("stdout")
    until(lambda: heard.said == ["close:"])
    assert not heard.data


def test_close_does_not_wait_for_ever(program: Program) -> None:
    heard = Listener(program.port)
    program.port.close(0.02)
    until(lambda: heard.said == ["close:"])
    with pytest.raises(BrokenPipeError):
        os.write(program.stdout, b"nobody")


def test_abort_closes_both_pipes_at_once(program: Program) -> None:
    heard = Listener(program.port)
    fill(program.port)
    before = FdPort.open_ports
    program.port.abort("enough")
    assert heard.said == ["close:enough"]
    assert program.left == [True]
    assert FdPort.open_ports == before - 1
    with pytest.raises(BrokenPipeError):
        os.write(program.stdout, b"x")
    program.port.abort("again")
    program.port.close()
    assert program.left == [True]


def test_a_program_without_input() -> None:
    program = make(with_stdin=False)
    heard = Listener(program.port)
    assert program.port.write(b"x" * 100_000) is True
    program.port.write_eof()
    program.port.watch_writable()
    until(lambda: heard.said == ["drain"])
    os.write(program.stdout, b"fine")
    until(lambda: heard.data == b"fine")
    program.port.abort("")
    program.close("stdout")


@pytest.mark.parametrize("closes", [False, True])
def test_files_go_into_the_pipe(program: Program, closes: bool) -> None:
    blocking = BlockingPort(program.port)
    size = 300_000
    received = bytearray()

    def read() -> None:
        os.set_blocking(program.stdin, False)
        while len(received) < size:
            received.extend(read_available(program.stdin))
            if closes and received:
                program.close("stdin")
                return
            gevent.sleep(0)

    with tempfile.TemporaryFile() as file, gevent.Timeout(5):
        file.write(b"y" * size)
        file.flush()
        reader = gevent.spawn(read)
        blocking.send_file(file.fileno(), 0, size, 5)
        reader.join()
    assert closes or bytes(received) == b"y" * size


def test_a_program_that_has_closed_both_is_gone(program: Program) -> None:
    heard = Listener(program.port)
    program.close("stdout")
    until(lambda: heard.said == ["eof"])
    program.close("stdin")
    program.port.write(b"anybody there?")
    until(lambda: heard.said[-1] == "close:Broken pipe")
    assert program.left == [True]


def test_the_end_of_a_pipe_is_no_loss():
    """A client on pipes may have said all it has to say while it is not read."""
    program = make()
    assert program.port.peer is Peer.OPEN
    os.write(program.stdout, b"x")
    program.close("stdout")
    assert program.port.peer is Peer.ENDED
    program.port.abort("")
    assert program.port.peer is Peer.LOST
    program.close("stdin")
