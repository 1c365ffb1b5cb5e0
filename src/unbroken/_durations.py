"""Durations that callers give: a number of seconds, or a ``timedelta``. Pure."""

from __future__ import annotations

import math
from datetime import timedelta

from unbroken.errors import ConfigurationError

__all__ = ["Duration", "to_seconds"]

Duration = float | timedelta


def to_seconds(name: str, value: Duration, *, minimum: float = 0.0) -> float:
    """Return *value* in seconds.

    Raise ConfigurationError, which calls the value *name*, if it is not a duration, is not finite, or is below
    *minimum* seconds. A duration of zero passes only if *minimum* is negative or zero.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ConfigurationError(f"{name} must be a number of seconds or a timedelta, not {value!r}")
    if not math.isfinite(seconds) or seconds < minimum:
        raise ConfigurationError(f"{name} must be at least {minimum:g} seconds and finite, not {seconds:g}")
    return float(seconds)
