"""A clock that stands still until a test moves it: for tests of what happens in half an hour."""

from __future__ import annotations

import time
from typing import Self

from unbroken._time import Clock

__all__ = ["ManualClock"]


class ManualClock(Clock):
    """A clock for both ends: ``Session(..., clock=clock)`` and ``Sessions(..., clock=clock)``.

    Times are in seconds. It starts at the current time of day.
    """

    _now: dict[str, float]

    def __new__(cls) -> Self:
        now = {"wall": time.time(), "monotonic": 1000.0}
        made = super().__new__(cls, lambda: now["wall"], lambda: now["monotonic"])
        made._now = now
        return made

    def __call__(self) -> float:
        """Return the time of day in seconds since the Unix epoch: the server's clocks are functions."""
        return self._now["wall"]

    def advance(self, seconds: float) -> None:
        """Let time pass. Raise ValueError for a negative number."""
        self.sleep(seconds)
        self._now["monotonic"] += seconds

    def sleep(self, seconds: float) -> None:
        """Let the machine sleep: the time of day advances, the monotonic clock stands still.

        Raise ValueError for a negative number.
        """
        if seconds < 0:
            raise ValueError("time does not run backwards: set() changes the time of day")
        self._now["wall"] += seconds

    def set(self, seconds: float) -> None:
        """Set the time of day forward, or back if *seconds* is negative."""
        self._now["wall"] += seconds
