"""The control protocol: one JSON object a line, a request in and an answer out.

``{"do": "status"}`` is answered with ``{"ok": true, ...}``, or with ``{"ok": false, "error": "why",
"code": N}`` where N is the exit code that the command is to end with.  The master serves it on a
unix socket beside its pid file; here are both directions of the codec, and the client.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

MAX_LINE = 4 << 20  # bytes; the status of a large server has a few hundred for each process

Message = dict[str, Any]


class ControlError(Exception):
    """The server could not be asked, or did not answer; the text says why."""


class NotListening(ControlError):
    """Nobody serves the control socket."""


class NotAllowed(ControlError):
    """The control socket belongs to another user."""


def encode(message: Mapping[str, Any]) -> bytes:
    """*message* as one line, line feed included; the text is ASCII."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> Message:
    """The object in *line*.  Raises ValueError when it is anything else."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def ask(path: str, do: str, timeout: float, **arguments: object) -> Message:
    """Ask the master behind the control socket *path*; wait *timeout* seconds for all of it.

    Raises ControlError where there is no answer; an answer with ``ok`` false is returned.
    """
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall(encode({"do": do, **arguments}))
            line = _read_line(connection, deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotListening(f"nobody listens on {path}") from None
        except PermissionError:
            raise NotAllowed(f"{path}: permission denied") from None
        except TimeoutError:
            raise ControlError(f"no answer within {timeout:g} s") from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from None
    try:
        return decode(line)
    except ValueError:
        raise ControlError("the answer is not understood") from None


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        data = connection.recv(65536)
        if not data:
            raise ControlError("the server ended before it answered")
        line += data
        if len(line) > MAX_LINE:
            raise ControlError("the answer has no end")
    return bytes(line)
