"""A clock that stands still until it is told to go: for tests of what happens in half an hour."""

from __future__ import annotations

import time
from typing import Self

from unbroken._clock import Clock

__all__ = ["ManualClock"]


class ManualClock(Clock):
    """``Session(..., clock=ManualClock())``. Times are in seconds; it starts at the time of day."""

    def __new__(cls) -> Self:
        now = {"wall": time.time(), "mono": 1000.0}
        made = super().__new__(cls, lambda: now["wall"], lambda: now["mono"])
        made._now = now
        return made

    _now: dict[str, float]

    def advance(self, seconds: float) -> None:
        """Time passes. Raises ValueError for less than nothing: that is what ``set`` is for."""
        if seconds < 0:
            raise ValueError("time does not run backwards: set() changes the time of day")
        self._now["wall"] += seconds
        self._now["mono"] += seconds

    def sleep(self, seconds: float) -> None:
        """The machine sleeps: the time of day goes on, the monotonic clock stands still. Raises ValueError, too."""
        if seconds < 0:
            raise ValueError("time does not run backwards: set() changes the time of day")
        self._now["wall"] += seconds

    def set(self, seconds: float) -> None:
        """Somebody sets the time of day, forwards or backwards by so many seconds."""
        self._now["wall"] += seconds
