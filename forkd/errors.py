"""What may go wrong, as types.

A ``ForkdError`` is something a client may be told: ``gateway.dispatch`` turns it into a status,
a tunnel into a close code, and nobody else does.  A ``ConfigError`` is something an admin is told.
"""

from __future__ import annotations

from typing import ClassVar


class ForkdError(Exception):
    """Something a client may be told: ``status`` for HTTP, ``close_code`` once a WebSocket is open.

    ``fields`` are sent with the response; the text is for the error log, never for the client.
    """

    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    fields: tuple[tuple[str, str], ...] = ()


class BadRequest(ForkdError):
    status, close_code = 400, 1002


class OriginRefused(ForkdError):
    status, close_code = 403, 1008


class Forbidden(ForkdError):
    status, close_code = 403, 1008


class NotFound(ForkdError):
    status, close_code = 404, 1008


class MethodNotAllowed(ForkdError):
    status, close_code = 405, 1002


class LengthRequired(ForkdError):
    status, close_code = 411, 1002


class PreconditionFailed(ForkdError):
    status, close_code = 412, 1002


class PayloadTooLarge(ForkdError):
    status, close_code = 413, 1009


class RangeNotSatisfiable(ForkdError):
    """The text of Content-Range goes into ``fields`` (RFC 9110 section 15.5.17)."""

    status, close_code = 416, 1002

    def __init__(self, length: int) -> None:
        super().__init__(f"no range within {length} bytes")
        self.fields = (("Content-Range", f"bytes */{length}"),)


class UpgradeRequired(ForkdError):
    """RFC 6455 section 4.4: the version that forkd speaks goes with the refusal."""

    status, close_code = 426, 1002
    fields = (
        ("Upgrade", "websocket"),
        ("Connection", "upgrade"),
        ("Sec-WebSocket-Version", "13"),
    )


class HeadTooLarge(ForkdError):
    status, close_code = 431, 1009


class PatternTooSlow(ForkdError):
    """A regular expression of the configuration backtracks on what the client sent.

    Neither answer would be safe (a rule may allow or deny), so the request fails.
    """


class NotImplementedHere(ForkdError):
    status, close_code = 501, 1002


class BackendBroken(ForkdError):
    """The backend answered, but not what its protocol allows."""

    status = 502


class Truncated(BackendBroken):
    """The body of the backend's response is short of what its head announced."""


class NoBackend(ForkdError):
    """No proc can take the request now; a client may try again after ``retry_after`` seconds."""

    status, close_code = 503, 1013

    def __init__(self, text: str, retry_after: int = 1) -> None:
        super().__init__(text)
        self.fields = (("Retry-After", str(retry_after)),)


class Refused(NoBackend):
    """The backend has done nothing with the request: it may be sent again, elsewhere."""


class BackendTimeout(ForkdError):
    status = 504


class VersionNotSupported(ForkdError):
    status, close_code = 505, 1002


class ClientGone(Exception):
    """The client has left, or was cut off: there is nobody to answer.  The text says why."""


class ConfigError(Exception):
    """The configuration is refused.  The text holds every diagnostic, one to a line."""


class StartError(Exception):
    """The server cannot start; ``exit_code`` as in forkd(8)."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code
