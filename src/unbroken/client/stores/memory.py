"""Tokens that live as long as the process; sessions in all its threads may share one store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from unbroken.client.record import EMPTY, Record
from unbroken.errors import StoreUnavailable

__all__ = ["MemoryStore"]


class MemoryStore:
    """Tokens in memory. Nothing is written anywhere."""

    def __init__(self) -> None:
        self._record = EMPTY
        self._write = threading.Lock()  # guards _record
        self._renewal = threading.Lock()

    def load(self) -> Record:
        """The record as it stands now."""
        return self._record

    def save(self, record: Record, expected: Record) -> bool:
        """Replaces *expected* by *record*; False if it is another one now."""
        with self._write:
            if not self._record.same(expected):
                return False
            self._record = record
            return True

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """Held by one renewal at a time. Raises StoreUnavailable after *timeout* seconds."""
        if not self._renewal.acquire(timeout=timeout):
            raise StoreUnavailable(f"the renewal lock stayed busy for {timeout:g} seconds")
        try:
            yield
        finally:
            self._renewal.release()
