"""The only bridge from blocking code into the rules, which are written as coroutines.

A blocking port never suspends, so one ``send`` runs its coroutine from the first line to the last. What can work in
both ways, such as a driver with a blocking and an async form, asks ``is_blocking`` which of the two is wanted here.
"""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

__all__ = ["is_blocking", "run_once"]


class _Here(threading.local):
    """What this thread is doing."""

    blocking = False


_here = _Here()


def run_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of *coroutine*, which must not suspend. Raises RuntimeError if it does: that is a bug."""
    before, _here.blocking = _here.blocking, True
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        _here.blocking = before
    coroutine.close()
    raise RuntimeError("a blocking port must not suspend")


def is_blocking() -> bool:
    """Whether ``run_once`` is at work in this thread: then nothing may suspend."""
    return _here.blocking
