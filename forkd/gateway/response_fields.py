"""The fields of a backend's response that are not for the client (gateway.md 14).  Pure."""

from __future__ import annotations

from ..message import Fields, Head, Pair, has_token

_NEVER_SENT = frozenset({"http2-settings", "x-sendfile", "x-sendfile2"})
_OURS = "x-lighttpd-"
_OLD_SCRIPT, _SCRIPT = "application/javascript", "text/javascript"  # RFC 9239 section 6
_VARIABLE = "variable-"


def presentable(head: Head) -> Head:
    """*head* as a client may see it; the connection's own fields are left to the exchange."""
    switches = head.status == 101
    fields = [
        _modern(pair)
        for pair in head.fields
        if _is_sent(pair[0].lower()) and (switches or pair[0].lower() != "upgrade")
    ]
    return Head(head.status, Fields(fields), head.length)


def _is_sent(name: str) -> bool:
    return name not in _NEVER_SENT and not name.startswith(_OURS)


def _modern(pair: Pair) -> Pair:
    name, value = pair
    if value.startswith(_OLD_SCRIPT) and name.lower() == "content-type":
        return name, _SCRIPT + value[len(_OLD_SCRIPT) :]
    return pair


def closes(head: Head) -> bool:
    """Whether the program wants the client's connection closed behind its response."""
    return has_token(head.fields.get("connection"), "close")


def variables(head: Head) -> tuple[Pair, ...]:
    """What an authorizer that approves wants later programs to know (FastCGI 1.0 section 6.3)."""
    return tuple(
        (name[len(_VARIABLE) :], value)
        for name, value in head.fields
        if name.lower().startswith(_VARIABLE) and len(name) > len(_VARIABLE)
    )
