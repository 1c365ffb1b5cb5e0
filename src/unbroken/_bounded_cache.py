"""A thread-safe dict of bounded size, for values that can be computed or fetched again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TypeVar

__all__ = ["BoundedCache"]

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(OrderedDict[K, V]):
    """Keep the newest *max_entries* entries; the oldest entry leaves first.

    Read it like any dict, without a lock. Write only with ``put`` and ``discard``. A plain dict would search for its
    oldest entry among the places of those that have left before.
    """

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries, self._lock = max_entries, threading.Lock()

    def put(self, key: K, value: V) -> None:
        """Store *value* under *key*, and evict the oldest entries if the cache is full."""
        with self._lock:
            while len(self) >= self._max_entries:
                self.popitem(last=False)
            self[key] = value

    def discard(self, key: K) -> None:
        """Remove *key* if it is present."""
        with self._lock:
            self.pop(key, None)
