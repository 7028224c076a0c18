"""What a configuration names outside itself: users, folders, programs (config.md 15.8)."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator, Mapping

from .backend import BackendSpec
from .diagnostics import Findings, quoted, source_line
from .model import Diagnostic, ServerSettings
from .tree import Place, Setting

ROOT = 0


def check_identity(settings: Mapping[str, Setting], findings: Findings) -> None:
    """server.username and server.groupname: they exist and are not root's (admin.md 5)."""
    user, group = _name(settings, "server.username"), _name(settings, "server.groupname")
    if group:
        _check_group("server.groupname", group, settings["server.groupname"].place, findings)
    if user:
        place = settings["server.username"].place
        _check_user("server.username", user, place, bool(group), findings)


def _name(settings: Mapping[str, Setting], directive: str) -> str:
    setting = settings.get(directive)
    return setting.value if setting and isinstance(setting.value, str) else ""


def _check_user(
    subject: str, name: str, place: Place, group_is_given: bool, findings: Findings
) -> None:
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        findings.error(place, f"{subject}: no user {quoted(name)}")
        return
    if entry.pw_uid == ROOT or (entry.pw_gid == ROOT and not group_is_given):
        findings.error(place, f"{subject}: {quoted(name)} is root; give another user")


def _check_group(subject: str, name: str, place: Place, findings: Findings) -> None:
    try:
        entry = grp.getgrnam(name)
    except (KeyError, ValueError):
        findings.error(place, f"{subject}: no group {quoted(name)}")
        return
    if entry.gr_gid == ROOT:
        findings.error(place, f"{subject}: {quoted(name)} is root's; give another group")


def check_chroot(folder: str, place: Place, findings: Findings) -> None:
    if folder and not os.path.isdir(folder):
        findings.error(place, f"server.chroot: there is no folder {quoted(folder)}")


def check_folder(
    name: str, folder: str | bytes, chroot: str, place: Place, findings: Findings
) -> None:
    """Warn when directive *name* points to a *folder* that does not exist or is none."""
    path = os.path.join(chroot, os.fsdecode(folder).lstrip("/")) if chroot else os.fsdecode(folder)
    if chroot and not os.path.isdir(chroot):
        return  # reported as such
    if not os.path.exists(path):
        findings.warning(place, f"{name}: folder {quoted(path)} does not exist")
    elif not os.path.isdir(path):
        findings.warning(place, f"{name}: {quoted(path)} is not a folder")


def check_hosts(
    backends: Mapping[BackendSpec, Place], server: ServerSettings, findings: Findings
) -> None:
    """What host options name: users as for the server's own, a folder."""
    for backend, place in backends.items():
        subject = f'{backend.gateway}.server: "{backend.key}"'
        if backend.group:
            _check_group(f'{subject}: "group"', backend.group, place, findings)
        if backend.user:
            _check_user(f'{subject}: "user"', backend.user, place, bool(backend.group), findings)
        if backend.group and not (backend.user or server.username):
            text = f'{subject}: "group" without "user" or server.username: root would refuse it'
            findings.warning(place, text)
        if backend.cwd:
            check_folder(f'{subject}: "cwd"', backend.cwd, server.chroot, place, findings)


def missing_programs(
    backends: Mapping[BackendSpec, Place], sources: Mapping[str, str]
) -> Iterator[Diagnostic]:
    """An error for every bin-path that cannot be started."""
    for backend, place in backends.items():
        reason = _why_not_executable(backend.bin_path[0]) if backend.is_spawned else ""
        if reason:
            text = f'{backend.gateway}.server: "{backend.key}": bin-path {reason}'
            source = source_line(sources.get(place.file, ""), place.line)
            yield Diagnostic(
                "error", place.file, place.line, place.column, text, source, "missing-program"
            )


def _why_not_executable(program: str) -> str:
    if not os.path.exists(program):
        return f"{quoted(program)} does not exist"
    if not os.path.isfile(program):
        return f"{quoted(program)} is not a file"
    return "" if os.access(program, os.X_OK) else f"{quoted(program)} is not executable"
