"""A new configuration, loaded in a process of its own.

Loading may run programs (include_shell), ask for names and wait for slow disks: the master's loop
waits for none of them.  The configuration comes back pickled.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterable

from ..config.model import Config
from ..errors import ConfigError, StartError
from ..unix import fork
from ..unix.reap import Reaper, kill_group
from .failure import BAD_CONFIG
from .loop import Loop

TIME_LIMIT = 30.0  # seconds

Result = Config | StartError

log = logging.getLogger(__name__)


class Loading:
    """One load.  *on_result* is called once, unless ``cancel`` comes first.

    The child keeps the descriptors *keep*: the logs.
    """

    def __init__(
        self,
        load: Callable[[], Config],
        loop: Loop,
        reaper: Reaper,
        on_result: Callable[[Result], None],
        keep: Iterable[int] = (),
    ) -> None:
        """Raises OSError when no process can be had."""
        self._loop = loop
        self._on_result = on_result
        self._data = bytearray()
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        try:
            self._pid = fork.fork(lambda: _load(load, writer), (writer, *keep))
        except OSError:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
        reaper.add(self._pid, self._exited)
        loop.watch(self._reader, self._readable)
        self._timer = loop.call_later(TIME_LIMIT, self._too_late)

    def cancel(self) -> None:
        """Nobody wants the result any more."""
        self._on_result = lambda result: None
        self._kill()

    def _readable(self) -> None:
        try:
            data = os.read(self._reader, 1 << 18)
        except BlockingIOError:
            return
        self._data += data
        if not data:
            self._finish(_unpack(bytes(self._data)))

    def _exited(self, status: int) -> None:
        self._pid = 0

    def _too_late(self) -> None:
        self._kill()
        self._finish(StartError(f"the configuration was not loaded within {TIME_LIMIT:g} s"))

    def _kill(self) -> None:
        if self._pid:
            kill_group(self._pid, signal.SIGKILL)  # it leads a session: what it started goes too

    def _finish(self, result: Result) -> None:
        self._timer.cancel()
        if self._reader >= 0:
            self._loop.unwatch(self._reader)
            os.close(self._reader)
            self._reader = -1
            self._on_result(result)


def _load(load: Callable[[], Config], writer: int) -> int:
    """In the child: the result, or the reason for none, into the pipe."""
    try:
        answer = b"C" + pickle.dumps(load())
    except ConfigError as error:
        answer = b"E%d " % BAD_CONFIG + str(error).encode("utf-8", "surrogateescape")
    except StartError as error:
        answer = b"E%d " % error.exit_code + str(error).encode("utf-8", "surrogateescape")
    with open(writer, "wb") as pipe:
        pipe.write(answer)
    return 0


def _unpack(answer: bytes) -> Result:
    if answer.startswith(b"E"):
        code, _, text = answer[1:].decode("utf-8", "surrogateescape").partition(" ")
        return StartError(text, int(code))
    try:
        config: Config = pickle.loads(answer.removeprefix(b"C"))
    except Exception:  # nothing came, or not all: the process has failed, or was killed
        return StartError("loading the configuration failed; the error log says why")
    return config
