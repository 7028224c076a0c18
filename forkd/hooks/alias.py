"""mod_alias: URL prefixes that lie elsewhere in the file system (core.md 13)."""

from __future__ import annotations

from ..config.model import Config, RequestConfig
from ..errors import Forbidden
from ..message import Request, ascii_lower


def remap(request: Request, settings: RequestConfig, config: Config) -> Request:
    """The first key that the path begins with is replaced by its value.

    Raises Forbidden where key and value would let the path climb out: ``/pre..`` with the key
    ``/pre`` and a value that ends in a slash.
    """
    path, folds = request.decoded_path, settings.static.force_lowercase_filenames
    if folds:
        path = ascii_lower(path)
    for key, base in settings.hooks.alias:
        if not path.startswith(ascii_lower(key) if folds else key):
            continue
        rest = path[len(key) :]
        if base.endswith("/") and not key.endswith("/") and rest.split("/", 1)[0] in (".", ".."):
            raise Forbidden(f"{request.decoded_path}: leaves the alias {key}")
        return request._replace(physical=(base, base + rest))
    return request
