"""Durations, as client and server take them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from unbroken import ConfigurationError
from unbroken._time import to_seconds


@pytest.mark.parametrize("value", [90, 90.0, timedelta(minutes=1.5)])
def test_numbers_and_timedeltas_are_seconds(value: Any) -> None:
    seconds = to_seconds("timeout", value)
    assert (seconds, type(seconds)) == (90.0, float)


@pytest.mark.parametrize("value", [None, "90", True, [90], 1j])
def test_other_types_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds or a timedelta, not"):
        to_seconds("timeout", value)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_negative_and_endless_durations_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout must be a finite number of seconds of zero or more"):
        to_seconds("timeout", value)


@pytest.mark.parametrize("value", [0, 0.0, timedelta(0)])
def test_zero_is_refused_where_it_cannot_work(value: Any) -> None:
    assert to_seconds("timeout", value) == 0.0
    with pytest.raises(ConfigurationError, match="timeout must be a finite number of seconds above zero, not 0"):
        to_seconds("timeout", value, above_zero=True)
