"""What a WebSocket echo answers, asked with the client of the ``websockets`` library."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from e2e.harness import Server
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

Message = str | bytes | list[bytes]
"""A list is sent in so many fragments."""


def echoes(
    server: Server,
    path: str,
    messages: Sequence[Message],
    subprotocols: Sequence[str] = (),
    patience: float = 60,
) -> list[str | bytes]:
    """The answer to each message, read while it is sent, as long ones are echoed piece by piece.

    *subprotocols*: offered, and the first of them must be chosen.
    """
    return asyncio.run(_echoes(server, path, messages, subprotocols, patience))


async def _echoes(
    server: Server,
    path: str,
    messages: Sequence[Message],
    subprotocols: Sequence[str],
    patience: float,
) -> list[str | bytes]:
    offered = [Subprotocol(name) for name in subprotocols]
    options: dict[str, Any] = {"compression": None, "max_size": None, "proxy": None}
    url = f"ws://127.0.0.1:{server.port}{path}"
    async with connect(url, subprotocols=offered or None, **options) as client:
        assert client.subprotocol == next(iter(subprotocols), None)
        answers = []
        for message in messages:
            reader = asyncio.create_task(client.recv())
            await asyncio.wait_for(client.send(message), patience)
            answers.append(await asyncio.wait_for(reader, patience))
        return answers
