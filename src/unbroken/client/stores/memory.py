"""Tokens that live as long as the process; sessions in all its threads may share one store.

After a fork the child holds copies of tokens that still belong to its parent. It may use the access token to its end,
but not renew: of two who spend one refresh token the server must take one for a thief. A login of its own is its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from unbroken._fork import register_fork_aware
from unbroken.client.core.record import EMPTY, StoredSession
from unbroken.errors import StoreBusy, StoreUnavailable

__all__ = ["MemoryStore"]


class MemoryStore:
    """Tokens in memory. Nothing is written anywhere; it can be neither pickled nor shared between processes."""

    def __init__(self) -> None:
        self._record = EMPTY
        self._borrowed = False
        self._new_locks()
        register_fork_aware(self)

    def _new_locks(self) -> None:
        self._write = threading.Lock()  # guards _record
        self._renewal = threading.Lock()

    def reset_after_fork(self) -> None:
        """Replace the locks, and mark the tokens as those of the parent."""
        self._new_locks()
        self._borrowed = self._record.tokens is not None

    def load(self) -> StoredSession:
        """The record as it stands now."""
        return self._record

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replaces *expected* by *record*; False if it is another one now."""
        with self._write:
            if not self._record.same(expected):
                return False
            self._borrowed = self._borrowed and record.epoch == self._record.epoch
            self._record = record
            return True

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """Held by one renewal at a time. Raises StoreBusy after *timeout* seconds, StoreUnavailable in a fork."""
        if self._borrowed:
            raise StoreUnavailable(
                "these tokens are in the memory of the process that forked this one: share them by a FileStore, "
                "or log in after the fork"
            )
        if not self._renewal.acquire(timeout=timeout):
            raise StoreBusy(f"the renewal lock stayed busy for {timeout:g} seconds")
        try:
            yield
        finally:
            self._renewal.release()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a MemoryStore cannot be pickled: two processes would spend one refresh token; use a FileStore")
