"""The backend's side of a request: one file for each lighttpd module, one row for each file."""

from collections.abc import Mapping

from . import fastcgi, proxy, scgi, wstunnel
from .base import Gateway

GATEWAYS: Mapping[str, Gateway] = {
    # module without "mod_"   serves an exchange
    "fastcgi": fastcgi.serve,
    "proxy": proxy.serve,
    "scgi": scgi.serve,
    "wstunnel": wstunnel.serve,
}
