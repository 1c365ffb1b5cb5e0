"""One piece of blocking work in a thread of its own, and everybody who waits for it.

1. Nobody who waits drives the work: a cancelled or timed-out waiter leaves at once, and the work goes on to its end.
2. Threads, asyncio tasks of any number of loops and trio tasks may wait for the same flight.
3. Every waiter settles: with the result, with an error of its own to raise, or with TryLater after ``limit`` seconds.
4. The thread is no daemon: a program that ends waits for the work, so that tokens that were asked for are saved.

A waiting task costs one future of its loop; a flight wakes each loop once, whatever the number of its tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from unbroken.errors import TryLater, UnbrokenError

T = TypeVar("T")

__all__ = ["SingleFlight"]


class SingleFlight(Generic[T]):
    """*work*, started once, waited for by many."""

    def __init__(self, work: Callable[[], T], limit: float) -> None:
        self._work, self._limit = work, limit
        self._lock = threading.Lock()  # guards _bells and the change of _landed
        self._landed = threading.Event()
        self._bells: dict[object, tuple[Any, Callable[[], object]]] = {}
        self._result: T | None = None
        self._error: BaseException | None = None

    def start(self, after: Callable[[], object] | None = None) -> None:
        """Starts the work; *after* is called in its thread when all who wait have been woken."""
        watch = threading.Timer(self._limit, self._give_up)
        watch.daemon = True

        def run() -> None:
            try:
                self._settle(self._work(), None)
            except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to those who wait
                self._settle(None, error)
            finally:
                watch.cancel()
                if after:
                    after()

        try:
            watch.start()
            threading.Thread(target=run, name="unbroken-renewal").start()
        except RuntimeError:  # no new threads: the interpreter is shutting down
            run()

    @property
    def done(self) -> bool:
        """Whether the work is done, or was given up."""
        return self._landed.is_set()

    def wait(self, timeout: float | None = None) -> T:
        """The result, for a thread. Raises what the work raised, or TryLater after *timeout* seconds."""
        if not self._landed.wait(timeout):
            raise TryLater("it takes longer than this caller wants to wait")
        return self._outcome()

    async def wait_async(self, timeout: float | None = None) -> T:
        """The result, for a task of asyncio or trio. Raises what the work raised, or TryLater after *timeout*."""
        bell = self._loop_event()
        if bell is not None:
            await _set_or_time_out(bell, timeout)
            if not self._landed.is_set():
                raise TryLater("it takes longer than this caller wants to wait")
        return self._outcome()

    def _loop_event(self) -> Any:
        """The event of the running loop that will be set on landing; None when that has happened."""
        key, make, ring = _loop_of_caller()
        with self._lock:
            if self._landed.is_set():
                return None
            if key not in self._bells:
                bell = make()
                self._bells[key] = (bell, lambda: ring(bell.set))
            return self._bells[key][0]

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._landed.is_set():
                return
            self._result, self._error = result, error
            self._landed.set()
            bells, self._bells = self._bells, {}
        for _, ring in bells.values():
            with contextlib.suppress(RuntimeError):  # that loop is closed, and its tasks are gone with it
                ring()

    def _give_up(self) -> None:
        self._settle(None, TryLater(f"it did not end within {self._limit:g} seconds"))

    def _outcome(self) -> T:
        if isinstance(self._error, UnbrokenError):
            raise self._error.copy() from self._error.__cause__
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # a flight that landed without error has a result


def _loop_of_caller() -> tuple[object, Callable[[], Any], Callable[[Callable[[], object]], object]]:
    """The running loop's identity, its event class, and how another thread has something called in it."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio  # noqa: PLC0415  # only here, and only where trio is already running

        token = trio.lowlevel.current_trio_token()
        return token, trio.Event, token.run_sync_soon
    return loop, asyncio.Event, loop.call_soon_threadsafe


async def _set_or_time_out(bell: Any, timeout: float | None) -> None:
    if isinstance(bell, asyncio.Event):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await bell.wait()
    else:
        with sys.modules["trio"].move_on_after(float("inf") if timeout is None else timeout):
            await bell.wait()
