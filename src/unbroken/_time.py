"""Time: the two clocks of the client, and the durations that callers give."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from unbroken.errors import ConfigurationError

__all__ = ["SYSTEM_CLOCK", "Clock", "Duration", "to_seconds"]


class Clock(NamedTuple):
    """Two functions that return seconds: ``wall`` since the Unix epoch, ``monotonic`` from a clock that never jumps."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


SYSTEM_CLOCK = Clock(time.time, time.monotonic)
Duration = float | timedelta


def to_seconds(name: str, value: Duration, *, above_zero: bool = False) -> float:
    """Return *value* in seconds.

    Raise ConfigurationError, which calls the value *name*, if it is not a duration, not finite, or negative; with
    *above_zero*, also if it is zero.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ConfigurationError(f"{name} must be a number of seconds or a timedelta, not {type(value).__name__}")
    try:
        number = float(seconds)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number) or number < 0.0 or (above_zero and number == 0.0):
        least = "above zero" if above_zero else "of zero or more"
        raise ConfigurationError(f"{name} must be a finite number of seconds {least}, not {number:g}")
    return number
