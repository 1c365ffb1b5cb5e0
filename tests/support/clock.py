"""The clock of a server: a function of seconds, that a test sets. A client's is ``unbroken.testing.ManualClock``."""

from __future__ import annotations

__all__ = ["ServerClock"]


class ServerClock:
    """``Sessions(…, clock=ServerClock())``. The time is ``now``, in seconds."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
