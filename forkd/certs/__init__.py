"""Certificates and TLS contexts: what they need, what they hold, what they tell of a client.

The master builds all contexts while it may read the keys; workers get them by the fork, tickets and
all.  No gevent here: bytes are moved by ``net.tls``.
"""

from .contexts import Contexts, ServerTls, Session, hush_bad_names
from .files import LIBRARY, check_authorities, check_ciphers, check_crl, check_policy, inspect

__all__ = [
    "LIBRARY",
    "Contexts",
    "ServerTls",
    "Session",
    "check_authorities",
    "check_ciphers",
    "check_crl",
    "check_policy",
    "hush_bad_names",
    "inspect",
]
