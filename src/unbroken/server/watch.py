"""What one process knows of the keys and of revoked sessions, kept fresh by asking the store now and then.

1. What this process revokes, it knows at once. What another one on the same store revokes, it knows within ``EVERY``
   seconds: whoever verifies a token asks first, if the last answer is older than that. Where the store announces what
   happens, a thread listens (``feed.py``), and nearly nobody ever has to ask.
2. One asks at a time; others go on with what is known, as long as that is younger than ``STALE`` seconds. Then the
   tasks of a thread wait for the one that asks, and another thread asks for itself: no thread ever waits for another.
3. Answers may overtake each other. Of two, the one that was asked for later counts.
4. A revocation is forgotten when the last access token of its session must have expired, and not before: the set is
   bounded by the revocations of one access lifetime.
5. A key that nobody here knows may be a moment old. The store is asked once more before its token is refused, but at
   most every ``AGAIN`` seconds: anybody can name a key.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from unbroken._once import is_blocking
from unbroken.errors import TryLater
from unbroken.server.feed import Feed
from unbroken.server.keys import KeyRecord, Keyring, new_mac_key, new_signing_key
from unbroken.server.stores import Store
from unbroken.server.threads import at_fork

__all__ = ["Watch"]

EVERY = 0.4
STALE = 0.8
AGAIN = 0.03
SKEW = 5.0  # seconds that a revocation is remembered longer than its access tokens live


class Watch:
    """The keyring and the revoked sids, as of less than a second ago."""

    def __init__(self, store: Store, token_ttls: Mapping[str, float], clock: Callable[[], float]) -> None:
        self._store, self._token_ttls, self._clock = store, token_ttls, clock
        self.forked()
        at_fork(self)
        # On the monotonic clock. After it, the store should be asked before anything is believed.
        self.fresh_until = float("-inf")
        self._asked_again = float("-inf")
        self._begun = self._learnt = 0  # questions are numbered, so that an older answer cannot replace a newer one
        self._cursor = 0
        self._ends: list[tuple[float, str]] = []  # when what is revoked may be forgotten: a heap
        self.keyring = Keyring(())
        self.feed = Feed(store.news, self.look_now)
        self.revoked: dict[str, float] = {}

    def forked(self) -> None:
        self._lock = threading.Lock()  # guards all that is learnt; never held while the store is asked
        self._asking: dict[tuple[int, bool], _Asking] = {}  # by thread, and whether it blocks

    async def look(self) -> None:
        """Asks the store if that is due. Makes the first keys if there are none."""
        self.feed.begin()
        while (now := time.monotonic()) > self.fresh_until:
            stale = now > self.fresh_until + STALE - EVERY
            if self._asking and not stale:
                return
            other = self._asking.get(_here())
            if other is None:
                await self._ask_for_all()
                return
            if await other.ended_well():
                return

    async def finds(self, kid: str | int | None) -> bool:
        """Whether a key that was unknown is known now: another process may have made it a moment ago."""
        if kid is None or self.keyring.knows(kid):
            return False
        return await self.look_again() and self.keyring.knows(kid)

    async def look_again(self) -> bool:
        """Asks the store, because of a key that is unknown; False if that was done a moment ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._asked_again < AGAIN:
                return False
            self._asked_again = now
        await self.look_now()
        return True

    async def look_now(self) -> None:
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
            self._cursor, self._learnt, self.fresh_until = cursor, number, asked + EVERY

    def learn(self, revocations: Iterable[tuple[str, float]]) -> None:
        """Takes note of revoked sids, each with how long it must be remembered."""
        with self._lock:
            self._note(revocations)

    def dead_until(self, now: float) -> float:
        """How long a session that ends now must be remembered as ended."""
        return now + self.keyring.longest_access() + SKEW

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
        asking = self._asking[here] = _Asking()
        try:
            await self.look_now()
            asking.well = True
        except TryLater as error:
            asking.error = error
            raise
        finally:
            self._asking.pop(here, None)
            asking.end()


def _here() -> tuple[int, bool]:
    return threading.get_ident(), is_blocking()


class _Asking:
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
            raise self.error.again()
        return self.well

    def end(self) -> None:
        if self._end:
            self._end.set()
