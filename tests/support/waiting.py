"""Waiting for what happens in another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually", "until"]

SECONDS = 30.0  # long enough for a busy machine: only a test that fails waits so long
PAUSE = 0.005


def until(condition: Callable[[], object], what: str = "", seconds: float = SECONDS) -> None:
    """Return when *condition* is true. Raise AssertionError, which says *what*, if it is not within *seconds*."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"not within {seconds:g} s: {what or 'the condition'}"
        time.sleep(PAUSE)


T = TypeVar("T")


def eventually(work: Callable[[], T], error: type[Exception], seconds: float = SECONDS) -> T:
    """Return what *work* returns, as soon as it no longer raises *error*; raise that after *seconds*."""
    ends = time.monotonic() + seconds
    while True:
        try:
            return work()
        except error:
            if time.monotonic() > ends:
                raise
            time.sleep(PAUSE)
