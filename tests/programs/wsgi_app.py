"""A WSGI application on Python's own server, which prints the port it listens on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    said = {name: value for name, value in environ.items() if isinstance(value, str)}
    said |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    start_response("201 Made", [("Content-Type", "application/json")])
    return pieces(json.dumps(said).encode())


def pieces(body: bytes) -> Iterator[bytes]:
    yield body[:100]
    yield body[100:]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, validator(app), handler_class=Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()
