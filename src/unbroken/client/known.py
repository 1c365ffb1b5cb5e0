"""What one process knows about its session between calls: all mutable state, in one struct behind one lock.

1. Nothing here blocks: no store, no network, no hook is called while the lock is held.
2. One flight at a time. Whoever needs a renewal while one is under way waits for that one.
3. A failure is remembered for the tokens it happened to: those who come within the cool-down get the same error.
4. An endpoint that rejects brand-new tokens has its own reasons: its answers are passed through for a while, and so are
   those of any endpoint while new tokens have helped nobody.
5. What was begun under one epoch is never finished under another, and no tokens of an older epoch ever come back.
"""

from __future__ import annotations

import os
import random
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable

from unbroken.client.flight import Flight
from unbroken.client.live import Clock, Live
from unbroken.client.timing import Leeway, RefreshWindow, cool_down, due_by_clock, storming
from unbroken.errors import RenewalStorm, SessionOver, TryLater, UnbrokenError

__all__ = ["Known"]

STUBBORN_MOST = 256  # endpoints remembered under rule 4
STUBBORN_FOR = 30.0  # seconds
BRAND_NEW = 10.0  # seconds
USELESS_MOST = 2  # renewals in a row that helped nobody
LOOK_EVERY = 1.0  # seconds between two looks into the store during a cool-down


class Known:
    """The state that all requests of one session object share. Times are seconds on the monotonic clock."""

    def __init__(self, clock: Clock, leeway: Leeway, window: RefreshWindow | None) -> None:
        self._clock, self._leeway, self._window = clock, leeway, window
        self.live: Live | None = None  # read without the lock: it is replaced, never changed
        self.epoch = 0
        self.over = "not_logged_in"
        self._forget_flights()
        self._renewals: list[float] = []
        self._stubborn: OrderedDict[object, float] = OrderedDict()  # until when
        self._useless = (0, 0.0, 0)  # how many renewals, when the last one was found so, and its version
        self._looked = -LOOK_EVERY
        _all.add(self)

    def _forget_flights(self) -> None:
        """Also after a fork: threads and held locks stay behind in the parent."""
        self._lock = threading.Lock()  # guards everything below, and the replacement of live, epoch and over
        self._flight: tuple[int, Flight[Live] | None] = (0, None)  # of which epoch
        self._loading: Flight[Live] | None = None
        self._failures = 0
        self._failed: tuple[int, UnbrokenError, float] | None = None  # version, error, not again before

    @property
    def version(self) -> int:
        """That of the tokens in use; 0 without any."""
        live = self.live
        return 0 if live is None else live.tokens.version

    @property
    def renewing(self) -> bool:
        """Whether a renewal is under way."""
        _, flight = self._flight
        return flight is not None and not flight.landed

    def install(self, live: Live, *, epoch: int | None = None) -> None:
        """Makes *live* the tokens in use, unless newer ones are.

        With *epoch*: only if nobody logged in or out since, else raises SessionOver.
        """
        with self._lock:
            tokens, mine = live.tokens, self.live
            overtaken = tokens.epoch < self.epoch or (epoch not in (None, self.epoch) and tokens.epoch != self.epoch)
            if overtaken and epoch is not None:
                raise SessionOver("other_login" if mine else self.over)
            if overtaken:
                return
            if mine is None or tokens.epoch > self.epoch or tokens.version > mine.tokens.version:
                self.live, self.epoch, self.over = live, tokens.epoch, ""
                self._failed, self._failures = None, 0

    def end(self, reason: str, *, epoch: int, of: int | None = None) -> bool:
        """The session is over. *of*: only if that is still the epoch in use. Whether this was news."""
        with self._lock:
            if (of is not None and of != self.epoch) or epoch < self.epoch:
                return False
            news = self.live is not None
            self.live, self.over, self.epoch = None, reason, epoch
            return news

    def failed(self, live: Live, error: UnbrokenError, retry_after: float) -> float:
        """Remembers that *live* could not be renewed now; seconds until the next try."""
        with self._lock:
            self._failures += 1
            wait = cool_down(self._failures, retry_after, random.random())  # noqa: S311  # spreads load only
            self._failed = (live.tokens.version, error, self._clock.mono() + wait)
            return wait

    def flight_for(
        self, live: Live, why: str, work: Callable[[], Live], look: Callable[[], Live] | None, limit: float
    ) -> tuple[Flight[Live], bool]:
        """The flight that renews *live*, and whether the caller has to start it. Raises TryLater or RenewalStorm.

        During a cool-down, for a caller who has no other tokens, it only does *look*: somebody else may have renewed.
        """
        with self._lock:
            epoch, flight = self._flight
            if flight is not None and epoch == live.tokens.epoch and not flight.landed:
                return flight, False
            if (error := self._cooling(live)) is None:
                self._count(live, why)
            elif look is None or self._clock.mono() - self._looked < LOOK_EVERY:
                raise error from error.__cause__
            else:
                self._looked, work = self._clock.mono(), look
            flight = Flight(work, limit)
            self._flight = (live.tokens.epoch, flight)
            return flight, True

    def load_flight(self, work: Callable[[], Live], limit: float) -> tuple[Flight[Live], bool]:
        """The flight that reads the store for event loops, and whether the caller has to start it."""
        with self._lock:
            mine = self._loading is None or self._loading.landed
            if self._loading is None or mine:
                self._loading = Flight(work, limit)
            return self._loading, mine

    def remembered(self, live: Live) -> UnbrokenError | None:
        """The failure that *live* is cooling down from."""
        with self._lock:
            return self._cooling(live)

    def _cooling(self, live: Live) -> UnbrokenError | None:
        if self._failed is None:
            return None
        version, error, not_before = self._failed
        wait = not_before - self._clock.mono()
        if version != live.tokens.version or wait <= 0:
            return None
        again = error.again()
        if isinstance(again, TryLater):
            again.retry_after = wait
        again.__cause__ = error.__cause__
        return again

    def _count(self, live: Live, why: str) -> None:
        if self._window is None or (
            why != "challenge" and due_by_clock(live.tokens, live.age(self._clock), self._leeway)
        ):
            return
        now = self._clock.mono()
        self._renewals = [at for at in self._renewals if now - at < self._window.interval]
        if wait := storming(self._renewals, now, self._window):
            raise RenewalStorm(
                f"{self._window.attempts} renewals in {self._window.interval:g} seconds: new tokens are being rejected",
                retry_after=wait,
            )
        self._renewals.append(now)

    def settled(self, endpoint: object, live: Live, took: bool) -> None:
        """Notes whether *endpoint* took the tokens that it was given anew. Only brand-new ones tell anything."""
        now = self._clock.mono()
        with self._lock:
            if took:
                self._useless = (0, 0.0, 0)
                self._stubborn.pop(endpoint, None)
            elif live.age(self._clock) < BRAND_NEW:
                count, _, version = self._useless
                self._useless = (count + (version != live.tokens.version), now, live.tokens.version)
                self._stubborn[endpoint] = now + STUBBORN_FOR
                self._stubborn.move_to_end(endpoint)
                if len(self._stubborn) > STUBBORN_MOST:
                    self._stubborn.popitem(last=False)

    def passes_through(self, endpoint: object, live: Live) -> bool:
        """Whether a challenge to *live* from *endpoint* is its own affair: rule 4."""
        now = self._clock.mono()
        if live.age(self._clock) >= STUBBORN_FOR:
            return False
        count, last, _ = self._useless
        return now < self._stubborn.get(endpoint, 0.0) or (count >= USELESS_MOST and now - last < STUBBORN_FOR)


_all: weakref.WeakSet[Known] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for known in list(_all):
        known._forget_flights()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
