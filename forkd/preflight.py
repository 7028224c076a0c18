"""What can be known before a server starts: is its configuration good, is what it names there.

``check``, ``start`` and every reload go through here.  This is where ``config`` gets what it does
not know itself: how names are resolved, and what other modules say about their own syntax.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Sequence
from importlib import metadata

from . import accesslog, certs
from .config import diagnostics, show
from .config.diagnostics import ConfigRefused
from .config.directives import MODULES
from .config.evaluate import evaluate_file
from .config.load import Checks
from .config.load import load as load_config
from .config.model import Config
from .errors import StartError
from .message import os_path
from .paths import STDIN


class ProgramMissing(ConfigRefused):
    """Nothing is wrong but that programs or certificates are not there: ``start`` and lighttpd tell
    that apart."""


def load(
    file: str, text: bytes | None = None, overrides: Sequence[str] = (), strict: bool = False
) -> Config:
    """The configuration in *file*, or in *text* that came by standard input.

    Raises ConfigRefused with every diagnostic; *strict*: also when there are only warnings.
    """
    try:
        return load_config(
            file,
            text=text,
            overrides=overrides,
            strict=strict,
            checks=CHECKS,
            resolve=resolve,
            inspect=certs.inspect,
        )
    except ConfigRefused as refused:
        errors = [found for found in refused.diagnostics if found.severity == "error"]
        if all(error.kind for error in errors):
            raise ProgramMissing(refused.diagnostics) from None
        raise


def loader(file: str, overrides: Sequence[str], strict: bool) -> Callable[[], Config]:
    """What loads the same configuration again, wherever the process stands by then.

    For a process of its own: it changes its working folder.  Raises ConfigRefused, StartError.
    """
    folder, path = os.getcwd(), os.path.abspath(file)

    def load_again() -> Config:
        if file == STDIN:
            raise StartError("a configuration from standard input cannot be reloaded")
        try:
            os.chdir(folder)
        except OSError:  # gone, and perhaps we stand in it still
            os.chdir("/")
        return load(path, None, overrides, strict)

    return load_again


def _check_format(text: str) -> None:
    accesslog.compile_format(text)


CHECKS: Checks = {
    "accesslog.format": _check_format,
    "ssl.ca-file": certs.check_authorities,
    "ssl.cipher-list": certs.check_ciphers,
    "ssl.openssl.ssl-conf-cmd": certs.check_policy,
    "ssl.verifyclient.ca-file": certs.check_authorities,
    "ssl.verifyclient.ca-crl-file": certs.check_crl,
}
"""Directive to what raises ValueError for a bad value: syntax that ``config`` does not know."""


def resolve(host: str, prefer_inet6: bool) -> str:
    """The first address of *host*, of the preferred kind if it has one.  Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    wanted = socket.AF_INET6 if prefer_inet6 else socket.AF_INET
    found.sort(key=lambda entry: entry[0] != wanted)
    return str(found[0][4][0])


def findings(config: Config) -> str:
    """Warnings and notes as text for a person; "" when there are none."""
    return diagnostics.render(config.diagnostics)


def tree(file: str, text: bytes | None = None, overrides: Sequence[str] = ()) -> bytes:
    """The configuration as it was understood, in its own language.  Raises ConfigError."""
    return os_path(show.show(evaluate_file(file, text=text, overrides=overrides)))


def features() -> tuple[str, ...]:
    """What this installation is made of, a line each."""
    libraries = (f"{name} {metadata.version(name)}" for name in ("gevent", "h11", "regex"))
    modules = sorted(module.removeprefix("mod_") for module in MODULES)
    return (
        f"Python {platform.python_version()}, {', '.join(libraries)}, {certs.LIBRARY}",
        f"modules: {' '.join(modules)}",
    )
