"""What a gateway may do instead of answering: ``dispatch`` runs the request again."""

from __future__ import annotations

from ..message import Pair


class Outcome(Exception):
    """There is no answer yet.  The backend has been let go; the client has been told nothing."""


class LocalRedirected(Outcome):
    """The program wants *target*, path and query, served in its place (cgi.md 6)."""

    def __init__(self, target: str) -> None:
        super().__init__(f"local redirect to {target}")
        self.target = target


class Approved(Outcome):
    """An authorizer lets the request on (gateway.md 16).

    *environment* is for whoever serves it; *docroot* is where its files are, "" for where they
    are without it.
    """

    def __init__(self, environment: tuple[Pair, ...], docroot: str) -> None:
        super().__init__("approved")
        self.environment = environment
        self.docroot = docroot
