"""The only bridge from blocking code into the rules, which are written as coroutines.

A blocking port never suspends, so one ``send`` runs its coroutine from the first line to the last.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

__all__ = ["run_once"]


def run_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of *coroutine*, which must not suspend. Raises RuntimeError if it does: that is a bug."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking port must not suspend")
