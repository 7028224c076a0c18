"""forkd against clients that break RFC 9113: the table of ``h2_table``, and the server after it."""

from __future__ import annotations

from typing import Any

import pytest
from h2_frames import PREFACE, Seen, frame
from h2_table import ROWS

from forkd.http.exchange import Exchange
from forkd.message import Fields, Head


def answer(exchange: Exchange) -> None:
    """Reads its body, and says 200; a tunnel stays as it is until the client has gone."""
    if exchange.request.method == "CONNECT":
        exchange.gone.wait()
        return
    while exchange.read():
        pass
    exchange.respond(Head(200, Fields(), 0))
    exchange.finish()


@pytest.mark.parametrize(("rule", "data", "expected"), ROWS, ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("pieces", [0, 1, 100])
def test_what_a_client_must_not_do(
    connect: Any, rule: str, data: bytes, expected: dict[str, Any], pieces: int
) -> None:
    if pieces and len(data) > 3000:
        pieces = 4000 + pieces
    client = connect(answer)
    seen = Seen().feed(client.send(PREFACE + frame(4, 0, 0)))
    seen.feed(client.send(data, pieces=pieces))
    if "goaway" in expected:
        assert seen.goaway[-1:] == [expected["goaway"]], seen.outcome
    else:
        assert not seen.goaway, seen.outcome
    if "rst" in expected:
        stream, code = expected["rst"]
        assert seen.rst == {stream: code}, seen.outcome
    if "status" in expected:
        stream, status = expected["status"]
        assert seen.status == {stream: status}, seen.outcome
    if not expected:
        assert not seen.rst, seen.outcome
    if seen.goaway and seen.goaway[-1] != "NO_ERROR":
        assert client.port.closing
