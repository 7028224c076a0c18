"""forkd/bridge/connection.py: what is said where no program could say it."""

from __future__ import annotations

import pytest

from forkd.bridge.connection import status_reply
from forkd.errors import BadRequest, Forbidden, ForkdError, NoBackend, NotFound


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (BadRequest("why"), "Status: 400 Bad Request\r\n*400 Bad Request\n"),
        (Forbidden("why"), "Status: 403 Forbidden\r\n*403 Forbidden\n"),
        (NotFound("why"), "Status: 404 Not Found\r\n*404 Not Found\n"),
        (ForkdError("why"), "Status: 500 Internal Server Error\r\n*500 Internal Server Error\n"),
        (
            NoBackend("why", 7),
            "Status: 503 Service Unavailable\r\nRetry-After: 7\r\n*503 Service Unavailable\n",
        ),
    ],
)
def test_status_reply(error: ForkdError, reply: str) -> None:
    fields = "Content-Type: text/plain\r\n\r\n"
    assert status_reply(error) == reply.replace("*", fields).encode()
