"""The lock of a store that several hosts share: a lease, which its holder keeps alive.

1. A lease is short, and its holder extends it again and again for as long as it holds the lock. So the lease of a host
   that died is free within two seconds, however long a refresh may take.
2. The processes of one user on one machine take a lock file first (``_private_files.py``), and all of them have one
   holder's name. The operating system frees the file when its holder dies; the next process gets the lease at once.
3. A holder that was stopped for longer than its lease may have lost it. It checks that before each request, by the
   monotonic *and* the wall clock, counted from before the lease was requested: one of them may stand still while the
   machine sleeps, the other may be set. If time has run out it extends the lease, which fails if another holder has had
   it meanwhile.
4. A holder that requests its own lease gets it, because a response may have been lost. Without a lock file, a lease
   whose grant was not confirmed, or that could not be released, is requested again under the same name.
5. A busy lock and a lock that cannot be reached are two errors: StoreBusy and StoreUnavailable.
6. The connections of a process end with it, and a database sees that at once, also on another machine. Where it says
   so, who finds that the connection of the holder has ended cuts the lease to ``seconds_after_connection`` from now. In
   this time a holder that lives, and has lost a connection only, extends its lease twice. So no holder is ever certain
   of its lease for longer than that. Where the store does not say so, the lease alone counts.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, Protocol, runtime_checkable

from unbroken._private_files import has_flock, locked_file, machine_folder
from unbroken._time import Duration, to_seconds
from unbroken.client.core.token_store import Lease
from unbroken.errors import ConfigurationError, StoreBusy, StoreUnavailable

__all__ = [
    "LEASE_SECONDS",
    "Clocks",
    "LeaseLock",
    "LeaseStore",
    "lasts",
    "lease_seconds",
    "machine_lock_path",
    "seconds_after_connection",
]

LEASE_SECONDS = 1.8
MIN_LEASE_SECONDS = 1.0
BEATS_PER_LEASE = 6
SHARE_AFTER_CONNECTION = 0.4  # of a lease: two beats, and some time for the second to arrive
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.004, 0.1
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class LeaseStore(Protocol):
    """The store of a lease. Each method raises StoreUnavailable if the store cannot be reached."""

    lease: float  # seconds

    def take_lease(self, holder: str) -> bool:
        """Give the lease to *holder*, if no other has it now; return whether *holder* has it."""

    def extend_lease(self, holder: str) -> bool:
        """Extend the lease, if *holder* was the last to have it; return whether it was."""

    def release_lease(self, holder: str) -> object:
        """Release the lease, if *holder* has it."""


@runtime_checkable
class ConnectedLeaseStore(LeaseStore, Protocol):
    """A store that needs a connection of its own to see when the process of a holder ends (rule 6)."""

    def connect_holder(self, holder: str) -> object:
        """Open a connection that lasts until the lease of *holder* is released. Must not raise."""


def seconds_after_connection(lease: float) -> float:
    """Return for how long a *lease* holds after the connection of its holder was found to have ended (rule 6)."""
    return lease * SHARE_AFTER_CONNECTION


def lease_seconds(lease: Duration) -> float:
    """Return the seconds of *lease*. Raise ConfigurationError if it is too short to be kept alive."""
    seconds = to_seconds("lease", lease)
    if seconds < MIN_LEASE_SECONDS:
        raise ConfigurationError(f"a lease of {seconds:g} seconds is too short: {MIN_LEASE_SECONDS:g} or more")
    return seconds


def machine_lock_path(*identity: str) -> str | None:
    """Return the lock file of this user on this machine for the store that *identity* names, without secrets.

    Return None where there can be none: the lease alone excludes others there, and that of a dead process expires.
    """
    if not has_flock():
        return None
    try:
        folder = machine_folder()
    except OSError:
        return None
    return os.path.join(folder, hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32])


class LeaseLock:
    """The lock of one store, by leases. *machine_lock* is the path of the lock file of rule 2."""

    def __init__(self, store: LeaseStore, machine_lock: str | None = None) -> None:
        self._store, self._machine_lock = store, machine_lock
        self._unreleased: list[tuple[int, str]] = []  # process id and name of holders that may still have the lease

    @contextmanager
    def acquire(self, timeout: float) -> Iterator[Lease]:
        """Hold the lock. Raise StoreBusy after *timeout* seconds, StoreUnavailable if it cannot be reached (rule 5)."""
        ends = time.monotonic() + timeout
        with ExitStack() as machine:
            if self._machine_lock is None:
                holder = self._process_name()
            else:
                holder = _machine_name(machine.enter_context(locked_file(self._machine_lock, timeout)))  # rule 2
            lease = self._take(holder, timeout, ends)
            beating = threading.Thread(target=lease.keep_alive, name="unbroken-lease", daemon=True)
            beating.start()  # rule 1
            try:
                if isinstance(self._store, ConnectedLeaseStore):
                    self._store.connect_holder(holder)  # rule 6
                yield lease
            finally:
                lease.released.set()
                self._release(holder)

    def _take(self, holder: str, timeout: float, ends: float) -> _HeldLease:
        pause = FIRST_PAUSE_SECONDS
        while True:
            lease = _HeldLease(self._store, holder)  # before the request: rule 3
            try:
                if self._store.take_lease(holder):
                    return lease
            except StoreUnavailable:  # perhaps only the response was lost
                self._keep_name(holder)
                raise
            if time.monotonic() >= ends:
                raise StoreBusy(f"the lock of the store stayed busy for {timeout:g} seconds")
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311  # spreads load only
            pause = min(pause * 1.5, MAX_PAUSE_SECONDS)

    def _release(self, holder: str) -> None:
        try:
            self._store.release_lease(holder)
        except StoreUnavailable:
            self._keep_name(holder)

    def _keep_name(self, holder: str) -> None:
        if self._machine_lock is None:  # else the next process of this machine has the same name
            self._unreleased.append((os.getpid(), holder))  # rule 4

    def _process_name(self) -> str:
        """Return a name that may still have the lease, or else a new one; never that of a parent process."""
        with suppress(IndexError):
            while True:
                process, name = self._unreleased.pop()
                if process == os.getpid():
                    return name
        return secrets.token_hex(8)


def _machine_name(descriptor: int) -> str:
    """Return the holder's name that goes with a lock file: two processes have it only if one file excludes them."""
    file = os.fstat(descriptor)
    try:
        with open(BOOT_ID) as boot:
            kernel = boot.read().strip()
    except OSError:
        kernel = "no boot id"
    return hashlib.sha256(f"{socket.gethostname()}\0{kernel}\0{file.st_dev}\0{file.st_ino}".encode()).hexdigest()[:16]


class Clocks(NamedTuple):
    """Two clocks at one moment, in seconds: one stands still while the machine sleeps, the other can be set."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> Clocks:
        """Return both clocks of this machine. Where the system has a clock that goes on in sleep, it is the first."""
        return cls(_monotonic(), time.time())

    def plus(self, seconds: float) -> Clocks:
        """Return both clocks *seconds* later."""
        return Clocks(self.monotonic + seconds, self.wall + seconds)


def lasts(ends: Clocks, now: Clocks) -> bool:
    """Return whether a lease that ends at *ends* certainly lasts *now*, whatever one clock has done (rule 3)."""
    return now.monotonic < ends.monotonic and now.wall < ends.wall


def _monotonic() -> float:
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class _HeldLease:
    """A lease that has just been requested."""

    def __init__(self, store: LeaseStore, holder: str) -> None:
        self._store, self.holder = store, holder
        self._ends, self._lost = self._ends_from_now(), False
        self.released = threading.Event()

    def keep_alive(self) -> None:
        """Extend the lease until it is released or lost (rule 1)."""
        while not self.released.wait(self._store.lease / BEATS_PER_LEASE) and not self._lost:
            with suppress(StoreUnavailable):  # the next beat tries again; without any, the lease expires
                self._extend()

    def is_held(self) -> bool:
        """Return whether the lease is certainly held now (rule 3)."""
        if self._lost:
            return False
        return self._lasts() or self._extend()  # rule 3

    def _lasts(self) -> bool:
        return lasts(self._ends, Clocks.now())

    def _extend(self) -> bool:
        ends = self._ends_from_now()
        if self._store.extend_lease(self.holder):
            self._ends = ends
            return True
        self._lost = not self.released.is_set()
        return False

    def _ends_from_now(self) -> Clocks:
        return Clocks.now().plus(seconds_after_connection(self._store.lease))  # rule 6
