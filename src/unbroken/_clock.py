"""The two clocks that the client asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["SYSTEM_CLOCK", "Clock"]


class Clock(NamedTuple):
    """Two functions that give seconds: the time of day since the Unix epoch, and one that never jumps."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


SYSTEM_CLOCK = Clock(time.time, time.monotonic)
