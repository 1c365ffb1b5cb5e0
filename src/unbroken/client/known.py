"""What one process knows about its session between calls: all mutable state, in one struct behind one lock.

1. Nothing here blocks: no store, no network, no hook is called while the lock is held.
2. One flight at a time. Whoever needs a renewal while one is under way waits for that one.
3. A failure is remembered for the tokens it happened to: those who come within the cool-down get the same error.
4. An endpoint that rejects brand-new tokens has its own reasons: its answers are passed through for a while.
5. What was begun under one epoch is never finished under another.
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
from unbroken.errors import RenewalStorm, SessionOver, TryLater

__all__ = ["Known"]

STUBBORN_MOST = 256  # endpoints remembered under rule 4


class Known:
    """The state that all requests of one session object share. Times are seconds on the monotonic clock."""

    def __init__(self, clock: Clock, leeway: Leeway, window: RefreshWindow | None) -> None:
        self._clock, self._leeway, self._window = clock, leeway, window
        self.live: Live | None = None  # read without the lock: it is replaced, never changed
        self.epoch = 0
        self.over = "not_logged_in"
        self._forget_flights()
        self._renewals: list[float] = []
        self._stubborn: OrderedDict[object, tuple[int, float]] = OrderedDict()
        _all.add(self)

    def _forget_flights(self) -> None:
        """Also after a fork: threads and held locks stay behind in the parent."""
        self._lock = threading.Lock()  # guards everything below, and the replacement of live, epoch and over
        self._flight: tuple[int, Flight[Live] | None] = (0, None)  # of which epoch
        self._failures = 0
        self._failed: tuple[int, TryLater, float] | None = None  # version, error, not again before

    @property
    def renewing(self) -> bool:
        """Whether a renewal is under way."""
        _, flight = self._flight
        return flight is not None and not flight.landed

    def install(self, live: Live, *, epoch: int | None = None) -> None:
        """Makes *live* the tokens in use. With *epoch*: if nobody logged in or out since, else raises SessionOver."""
        with self._lock:
            tokens, mine = live.tokens, self.live
            if epoch not in (None, self.epoch) and (mine is None or tokens.epoch != self.epoch):
                raise SessionOver("other_login" if mine else self.over)
            if mine is None or tokens.epoch != self.epoch or tokens.version > mine.tokens.version:
                self.live, self.epoch, self.over = live, tokens.epoch, ""
                self._failed, self._failures = None, 0

    def end(self, reason: str, *, epoch: int, of: int | None = None) -> bool:
        """The session is over. *of*: only if that is still the epoch in use. Whether this was news."""
        with self._lock:
            if of is not None and of != self.epoch:
                return False
            news = self.live is not None
            self.live, self.over, self.epoch = None, reason, epoch
            return news

    def failed(self, live: Live, error: TryLater) -> float:
        """Remembers that *live* could not be renewed now; seconds until the next try."""
        with self._lock:
            self._failures += 1
            wait = cool_down(self._failures, error.retry_after, random.random())  # noqa: S311  # spreads load only
            self._failed = (live.tokens.version, error, self._clock.mono() + wait)
            return wait

    def flight_for(self, live: Live, why: str, work: Callable[[], Live], limit: float) -> tuple[Flight[Live], bool]:
        """The flight that renews *live*, and whether the caller has to start it. Raises TryLater or RenewalStorm."""
        with self._lock:
            epoch, flight = self._flight
            if flight is not None and epoch == live.tokens.epoch and not flight.landed:
                return flight, False
            self._refuse_too_early(live)
            self._count(live, why)
            flight = Flight(work, limit)
            self._flight = (live.tokens.epoch, flight)
            return flight, True

    def _refuse_too_early(self, live: Live) -> None:
        if self._failed is None:
            return
        version, error, not_before = self._failed
        wait = not_before - self._clock.mono()
        if version == live.tokens.version and wait > 0:
            again = error.again()
            again.retry_after = wait
            raise again from error.__cause__

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

    def rejects_new_tokens(self, endpoint: object, live: Live) -> None:
        """Notes that *endpoint* challenged tokens that had just been renewed for it."""
        with self._lock:
            self._stubborn[endpoint] = (live.tokens.version, self._clock.mono() + 30.0)
            self._stubborn.move_to_end(endpoint)
            if len(self._stubborn) > STUBBORN_MOST:
                self._stubborn.popitem(last=False)

    def is_stubborn(self, endpoint: object, live: Live) -> bool:
        """Whether *endpoint* has rejected these very tokens when they were brand-new, a short while ago."""
        version, until = self._stubborn.get(endpoint, (None, 0.0))
        return version == live.tokens.version and self._clock.mono() < until


_all: weakref.WeakSet[Known] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for known in list(_all):
        known._forget_flights()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
