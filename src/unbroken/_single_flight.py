"""Single flight: one piece of blocking work in a thread of its own, and many that wait for its result.

1. No waiter drives the work: a waiter that is cancelled or times out leaves at once, and the work goes on to its end.
2. Threads, asyncio tasks of any number of loops and trio tasks may wait for the same flight.
3. Every waiter settles: with the result, with its own copy of the error, or with TryLater after ``limit`` seconds.
4. The thread is not a daemon: a program that ends waits for the work, so that tokens on their way are saved.
5. A flight wakes each loop once, whatever the number of its tasks, and a waiting task costs one future of its loop.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from unbroken.errors import TryLater, UnbrokenError

T = TypeVar("T")

__all__ = ["SingleFlight", "flights_under_way"]

THREAD_NAME = "unbroken-refresh"


def flights_under_way() -> list[threading.Thread]:
    """Return the threads of all flights of this process that have not ended."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


class SingleFlight(Generic[T]):
    """*work*, done once in a thread, for at most *limit* seconds."""

    def __init__(self, work: Callable[[], T], limit: float) -> None:
        self._work, self._limit = work, limit
        self._lock = threading.Lock()  # guards _loop_events and the setting of _done
        self._done = threading.Event()
        self._loop_events: dict[object, tuple[Any, Callable[[], object]]] = {}  # per loop: its event, how to set it
        self._thread: threading.Thread | None = None
        self._was_given_up = False
        self._result: T | None = None
        self._error: BaseException | None = None

    @classmethod
    def landed(cls, result: T) -> SingleFlight[T]:
        """Return a flight that has ended with *result*."""
        flight = cls(lambda: result, 0.0)
        flight._settle(result, None)
        return flight

    def start(self, after: Callable[[], object] | None = None) -> None:
        """Start the work. *after* runs in its thread once all waiters have been woken."""
        timer = threading.Timer(self._limit, self._give_up)
        timer.daemon = True

        def run() -> None:
            try:
                self._settle(self._work(), None)
            except BaseException as error:  # noqa: BLE001  # whatever it is, the waiters get it
                self._settle(None, error)
            finally:
                timer.cancel()
                if after:
                    after()

        self._thread = threading.Thread(target=run, name=THREAD_NAME)  # rule 4
        try:
            timer.start()
            self._thread.start()
        except RuntimeError:  # no new threads: the interpreter is shutting down
            self._thread = None
            run()

    @property
    def done(self) -> bool:
        """Whether the work has ended or was given up."""
        return self._done.is_set()

    @property
    def is_overdue(self) -> bool:
        """Whether the work was given up by those who waited for it, and still goes on."""
        thread = self._thread
        return self._done.is_set() and self._was_given_up and thread is not None and thread.is_alive()

    def wait(self, timeout: float | None = None) -> T:
        """Wait in a thread and return the result. Raise what the work raised, or TryLater after *timeout* seconds."""
        if not self._done.wait(timeout):
            raise TryLater("not ready within the time that this caller waits")
        return self._outcome()

    async def wait_async(self, timeout: float | None = None) -> T:
        """Wait in a task of asyncio or trio and return the result; it raises as ``wait`` does."""
        event = self._loop_event()
        if event is not None:
            await _set_or_time_out(event, timeout)
            if not self._done.is_set():
                raise TryLater("not ready within the time that this caller waits")
        return self._outcome()

    def join(self, timeout: float) -> None:
        """Wait until the thread of the work has ended, for at most *timeout* seconds; not in that thread itself."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout)

    def _loop_event(self) -> Any:
        """Return the event of the running loop that is set when the work ends; None if it has ended."""
        loop, new_event, call_soon = _running_loop()
        with self._lock:
            if self._done.is_set():
                return None
            if loop not in self._loop_events:  # rule 5
                event = new_event()
                self._loop_events[loop] = (event, lambda: call_soon(event.set))
            return self._loop_events[loop][0]

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._done.is_set():
                return
            self._result, self._error = result, error
            self._done.set()
            events, self._loop_events = self._loop_events, {}
        for _, set_event in events.values():
            with contextlib.suppress(RuntimeError):  # that loop is closed, and its tasks are gone with it
                set_event()

    def _give_up(self) -> None:
        self._was_given_up = not self._done.is_set()
        self._settle(None, TryLater(f"not ready within {self._limit:g} seconds"))  # rule 3

    def _outcome(self) -> T:
        if isinstance(self._error, UnbrokenError):
            raise self._error.copy() from self._error.__cause__  # rule 3
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # work that ended without error has a result


def _running_loop() -> tuple[object, Callable[[], Any], Callable[[Callable[[], object]], object]]:
    """Return the running loop's identity, its event class, and how another thread calls a function in it."""
    import asyncio  # noqa: PLC0415  # slow to import, and not needed by programs without a loop

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio  # noqa: PLC0415  # trio is loaded already where no asyncio loop runs

        token = trio.lowlevel.current_trio_token()
        return token, trio.Event, token.run_sync_soon
    return loop, asyncio.Event, loop.call_soon_threadsafe


async def _set_or_time_out(event: Any, timeout: float | None) -> None:
    import asyncio  # noqa: PLC0415  # imported by _running_loop already

    if isinstance(event, asyncio.Event):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await event.wait()
    else:
        with sys.modules["trio"].move_on_after(float("inf") if timeout is None else timeout):
            await event.wait()
