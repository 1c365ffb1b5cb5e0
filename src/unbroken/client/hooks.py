"""The user's hooks: who is told, when, and in which thread or loop.

1. Notes are kept until ``deliver``, which is called when nobody waits any more: a slow hook delays no request. What
   tells of a request hands over events only; all other news waits for the thread that brought it.
2. An async hook runs in the event loop that last asked this session for something, if that loop still runs; otherwise
   in one of its own.
3. What a hook raises is logged, and goes no further.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from unbroken._fork import register_fork_aware
from unbroken.client.core.events import ClientEvent
from unbroken.tokens import Tokens

__all__ = ["EventDispatcher"]

Kept = deque[tuple[Callable[[Any], object], object]]

_log = logging.getLogger("unbroken")


class EventDispatcher:
    """Keeps what there is to tell, and tells it."""

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
        """Also after a fork: what is kept is the parent's to tell, and its loop runs there."""
        self._events: Kept = deque()
        self._news: Kept = deque()
        self._loop: Any = None

    def listen(self, hook: Callable[[ClientEvent], object]) -> None:
        """One more who hears every event."""
        self._listeners = (*self._listeners, hook)

    def note(self, event: ClientEvent) -> None:
        """Keeps *event* for the next delivery, and logs it."""
        _log.debug("%s", event)
        self._events.extend((hook, event) for hook in self._listeners)

    def tell(self, event: ClientEvent) -> None:
        """Hands *event* over at once, after those before it; for the callers' own threads and tasks."""
        if self._listeners:
            self.note(event)
            self._hand_over(self._events)

    def tokens_changed(self, tokens: Tokens) -> None:
        """Keeps the news of new tokens."""
        self._keep(self._on_tokens_changed, tokens)

    def session_over(self, reason: str) -> None:
        """Keeps the news of the end."""
        self._keep(self._on_session_over, reason)

    def remember_loop(self) -> None:
        """Async hooks will run in the loop that runs now."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            import trio  # noqa: PLC0415  # only where trio is already running

            self._loop = trio.lowlevel.current_trio_token()

    def deliver(self) -> None:
        """Tells everything that is kept, in order: what happened, then what came of it."""
        self._hand_over(self._events)
        self._hand_over(self._news)

    def _hand_over(self, kept: Kept) -> None:
        while kept:
            try:
                hook, news = kept.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                answer = hook(news)
                if inspect.isawaitable(answer):
                    self._run(answer)
            except Exception:  # noqa: BLE001  # a hook is the user's code: whatever it raises is logged
                _log.exception("the hook %r failed", getattr(hook, "__qualname__", type(hook).__name__))

    def _keep(self, hook: Callable[[Any], object] | None, news: object) -> None:
        if hook:
            self._news.append((hook, news))

    def _run(self, awaitable: Awaitable[object]) -> None:
        coroutine = _logged(awaitable)
        loop = self._loop
        if isinstance(loop, asyncio.AbstractEventLoop) and loop.is_running():
            asyncio.run_coroutine_threadsafe(coroutine, loop)
        elif loop is not None and not isinstance(loop, asyncio.AbstractEventLoop):
            _run_in_trio(coroutine, loop)
        else:
            _run_somewhere(coroutine)


def _run_somewhere(coroutine: Coroutine[Any, Any, None]) -> None:
    """In the loop that runs here, if a blocking call was made inside one; else in a loop of its own."""
    try:
        task = asyncio.get_running_loop().create_task(coroutine)
    except RuntimeError:
        asyncio.run(coroutine)
    else:
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Task[None]] = set()  # a loop keeps weak references only


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
    except Exception:  # noqa: BLE001  # as above
        _log.exception("an async hook failed")
