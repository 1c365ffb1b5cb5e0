"""Tokens in memory: they live as long as the process. Sessions in all of its threads may share one store.

1. After a fork the child holds copies of tokens that belong to its parent. It may use the access token until that
   expires, but not refresh: two clients that use one refresh token look to the server like a theft.
2. A login in the child is the child's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from unbroken._concurrency import register_fork_aware
from unbroken.client.core.token_store import EMPTY, StoredSession
from unbroken.errors import StoreBusy, StoreUnavailable

__all__ = ["MemoryStore"]


class MemoryStore:
    """Tokens in memory. It writes nothing, and can be neither pickled nor shared between processes."""

    def __init__(self) -> None:
        self._record = EMPTY
        self._belongs_to_parent = False
        self._new_locks()
        register_fork_aware(self)

    def _new_locks(self) -> None:
        self._write = threading.Lock()  # guards _record
        self._refresh = threading.Lock()

    def reset_after_fork(self) -> None:
        """Replace the locks, and mark the tokens as those of the parent (rule 1)."""
        self._new_locks()
        self._belongs_to_parent = self._record.tokens is not None

    def load(self) -> StoredSession:
        """Return the record."""
        return self._record

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record*. Return False if another record is there."""
        with self._write:
            if not self._record.same(expected):
                return False
            self._belongs_to_parent = self._belongs_to_parent and record.epoch == self._record.epoch  # rule 2
            self._record = record
            return True

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """Hold the lock of a refresh. Raise StoreBusy after *timeout* seconds, StoreUnavailable in a child (rule 1)."""
        if self._belongs_to_parent:
            raise StoreUnavailable(
                "these tokens are in the memory of the process that forked this one: share them by a FileStore, "
                "or log in after the fork"
            )
        if not self._refresh.acquire(timeout=timeout):
            raise StoreBusy(f"the lock of the store stayed busy for {timeout:g} seconds")
        try:
            yield
        finally:
            self._refresh.release()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a MemoryStore cannot be pickled: two processes would use one refresh token; use a FileStore")
