"""mod_access: paths that are refused by their suffix (core.md 13)."""

from __future__ import annotations

from ..config.model import Config, RequestConfig
from ..errors import Forbidden
from ..message import Request, ascii_lower


def check(request: Request, settings: RequestConfig, config: Config) -> Request:
    """Raises Forbidden.  ``url.access-allow`` beats ``url.access-deny``; "" is any path's suffix.

    Asked again when a file was found, as its name may be another than the URL's.
    """
    hooks = settings.hooks
    if hooks.access_allow is None and not hooks.access_deny:
        return request
    path = request.decoded_path
    suffixes = hooks.access_deny if hooks.access_allow is None else hooks.access_allow
    if settings.static.force_lowercase_filenames:
        path, suffixes = ascii_lower(path), tuple(map(ascii_lower, suffixes))
    if path.endswith(suffixes) == (hooks.access_allow is None):
        raise Forbidden(f"{request.decoded_path}: access denied")
    return request
