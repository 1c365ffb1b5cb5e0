"""What code needs that runs in blocking programs, in event loops, and in children that are forked.

1. A forked child has one thread. A lock that another thread of the parent held stays locked there, a worker thread is
   missing, and a connection is shared with the parent: each must be replaced before it is used.
2. The registry holds its objects weakly: a registered object lives no longer for it.
3. What a child must not inherit even for a moment, such as an open SQLite connection, is used inside a gate: a fork
   waits until the gate is empty, for a few seconds at most. What stays open between two uses is then closed.
4. A child closes its copies of the parent's sockets, and does not tell the other end: else a server keeps the
   connection of a parent that is gone for as long as the child lives.
5. The rules are coroutines that await nothing but a port. A blocking port never suspends, so one ``send`` runs a
   coroutine from its first line to its last. A driver that has a blocking and an async form picks one of them by
   ``in_sync_context``.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from weakref import WeakSet

T = TypeVar("T")

__all__ = [
    "Closeable",
    "ForkAware",
    "ForkGate",
    "ForkGuarded",
    "close_copy",
    "in_sync_context",
    "is_worker_process",
    "register_fork_aware",
    "run_sync",
]

GATE_SECONDS = 6.0  # longer than SQLite waits for a busy file


# ---- blocking code and event loops -----------------------------------------------------------------------------------


class _ThreadState(threading.local):
    """Whether ``run_sync`` is at work in this thread."""

    blocking = False


_thread_state = _ThreadState()


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run *coroutine* and return its result (rule 5). Raise RuntimeError if it suspends, which is a bug of its port."""
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


# ---- forks -----------------------------------------------------------------------------------------------------------


class ForkAware(Protocol):
    """An object that holds locks, threads or connections."""

    def reset_after_fork(self) -> None:
        """Replace them. Called in the forked child, before any other thread runs there."""


_registered: WeakSet[ForkAware] = WeakSet()  # rule 2
_imported_in = os.getpid()


def register_fork_aware(one: ForkAware) -> None:
    """Call ``one.reset_after_fork()`` in every child that this process forks from now on."""
    _registered.add(one)


def _reset_all() -> None:
    for one in list(_registered):
        one.reset_after_fork()


def is_worker_process() -> bool:
    """Return whether this process was forked, or started by multiprocessing.

    Such processes often end without waiting for their threads: by ``os._exit``, or by the signal of a pool.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    if os.getpid() != _imported_in:
        return True
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def close_copy(descriptor: int) -> None:
    """Close a forked child's copy of the parent's socket (rule 4)."""
    if descriptor >= 0:
        with suppress(OSError):
            os.close(descriptor)


class ForkGuarded(Protocol):
    """An object that keeps something open which a child must not inherit (rule 3)."""

    def close_before_fork(self) -> None:
        """Close it: no thread is inside the gate. It is opened again when needed, in the parent and in the child."""

    def leave_to_parent(self) -> None:
        """Neither use nor close what is open. Called in the child of a fork that could not wait."""


class ForkGate:
    """Keeps forks out while a thread is inside (rule 3); its own forks do not wait for it."""

    def __init__(self) -> None:
        self._make_lock()
        self._inside = 0
        self._is_forking = False
        self._here = threading.local()
        self._guarded: WeakSet[ForkGuarded] = WeakSet()  # rule 2
        self._was_empty = False  # at the fork under way
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._close, after_in_parent=self._open, after_in_child=self._reset)

    def _make_lock(self) -> None:
        self._lock = threading.RLock()  # by itself: a Condition enters it by two calls more, twice a statement
        self._changed = threading.Condition(self._lock)

    def guard(self, one: ForkGuarded) -> None:
        """Have *one* closed before each fork from now on."""
        self._guarded.add(one)

    def __enter__(self) -> None:
        """Be inside; wait for a fork under way first."""
        depth = getattr(self._here, "depth", 0)
        with self._lock:
            if self._is_forking and not depth:  # else the fork waits for this thread
                self._changed.wait_for(lambda: not self._is_forking, GATE_SECONDS)
            self._inside += 1
        self._here.depth = depth + 1

    def __exit__(self, *_: object) -> None:
        self._here.depth -= 1
        with self._lock:
            self._inside -= 1
            if self._is_forking:
                self._changed.notify_all()

    def _close(self) -> None:
        own = getattr(self._here, "depth", 0)
        with self._changed:
            self._changed.wait_for(lambda: not self._is_forking, GATE_SECONDS)  # another thread forks
            self._is_forking = True
            self._changed.wait_for(lambda: self._inside <= own, GATE_SECONDS)
            self._was_empty = self._inside == 0
        if self._was_empty:
            for one in list(self._guarded):
                one.close_before_fork()

    def _open(self) -> None:
        with self._changed:
            self._is_forking = False
            self._changed.notify_all()

    def _reset(self) -> None:
        self._make_lock()
        self._inside, self._is_forking = getattr(self._here, "depth", 0), False
        if not self._was_empty:
            for one in list(self._guarded):
                one.leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_reset_all)
