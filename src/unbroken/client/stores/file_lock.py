"""A lock between the processes of one machine: ``flock`` on a file that is never deleted.

1. The file is never deleted: a process that waits on a deleted file and one that creates it anew would hold two locks.
2. The operating system releases the lock when its holder dies. A forked child has a copy of the descriptor, which would
   keep the lock: it closes the copy at once, and the holder unlocks explicitly.
3. Nobody else may have put the file there (``_private_files.py``): a link in its place would be followed as this user.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbroken._fork import register_fork_aware
from unbroken._private_files import open_private
from unbroken.errors import ConfigurationError, StoreBusy, StoreUnavailable

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # require_flock checks for it

__all__ = ["file_lock", "has_flock", "locked_file", "require_flock"]

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.001, 0.05


def has_flock() -> bool:
    """Return whether the system has ``flock``."""
    return fcntl is not None


def require_flock(what: str) -> None:
    """Raise ConfigurationError if the system has no ``flock``."""
    if fcntl is None:
        raise ConfigurationError(f"{what} needs a POSIX system; use another store here")


@contextmanager
def file_lock(path: str, timeout: float) -> Iterator[None]:
    """Hold the lock file at *path*. Raise StoreBusy after *timeout* seconds, StoreUnavailable if it cannot open.

    Raise ConfigurationError if another user may have put it there (rule 3).
    """
    with locked_file(path, timeout):
        yield


@contextmanager
def locked_file(path: str, timeout: float) -> Iterator[int]:
    """Hold the lock file as ``file_lock`` does, and give its descriptor."""
    try:
        descriptor = open_private(Path(path), os.O_RDWR | os.O_CREAT, "the lock file")
    except OSError as error:
        raise StoreUnavailable(f"the lock file {path} cannot be opened: {error.strerror}") from error
    _descriptors.all.add(descriptor)
    try:
        _acquire(descriptor, path, timeout)
        yield descriptor
    finally:
        if descriptor in _descriptors.all:  # a child that was forked in the block has closed it
            _descriptors.all.discard(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # rule 2
            os.close(descriptor)


def _acquire(descriptor: int, path: str, timeout: float) -> None:
    """Poll for the lock, with growing pauses: a blocking flock cannot be given up."""
    ends, pause = time.monotonic() + timeout, FIRST_PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise StoreBusy(f"the lock {path} stayed busy for {timeout:g} seconds") from None
        except OSError as error:
            raise StoreUnavailable(f"the lock {path} cannot be taken: {error.strerror}") from error
        time.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


class _Descriptors:
    """The descriptors of the locks that this process holds or waits for."""

    def __init__(self) -> None:
        self.all: set[int] = set()

    def reset_after_fork(self) -> None:
        for descriptor in self.all:
            os.close(descriptor)  # rule 2
        self.all.clear()


_descriptors = _Descriptors()
register_fork_aware(_descriptors)
