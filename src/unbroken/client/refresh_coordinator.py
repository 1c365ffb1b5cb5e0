"""What a session decides about its tokens, and the work of a renewal in its own thread.

1. Decisions block nobody: each gives tokens that can be used now, a flight to wait for, or both.
2. A late challenge is answered with the current tokens; a challenge to the current ones with a renewal, unless it is
   the endpoint's own affair, or there is nothing to renew with.
3. While tokens are good for something, a renewal that does not work now is nobody's error.
4. During a cool-down the store is asked, and nobody else: somebody may have renewed meanwhile.

What one process knows about its session between calls: all mutable state, in one struct behind one lock.

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

from unbroken._clock import Clock
from unbroken._single_flight import Flight
from unbroken._sync import run_once
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.events import (
    Adopted,
    Joined,
    LateChallenge,
    RenewalFailed,
    RenewalOver,
    RenewalStarted,
    StormStopped,
)
from unbroken.client.core.record import Store
from unbroken.client.core.refresh_rules import current_for, renew
from unbroken.client.core.schedule import Leeway, Live, RefreshWindow, cool_down, due_by_clock, storming
from unbroken.client.hooks import Hooks
from unbroken.client.port import BlockingPort
from unbroken.errors import ConfigurationError, RenewalStorm, SessionOver, TryLater, UnbrokenError
from unbroken.tokens import Tokens

__all__ = ["NOT_NOW", "Known", "Renewal"]

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


NOT_NOW = (TryLater, ConfigurationError)  # why a renewal does not work now; tokens that are still good go on
Course = tuple[Live | None, Flight[Live] | None]  # tokens that can be used now, and a flight worth waiting for


class Renewal:
    """The renewals of one session object. *limit* bounds each, in seconds."""

    def __init__(
        self,
        store: Store,
        dialect: Dialect,
        clock: Clock,
        leeway: Leeway,
        known: Known,
        hooks: Hooks,
        port: BlockingPort,
        limit: float,
    ) -> None:
        self._store, self._dialect, self._clock, self._leeway = store, dialect, clock, leeway
        self._known, self._hooks, self._port, self._limit = known, hooks, port, limit

    def plan(self, fresh: bool, live: Live) -> Course:
        """Tokens that can be used now, and a flight that is worth waiting for. Raises SessionOver or TryLater."""
        age = live.age(self._clock)
        if age < live.ages.behind:
            return live, None
        usable = live if age < live.ages.dead else None
        try:
            flight = self._flight(live, "expired" if age >= live.ages.first else "ageing", usable)
        except NOT_NOW:
            if usable is None:
                raise
            return usable, None
        return usable, flight if fresh or age >= live.ages.first else None

    def answer_challenge(self, sent: Live, endpoint: object, live: Live) -> Course:
        """What to do about a challenge by *endpoint* to *sent*, while *live* are in use. Neither: hand it over.

        Raises SessionOver, TryLater or RenewalStorm.
        """
        if live.tokens.epoch != sent.tokens.epoch:
            raise SessionOver("other_login")
        if live.tokens.version != sent.tokens.version:
            if live.age(self._clock) < live.ages.first:
                self._hooks.tell(LateChallenge(live.tokens.version))
            return self.plan(False, live)
        if not live.tokens.refresh_token or self._known.passes_through(endpoint, sent):
            return None, None
        return None, self._flight(live, "challenge")

    def _flight(self, live: Live, why: str, usable: Live | None = None) -> Flight[Live]:
        look = None if usable else lambda: self._look(live)
        try:
            flight, mine = self._known.flight_for(live, why, lambda: self._renew(live, why), look, self._limit + 5.0)
        except RenewalStorm:
            self._hooks.tell(StormStopped(live.tokens.version))
            raise
        if mine:
            flight.start(self._hooks.deliver)
        else:
            self._hooks.tell(Joined(live.tokens.version))
        return flight

    def arrived(self, live: Live, epoch: int) -> Live:
        """*live*, unless somebody logged in or out while the caller waited."""
        if self._known.epoch != epoch or live.tokens.epoch != epoch:
            raise SessionOver("other_login" if self._known.live else self._known.over)
        return live

    def _renew(self, live: Live, why: str) -> Live:
        """Runs in the flight's thread. Raises SessionOver, TryLater or ConfigurationError, nothing else."""
        self._hooks.note(RenewalStarted(live.tokens.version, why=why))
        epoch, began, outcome = live.tokens.epoch, self._clock.mono(), "failed"
        port = self._port.for_one_renewal()
        try:
            fresh = self.live(run_once(renew(port, live.tokens)))
            self._known.install(fresh, epoch=epoch)
            outcome = "renewed" if port.granted else "adopted"
        except SessionOver as over:
            outcome = "ended"
            if self._known.end(over.reason, epoch=epoch, of=epoch) and over.reason != "other_login":
                self._hooks.session_over(over.reason)
            raise
        except NOT_NOW as error:
            self._failed(live, error)
            raise
        except Exception as error:
            later = TryLater(f"the renewal failed unexpectedly ({type(error).__name__})")
            self._failed(live, later)
            raise later from error
        finally:
            self._hooks.note(RenewalOver(live.tokens.version, outcome=outcome, seconds=self._clock.mono() - began))
        self._hooks.tokens_changed(fresh.tokens)
        return fresh

    def _look(self, live: Live) -> Live:
        """Newer tokens that somebody else has stored, during a cool-down. Raises the failure it is for, if none."""
        newer = current_for(live.tokens, self._store.load())
        if newer is None or newer.expired(self._clock.wall()):
            raise self._known.remembered(live) or TryLater("the renewal has only just failed")
        fresh = self.live(newer)
        self._known.install(fresh, epoch=live.tokens.epoch)
        self._hooks.note(Adopted(newer.version))
        return fresh

    def _failed(self, live: Live, error: UnbrokenError) -> None:
        wait = self._known.failed(live, error, getattr(error, "retry_after", 0.0))
        if isinstance(error, TryLater):
            error.retry_after = wait
        self._hooks.note(RenewalFailed(live.tokens.version, error=error.code, retry_after=wait))

    def load(self) -> Live:
        """The stored tokens, taken into use. Raises SessionOver when there are none."""
        epoch = self._known.epoch
        record = self._store.load()
        if record.tokens is None:
            raise SessionOver(self._known.over if record.over in ("", "not_logged_in") else record.over)
        live = self.live(record.tokens)
        self._known.install(live, epoch=epoch)
        return live

    def live(self, tokens: Tokens) -> Live:
        """*tokens*, made ready for use."""
        return Live(tokens, self._dialect.attach(tokens), self._clock, self._leeway, random.random())  # noqa: S311  # spreads load only
