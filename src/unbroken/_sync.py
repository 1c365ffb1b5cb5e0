"""Blocking code and event loops, served by one object: the bridge from the former into coroutines.

The rules are coroutines that await nothing but a port. A blocking port never suspends, so one ``send`` runs a coroutine
from its first line to its last. A driver that has a blocking and an async form picks one of them by
``in_sync_context``.
"""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

__all__ = ["Closeable", "in_sync_context", "run_sync"]


class _ThreadState(threading.local):
    """Whether ``run_sync`` is at work in this thread."""

    blocking = False


_thread_state = _ThreadState()


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* and return its result. Raise RuntimeError if it suspends, which is a bug of its port."""
    before, _thread_state.blocking = _thread_state.blocking, True  # a rule may call run_sync again
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
    """Return whether ``run_sync`` runs the caller, so that nothing may suspend."""
    return _thread_state.blocking


class Closeable:
    """A context manager, sync and async, that closes its object at the end."""

    def close(self) -> None:
        """Close the connections. The next use opens new ones."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close as ``close`` does."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
