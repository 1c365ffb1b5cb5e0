"""Find out how a driver may wait here: in the running event loop of asyncio, or in a worker thread."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["asyncio_loop", "in_worker_thread"]

T = TypeVar("T")
MAX_WORKER_THREADS = 40


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running loop if this coroutine is a task of asyncio; None under trio, also where trio is a guest."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if asyncio.current_task(loop) is not None else None


async def in_worker_thread(work: Callable[[], T]) -> T:
    """Return the result of *work*, which may block. A cancelled caller returns at once, and *work* goes on."""
    import anyio.to_thread  # noqa: PLC0415  # blocking use needs no event loop library

    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_limiter())


def _limiter() -> Any:
    """Return this event loop's limiter. It is not anyio's: a slow database must not take the application's threads."""
    from anyio import CapacityLimiter  # noqa: PLC0415

    limiter = _limiters().get(None)
    if limiter is None:
        _limiters().set(limiter := CapacityLimiter(MAX_WORKER_THREADS))
    return limiter


@functools.cache
def _limiters() -> Any:
    from anyio.lowlevel import RunVar  # noqa: PLC0415

    return RunVar("unbroken driver threads")
