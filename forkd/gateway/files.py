"""Files under a base folder: found and opened once (core.md 10.2).

What is checked is what is sent: everything is asked of the open descriptor, not of the name.  A
fifo or a device neither blocks nor is read.
"""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType

from ..errors import Forbidden, ForkdError, NotFound
from ..http.exchange import Exchange
from ..message import os_path

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_CLOEXEC  # needs no permission on the file itself

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.ENXIO}  # ENXIO: a socket, or a device without driver
_PERHAPS_PATH_INFO = {errno.ENOTDIR, errno.ENAMETOOLONG}


class OpenFile:
    """A regular file or a folder, open; a context manager that closes it."""

    __slots__ = ("fd", "is_folder", "path", "path_info", "status")

    def __init__(self, path: str, fd: int, status: os.stat_result) -> None:
        self.path = path
        self.fd = fd
        self.status = status
        self.is_folder = stat.S_ISDIR(status.st_mode)
        self.path_info = ""
        """What followed the file's name in the path that was looked up; begins with a slash."""

    @property
    def size(self) -> int:
        return self.status.st_size

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self.fd, length, start)

    def send(self, exchange: Exchange, start: int, length: int) -> None:
        exchange.send_file(self.fd, start, length)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def lookup(base: str, path: str, follow_symlink: bool, path_info: bool = True) -> OpenFile:
    """The file or folder at *path*, which begins with *base*; the caller closes it.

    When a regular file stands in the middle of *path*, and *path_info* is true, that file is found
    and the rest is its path info.  Raises NotFound; Forbidden for lack of permission, for what is
    neither file nor folder, and without *follow_symlink* for a symlink anywhere in the path.
    """
    try:
        return _open(path, follow_symlink)
    except OSError as error:
        if path_info and error.errno in _PERHAPS_PATH_INFO:
            return _open_prefix(base, path, follow_symlink)
        raise _refusal(path, error) from None


def is_regular(path: str) -> bool:
    """Whether a regular file is at *path*, symlinks followed."""
    try:
        return stat.S_ISREG(os.stat(os_path(path)).st_mode)
    except (OSError, ValueError):
        return False


def _open(path: str, follow_symlink: bool) -> OpenFile:
    """Raises OSError, Forbidden."""
    fd = _descriptor(path, follow_symlink)
    try:
        status = os.fstat(fd)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise Forbidden(f"{path}: neither file nor folder")
    except BaseException:
        os.close(fd)
        raise
    return OpenFile(path, fd, status)


def _descriptor(path: str, follow_symlink: bool) -> int:
    name = os_path(path)
    try:
        return os.open(name, _READ) if follow_symlink else _open_without_symlinks(name, _READ)
    except PermissionError:
        # A folder that may be searched but not listed still serves its files.
        folder = _LOOK | os.O_DIRECTORY
        try:
            return os.open(name, folder) if follow_symlink else _open_without_symlinks(name, folder)
        except NotADirectoryError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _open_without_symlinks(name: bytes, flags: int) -> int:
    """Open *name* component by component, so that none can be a symlink.  Raises Forbidden."""
    *parents, last = [part for part in name.split(b"/") if part not in (b"", b".")] or [b"."]
    if name.endswith((b"/", b"/.")):
        flags |= os.O_DIRECTORY
    fd = os.open(b"/" if name.startswith(b"/") else b".", _LOOK | os.O_DIRECTORY)
    try:
        for part in parents:
            below = os.open(part, _LOOK | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise Forbidden(f"{os.fsdecode(name)}: {os.fsdecode(part)} is a symlink")
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=fd)
    except OSError as error:
        if _is_symlink(last, fd, error):
            raise Forbidden(f"{os.fsdecode(name)}: symlink") from None
        raise
    finally:
        os.close(fd)


def _is_symlink(name: bytes, folder: int, error: OSError) -> bool:
    """Whether O_NOFOLLOW is why *name* would not open: ELOOP, or ENOTDIR when a folder was asked
    for."""
    if error.errno not in (errno.ELOOP, errno.ENOTDIR):
        return False
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISLNK(found.st_mode)


def _open_prefix(base: str, path: str, follow_symlink: bool) -> OpenFile:
    """The regular file that *path* runs through.

    From the base down: the first that is no folder decides, so that a path of a thousand slashes
    costs no more than the tree is deep.
    """
    end = path.find("/", len(base.rstrip("/")))
    while end > 0:
        try:
            found = _open(path[:end], follow_symlink)
        except OSError as error:
            raise _refusal(path, error) from None
        if not found.is_folder:
            found.path_info = path[end:]
            return found
        found.close()
        end = path.find("/", end + 1)
    raise NotFound(path)


def _refusal(path: str, error: OSError) -> ForkdError:
    if error.errno in _MISSING:
        return NotFound(path)
    if error.errno in _FORBIDDEN:
        return Forbidden(f"{path}: {error.strerror}")
    return ForkdError(f"{path}: {error.strerror}")
