"""The suspicion that line breaks were lost (config.md 13.4).

A configuration copied onto one line is cut off at its first comment.  Nothing is guessed back; a
comment that seems to have swallowed configuration is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .lexer import Comment

_MANY_NAMES = 4
"""So many are named before the dots."""
_SCANNER = re.compile(
    r"""
      (?P<key>        " (?: \\" | [^"] )*+ " ) (?= [ \t]* => )
    | (?P<string>     " (?: \\" | [^"] )*+ " )
    | (?P<assignment> [A-Za-z_][A-Za-z0-9_-]* (?: \. [A-Za-z0-9_-]+ )+ )
                      (?= [ \t]* (?: [:+]= | = (?! [=>~^$] ) ) )
    | (?P<condition>  \$ [A-Za-z_]+ (?= [ \t]* \[ ) )
    | [A-Za-z0-9._-]+
    | .
    """,
    re.VERBOSE | re.DOTALL,
)


def suspicion(comment: Comment) -> str | None:
    """The warning that *comment* earns, or None when it is what it seems to be."""
    if not comment.behind_code:
        return None
    names = swallowed(comment)
    if not names:
        return None
    shown = ", ".join(names[:_MANY_NAMES]) + (", ..." if len(names) > _MANY_NAMES else "")
    return f"line breaks seem to be lost: the comment holds what looks like configuration ({shown})"


def swallowed(comment: Comment) -> tuple[str, ...]:
    """What looks like configuration in *comment*, or nothing.

    One assignment alone is a commented-out statement; a condition, or inside parentheses one
    element with a key, is enough.
    """
    found = list(_names(comment))
    kinds = [kind for kind, _ in found]
    if kinds.count("assignment") >= 2 or "condition" in kinds or "key" in kinds:
        return tuple(dict.fromkeys(name for _, name in found))
    return ()


def _names(comment: Comment) -> Iterator[tuple[str, str]]:
    for match in _SCANNER.finditer(comment.text):
        kind = match.lastgroup
        if kind in ("assignment", "condition") or (kind == "key" and comment.in_list):
            yield str(kind), match.group()
