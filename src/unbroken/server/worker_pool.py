"""Worker pools (thread pools, executors): threads for work that blocks, so that an event loop goes on.

1. Each kind of work has a pool of its own, bounded in threads and in waiting tasks: a full pool delays no other kind.
2. Within ``run_sync`` there is no loop to keep free: the calling thread does the work, under the same bounds.
3. A forked child has none of its parent's threads: what they held is free there.
4. What runs within ``preferred()`` is served before everything else that waits, and has a queue of its own: a flood of
   strangers neither delays nor displaces it.
"""

from __future__ import annotations

import inspect
import itertools
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from unbroken._concurrency import in_sync_context, register_fork_aware
from unbroken.errors import ConfigurationError, TryLater

__all__ = [
    "CORES",
    "LOGIN_POOL",
    "STORE_POOL",
    "WorkerPool",
    "is_preferred",
    "preferred",
]

T = TypeVar("T")
_numbers = itertools.count()
_preferred: ContextVar[bool] = ContextVar("unbroken_preferred", default=False)


@contextmanager
def preferred(yes: bool = True) -> Iterator[None]:
    """Let what runs within the block go first, or not (rule 4)."""
    token = _preferred.set(yes)
    try:
        yield
    finally:
        _preferred.reset(token)


def is_preferred() -> bool:
    """Return whether the caller goes first. A worker thread knows it of the task that it works for."""
    return _preferred.get()


class WorkerPool:
    """At most *max_threads* threads work at once for each event loop, and at most *max_waiting* tasks wait for one."""

    def __init__(self, max_threads: int, max_waiting: float = float("inf")) -> None:
        self._max_threads, self._max_tasks = max_threads, max_threads + max_waiting
        self._number = next(_numbers)
        self._loop_states: Any = None
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        self._gate = threading.Condition()  # for threads without an event loop; guards the two below
        self._working, self._waiting = 0, [0, 0]  # by kind: preferred ones, and all others (rule 3)

    async def run(self, work: Callable[[], T]) -> T:
        """Return what *work* returns. Raise TryLater at once when too many tasks are waiting."""
        if in_sync_context():
            return self._run_here(work)  # rule 2
        import anyio.to_thread  # noqa: PLC0415  # blocking use needs no event loop library

        state = self._loop_state()
        await state.acquire(_kind(), self._max_tasks)  # rule 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=state.limiter)
        finally:
            state.release()

    async def call(self, function: Callable[..., T | Awaitable[T]], *args: Any) -> T:
        """Return what the application's *function* returns: an async one runs here, a plain one in a thread."""
        if in_sync_context():
            return self._run_here(lambda: _not_awaitable(function(*args)))
        if inspect.iscoroutinefunction(function):
            return cast("T", await function(*args))
        # An object with an async __call__ returns a coroutine, which trio refuses from a thread: hence the list.
        [result] = await self.run(lambda: [function(*args)])
        return await result if inspect.isawaitable(result) else result

    def _run_here(self, work: Callable[[], T]) -> T:
        kind = _kind()
        with self._gate:
            if self._working + self._waiting[kind] >= self._max_tasks:
                raise _too_many()
            self._waiting[kind] += 1
            try:
                self._gate.wait_for(lambda: self._may_work(kind))
                self._working += 1
            finally:
                self._waiting[kind] -= 1
                self._gate.notify_all()
        try:
            return work()
        finally:
            with self._gate:
                self._working -= 1
                self._gate.notify_all()

    def _may_work(self, kind: int) -> bool:
        return self._working < self._max_threads and (kind == PREFERRED or not self._waiting[PREFERRED])

    def _loop_state(self) -> _LoopState:
        from anyio.lowlevel import RunVar  # noqa: PLC0415  # blocking use needs no event loop library

        if self._loop_states is None:
            self._loop_states = RunVar(f"unbroken worker pool {self._number}")
        state: _LoopState | None = self._loop_states.get(None)
        if state is None:
            self._loop_states.set(state := _LoopState(self._max_threads))
        return state


PREFERRED, OTHERS = 0, 1


def _kind() -> int:
    return PREFERRED if is_preferred() else OTHERS


class _LoopState:
    """The tasks of one event loop in a pool: how many threads are free, and who waits for one, by kind."""

    def __init__(self, max_threads: int) -> None:
        from anyio import CapacityLimiter  # noqa: PLC0415  # blocking use needs no event loop library

        self.limiter, self._free, self._max_threads = CapacityLimiter(max_threads), max_threads, max_threads
        self._waiting: tuple[deque[Any], deque[Any]] = (deque(), deque())  # events of the running loop

    async def acquire(self, kind: int, max_tasks: float) -> None:
        """Wait for a thread. Raise TryLater at once if *max_tasks* of this kind work or wait (rule 4)."""
        import anyio  # noqa: PLC0415  # blocking use needs no event loop library

        if self._max_threads - self._free + len(self._waiting[kind]) >= max_tasks:
            raise _too_many()
        if self._free:
            self._free -= 1
            return
        turn = anyio.Event()
        self._waiting[kind].append(turn)
        try:
            await turn.wait()
        except BaseException:  # cancelled: the turn goes to the next one, if it has come
            if turn.is_set():
                self.release()
            else:
                self._waiting[kind].remove(turn)
            raise

    def release(self) -> None:
        """Give the thread to the task that is next."""
        for queue in self._waiting:
            if queue:
                queue.popleft().set()
                return
        self._free += 1


def _too_many() -> TryLater:
    return TryLater("too many at once", retry_after=1.0)


def _not_awaitable(result: T | Awaitable[T]) -> T:
    """Return *result*. Raise ConfigurationError for an awaitable: no event loop runs here."""
    if not inspect.isawaitable(result):
        return result
    if inspect.iscoroutine(result):
        result.close()
    raise ConfigurationError("an async function cannot be called here: give a plain one to a framework that blocks")


CORES = os.cpu_count() or 1
# A password costs 64 MiB and a core for 50 ms: 64 waiting per core are about 3 s of waiting.
LOGIN_POOL = WorkerPool(CORES, 64 * CORES)
STORE_POOL = WorkerPool(16)  # what a blocking store waits for, and plain functions of the application
