"""A lock that expires: for stores whose lock holders may crash, or lose the network, without releasing it.

1. A lease expires by itself, so that a crashed holder blocks the others for a while only; it outlives one refresh.
2. Its holder checks before each request that the lease certainly lasts for it: by the monotonic *and* the wall clock,
   counted from before the lease was requested, because one of them stands still while the machine sleeps. If it does
   not last, the holder extends it, which fails if another has had it meanwhile.
3. A holder that requests a lease which it already has gets it again. So after a lost response to a grant or a release,
   the same holder name is used for the next request.
4. A busy lock and a lock that cannot be reached are two errors: StoreBusy and StoreUnavailable.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from unbroken.client.stores.base import Lease
from unbroken.errors import StoreBusy, StoreUnavailable

__all__ = ["LEASE_SECONDS", "LeaseLock"]

LEASE_SECONDS = 20.0  # a refresh request takes ten at most
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.004, 0.1


class LeaseStore(Protocol):
    """The store of a lease. Each method raises StoreUnavailable if the store cannot be reached."""

    lease: float  # seconds

    def take_lease(self, holder: str) -> bool:
        """Give the lease to *holder*, if no other has it now; return whether *holder* has it."""

    def extend_lease(self, holder: str) -> bool:
        """Extend the lease, if *holder* was the last to have it; return whether it was."""

    def release_lease(self, holder: str) -> object:
        """Release the lease, if *holder* has it."""


class LeaseLock:
    """The lock of one store, by leases."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self._unreleased: list[tuple[int, str]] = []  # process id and name of holders that may still have the lease

    @contextmanager
    def acquire(self, timeout: float) -> Iterator[Lease]:
        """Hold the lock. Raise StoreBusy after *timeout* seconds, StoreUnavailable if it cannot be reached (rule 4)."""
        holder = self._holder_name()
        ends, pause = time.monotonic() + timeout, FIRST_PAUSE_SECONDS
        while True:
            lease = _HeldLease(self._store, holder)  # before the request: rule 2
            if self._take(holder):
                break
            if time.monotonic() >= ends:
                raise StoreBusy(f"the lock of the store stayed busy for {timeout:g} seconds")
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311  # spreads load only
            pause = min(pause * 1.5, MAX_PAUSE_SECONDS)
        try:
            yield lease
        finally:
            try:
                self._store.release_lease(holder)
            except StoreUnavailable:
                self._unreleased.append((os.getpid(), holder))  # rule 3

    def _take(self, holder: str) -> bool:
        try:
            return self._store.take_lease(holder)
        except StoreUnavailable:  # perhaps only the response was lost
            self._unreleased.append((os.getpid(), holder))  # rule 3
            raise

    def _holder_name(self) -> str:
        """Return a name that may still have the lease, or else a new one; never that of a parent process."""
        with suppress(IndexError):
            while True:
                process, name = self._unreleased.pop()
                if process == os.getpid():
                    return name
        return secrets.token_hex(8)


class _HeldLease:
    """A lease that has just been requested."""

    def __init__(self, store: LeaseStore, holder: str) -> None:
        self._store, self._holder = store, holder
        self._ends_monotonic, self._ends_wall = self._ends_from_now()

    def _ends_from_now(self) -> tuple[float, float]:
        return time.monotonic() + self._store.lease, time.time() + self._store.lease

    def is_held(self, seconds: float) -> bool:
        if time.monotonic() + seconds < self._ends_monotonic and time.time() + seconds < self._ends_wall:
            return True
        ends = self._ends_from_now()
        if seconds >= self._store.lease or not self._store.extend_lease(self._holder):
            return False
        self._ends_monotonic, self._ends_wall = ends
        return True
