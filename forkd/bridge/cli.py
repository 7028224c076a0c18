"""The command lines of scgi-cgi and fcgi-cgi."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import StartError
from ..unix.daemon import open_standard
from .accept import take_listener
from .bridge import Bridge, Protocol
from .fcgi import FcgiConnection
from .scgi import ScgiConnection

MAX_CONNECTIONS = 16  # at a time, without -c

_FAILED = 1


def scgi_main(arguments: Sequence[str] | None = None) -> int:
    """scgi-cgi(1); the exit status."""
    parser = _parser("scgi-cgi", "Run CGI programs for a server that speaks SCGI.")
    parser.add_argument(
        "-b", "--binary", metavar="FILE", help="run FILE, whatever a request names"
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="the same")
    given = parser.parse_args(arguments)
    if given.binary and given.file:
        parser.error("one FILE is enough")
    return _serve(parser.prog, ScgiConnection, given.connections, given.binary or given.file)


def fcgi_main(arguments: Sequence[str] | None = None) -> int:
    """fcgi-cgi(1); the exit status."""
    parser = _parser("fcgi-cgi", "Run CGI programs for a server that speaks FastCGI.")
    given = parser.parse_args(arguments)
    return _serve(parser.prog, FcgiConnection, given.connections)


def _parser(name: str, text: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name,
        description=f"{text} Connections are accepted on descriptor 0.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--max-connections", dest="connections", metavar="N", type=_positive,
        default=MAX_CONNECTIONS,
        help="connections at a time; others wait  [default: %(default)s]",
    )  # fmt: skip
    version = f"{name} {__version__}"
    parser.add_argument("-v", "--version", action="version", version=version)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _serve(name: str, protocol: Protocol, limit: int, binary: str | None = None) -> int:
    open_standard()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=f"{name}: %(message)s")
    try:
        listener = take_listener()
    except StartError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return _FAILED
    path = os.path.abspath(os.fsencode(binary)) if binary else b""
    Bridge(listener, protocol, limit, path).run()
    return 0
