"""What blocks is done in threads, so that an event loop goes on. Each kind of work has a lane of its own: however many
stand in one, nobody in another waits for them.

Where there is no event loop (``run_sync``), the calling thread is the thread, and the same bounds hold. A forked child
has none of its parent's threads: what they held there is free (``_fork.py``).
"""

from __future__ import annotations

import inspect
import itertools
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from unbroken._fork import register_fork_aware
from unbroken._sync import in_sync_context
from unbroken.errors import ConfigurationError, TryLater

__all__ = ["LOGIN_POOL", "STORE_POOL", "WorkerPool"]

T = TypeVar("T")
_numbers = itertools.count()


class WorkerPool:
    """At most *width* threads at work at once, for each event loop, and at most *queue* tasks that wait for one."""

    def __init__(self, width: int, queue: float = float("inf")) -> None:
        self._width, self._queue, self._number = width, queue, next(_numbers)
        self._inside: Any = None
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        self._turn = threading.Semaphore(self._width)  # for threads without an event loop
        self._counting, self._threads = threading.Lock(), 0

    async def run(self, work: Callable[[], T]) -> T:
        """What *work* gives. Raises TryLater at once when too many are waiting already."""
        if in_sync_context():
            return self._run_here(work)
        import anyio.to_thread  # noqa: PLC0415  # blocking use needs no event loop library

        inside = self._inside_of_this_loop()
        if inside.tasks >= self._width + self._queue:
            raise TryLater("too many at once", retry_after=1.0)
        inside.tasks += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=inside.limiter)
        finally:
            inside.tasks -= 1

    async def ask(self, function: Callable[..., T | Awaitable[T]], *args: str) -> T:
        """What the application's *function* answers: an async one here, a plain one in a thread, as it may be slow."""
        if in_sync_context():
            return self._run_here(lambda: _plain(function(*args)))
        if inspect.iscoroutinefunction(function):
            return cast("T", await function(*args))
        # In a list, because trio refuses a coroutine from a thread: that of an object with an async ``__call__``.
        [answer] = await self.run(lambda: [function(*args)])
        return await answer if inspect.isawaitable(answer) else answer

    def _run_here(self, work: Callable[[], T]) -> T:
        with self._counting:
            if self._threads >= self._width + self._queue:
                raise TryLater("too many at once", retry_after=1.0)
            self._threads += 1
        try:
            with self._turn:
                return work()
        finally:
            with self._counting:
                self._threads -= 1

    def _inside_of_this_loop(self) -> _LoopState:
        from anyio.lowlevel import RunVar  # noqa: PLC0415

        if self._inside is None:
            self._inside = RunVar(f"unbroken lane {self._number}")
        found: _LoopState | None = self._inside.get(None)
        if found is None:
            self._inside.set(found := _LoopState(self._width))
        return found


class _LoopState:
    """Who is in a lane, of one event loop: those at work and those that wait."""

    def __init__(self, width: int) -> None:
        from anyio import CapacityLimiter  # noqa: PLC0415

        self.limiter, self.tasks = CapacityLimiter(width), 0


def _plain(answer: T | Awaitable[T]) -> T:
    """What an application's function answered, where nobody can await it."""
    if not inspect.isawaitable(answer):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()
    raise ConfigurationError("an async function cannot be asked here: give a plain one to a framework that blocks")


CORES = os.cpu_count() or 1
LOGIN_POOL = WorkerPool(
    CORES, 64 * CORES
)  # a password costs 64 MiB and a core for 50 ms: who would wait for longer than 5 s
STORE_POOL = WorkerPool(16)  # the slow writes of a blocking store; and other plain functions of the application
