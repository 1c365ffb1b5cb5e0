"""The dispatcher of events and callbacks: their order, their thread, their event loop.

1. Events and callbacks are queued until ``deliver``, which runs when no request waits any more: a slow callback delays
   no request. ``emit_now`` delivers in the thread or task of a request, and delivers events only: the callbacks wait
   for the thread that queued them.
2. An async callback runs in the event loop that last used this session, if that loop still runs; else in one of its
   own.
3. What a callback raises is logged and goes no further.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from unbroken._concurrency import register_fork_aware
from unbroken.client.core.events import ClientEvent
from unbroken.tokens import Tokens

__all__ = ["EventDispatcher"]

Queue = deque[tuple[Callable[[Any], object], object]]  # each entry: a function, and its argument

_log = logging.getLogger("unbroken")


class EventDispatcher:
    """Queues events for listeners, and calls of ``on_tokens_changed`` and ``on_session_over``; then delivers them."""

    def __init__(
        self,
        on_tokens_changed: Callable[[Tokens], object] | None,
        on_session_over: Callable[[str], object] | None,
        on_event: Callable[[ClientEvent], object] | None,
    ) -> None:
        self._on_tokens_changed, self._on_session_over = on_tokens_changed, on_session_over
        self._listeners = () if on_event is None else (on_event,)
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Start with empty queues and no loop: what the parent queued, the parent delivers."""
        self._events: Queue = deque()
        self._callbacks: Queue = deque()
        self._loop: Any = None

    def add_listener(self, listener: Callable[[ClientEvent], object]) -> None:
        """Call *listener* with every event from now on."""
        self._listeners = (*self._listeners, listener)

    def emit(self, event: ClientEvent) -> None:
        """Log *event* and queue it for the next delivery."""
        _log.debug("%s", event)
        self._events.extend((listener, event) for listener in self._listeners)

    def emit_now(self, event: ClientEvent) -> None:
        """Deliver *event* at once, after the events before it (rule 1)."""
        if self._listeners:
            self.emit(event)
            self._deliver(self._events)

    def tokens_changed(self, tokens: Tokens) -> None:
        """Queue a call of ``on_tokens_changed``."""
        if self._on_tokens_changed:
            self._callbacks.append((self._on_tokens_changed, tokens))

    def session_over(self, reason: str) -> None:
        """Queue a call of ``on_session_over``."""
        if self._on_session_over:
            self._callbacks.append((self._on_session_over, reason))

    def remember_loop(self) -> None:
        """Make the running event loop the one for async callbacks (rule 2)."""
        import asyncio  # noqa: PLC0415  # slow to import, and not needed by programs without a loop

        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            import trio  # noqa: PLC0415  # trio is loaded already where no asyncio loop runs

            self._loop = trio.lowlevel.current_trio_token()

    def deliver(self) -> None:
        """Deliver all that is queued, in order: events, then callbacks."""
        self._deliver(self._events)
        self._deliver(self._callbacks)

    def _deliver(self, queue: Queue) -> None:
        while queue:
            try:
                function, argument = queue.popleft()
            except IndexError:  # another thread has taken it
                return
            try:
                result = function(argument)
                if inspect.isawaitable(result):
                    self._run(result)
            except Exception:  # noqa: BLE001  # rule 3
                _log.exception("the hook %r failed", getattr(function, "__qualname__", type(function).__name__))

    def _run(self, awaitable: Awaitable[object]) -> None:
        import asyncio  # noqa: PLC0415  # only for async callbacks

        coroutine = _logged(awaitable)
        loop = self._loop
        if isinstance(loop, asyncio.AbstractEventLoop) and loop.is_running():
            asyncio.run_coroutine_threadsafe(coroutine, loop)
        elif loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            _run_in_trio(coroutine, loop)
        else:
            _run_here(coroutine)


def _run_here(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run in the loop of this thread, if a blocking call was made inside one; else in a loop of its own."""
    import asyncio  # noqa: PLC0415  # only for async callbacks

    try:
        task = asyncio.get_running_loop().create_task(coroutine)
    except RuntimeError:
        asyncio.run(coroutine)
    else:
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


_tasks: set[object] = set()  # a loop keeps weak references only


def _run_in_trio(coroutine: Coroutine[Any, Any, None], token: Any) -> None:
    import trio  # noqa: PLC0415  # only where a trio loop has been seen

    async def run() -> None:
        await coroutine

    try:
        token.run_sync_soon(trio.lowlevel.spawn_system_task, run)
    except trio.RunFinishedError:
        trio.run(run)


async def _logged(awaitable: Awaitable[object]) -> None:
    try:
        await awaitable
    except Exception:  # noqa: BLE001  # rule 3
        _log.exception("an async hook failed")
