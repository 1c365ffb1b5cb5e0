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

import random
import threading
from collections import OrderedDict
from collections.abc import Callable

from unbroken._clock import Clock
from unbroken._fork import register_fork_aware
from unbroken._single_flight import SingleFlight
from unbroken._sync import run_sync
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.events import (
    LateChallenge,
    RefreshFailed,
    RefreshFinished,
    RefreshJoined,
    RefreshStarted,
    RefreshStormStopped,
    TokensAdopted,
)
from unbroken.client.core.record import TokenStore
from unbroken.client.core.refresh_rules import newer_than, refresh
from unbroken.client.core.schedule import (
    ActiveTokens,
    Leeway,
    RefreshWindow,
    cooldown_seconds,
    due_by_age,
    seconds_until_allowed,
)
from unbroken.client.hooks import EventDispatcher
from unbroken.client.port import BlockingPort
from unbroken.errors import ConfigurationError, RefreshStorm, SessionOver, TryLater, UnbrokenError
from unbroken.tokens import Tokens

__all__ = ["TRANSIENT_ERRORS", "RefreshCoordinator", "SessionState"]

MAX_EXCLUDED_ENDPOINTS = 256  # endpoints remembered under rule 4
EXCLUSION_SECONDS = 30.0  # seconds
BRAND_NEW_SECONDS = 10.0  # seconds
MAX_USELESS_REFRESHES = 2  # renewals in a row that helped nobody
RELOAD_INTERVAL_SECONDS = 1.0  # seconds between two looks into the store during a cool-down


class SessionState:
    """The state that all requests of one session object share. Times are seconds on the monotonic clock."""

    def __init__(self, clock: Clock, leeway: Leeway, window: RefreshWindow | None) -> None:
        self._clock, self._leeway, self._window = clock, leeway, window
        self.live: ActiveTokens | None = None  # read without the lock: it is replaced, never changed
        self.epoch = 0
        self.over = "not_logged_in"
        self.reset_after_fork()
        self._renewals: list[float] = []
        self._stubborn: OrderedDict[object, float] = OrderedDict()  # until when
        self._useless = (0, 0.0, 0)  # how many renewals, when the last one was found so, and its version
        self._looked = -RELOAD_INTERVAL_SECONDS
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Also after a fork: threads and held locks stay behind in the parent."""
        self._lock = threading.Lock()  # guards everything below, and the replacement of live, epoch and over
        self._flight: tuple[int, SingleFlight[ActiveTokens] | None] = (0, None)  # of which epoch
        self._loading: SingleFlight[ActiveTokens] | None = None
        self._failures = 0
        self._failed: tuple[int, UnbrokenError, float] | None = None  # version, error, not again before

    @property
    def version(self) -> int:
        """That of the tokens in use; 0 without any."""
        live = self.live
        return 0 if live is None else live.tokens.version

    @property
    def refreshing(self) -> bool:
        """Whether a renewal is under way."""
        _, flight = self._flight
        return flight is not None and not flight.done

    def install(self, live: ActiveTokens, *, epoch: int | None = None) -> None:
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

    def end_session(self, reason: str, *, epoch: int, of: int | None = None) -> bool:
        """The session is over. *of*: only if that is still the epoch in use. Whether this was news."""
        with self._lock:
            if (of is not None and of != self.epoch) or epoch < self.epoch:
                return False
            news = self.live is not None
            self.live, self.over, self.epoch = None, reason, epoch
            return news

    def record_failure(self, live: ActiveTokens, error: UnbrokenError, retry_after: float) -> float:
        """Remembers that *live* could not be renewed now; seconds until the next try."""
        with self._lock:
            self._failures += 1
            wait = cooldown_seconds(self._failures, retry_after, random.random())  # noqa: S311  # spreads load only
            self._failed = (live.tokens.version, error, self._clock.monotonic() + wait)
            return wait

    def flight_for(
        self,
        live: ActiveTokens,
        why: str,
        work: Callable[[], ActiveTokens],
        look: Callable[[], ActiveTokens] | None,
        limit: float,
    ) -> tuple[SingleFlight[ActiveTokens], bool]:
        """The flight that renews *live*, and whether the caller has to start it. Raises TryLater or RefreshStorm.

        During a cool-down, for a caller who has no other tokens, it only does *look*: somebody else may have renewed.
        """
        with self._lock:
            epoch, flight = self._flight
            if flight is not None and epoch == live.tokens.epoch and not flight.done:
                return flight, False
            if (error := self._active_cooldown(live)) is None:
                self._count(live, why)
            elif look is None or self._clock.monotonic() - self._looked < RELOAD_INTERVAL_SECONDS:
                raise error from error.__cause__
            else:
                self._looked, work = self._clock.monotonic(), look
            flight = SingleFlight(work, limit)
            self._flight = (live.tokens.epoch, flight)
            return flight, True

    def load_flight(self, work: Callable[[], ActiveTokens], limit: float) -> tuple[SingleFlight[ActiveTokens], bool]:
        """The flight that reads the store for event loops, and whether the caller has to start it."""
        with self._lock:
            mine = self._loading is None or self._loading.done
            if self._loading is None or mine:
                self._loading = SingleFlight(work, limit)
            return self._loading, mine

    def recent_failure(self, live: ActiveTokens) -> UnbrokenError | None:
        """The failure that *live* is cooling down from."""
        with self._lock:
            return self._active_cooldown(live)

    def _active_cooldown(self, live: ActiveTokens) -> UnbrokenError | None:
        if self._failed is None:
            return None
        version, error, not_before = self._failed
        wait = not_before - self._clock.monotonic()
        if version != live.tokens.version or wait <= 0:
            return None
        again = error.copy()
        if isinstance(again, TryLater):
            again.retry_after = wait
        again.__cause__ = error.__cause__
        return again

    def _count(self, live: ActiveTokens, why: str) -> None:
        if self._window is None or (
            why != "challenge" and due_by_age(live.tokens, live.age(self._clock), self._leeway)
        ):
            return
        now = self._clock.monotonic()
        self._renewals = [at for at in self._renewals if now - at < self._window.interval]
        if wait := seconds_until_allowed(self._renewals, now, self._window):
            raise RefreshStorm(
                f"{self._window.attempts} renewals in {self._window.interval:g} seconds: new tokens are being rejected",
                retry_after=wait,
            )
        self._renewals.append(now)

    def record_acceptance(self, endpoint: object, live: ActiveTokens, took: bool) -> None:
        """Notes whether *endpoint* took the tokens that it was given anew. Only brand-new ones tell anything."""
        now = self._clock.monotonic()
        with self._lock:
            if took:
                self._useless = (0, 0.0, 0)
                self._stubborn.pop(endpoint, None)
            elif live.age(self._clock) < BRAND_NEW_SECONDS:
                count, _, version = self._useless
                self._useless = (count + (version != live.tokens.version), now, live.tokens.version)
                self._stubborn[endpoint] = now + EXCLUSION_SECONDS
                self._stubborn.move_to_end(endpoint)
                if len(self._stubborn) > MAX_EXCLUDED_ENDPOINTS:
                    self._stubborn.popitem(last=False)

    def is_excluded(self, endpoint: object, live: ActiveTokens) -> bool:
        """Whether a challenge to *live* from *endpoint* is its own affair: rule 4."""
        now = self._clock.monotonic()
        if live.age(self._clock) >= EXCLUSION_SECONDS:
            return False
        count, last, _ = self._useless
        return now < self._stubborn.get(endpoint, 0.0) or (
            count >= MAX_USELESS_REFRESHES and now - last < EXCLUSION_SECONDS
        )


TRANSIENT_ERRORS = (TryLater, ConfigurationError)  # why a renewal does not work now; tokens that are still good go on
Plan = tuple[
    ActiveTokens | None, SingleFlight[ActiveTokens] | None
]  # tokens that can be used now, and a flight worth waiting for


class RefreshCoordinator:
    """The renewals of one session object. *limit* bounds each, in seconds."""

    def __init__(
        self,
        store: TokenStore,
        dialect: Dialect,
        clock: Clock,
        leeway: Leeway,
        known: SessionState,
        hooks: EventDispatcher,
        port: BlockingPort,
        limit: float,
    ) -> None:
        self._store, self._dialect, self._clock, self._leeway = store, dialect, clock, leeway
        self._known, self._hooks, self._port, self._limit = known, hooks, port, limit

    def plan(self, fresh: bool, live: ActiveTokens) -> Plan:
        """Tokens that can be used now, and a flight that is worth waiting for. Raises SessionOver or TryLater."""
        age = live.age(self._clock)
        if age < live.ages.refresh_in_background_at:
            return live, None
        usable = live if age < live.ages.expires_at else None
        try:
            flight = self._flight(live, "expired" if age >= live.ages.refresh_before_use_at else "ageing", usable)
        except TRANSIENT_ERRORS:
            if usable is None:
                raise
            return usable, None
        return usable, flight if fresh or age >= live.ages.refresh_before_use_at else None

    def handle_challenge(self, sent: ActiveTokens, endpoint: object, live: ActiveTokens) -> Plan:
        """What to do about a challenge by *endpoint* to *sent*, while *live* are in use. Neither: hand it over.

        Raises SessionOver, TryLater or RefreshStorm.
        """
        if live.tokens.epoch != sent.tokens.epoch:
            raise SessionOver("other_login")
        if live.tokens.version != sent.tokens.version:
            if live.age(self._clock) < live.ages.refresh_before_use_at:
                self._hooks.tell(LateChallenge(live.tokens.version))
            return self.plan(False, live)
        if not live.tokens.refresh_token or self._known.is_excluded(endpoint, sent):
            return None, None
        return None, self._flight(live, "challenge")

    def _flight(self, live: ActiveTokens, why: str, usable: ActiveTokens | None = None) -> SingleFlight[ActiveTokens]:
        look = None if usable else lambda: self._reload(live)
        try:
            flight, mine = self._known.flight_for(live, why, lambda: self._refresh(live, why), look, self._limit + 5.0)
        except RefreshStorm:
            self._hooks.tell(RefreshStormStopped(live.tokens.version))
            raise
        if mine:
            flight.start(self._hooks.deliver)
        else:
            self._hooks.tell(RefreshJoined(live.tokens.version))
        return flight

    def check_still_current(self, live: ActiveTokens, epoch: int) -> ActiveTokens:
        """*live*, unless somebody logged in or out while the caller waited."""
        if self._known.epoch != epoch or live.tokens.epoch != epoch:
            raise SessionOver("other_login" if self._known.live else self._known.over)
        return live

    def _refresh(self, live: ActiveTokens, why: str) -> ActiveTokens:
        """Runs in the flight's thread. Raises SessionOver, TryLater or ConfigurationError, nothing else."""
        self._hooks.note(RefreshStarted(live.tokens.version, why=why))
        epoch, began, outcome = live.tokens.epoch, self._clock.monotonic(), "failed"
        port = self._port.for_one_refresh()
        try:
            fresh = self.activate(run_sync(refresh(port, live.tokens)))
            self._known.install(fresh, epoch=epoch)
            outcome = "renewed" if port.granted else "adopted"
        except SessionOver as over:
            outcome = "ended"
            if self._known.end_session(over.reason, epoch=epoch, of=epoch) and over.reason != "other_login":
                self._hooks.session_over(over.reason)
            raise
        except TRANSIENT_ERRORS as error:
            self._failed(live, error)
            raise
        except Exception as error:
            later = TryLater(f"the renewal failed unexpectedly ({type(error).__name__})")
            self._failed(live, later)
            raise later from error
        finally:
            self._hooks.note(
                RefreshFinished(live.tokens.version, outcome=outcome, seconds=self._clock.monotonic() - began)
            )
        self._hooks.tokens_changed(fresh.tokens)
        return fresh

    def _reload(self, live: ActiveTokens) -> ActiveTokens:
        """Newer tokens that somebody else has stored, during a cool-down. Raises the failure it is for, if none."""
        newer = newer_than(live.tokens, self._store.load())
        if newer is None or newer.expired(self._clock.wall()):
            raise self._known.recent_failure(live) or TryLater("the renewal has only just failed")
        fresh = self.activate(newer)
        self._known.install(fresh, epoch=live.tokens.epoch)
        self._hooks.note(TokensAdopted(newer.version))
        return fresh

    def _failed(self, live: ActiveTokens, error: UnbrokenError) -> None:
        wait = self._known.record_failure(live, error, getattr(error, "retry_after", 0.0))
        if isinstance(error, TryLater):
            error.retry_after = wait
        self._hooks.note(RefreshFailed(live.tokens.version, error=error.code, retry_after=wait))

    def load(self) -> ActiveTokens:
        """The stored tokens, taken into use. Raises SessionOver when there are none."""
        epoch = self._known.epoch
        record = self._store.load()
        if record.tokens is None:
            raise SessionOver(self._known.over if record.over in ("", "not_logged_in") else record.over)
        live = self.activate(record.tokens)
        self._known.install(live, epoch=epoch)
        return live

    def activate(self, tokens: Tokens) -> ActiveTokens:
        """*tokens*, made ready for use."""
        return ActiveTokens(tokens, self._dialect.header_value(tokens), self._clock, self._leeway, random.random())  # noqa: S311  # spreads load only
