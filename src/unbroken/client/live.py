"""The tokens that this process uses now, made ready for the hot path: one header value and six moments.

1. A moment has come when the monotonic *or* the wall clock says so. The monotonic clock stands still while the machine
   sleeps, the wall clock may be set: whichever is wrong costs at most one exchange too many, never a failed request.
2. Tokens that were stored before this process began count from when they were received, and never live longer than
   their lifetime from now, whatever the wall clock was then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from unbroken.client.timing import Ages, Leeway, ages_of
from unbroken.tokens import Tokens

__all__ = ["SYSTEM_CLOCK", "Clock", "Live"]


class Clock(NamedTuple):
    """Two functions that give seconds: the time of day since the Unix epoch, and one that never jumps."""

    wall: Callable[[], float]
    mono: Callable[[], float]


SYSTEM_CLOCK = Clock(time.time, time.monotonic)


class Live:
    """Tokens in use. Immutable; compare by identity."""

    __slots__ = ("ages", "behind_mono", "behind_wall", "born_mono", "born_wall", "header", "tokens")

    def __init__(self, tokens: Tokens, header: str, clock: Clock, leeway: Leeway, jitter: float) -> None:
        wall, mono = clock.wall(), clock.mono()
        age = max(wall - tokens.received_at, 0.0)
        self.tokens, self.header = tokens, header
        self.ages: Ages = ages_of(tokens, leeway, jitter)
        self.born_wall, self.born_mono = wall - age, mono - age
        self.behind_wall = self.born_wall + self.ages.behind
        self.behind_mono = self.born_mono + self.ages.behind

    def age(self, clock: Clock) -> float:
        """Seconds since the tokens were received: the larger of what the two clocks say."""
        return max(clock.wall() - self.born_wall, clock.mono() - self.born_mono)

    def __repr__(self) -> str:
        return f"<Live {self.tokens!r}>"
