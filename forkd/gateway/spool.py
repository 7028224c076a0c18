"""Bytes that wait to be sent: the first of them in memory, the rest in temporary files.

The files have no name, so that none is left whatever happens.  They are written and read by the
worker itself, without waiting: they are the system's cache far more than its disk.
"""

from __future__ import annotations

import logging
import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from types import TracebackType
from typing import IO

from ..config.model import ServerSettings
from ..errors import ForkdError
from ..http.exchange import Exchange
from ..protocol.tunnel import Buffer

log = logging.getLogger(__name__)

MEMORY = 64 * 1024  # bytes; as lighttpd
PIECE = 64 * 1024  # bytes that are read from a file at a time


class _File:
    """One temporary file, which holds the bytes from *start* on, at most *room*."""

    __slots__ = ("file", "room", "size", "start")

    def __init__(self, file: IO[bytes], start: int, room: int) -> None:
        self.file = file
        self.start = start
        self.room = room
        self.size = 0


def _unnamed_file(folder: str) -> IO[bytes]:
    return tempfile.TemporaryFile(buffering=0, prefix="forkd-", dir=folder)


class Spool:
    """Bytes by their position, from 0 to ``size``.  A context manager that gives the files back.

    ``append`` raises ForkdError when no folder has room for more.
    """

    def __init__(
        self, folders: tuple[str, ...], file_size: int, in_memory: int = MEMORY
    ) -> None:
        """*folders* are tried in turn.  A file takes *file_size* bytes, or as many as those that
        there are already: so their number stays small however much there is, as each of them has
        its descriptor."""
        self.size = 0
        self._folders = folders
        self._folder = 0
        self._file_size = max(file_size, 1)
        self._in_memory = in_memory
        self._memory = bytearray()
        self._files: list[_File] = []

    @classmethod
    def of(cls, server: ServerSettings) -> Spool:
        return cls(server.upload_dirs, server.upload_temp_file_size)

    @property
    def is_in_memory(self) -> bool:
        return not self._files

    def append(self, data: Buffer) -> None:
        if not self._files and self.size + len(data) <= self._in_memory:
            self._memory += data
            self.size += len(data)
            return
        view = memoryview(data)
        while view:
            view = view[self._store(view) :]

    def _store(self, view: memoryview) -> int:
        """Bytes of *view* that have gone into a file."""
        file = self._files[-1] if self._files else None
        if file is None or file.size >= file.room:
            file = self._new_file()
        try:
            count = os.write(file.file.fileno(), view[: file.room - file.size])
        except OSError as error:
            self._give_folder_up(error)
            self._new_file()
            return 0
        file.size += count
        self.size += count
        return count

    def _new_file(self) -> _File:
        while True:
            if self._folder >= len(self._folders):
                raise ForkdError("server.upload-dirs: no folder has room")
            try:
                made = _unnamed_file(self._folders[self._folder])
            except OSError as error:
                self._give_folder_up(error)
                continue
            in_files = self.size - self._files[0].start if self._files else 0
            file = _File(made, self.size, max(self._file_size, in_files))
            self._files.append(file)
            return file

    def _give_folder_up(self, error: OSError) -> None:
        log.warning("server.upload-dirs: %s: %s", self._folders[self._folder], error.strerror)
        self._folder += 1

    def read(self, start: int, length: int) -> bytes:
        """At most *length* bytes from *start* on, fewer where a file ends; none at the end."""
        if start < len(self._memory):
            return bytes(self._memory[start : start + length])
        found = self._file_at(start)
        if found is None:
            return b""
        offset = start - found.start
        return os.pread(found.file.fileno(), min(length, found.size - offset), offset)

    def _file_at(self, position: int) -> _File | None:
        index = bisect_right(self._files, position, key=lambda file: file.start) - 1
        if index < 0 or position >= self._files[index].start + self._files[index].size:
            return None
        return self._files[index]

    def pieces(self) -> Iterator[bytes]:
        """All bytes, in order."""
        start = 0
        while start < self.size:
            piece = self.read(start, PIECE)
            start += len(piece)
            yield piece

    def send(self, exchange: Exchange, start: int, length: int) -> None:
        """*length* bytes from *start* on as body of the response."""
        end = start + length
        while start < end:
            found = self._file_at(start)
            if found is None:
                piece = self.read(start, end - start)
                exchange.write(piece)
                start += len(piece)
            else:
                offset = start - found.start
                count = min(end - start, found.size - offset)
                exchange.send_file(found.file.fileno(), offset, count)
                start += count

    def forget(self, end: int) -> None:
        """Nobody will ask for bytes before *end* again; at the end all begins anew, from 0."""
        if end >= self.size:
            self.close()
            return
        while self._files and self._files[0].start + self._files[0].size <= end:
            self._files.pop(0).file.close()

    def close(self) -> None:
        for file in self._files:
            file.file.close()
        self._files.clear()
        self._memory.clear()
        self.size = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
