"""forkd/gateway/spool.py: bytes in memory and in files, by position."""

from __future__ import annotations

import os
import random

import pytest
from fakes import FakeExchange, make_request

from forkd.errors import ForkdError
from forkd.gateway.spool import MEMORY, Spool
from forkd.message import Head

DATA = random.Random(1).randbytes(3 * MEMORY)


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def filled(folder, piece: int, file_size: int) -> Spool:
    spool = Spool((str(folder),), file_size)
    for start in range(0, len(DATA), piece):
        spool.append(DATA[start : start + piece])
    return spool


@pytest.mark.parametrize("file_size", [1000, MEMORY, 1 << 20])
@pytest.mark.parametrize("piece", [700, MEMORY, len(DATA)])
def test_what_goes_in_comes_out(tmp_path, piece, file_size):
    with filled(tmp_path, piece, file_size) as spool:
        assert spool.size == len(DATA)
        assert b"".join(spool.pieces()) == DATA
        exchange = FakeExchange(make_request())
        exchange.respond(Head(200))
        spool.send(exchange, MEMORY - 5, MEMORY)
        assert exchange.body == DATA[MEMORY - 5 : 2 * MEMORY - 5]
        assert os.listdir(tmp_path) == []


def test_small_is_in_memory(tmp_path):
    spool = Spool(("/nonexistent",), 1 << 20)
    spool.append(b"x" * MEMORY)
    assert spool.is_in_memory and spool.read(MEMORY - 1, 10) == b"x"
    assert spool.read(MEMORY, 10) == b""
    with pytest.raises(ForkdError):
        spool.append(b"x")


def sizes(spool: Spool) -> list[int]:
    return [os.fstat(file.file.fileno()).st_size for file in spool._files]


def test_files_are_few_however_much_there_is(tmp_path):
    with filled(tmp_path, 700, 1000) as spool:
        assert sizes(spool)[:5] == [1000, 1000, 2000, 4000, 8000]
        assert len(sizes(spool)) == 9


def test_files_stay_small_while_they_are_given_back(tmp_path):
    with Spool((str(tmp_path),), 1000) as spool:
        spool.append(bytes(MEMORY))
        for _ in range(200):
            spool.append(bytes(500))
            spool.forget(spool.size - 1500)
            assert max(sizes(spool)) <= 2000 and len(spool._files) <= 2


def test_a_folder_without_room_is_given_up_for_the_next(tmp_path, caplog):
    with Spool(("/nonexistent", "/dev/null", str(tmp_path)), 1000) as spool:
        spool.append(DATA)
        assert b"".join(spool.pieces()) == DATA
    assert "/nonexistent" in caplog.text


def test_a_disk_that_becomes_full(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write = os.write
    calls = []

    def full(fd, data):
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(fd, data[:5000])

    monkeypatch.setattr(os, "write", full)
    with Spool((str(tmp_path / "a"), str(tmp_path / "b")), 1 << 20) as spool:
        spool.append(DATA)
        assert b"".join(spool.pieces()) == DATA


def test_what_is_forgotten_is_given_back(tmp_path):
    with filled(tmp_path, MEMORY, 1000) as spool:
        count = len(spool._files)
        spool.forget(MEMORY + 2500)  # amid the third, the first of 2000
        assert len(spool._files) == count - 2
        assert spool.read(MEMORY + 2500, 5) == DATA[MEMORY + 2500 : MEMORY + 2505]
        spool.forget(spool.size)
        assert spool.size == 0 and spool.is_in_memory
        spool.append(b"again")
        assert b"".join(spool.pieces()) == b"again"
