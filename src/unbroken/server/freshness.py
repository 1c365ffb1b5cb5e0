"""The keys and the revoked sessions as one process knows them, kept fresh by polling the store and listening to it.

The cache:

1. What this process revokes, it knows at once. What another process on the same store revokes, it knows within
   ``POLL_SECONDS``: a request that uses the cache polls the store first, if the last poll is older. Where the store
   sends notifications, a thread listens, and requests hardly ever have to poll.
2. One request polls at a time. Others use what is known while that is younger than ``STALE_SECONDS``. Then the tasks of
   a thread wait for the poll of their thread, and another thread polls by itself: no thread ever waits for another.
3. Polls may overtake each other. Of two, the one that was started later counts.
4. A revocation is forgotten when the last access token of its session must have expired, and not before: the set is
   bounded by the revocations of one access lifetime.
5. An unknown key may have been made a moment ago. The store is polled once more before its token is refused, but at
   most every ``UNKNOWN_KEY_RETRY_SECONDS``: any client can name any key.

The listener:

6. It polls after each notification, and at least every ``LISTENER_POLL_SECONDS``: a notification that got lost, or a
   connection that hangs, costs that much and no more.
7. It starts with the first request, belongs to its process, and starts anew in a forked child.
8. It is optional: without it, requests poll (rule 1). So a failure here, even to start the thread, is logged once and
   tried again; reconnecting waits longer and longer, up to ``MAX_RECONNECT_SECONDS``.
9. It ends by ``stop``, or when the cache that it serves is garbage.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from unbroken._concurrency import in_sync_context, register_fork_aware, run_sync
from unbroken.errors import TryLater
from unbroken.server.keys.keyring import KeyRecord, Keyring, new_mac_key, new_signing_key
from unbroken.server.stores import Notifications, SessionStore

__all__ = ["KeyAndRevocationCache", "RevocationListener"]

POLL_SECONDS = 0.4
STALE_SECONDS = 0.8
UNKNOWN_KEY_RETRY_SECONDS = 0.03
REVOCATION_MARGIN_SECONDS = 5.0  # a revocation outlives the last access token of its session by this much

LISTENER_POLL_SECONDS = 0.3
COALESCE_SECONDS = 0.005  # between two polls of the listener, so that many notifications cost one
MAX_RECONNECT_SECONDS = 10.0
STOP_SECONDS = 2.0

_log = logging.getLogger("unbroken")
_listeners_of_parents: list[object] = []  # a forked child neither uses nor closes its parent's connections


class KeyAndRevocationCache:
    """The keyring, and the revoked sids with the time until which each must be remembered.

    *token_ttls* are the longest lives of the tokens that the keys of each use make, in seconds.
    """

    def __init__(self, store: SessionStore, token_ttls: Mapping[str, float], clock: Callable[[], float]) -> None:
        self._store, self._token_ttls, self._clock = store, token_ttls, clock
        self.reset_after_fork()
        register_fork_aware(self)
        self.fresh_until = float("-inf")  # on the monotonic clock; after it, poll before anything is believed
        self._retried_at = float("-inf")  # rule 5
        self._polls_started = self._newest_poll = 0  # rule 3
        self._cursor = 0
        self._forget_at: list[tuple[float, str]] = []  # a heap, rule 4
        self.keyring = Keyring(())
        self.revoked: dict[str, float] = {}
        self.listener = RevocationListener(store.notifications, self.refresh_now)

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()  # guards all that is known; never held while the store is polled
        self._running_polls: dict[tuple[int, bool], _Poll] = {}  # by thread, and whether it blocks

    async def refresh_if_due(self) -> None:
        """Poll the store if that is due. Make the first keys if there are none."""
        self.listener.start()
        while (now := time.monotonic()) > self.fresh_until:
            stale = now > self.fresh_until + STALE_SECONDS - POLL_SECONDS
            if self._running_polls and not stale:
                return  # rule 2
            running = self._running_polls.get(_this_context())
            if running is None:
                await self._poll_for_all()
                return
            if await running.succeeded():
                return

    async def refresh_for_unknown_key(self, kid: str | int | None) -> bool:
        """Return whether a key that was unknown is known after another poll (rule 5)."""
        if kid is None or self.keyring.knows(kid):
            return False
        return await self._refresh_if_not_retried() and self.keyring.knows(kid)

    async def refresh_now(self) -> None:
        """Poll the store, however old the last poll is."""
        with self._lock:
            self._polls_started = number = self._polls_started + 1
            cursor = self._cursor
        started = time.monotonic()
        records = await self._read_keys()
        cursor, revocations = await self._store.revocations(cursor)
        with self._lock:
            self._note(revocations)
            if number < self._newest_poll:
                return  # rule 3
            if records != self.keyring.records:
                self.keyring = Keyring(records, self.keyring)
            self._cursor, self._newest_poll, self.fresh_until = cursor, number, started + POLL_SECONDS  # rule 1

    def add_revocations(self, revocations: Iterable[tuple[str, float]]) -> None:
        """Remember revoked sids, each until a time of day."""
        with self._lock:
            self._note(revocations)

    def dead_until(self, now: float) -> float:
        """Return until when a session that is revoked at *now* must be remembered as revoked (rule 4)."""
        return now + self.keyring.longest_access() + REVOCATION_MARGIN_SECONDS

    async def _refresh_if_not_retried(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now - self._retried_at < UNKNOWN_KEY_RETRY_SECONDS:
                return False
            self._retried_at = now
        await self.refresh_now()
        return True

    async def _read_keys(self) -> tuple[KeyRecord, ...]:
        """Return the keys. Make the first ones, and note how long the tokens of each can live."""
        records = await self._store.keys()
        if not records:
            now = self._clock()
            # They sign from the epoch on, so that no node's clock can be too slow for them.
            await self._store.save_keys((new_signing_key("EdDSA", now, 0.0), new_mac_key(1, now, 0.0)), first=True)
            records = await self._store.keys()
        if outdated := [record for record in records if record.token_ttl < self._token_ttls[record.use]]:
            await self._store.save_keys([replace(key, token_ttl=self._token_ttls[key.use]) for key in outdated])
            records = await self._store.keys()
        return tuple(records)

    def _note(self, revocations: Iterable[tuple[str, float]]) -> None:
        """Update ``revoked`` in place, under the lock: other threads read it meanwhile."""
        now = self._clock()
        for sid, until in revocations:
            if until > self.revoked.get(sid, now):
                self.revoked[sid] = until
                heapq.heappush(self._forget_at, (until, sid))
        while self._forget_at and self._forget_at[0][0] <= now:
            until, sid = heapq.heappop(self._forget_at)
            if self.revoked.get(sid) == until:
                del self.revoked[sid]

    async def _poll_for_all(self) -> None:
        """Poll, and hand the outcome to the tasks of this thread that wait for it (rule 2)."""
        here = _this_context()
        poll = self._running_polls[here] = _Poll()
        try:
            await self.refresh_now()
            poll.is_good = True
        except TryLater as error:
            poll.error = error
            raise
        finally:
            self._running_polls.pop(here, None)
            poll.finish()


def _this_context() -> tuple[int, bool]:
    return threading.get_ident(), in_sync_context()


class _Poll:
    """A running poll, which tasks of the same thread wait for. Within ``run_sync`` none can: the poll ends first."""

    def __init__(self) -> None:
        self.is_good = False
        self.error: TryLater | None = None
        self._finished: Any = None  # an event of the running loop, made by the first task that waits

    async def succeeded(self) -> bool:
        """Wait, and return whether the poll was good; False if it was cancelled. Raise TryLater if it failed."""
        import anyio  # noqa: PLC0415  # blocking use needs no event loop library

        self._finished = self._finished or anyio.Event()
        await self._finished.wait()
        if self.error:
            raise self.error.copy()
        return self.is_good

    def finish(self) -> None:
        if self._finished:
            self._finished.set()


class RevocationListener:
    """Polls by *refresh*, a bound coroutine method, after each notification from what *subscribe* returns."""

    def __init__(self, subscribe: Callable[[], Notifications | None], refresh: Callable[[], object]) -> None:
        self._subscribe, self._refresh = subscribe, weakref.WeakMethod(refresh)
        self._lock = threading.Lock()
        self._pid = 0  # of the process that the thread belongs to; 0 before there is one
        self._thread: _ListenerThread | None = None
        self._has_warned = False

    def start(self) -> None:
        """Start the thread, if the store sends notifications and this process has no thread yet (rule 7)."""
        if self._pid == os.getpid():
            return
        if self._pid:  # forked: a thread of the parent may have held the lock
            self._lock = threading.Lock()
            _listeners_of_parents.append(self._thread)
        with self._lock:
            if self._pid == os.getpid():
                return
            self._thread = None
            try:
                if (notifications := self._subscribe()) is not None:
                    self._thread = _ListenerThread(notifications, self._refresh)
                    weakref.finalize(self, self._thread.stop)  # also before the interpreter exits
            except (OSError, RuntimeError) as error:  # no socket, or no thread: the next request tries again (rule 8)
                if not self._has_warned:
                    _log.warning("cannot listen for revocations, polling instead: %s", error)
                self._has_warned = True
                return
            self._has_warned, self._pid = False, os.getpid()

    def stop(self) -> None:
        """Stop the thread; ``start`` starts another."""
        if self._pid == os.getpid():
            with self._lock:
                thread, self._thread, self._pid = self._thread, None, 0
            if thread is not None:
                thread.stop()


class _ListenerThread:
    """The thread, and the notifications that it listens to."""

    def __init__(self, notifications: Notifications, refresh: weakref.WeakMethod[Callable[[], object]]) -> None:
        self._notifications, self._refresh = notifications, refresh
        self._pid, self._stopped = os.getpid(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="unbroken revocation listener", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._notifications.close()
            raise

    def stop(self) -> None:
        """Stop the thread, and wait for its end.

        Called in the thread itself, when the cache was collected there, it does nothing: the thread may hold locks that
        are needed here, and notices by itself (rule 9).
        """
        if self._pid != os.getpid() or self._thread.ident == threading.get_ident() or self._stopped.is_set():
            return
        self._stopped.set()
        self._notifications.close()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        reconnect_after = 0.0  # seconds; 0 while notifications arrive
        left = 0.0
        while not self._stopped.is_set():
            if left > 0:
                left -= LISTENER_POLL_SECONDS
                self._stopped.wait(LISTENER_POLL_SECONDS)
            else:
                reconnect_after = left = self._wait(reconnect_after)
            if not self._poll():
                break
            self._stopped.wait(COALESCE_SECONDS)
        self._notifications.close()

    def _wait(self, reconnect_after: float) -> float:
        """Wait for a notification. Return 0, or after a failure the seconds until the next attempt (rule 8)."""
        try:
            self._notifications.wait(LISTENER_POLL_SECONDS)  # rule 6
        except Exception as error:  # noqa: BLE001  # whatever it is, polling goes on
            if not reconnect_after and not self._stopped.is_set():
                _log.warning("the store sends no notifications, polling instead until it does: %s", error)
            return min(max(2 * reconnect_after, LISTENER_POLL_SECONDS), MAX_RECONNECT_SECONDS)
        if reconnect_after:
            _log.info("the store sends notifications again")
        return 0.0

    def _poll(self) -> bool:
        """Poll; return False when the cache is gone or the listener was stopped (rule 9)."""
        refresh = self._refresh()
        if refresh is None or self._stopped.is_set():
            return False
        try:
            run_sync(refresh())  # type: ignore[arg-type]  # a coroutine method, see ``RevocationListener``
        except Exception as error:  # noqa: BLE001  # the next request polls too, and raises it
            _log.debug("the store did not respond: %s", error)
        return True
