"""The only bridge from blocking code into the rules, which are written as coroutines.

A blocking port never suspends, so one ``send`` runs its coroutine from the first line to the last. What can work in
both ways, such as a driver with a blocking and an async form, asks ``in_sync_context`` which of the two is wanted here.
"""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

__all__ = ["in_sync_context", "run_sync"]


class _ThreadState(threading.local):
    """What this thread is doing."""

    blocking = False


_thread_state = _ThreadState()


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of *coroutine*, which must not suspend. Raises RuntimeError if it does: that is a bug."""
    before, _thread_state.blocking = _thread_state.blocking, True
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        _thread_state.blocking = before
    coroutine.close()
    raise RuntimeError("a blocking port must not suspend")


def in_sync_context() -> bool:
    """Whether ``run_sync`` is at work in this thread: then nothing may suspend."""
    return _thread_state.blocking
