"""A dict of bounded size, for what is worth remembering and can be had again."""

from __future__ import annotations

import threading
from typing import TypeVar

__all__ = ["BoundedCache"]

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """Holds the *most* newest entries, for any number of threads. It is read like any dict, and written by ``keep``."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._lock = most, threading.Lock()

    def put(self, key: K, value: V) -> None:
        """Remembers *value*; the oldest entries make room for it."""
        with self._lock:  # to look for the oldest while another thread adds one is an error
            while len(self) >= self._most:
                del self[next(iter(self))]
            self[key] = value

    def discard(self, key: K) -> None:
        """Lets go of *key*, if it is there."""
        with self._lock:
            self.pop(key, None)
