"""uwsgi requests, modifier 0 (WSGI): the environment with little-endian lengths.

The protocol: https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html.  The body follows as it
is, and the response is ``protocol.cgi``'s.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ..errors import BadRequest, HeadTooLarge
from ..message import Pair
from .environment import encoded

MAX_SIZE = 65535  # bytes of a name, of a value, and of all of them: what 16 bits hold

_HEAD = struct.Struct("<BHB")  # modifier 1, size of the environment, modifier 2
_SIZE = struct.Struct("<H")


def encode_environment(environment: Iterable[Pair]) -> bytes:
    """The head of a request.  Raises BadRequest for a variable that has no place in it,
    HeadTooLarge when all together have none."""
    text = b"".join(
        _sized(name) + _sized(value) for name, value in encoded(environment)
    )
    if len(text) > MAX_SIZE:
        raise HeadTooLarge(f"environment of {len(text)} bytes, uwsgi takes {MAX_SIZE}")
    return _HEAD.pack(0, len(text), 0) + text


def _sized(text: bytes) -> bytes:
    if len(text) > MAX_SIZE:
        raise BadRequest(f"variable of {len(text)} bytes, uwsgi takes {MAX_SIZE}")
    return _SIZE.pack(len(text)) + text
