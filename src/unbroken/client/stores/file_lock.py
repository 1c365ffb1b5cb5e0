"""A lock between the processes of one machine: ``flock`` on a file that is never deleted.

1. A waiter on a deleted file would hold another lock than the next one to come: so the file stays.
2. The operating system frees the lock when its holder dies. A child that was forked meanwhile holds a copy of the
   descriptor: it lets go of it at once, and the holder unlocks by name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from unbroken._fork import register_fork_aware
from unbroken.errors import ConfigurationError, StoreBusy, StoreUnavailable

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # its absence is checked by require_flock

__all__ = ["file_lock", "require_flock"]


def require_flock(what: str) -> None:
    """Raises ConfigurationError where the system has no ``flock``."""
    if fcntl is None:
        raise ConfigurationError(f"{what} needs a POSIX system; use another store here")


@contextmanager
def file_lock(name: str, timeout: float) -> Iterator[None]:
    """Holds the lock file *name*. Raises StoreBusy after *timeout* seconds, StoreUnavailable if it cannot be opened."""
    try:
        held = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"the lock file {name} cannot be opened: {error.strerror}") from error
    _held.all.add(held)
    try:
        _wait_for(held, name, timeout)
        yield
    finally:
        if held in _held.all:  # in a child that was forked meanwhile it is closed already
            _held.all.discard(held)
            fcntl.flock(held, fcntl.LOCK_UN)
            os.close(held)


def _wait_for(held: int, name: str, timeout: float) -> None:
    """Polls, because a blocking flock cannot be given up; the pauses grow from 1 to 50 milliseconds."""
    ends, pause = time.monotonic() + timeout, 0.001
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise StoreBusy(f"the lock {name} stayed busy for {timeout:g} seconds") from None
        except OSError as error:
            raise StoreUnavailable(f"the lock {name} cannot be taken: {error.strerror}") from error
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


class _HeldDescriptors:
    """The descriptors of the locks that this process holds or waits for."""

    def __init__(self) -> None:
        self.all: set[int] = set()

    def reset_after_fork(self) -> None:
        for descriptor in self.all:
            os.close(descriptor)  # rule 2: the child's copy
        self.all.clear()


_held = _HeldDescriptors()
register_fork_aware(_held)
