"""From HTTP/1.1 to HTTP/2 on one connection, in clear text (RFC 7540 section 3.2)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from typing import NamedTuple

from ..message import Fields, Request, has_token
from ..protocol.h2_fields import H2Head
from ..protocol.strict_head import RawHead

SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
)

_SETTINGS = re.compile(r"[A-Za-z0-9_-]*")
_OF_HTTP1 = frozenset(
    {"connection", "http2-settings", "keep-alive", "proxy-connection", "upgrade", "te"}
)


class Offer(NamedTuple):
    """What a client has offered to go on with."""

    settings: bytes
    """The payload of its SETTINGS; b"?" when they cannot be read."""
    head: H2Head
    """Its request, as it would stand on stream 1."""


def offer(head: RawHead, request: Request) -> Offer | None:
    """The offer in *head*, which makes *request*; None when there is none to be taken up."""
    fields = Fields(head.fields)
    given = [value for name, value in head.fields if name.lower() == "http2-settings"]
    if (
        head.version != "HTTP/1.1"
        or request.content_length != 0
        or request.connection.tls
        or len(given) != 1
        or not has_token(fields.get("upgrade"), "h2c")
        or not has_token(fields.get("connection"), "http2-settings")
    ):
        return None
    kept = [(name.lower(), text) for name, text in request.fields if name.lower() not in _OF_HTTP1]
    target = request.target if request.target.startswith("/") else request.full_target
    raw = RawHead(request.method, target, "HTTP/2.0", kept)
    return Offer(_decoded(given[0]), H2Head(raw, "", None, None))


def _decoded(text: str) -> bytes:
    if not _SETTINGS.fullmatch(text) or len(text) % 4 == 1:
        return b"?"
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
