"""What ``ps`` shows, and whether some process is one of ours by that."""

from __future__ import annotations

from pathlib import Path

import setproctitle

PREFIX = "forkd: "


def set_title(text: str) -> None:
    """Show this process as ``forkd: text``."""
    setproctitle.setproctitle(PREFIX + text)


def is_forkd(pid: int) -> bool:
    """True when *pid* lives and calls itself forkd."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(PREFIX.encode())
    except OSError:
        return False
