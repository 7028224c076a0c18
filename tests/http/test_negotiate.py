"""forkd/http/negotiate.py: the first bytes say which HTTP is spoken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forkd.config.model import Features, Limits, ServerSettings
from forkd.http import negotiate
from forkd.protocol.h2_frames import PREFACE

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


class Other:
    """Another version: remembers what its connection began with."""

    began: list[bytes] = []

    def __init__(self, port: Any, info: Any, service: Any) -> None:
        self._port = port

    def serve(self, handle: Any) -> None:
        self.began.append(self._port.recv(1))


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    monkeypatch.setitem(negotiate.VERSIONS, "h2", Other)  # type: ignore[arg-type]
    Other.began.clear()
    yield Other.began


@pytest.mark.parametrize("pieces", [0, 1])
def test_preface(connect: Any, other: list[bytes], pieces: int) -> None:
    connect().send(PREFACE + b"frames", pieces=pieces)
    assert other and (PREFACE + b"frames").startswith(other[0]) and other[0].startswith(PREFACE)


@pytest.mark.parametrize("pieces", [0, 1])
@pytest.mark.parametrize("data", [GET, b"PROPFIND /a HTTP/1.1\r\nHost: h\r\n\r\n"])
def test_http1(
    connect: Any, responses: Any, other: list[bytes], data: bytes, pieces: int
) -> None:
    (answer,) = responses(connect().send(data, pieces=pieces))
    assert (answer.status, answer.body) == (200, b"/a")
    assert not other


def test_switched_off(connect: Any, responses: Any, other: list[bytes]) -> None:
    client = connect(server=ServerSettings(features=Features(h2proto=False)))
    (answer,) = responses(client.send(PREFACE))
    assert answer.status == 400 and not other


def test_not_spoken(connect: Any, responses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(negotiate.VERSIONS, "h2")
    client = connect()
    (answer,) = responses(client.send(PREFACE))
    assert (answer.version, answer.status) == ("HTTP/1.0", 400)
    assert client.port.closing


def test_a_silent_connection_is_idle(connect: Any) -> None:
    client = connect()
    client.do(client.service.close_idle)
    assert client.port.closing
    client.do(client.port.finish)
    assert client.is_over and not client.service.connections


def test_nothing_or_half_a_preface_comes(connect: Any, other: list[bytes]) -> None:
    client = connect(limits=Limits(max_read_idle=0.05))
    client.send(PREFACE[:10])
    client.greenlet.join(5)
    assert client.port.closing and not other
    client = connect()
    client.eof()
    assert client.is_over and client.port.closing
