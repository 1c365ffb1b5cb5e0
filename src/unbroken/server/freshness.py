"""What one process knows of the keys and of revoked sessions, kept fresh by asking the store now and then.

1. What this process revokes, it knows at once. What another one on the same store revokes, it knows within a
   ``POLL_SECONDS``: whoever verifies a token asks first, if the last answer is older than that. Where the store
   announces what happens, a thread listens (``feed.py``), and nearly nobody ever has to ask.
2. One asks at a time; others go on with what is known, as long as that is younger than ``STALE_SECONDS``. Then the
   tasks of a thread wait for the one that asks, and another thread asks for itself: no thread ever waits for another.
3. Answers may overtake each other. Of two, the one that was asked for later counts.
4. A revocation is forgotten when the last access token of its session must have expired, and not before: the set is
   bounded by the revocations of one access lifetime.
5. A key that nobody here knows may be a moment old. The store is asked once more before its token is refused, but at
   most every ``UNKNOWN_KEY_RETRY_SECONDS`` seconds: anybody can name a key.

A thread that listens to the store's news, so that no request ever has to ask the store what was revoked.

1. It looks whenever something was announced, and at the latest every ``LISTENER_POLL_SECONDS``: an announcement
   that got lost, or a connection that hangs, costs that much and no more.
2. It begins with the first request, belongs to its process, and begins anew in a forked child.
3. Without it everything works as well: what was learnt goes stale by itself, and requests ask. So what fails here, be
   it that no thread can be had, is said in the log once, and tried again; to listen, after longer and longer pauses.
4. It ends by ``stop``, or when nobody has the ``Watch`` any more that it looks for.
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

from unbroken._fork import register_fork_aware
from unbroken._sync import in_sync_context, run_sync
from unbroken.errors import TryLater
from unbroken.server.keys.keyring import KeyRecord, Keyring, new_mac_key, new_signing_key
from unbroken.server.stores import Notifications, SessionStore

__all__ = ["KeyAndRevocationCache", "RevocationListener"]

LISTENER_POLL_SECONDS = 0.3
COALESCE_SECONDS = 0.005  # between two looks, so that many announcements are one
MAX_RECONNECT_SECONDS = 10.0  # between two attempts to listen
STOP_SECONDS = 2.0

_log = logging.getLogger("unbroken")
_of_parents: list[object] = []  # a forked child neither uses nor closes its parent's connections


class RevocationListener:
    """Calls the coroutine function *look*, a method, after each announcement of *news*: what the store gives."""

    def __init__(self, news: Callable[[], Notifications | None], look: Callable[[], object]) -> None:
        self._news, self._look = news, weakref.WeakMethod(look)
        self._lock = threading.Lock()
        self._pid = 0  # of the process whose listener this is; 0 before there is one
        self._listener: _ListenerThread | None = None
        self._cannot_begin = False

    def begin(self) -> None:
        """Begins to listen, in a thread, if the store announces anything and none does so in this process."""
        if self._pid == os.getpid():
            return
        if self._pid:  # forked: the lock may be held by a thread that is not here
            self._lock = threading.Lock()
            _of_parents.append(self._listener)
        with self._lock:
            if self._pid == os.getpid():
                return
            self._listener = None
            try:
                if (news := self._news()) is not None:
                    self._listener = _ListenerThread(news, self._look)
                    weakref.finalize(self, self._listener.stop)  # also before the interpreter ends
            except (OSError, RuntimeError) as error:  # no socket, or no thread: the next request may have more luck
                if not self._cannot_begin:
                    _log.warning("revocations are asked for, as nobody can listen for them: %s", error)
                self._cannot_begin = True
                return
            self._cannot_begin, self._pid = False, os.getpid()

    def stop(self) -> None:
        """Ends the thread; ``begin`` begins anew."""
        if self._pid == os.getpid():
            with self._lock:
                listener, self._listener, self._pid = self._listener, None, 0
            if listener is not None:
                listener.stop()


class _ListenerThread:
    """The thread, and what it listens to."""

    def __init__(self, news: Notifications, look: weakref.WeakMethod[Callable[[], object]]) -> None:
        self._news, self._look_at = news, look
        self._pid, self._stopped = os.getpid(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="unbroken feed", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._news.close()
            raise

    def stop(self) -> None:
        """Ends the thread. Called in the thread, when the last who had the ``Watch`` was collected there, it leaves
        that to the thread itself, which may just then hold locks that would be needed here.
        """
        if self._pid != os.getpid() or self._thread.ident == threading.get_ident() or self._stopped.is_set():
            return
        self._stopped.set()
        self._news.close()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        deaf = 0.0  # seconds until the next attempt to listen; 0 while it works
        left = 0.0
        while not self._stopped.is_set():
            if left > 0:
                left -= LISTENER_POLL_SECONDS
                self._stopped.wait(LISTENER_POLL_SECONDS)
            else:
                deaf = left = self._hear(deaf)
            if not self._look():
                break
            self._stopped.wait(COALESCE_SECONDS)
        self._news.close()

    def _hear(self, deaf: float) -> float:
        """Waits for news; 0, or if there is nothing to hear, for how long not to try again."""
        try:
            self._news.wait(LISTENER_POLL_SECONDS)
        except Exception as error:  # noqa: BLE001  # whatever it is, requests ask the store meanwhile
            if not deaf and not self._stopped.is_set():
                _log.warning("revocations are asked for, not listened to, until the store announces again: %s", error)
            return min(max(2 * deaf, LISTENER_POLL_SECONDS), MAX_RECONNECT_SECONDS)
        if deaf:
            _log.info("the store announces revocations again")
        return 0.0

    def _look(self) -> bool:
        """Looks; False when nobody wants that any more."""
        look = self._look_at()
        if look is None or self._stopped.is_set():
            return False
        try:
            run_sync(look())  # type: ignore[arg-type]  # a coroutine function, see ``Feed``
        except Exception as error:  # noqa: BLE001  # whoever needs to know asks the store too, and is told
            _log.debug("the store did not answer: %s", error)
        return True


POLL_SECONDS = 0.4
STALE_SECONDS = 0.8
UNKNOWN_KEY_RETRY_SECONDS = 0.03
REVOCATION_MARGIN_SECONDS = 5.0  # seconds that a revocation is remembered longer than its access tokens live


class KeyAndRevocationCache:
    """The keyring and the revoked sids, as of less than a second ago."""

    def __init__(self, store: SessionStore, token_ttls: Mapping[str, float], clock: Callable[[], float]) -> None:
        self._store, self._token_ttls, self._clock = store, token_ttls, clock
        self.reset_after_fork()
        register_fork_aware(self)
        # On the monotonic clock. After it, the store should be asked before anything is believed.
        self.fresh_until = float("-inf")
        self._asked_again = float("-inf")
        self._begun = self._learnt = 0  # questions are numbered, so that an older answer cannot replace a newer one
        self._cursor = 0
        self._ends: list[tuple[float, str]] = []  # when what is revoked may be forgotten: a heap
        self.keyring = Keyring(())
        self.feed = RevocationListener(store.notifications, self.refresh_now)
        self.revoked: dict[str, float] = {}

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()  # guards all that is learnt; never held while the store is asked
        self._asking: dict[tuple[int, bool], _Poll] = {}  # by thread, and whether it blocks

    async def refresh_if_due(self) -> None:
        """Asks the store if that is due. Makes the first keys if there are none."""
        self.feed.begin()
        while (now := time.monotonic()) > self.fresh_until:
            stale = now > self.fresh_until + STALE_SECONDS - POLL_SECONDS
            if self._asking and not stale:
                return
            other = self._asking.get(_here())
            if other is None:
                await self._ask_for_all()
                return
            if await other.ended_well():
                return

    async def refresh_for_unknown_key(self, kid: str | int | None) -> bool:
        """Whether a key that was unknown is known now: another process may have made it a moment ago."""
        if kid is None or self.keyring.knows(kid):
            return False
        return await self.refresh_if_older() and self.keyring.knows(kid)

    async def refresh_if_older(self) -> bool:
        """Asks the store, because of a key that is unknown; False if that was done a moment ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._asked_again < UNKNOWN_KEY_RETRY_SECONDS:
                return False
            self._asked_again = now
        await self.refresh_now()
        return True

    async def refresh_now(self) -> None:
        """Asks the store, whenever it was asked last."""
        with self._lock:
            self._begun = number = self._begun + 1
            cursor = self._cursor
        asked = time.monotonic()
        records = await self._keys()
        cursor, news = await self._store.revocations(cursor)
        with self._lock:
            self._note(news)
            if number < self._learnt:
                return
            if records != self.keyring.records:
                self.keyring = Keyring(records, self.keyring)
            self._cursor, self._learnt, self.fresh_until = cursor, number, asked + POLL_SECONDS

    def add_revocations(self, revocations: Iterable[tuple[str, float]]) -> None:
        """Takes note of revoked sids, each with how long it must be remembered."""
        with self._lock:
            self._note(revocations)

    def dead_until(self, now: float) -> float:
        """How long a session that ends now must be remembered as ended."""
        return now + self.keyring.longest_access() + REVOCATION_MARGIN_SECONDS

    async def _keys(self) -> tuple[KeyRecord, ...]:
        """The keys, after the first ones were made and their lifetimes noted."""
        records = await self._store.keys()
        if not records:
            now = self._clock()  # the first keys sign from ever, so that no clock can be too slow for them
            await self._store.save_keys((new_signing_key("EdDSA", now, 0.0), new_mac_key(1, now, 0.0)), first=True)
            records = await self._store.keys()
        if short := [record for record in records if record.token_ttl < self._token_ttls[record.use]]:
            await self._store.save_keys([replace(key, token_ttl=self._token_ttls[key.use]) for key in short])
            records = await self._store.keys()
        return tuple(records)

    def _note(self, revocations: Iterable[tuple[str, float]]) -> None:
        """In place, and under the lock: another thread may be noting something, and all are looking."""
        now = self._clock()
        for sid, until in revocations:
            if until > self.revoked.get(sid, now):
                self.revoked[sid] = until
                heapq.heappush(self._ends, (until, sid))
        while self._ends and self._ends[0][0] <= now:
            until, sid = heapq.heappop(self._ends)
            if self.revoked.get(sid) == until:
                del self.revoked[sid]

    async def _ask_for_all(self) -> None:
        """Asks, and tells those tasks of this thread that wait for it how that ended."""
        here = _here()
        asking = self._asking[here] = _Poll()
        try:
            await self.refresh_now()
            asking.well = True
        except TryLater as error:
            asking.error = error
            raise
        finally:
            self._asking.pop(here, None)
            asking.end()


def _here() -> tuple[int, bool]:
    return threading.get_ident(), in_sync_context()


class _Poll:
    """One task of an event loop asks the store; others of its thread can wait for that. A blocking flow ends before
    anybody could.
    """

    def __init__(self) -> None:
        self.well = False
        self.error: TryLater | None = None
        self._end: Any = None  # an event of the running loop, once somebody waits

    async def ended_well(self) -> bool:
        """Waits; whether the store has answered. Raises TryLater if it does not. False: the one who asked gave up."""
        import anyio  # noqa: PLC0415  # blocking use needs no event loop library

        self._end = self._end or anyio.Event()
        await self._end.wait()
        if self.error:
            raise self.error.copy()
        return self.well

    def end(self) -> None:
        if self._end:
            self._end.set()
