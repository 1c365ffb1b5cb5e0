"""Slots for work that takes much memory, shared by all processes of one user on one machine.

1. As many hashes as the machine has cores are computed at once, however many workers a server has: each takes 64 MiB.
2. A slot is a lock on a file, and belongs to the process that locks it: the kernel frees the slot of a process that
   dies, and a forked child holds none. Within a process each slot is used by one thread.
3. The files are in a folder of this user's, which no other user may write to. No link is followed. Where there is no
   such folder, or no such lock (Windows), the slots are those of the process.
4. Who is preferred (``worker_pool``) looks for a free slot more often than the others.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from unbroken._concurrency import register_fork_aware
from unbroken._private_files import machine_folder
from unbroken.errors import TryLater
from unbroken.server.worker_pool import CORES, is_preferred

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["HASH_SLOTS", "MachineSlots"]

_log = logging.getLogger("unbroken")
MAX_WAIT_SECONDS = 20.0  # longer than the queue of a worker pool: a process that holds a slot was stopped
POLL_SECONDS = 0.005
PREFERRED_POLL_SECONDS = 0.001  # rule 4
FILE_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class MachineSlots:
    """*count* slots called *name*. *folder* is made if it is missing; None: a folder in that for temporary files."""

    def __init__(self, name: str, count: int, folder: str | None = None) -> None:
        self._name, self._count, self._folder = name, count, folder
        self._has_warned = False
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        self._guard = threading.Lock()
        self._used: set[int] = set()  # by threads of this process

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot within the block. Raise TryLater if none gets free."""
        number, file = self._acquire()
        try:
            yield
        finally:
            if file is not None:
                os.close(file)  # unlocks it
            with self._guard:
                self._used.discard(number)

    def _acquire(self) -> tuple[int, int | None]:
        """Return the number of a slot and its file, locked; None for the file where there are none (rule 3)."""
        folder, give_up_at = self._usable_folder(), time.monotonic() + MAX_WAIT_SECONDS
        pause = PREFERRED_POLL_SECONDS if is_preferred() else POLL_SECONDS
        while time.monotonic() < give_up_at:
            for number in range(self._count):
                found = self._try(number, folder)
                if found is not None:
                    return found
            time.sleep(pause)
        raise TryLater("too many at once", retry_after=1.0)

    def _try(self, number: int, folder: str | None) -> tuple[int, int | None] | None:
        with self._guard:
            if number in self._used:
                return None
            self._used.add(number)  # rule 2: closing a file ends all locks that this process has on it
        try:
            return number, self._lock(number, folder) if folder else None
        except BlockingIOError:  # another process holds it
            with self._guard:
                self._used.discard(number)
            return None
        except OSError as error:
            self._warn(error)
            return number, None  # rule 3

    def _lock(self, number: int, folder: str) -> int:
        """Return the open file of slot *number*, locked. Raise BlockingIOError if another process holds it."""
        file = os.open(os.path.join(folder, f"{self._name}-{number}"), FILE_FLAGS, 0o600)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise BlockingIOError(*error.args) if error.errno == errno.EACCES else error from None
        return file

    def _usable_folder(self) -> str | None:
        """Return the folder of the files; None if there is none that only this user may write to (rule 3)."""
        if fcntl is None:
            return None
        try:
            return machine_folder(self._folder)
        except OSError as error:
            self._warn(error)
            return None

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            _log.warning("each process counts its password hashes on its own: no lock files (%s)", error.strerror)
        self._has_warned = True


HASH_SLOTS = MachineSlots("hash", CORES)
