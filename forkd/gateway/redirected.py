"""The request that a program wants served in its own place (RFC 3875 section 6.2.2)."""

from __future__ import annotations

from ..config.model import Config
from ..errors import BackendBroken, BadRequest
from ..message import Request
from ..uri import decode_path, normalise_target

_OF_THE_BODY = ("Content-Length", "Content-Type", "Transfer-Encoding", "Expect", "Upgrade")


def redirected_request(received: Request, target: str, config: Config) -> Request:
    """*received* as a GET (HEAD where that was asked) for *target*: its body was the program's.

    Raises BackendBroken when *target* is no URL path.
    """
    try:
        path, query = normalise_target(target, config.server.parse_options)
        decoded = decode_path(path)
    except BadRequest as error:
        raise BackendBroken(f"local redirect to {target!r}: {error}") from error
    return received._replace(
        method="HEAD" if received.method == "HEAD" else "GET",
        path=path,
        query=query,
        decoded_path=decoded,
        fields=received.fields.without(*_OF_THE_BODY),
        content_length=0,
        protocol="",
    )
