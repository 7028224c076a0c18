"""Why something could not be started: system errors as what an admin is told."""

from __future__ import annotations

import errno
import os

from ..errors import StartError

NO_PERMISSION = 4  # exit codes of forkd(8)
NOT_INSTALLED = 5
BAD_CONFIG = 6


class AddressInUse(StartError):
    """Somebody listens there; a server that is just dying, perhaps."""


def cause(error: OSError) -> str:
    """What went wrong, with the file where the error names one."""
    text = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {text}" if error.filename else text


def cannot_listen(address: str, error: OSError) -> StartError:
    """A listening socket at *address* could not be made."""
    text = f"cannot listen on {address}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(text)
    return StartError(text, NO_PERMISSION if error.errno in (errno.EACCES, errno.EPERM) else 1)


def cannot_execute(subject: str, error: OSError) -> StartError:
    """A backend's program could not be executed."""
    code = NO_PERMISSION if error.errno == errno.EPERM else NOT_INSTALLED
    return StartError(f"{subject}: cannot start: {cause(error)}", code)
