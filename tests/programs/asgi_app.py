"""An ASGI application: says what it was asked, and echoes WebSockets."""

from __future__ import annotations

import hashlib
import json
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(scope, receive, send)
    else:
        await answer(scope, receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
    digest, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "version": scope["http_version"],
        "fields": {name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
        "size": size,
        "sha256": digest.hexdigest(),
    }
    await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    body = json.dumps(said).encode()
    for piece in (body[: len(body) // 2], body[len(body) // 2 :]):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


FIELDS = [(b"content-type", b"application/json"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    protocol = next(iter(scope["subprotocols"]), None)
    await receive()
    await send({"type": "websocket.accept", "subprotocol": protocol})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
