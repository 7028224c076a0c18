"""Whom a process runs as: look a user up, become it for good; limits that go with a process."""

from __future__ import annotations

import grp
import os
import pwd
import resource
from dataclasses import dataclass

FD_CEILING = 1 << 20  # lighttpd's bound for server.max-fds


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to become: a plain one; root only where a group was named without a user."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def drop(self) -> None:
        """Become this user for good, groups first.  Raises OSError.

        Only root can: whoever is this user already stays it.
        """
        if os.geteuid() != 0:
            return
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        if self.uid != 0 and _may_be_root():
            raise PermissionError(f"uid {self.uid} could become root again")


def _may_be_root() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def look_up(username: str, groupname: str) -> Identity | None:
    """Whom to become for ``server.username`` and ``server.groupname``; None for nobody else.

    Raises ValueError when a name is unknown or means root.  Without root's rights the names are
    checked all the same, and mean nothing.
    """
    if not username and not groupname:
        return None
    user = _user(username) if username else None
    gid = _gid(groupname) if groupname else (user.pw_gid if user else os.getgid())
    uid = user.pw_uid if user else os.getuid()
    if (username and uid == 0) or gid == 0:
        raise ValueError(f"{username or groupname!r} is root: the server would run as root")
    if os.geteuid() != 0:
        return None
    groups = os.getgrouplist(username, gid) if username else [gid]
    return Identity(uid, gid, tuple(groups))


def of_program(user: str, group: str, server: Identity | None) -> Identity | None:
    """Whom a program runs as that has a *user* or a *group* of its own; None: as we are.

    *server* is the user of the server, whom it runs as without.  Raises ValueError when a name is
    unknown or means root, PermissionError when only root could become that.
    """
    if not user and not group:
        return server
    if os.geteuid() != 0:
        if (not user or _user(user).pw_uid == os.geteuid()) and (
            not group or _gid(group) == os.getegid()
        ):
            return None
        raise PermissionError(f"only root can run a program as {user or group!r}")
    if user:
        return look_up(user, group)
    if server is None:
        raise ValueError(f"group {group!r} without a user: the program would run as root")
    gid = _gid(group)
    if gid == 0:
        raise ValueError(f"{group!r} is root's: the program would run as root")
    return Identity(server.uid, gid, (gid,))


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ValueError(f"no user is named {name!r}") from None


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ValueError(f"no group is named {name!r}") from None


def raise_fd_limit(wanted: int) -> int:
    """Set the limit of open files to *wanted*, or to the hard limit for 0; what it is now.

    At most a million; beyond the hard limit only where the system lets us.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = FD_CEILING if hard == resource.RLIM_INFINITY else hard
    target = min(wanted or hard, FD_CEILING)
    if target > hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, target))
            return target
        except ValueError:  # Python's word for EPERM: not root, or root in a container
            target = hard
    if target != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target


def allow_core_files() -> None:
    """Raise the limit of core files as far as it goes (``server.core-files``)."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
