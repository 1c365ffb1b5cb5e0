"""A lock that is lent for a while: for stores whose holders may die, or lose the network, without a word.

1. A lease ends by itself, so that nobody waits for the dead; it outlives one exchange, and no more.
2. Its holder asks before each request whether it will certainly last for it: by the monotonic *and* the wall clock,
   counted from before it was asked for, since one of them stands still while the machine sleeps. If not, it is
   lengthened; that fails if anybody else has had it meanwhile.
3. Whoever asks again for what he holds gets it: an answer may have been lost. A lease whose loan was not confirmed, or
   that could not be given back, is asked for again under the same name.
4. A busy lock and a lock that cannot be reached are two things: StoreBusy and StoreUnavailable.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from unbroken.client.core.record import Lease
from unbroken.errors import StoreBusy, StoreUnavailable

__all__ = ["LEASE_SECONDS", "LeaseLock"]

LEASE_SECONDS = 20.0  # seconds; one exchange takes ten at most


class LeaseStore(Protocol):
    """The four questions to a store. Each raises StoreUnavailable when it cannot be reached."""

    lease: float

    def take_lease(self, holder: str) -> bool:
        """Lends the lock to *holder*, if nobody else has it now."""

    def extend_lease(self, holder: str) -> bool:
        """Lends it for another while, if *holder* was the last to have it."""

    def release_lease(self, holder: str) -> object:
        """Frees it, if *holder* has it."""


class LeaseLock:
    """Lends the lock of one store."""

    def __init__(self, lock: LeaseStore) -> None:
        self._lock = lock
        self._owed: list[tuple[int, str]] = []  # process and name of holders that may still have the lock

    @contextmanager
    def acquire(self, timeout: float) -> Iterator[Lease]:
        """Holds the lock. Raises StoreBusy after *timeout* seconds, StoreUnavailable if it cannot be reached."""
        holder = self._name()
        ends, pause = time.monotonic() + timeout, 0.004
        while True:
            lease = _HeldLease(self._lock, holder)
            if self._take(holder):
                break
            if time.monotonic() >= ends:
                raise StoreBusy(f"the renewal lock stayed busy for {timeout:g} seconds")
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311  # spreads load only
            pause = min(pause * 1.5, 0.1)
        try:
            yield lease
        finally:
            try:
                self._lock.release_lease(holder)
            except StoreUnavailable:
                self._owed.append((os.getpid(), holder))

    def _take(self, holder: str) -> bool:
        try:
            return self._lock.take_lease(holder)
        except StoreUnavailable:  # perhaps only its answer was lost
            self._owed.append((os.getpid(), holder))
            raise

    def _name(self) -> str:
        """A name to ask under: one that may still have the lock, if there is one; never that of a parent process."""
        with suppress(IndexError):
            while True:
                process, name = self._owed.pop()
                if process == os.getpid():
                    return name
        return secrets.token_hex(8)


class _HeldLease:
    """A lease that was asked for just now."""

    def __init__(self, lock: LeaseStore, holder: str) -> None:
        self._lock, self._holder = lock, holder
        self._mono, self._wall = self._from_now()

    def _from_now(self) -> tuple[float, float]:
        return time.monotonic() + self._lock.lease, time.time() + self._lock.lease

    def is_held(self, seconds: float) -> bool:
        if time.monotonic() + seconds < self._mono and time.time() + seconds < self._wall:
            return True
        until = self._from_now()
        if seconds >= self._lock.lease or not self._lock.extend_lease(self._holder):
            return False
        self._mono, self._wall = until
        return True
