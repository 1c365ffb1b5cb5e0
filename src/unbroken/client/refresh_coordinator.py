"""What a session decides about refreshes, the state that it decides on, and the worker thread of a refresh.

    tokens_for_request, tokens_after_challenge     which tokens a request gets, and which refresh it waits for
      └─ _join_or_start_refresh                    single flight: one refresh at a time
           └─ _run_refresh                         in the worker thread: the outcome becomes state, events, an error
                └─ refresh                         the rules (core/refresh_rules.py), over the port

1. Decisions do not block: each returns tokens that can be used now, a refresh to wait for, or both.
2. A challenge (401) to tokens older than the current ones needs no refresh: the request is replayed with the current
   ones.
3. A challenge to the current tokens needs a refresh, unless nothing can refresh them, or the endpoint rejects
   brand-new tokens too (rule 7 of schedule.py); then the response is returned as it is.
4. A failed refresh is raised only where the current token cannot be used.
5. One refresh runs at a time; a request that needs one meanwhile waits for it.
6. During a cool-down no refresh is sent. Once a second the store is loaded, because another process may have refreshed.
7. What began under one epoch is not finished under another, and tokens of an older epoch never come back: a request
   that waited for a refresh is not sent for another login.
8. A refresh may take longer than any request waits, because a late response is still a response. Meanwhile requests use
   the current token, or raise TryLater at once; the store is loaded as in a cool-down.
9. All state that requests share is in SessionState, behind one lock. No store, network or callback is used under it.
10. In a worker process, which may end without waiting for its threads, the request that starts a background refresh
    waits for it for a moment. Else the refresh would be cut off after the server has used up the token, and before the
    store has the new one.
11. The store is looked into before its lock is taken: of all processes that share it, one refreshes, and the others
    need what it has stored. To take a lock costs some stores two durable writes.
12. Tokens that are bound to a key are used only with that key. Those of another key stay in the store, for who has it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import NamedTuple

from unbroken._concurrency import is_worker_process, register_fork_aware, run_sync
from unbroken._single_flight import SingleFlight
from unbroken._time import Clock
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.events import (
    LateChallenge,
    LoggedIn,
    RefreshFailed,
    RefreshFinished,
    RefreshJoined,
    RefreshReason,
    RefreshResult,
    RefreshStarted,
    RefreshStormStopped,
    TokensAdopted,
)
from unbroken.client.core.refresh_rules import (
    NEVER_LOGGED_IN,
    WRONG_KEY,
    RepetitionCanWait,
    begin,
    newer_than,
    refresh,
)
from unbroken.client.core.schedule import (
    TRANSIENT_ERRORS,
    ActiveTokens,
    Cooldown,
    Leeway,
    RefreshWindow,
    RejectingEndpoints,
    StormLimit,
    due_by_age,
)
from unbroken.client.core.token_store import TokenStore
from unbroken.client.hooks import EventDispatcher
from unbroken.client.port import BlockingPort
from unbroken.client.prover import Prover, check_bound_to
from unbroken.errors import RefreshStorm, SessionOver, TryLater, UnbrokenError
from unbroken.tokens import Tokens

__all__ = ["Plan", "RefreshCoordinator", "RefreshFlight", "SessionState"]

RELOAD_INTERVAL_SECONDS = 1.0  # between two loads of the store during a cool-down
WORKER_WAIT_SECONDS = 2.0  # rule 10

RefreshFlight = SingleFlight[ActiveTokens]


class Plan(NamedTuple):
    """Tokens that can be used now, and a refresh that is worth waiting for. Neither: return the response as it is.

    *patience* is how many seconds it is worth; None: as long as the caller waits at all.
    """

    usable: ActiveTokens | None
    flight: RefreshFlight | None
    patience: float | None = None


class SessionState:
    """The state that all requests of one session share (rule 9)."""

    def __init__(self, clock: Clock, leeway: Leeway, window: RefreshWindow | None) -> None:
        self._clock, self._leeway = clock, leeway
        self.active: ActiveTokens | None = None  # read without the lock: it is replaced, never changed
        self.epoch = 0
        self.over_reason = "not_logged_in"
        self.storm_limit = StormLimit(window)
        self._rejecting = RejectingEndpoints()
        self._reloaded_at = -RELOAD_INTERVAL_SECONDS  # on the monotonic clock
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Start without flights, and with a lock that is free: threads stay behind in the parent."""
        self._lock = threading.Lock()  # guards everything here, and the replacement of active, epoch and over_reason
        self._flight: tuple[int, RefreshFlight | None] = (0, None)  # epoch, and the refresh of its tokens
        self._load_flight: RefreshFlight | None = None
        self._overdue: tuple[int, RefreshFlight | None] = (0, None)  # epoch, and its refresh that no request waits for
        self._cooldown = Cooldown()

    @property
    def version(self) -> int:
        """The version of the tokens in use; 0 without any."""
        active = self.active
        return 0 if active is None else active.tokens.version

    @property
    def is_refreshing(self) -> bool:
        """Whether a refresh is under way."""
        (_, flight), (_, overdue) = self._flight, self._overdue
        return (flight is not None and not flight.done) or (overdue is not None and overdue.is_overdue)

    # ---- tokens ------------------------------------------------------------------------------------------------

    def install(self, new: ActiveTokens, *, epoch: int | None = None) -> None:
        """Make *new* the tokens in use, unless newer ones are.

        With *epoch*, raise SessionOver if a login or a logout has happened since that epoch (rule 7).
        """
        with self._lock:
            tokens, current = new.tokens, self.active
            is_late = tokens.epoch < self.epoch or (epoch not in (None, self.epoch) and tokens.epoch != self.epoch)
            if is_late and epoch is not None:
                raise SessionOver("other_login" if current else self.over_reason)
            if is_late:
                return
            if current is None or tokens.epoch > self.epoch or tokens.version > current.tokens.version:
                self.active, self.epoch, self.over_reason = new, tokens.epoch, ""
                self._cooldown = Cooldown()

    def end_session(self, reason: str, *, epoch: int, only_in: int | None = None) -> bool:
        """Drop the tokens and set *epoch*; with *only_in*, only in that epoch. Return whether there were tokens."""
        with self._lock:
            if (only_in is not None and only_in != self.epoch) or epoch < self.epoch:
                return False
            had_tokens = self.active is not None
            self.active, self.over_reason, self.epoch = None, reason, epoch
            return had_tokens

    def check_still_current(self, active: ActiveTokens, epoch: int) -> ActiveTokens:
        """Return *active*. Raise SessionOver if a login or a logout has happened since *epoch* (rule 7)."""
        if self.epoch != epoch or active.tokens.epoch != epoch:
            raise SessionOver("other_login" if self.active else self.over_reason)
        return active

    # ---- flights -----------------------------------------------------------------------------------------------

    def flight_for(
        self,
        active: ActiveTokens,
        why: RefreshReason,
        work: Callable[[], ActiveTokens],
        reload: Callable[[], ActiveTokens] | None,
        limit: float,
    ) -> tuple[RefreshFlight, bool]:
        """Return the flight that refreshes *active*, and whether the caller has to start it.

        During a cool-down it runs *reload* instead of *work* (rule 6). Raise TryLater or RefreshStorm.
        """
        with self._lock:
            epoch, flight = self._flight
            if flight is not None and epoch == active.tokens.epoch and not flight.done:
                return flight, False  # rule 5
            if newer := self._newer_than(active):
                return SingleFlight.landed(newer), False  # a refresh has ended since the caller looked at the tokens
            now = self._clock.monotonic()
            error = self._reason_to_wait(active, why, now)
            if error is None:
                if why == "challenge" or not self._is_due_by_age(active):
                    self.storm_limit.count(now)
            elif reload is None or now - self._reloaded_at < RELOAD_INTERVAL_SECONDS:
                raise error from error.__cause__
            else:
                self._reloaded_at, work = now, reload
            flight = SingleFlight(work, limit)
            self._flight = (active.tokens.epoch, flight)
            return flight, True

    def _is_due_by_age(self, active: ActiveTokens) -> bool:
        return due_by_age(active.tokens, active.age(self._clock), self._leeway, has_credentials=active.has_credentials)

    def _newer_than(self, active: ActiveTokens) -> ActiveTokens | None:
        """Return the tokens in use, if they are newer ones of the same login that have not expired."""
        current = self.active
        if current is None or current.tokens.epoch != active.tokens.epoch:
            return None
        is_good = current.tokens.version > active.tokens.version and current.age(self._clock) < current.ages.expires_at
        return current if is_good else None

    def _reason_to_wait(self, active: ActiveTokens, why: RefreshReason, now: float) -> UnbrokenError | None:
        """Return the error of a request that would need a refresh of *active* now, if none may be sent."""
        epoch, flight = self._flight
        if flight is not None and flight.is_overdue:
            self._overdue = (epoch, flight)
        epoch, overdue = self._overdue
        if overdue is not None and epoch == active.tokens.epoch and overdue.is_overdue:  # rule 8
            return TryLater("the server has not responded to the refresh yet", retry_after=RELOAD_INTERVAL_SECONDS)
        error = self._cooldown.error_for(active.tokens.version, now)
        return None if isinstance(error, RepetitionCanWait) and why != "ageing" else error

    def load_flight(self, work: Callable[[], ActiveTokens], limit: float) -> tuple[RefreshFlight, bool]:
        """Return the flight that loads the store for event loops, and whether the caller has to start it."""
        with self._lock:
            is_new = self._load_flight is None or self._load_flight.done
            if self._load_flight is None or is_new:
                self._load_flight = SingleFlight(work, limit)
            return self._load_flight, is_new

    def join_flights(self, timeout: float) -> None:
        """Wait until the worker threads have ended, each for at most *timeout* seconds."""
        for flight in (self._flight[1], self._load_flight, self._overdue[1]):
            if flight is not None:
                flight.join(timeout)

    # ---- failures and acceptance -------------------------------------------------------------------------------

    def record_failure(self, active: ActiveTokens | None, error: UnbrokenError, retry_after: float) -> float:
        """Begin the cool-down after a failed refresh of *active*, None: after a failed first login.

        Return the seconds until the next is allowed.
        """
        with self._lock:
            jitter, version = random.random(), active.tokens.version if active else 0  # noqa: S311  # spreads load only
            return self._cooldown.record_failure(version, error, retry_after, self._clock.monotonic(), jitter)

    def failure_to_begin(self) -> UnbrokenError | None:
        """Return the error of a first login that has just failed."""
        with self._lock:
            return self._cooldown.error_for(0, self._clock.monotonic())

    def recent_failure(self, active: ActiveTokens) -> UnbrokenError | None:
        """Return the error that *active* is cooling down from, or waits with."""
        with self._lock:
            return self._reason_to_wait(active, "ageing", self._clock.monotonic())

    def record_acceptance(self, endpoint: object, active: ActiveTokens, accepted: bool) -> None:
        """Record whether *endpoint* accepted *active*, the tokens that were refreshed for it."""
        with self._lock:
            age, now = active.age(self._clock), self._clock.monotonic()
            self._rejecting.record(endpoint, active.tokens.version, age, accepted, now)

    def is_excluded(self, endpoint: object, active: ActiveTokens) -> bool:
        """Return whether a challenge by *endpoint* to *active* is its own affair (rule 3)."""
        return self._rejecting.is_excluded(endpoint, active.age(self._clock), self._clock.monotonic())


class RefreshCoordinator:
    """Decides about the refreshes of one session, and runs them. *limit* bounds each, in seconds."""

    def __init__(
        self,
        store: TokenStore,
        dialect: Dialect,
        clock: Clock,
        leeway: Leeway,
        state: SessionState,
        dispatcher: EventDispatcher,
        port: BlockingPort,
        limit: float,
        prover: Prover | None = None,
    ) -> None:
        self._prover, self._refused_epoch = prover, -1  # the login whose key the server says is another one
        self._store, self._dialect, self._clock, self._leeway = store, dialect, clock, leeway
        self._state, self._dispatcher, self._port, self._limit = state, dispatcher, port, limit

    # ---- decisions (rule 1) ------------------------------------------------------------------------------------

    def tokens_for_request(self, fresh: bool, active: ActiveTokens) -> Plan:
        """Decide by the age of *active*. With *fresh*, ageing tokens are not enough. Raise SessionOver or TryLater."""
        age, ages = active.age(self._clock), active.ages
        if age < ages.refresh_in_background_at:
            return Plan(active, None)
        usable = active if age < ages.expires_at else None
        is_old = age >= ages.refresh_before_use_at
        try:
            flight, is_new = self._join_or_start_refresh(active, "expired" if is_old else "ageing", usable)
        except TRANSIENT_ERRORS:
            if usable is None:
                raise
            return Plan(usable, None)  # rule 4
        if fresh or is_old:
            return Plan(usable, flight)
        if is_new and is_worker_process():
            return Plan(usable, flight, WORKER_WAIT_SECONDS)  # rule 10
        return Plan(usable, None)

    def tokens_after_challenge(self, sent: ActiveTokens, endpoint: object, active: ActiveTokens) -> Plan:
        """Decide after *endpoint* has challenged *sent*, while *active* are the current tokens.

        Raise SessionOver, TryLater or RefreshStorm.
        """
        if active.tokens.epoch != sent.tokens.epoch:
            raise SessionOver("other_login")  # rule 7
        if active.tokens.version != sent.tokens.version:  # rule 2
            if active.age(self._clock) < active.ages.refresh_before_use_at:
                self._dispatcher.emit_now(LateChallenge(active.tokens.version))
            return self.tokens_for_request(False, active)
        if not (active.tokens.refresh_token or active.has_credentials) or self._state.is_excluded(endpoint, sent):
            return Plan(None, None)  # rule 3
        return Plan(None, self._join_or_start_refresh(active, "challenge")[0])

    def _join_or_start_refresh(
        self, active: ActiveTokens, why: RefreshReason, usable: ActiveTokens | None = None
    ) -> tuple[RefreshFlight, bool]:
        """Return the refresh to wait for, and whether this call has started it."""
        reload = None if usable else lambda: self._reload(active)
        try:
            flight, is_new = self._state.flight_for(
                active, why, lambda: self._run_refresh(active, why), reload, self._limit + 5.0
            )
        except RefreshStorm:
            self._dispatcher.emit_now(RefreshStormStopped(active.tokens.version))
            raise
        if is_new:
            flight.start(self._dispatcher.deliver)
        else:
            self._dispatcher.emit_now(RefreshJoined(active.tokens.version))
        return flight, is_new

    # ---- in a worker thread ------------------------------------------------------------------------------------

    def _run_refresh(self, active: ActiveTokens, why: RefreshReason) -> ActiveTokens:
        """Refresh *active* and install the new tokens. Raise SessionOver, TryLater or ConfigurationError."""
        version, epoch = active.tokens.version, active.tokens.epoch
        self._dispatcher.emit(RefreshStarted(version, why=why))
        outcome: RefreshResult = "failed"
        began, port = self._clock.monotonic(), self._port.for_one_refresh()
        try:
            fresh = self._adopt(active)  # rule 11
            if fresh is None:
                fresh = self.activate(run_sync(refresh(port, active.tokens, needed=why != "ageing")))
            self._state.install(fresh, epoch=epoch)
            outcome = "refreshed" if port.granted else "adopted"
        except SessionOver as over:
            outcome = "over"
            if over.reason == WRONG_KEY:
                self._refused_epoch = epoch
            if self._state.end_session(over.reason, epoch=epoch, only_in=epoch) and over.reason != "other_login":
                self._dispatcher.session_over(over.reason)
            raise
        except TRANSIENT_ERRORS as error:
            self._record_failure(active, error)
            raise
        except Exception as error:
            later = TryLater(f"the refresh failed unexpectedly ({type(error).__name__})")
            self._record_failure(active, later)
            raise later from error
        finally:
            self._dispatcher.emit(RefreshFinished(version, outcome=outcome, seconds=self._clock.monotonic() - began))
        self._dispatcher.tokens_changed(fresh.tokens)
        return fresh

    def _record_failure(self, active: ActiveTokens, error: UnbrokenError) -> None:
        wait = self._state.record_failure(active, error, getattr(error, "retry_after", 0.0))
        if isinstance(error, TryLater):
            error.retry_after = wait
        self._dispatcher.emit(RefreshFailed(active.tokens.version, error=error.code, retry_after=wait))

    def _reload(self, active: ActiveTokens) -> ActiveTokens:
        """Install newer tokens that another process has stored; without any, raise the error of the cool-down."""
        fresh = self._adopt(active)
        if fresh is None:
            raise self._state.recent_failure(active) or TryLater("the refresh has just failed")
        self._state.install(fresh, epoch=active.tokens.epoch)
        return fresh

    def _adopt(self, active: ActiveTokens) -> ActiveTokens | None:
        """Return newer tokens that the store has and that have not expired. Raise SessionOver if it has none at all."""
        newer = newer_than(active.tokens, self._store.load())
        if newer is None or newer.expired(self._clock.wall()):
            return None
        self._dispatcher.emit(TokensAdopted(newer.version))
        return self.activate(newer)

    def load(self) -> ActiveTokens:
        """Install the stored tokens and return them. Raise SessionOver if there are none."""
        epoch = self._state.epoch
        record = self._store.load()
        if record.tokens is None:
            known = self._state.over_reason if record.over in ("", "not_logged_in") else ""
            raise SessionOver(known or record.over or "not_logged_in")
        if record.tokens.epoch == self._refused_epoch:
            raise SessionOver(WRONG_KEY)  # rule 12
        active = self.activate(record.tokens)
        self._state.install(active, epoch=epoch)
        return active

    def load_or_begin(self) -> ActiveTokens:
        """Do what ``load`` does; a session that never was begins with the credentials, if there are any."""
        try:
            return self.load()
        except SessionOver as over:
            if not self._port.has_credentials or over.reason not in NEVER_LOGGED_IN:
                raise
        return self._begin()

    def _begin(self) -> ActiveTokens:
        """Log in with the credentials, for a session that never was, and install the tokens.

        Raise SessionOver, TryLater, BadResponse or ConfigurationError; after a failure, the same for a while (rule 6).
        """
        if error := self._state.failure_to_begin():
            raise error
        try:
            tokens, is_login = run_sync(begin(self._port.for_one_refresh()))
        except SessionOver as over:
            self._dispatcher.session_over(over.reason)
            raise
        except TRANSIENT_ERRORS as error:
            self._state.record_failure(None, error, getattr(error, "retry_after", 0.0))
            raise
        active = self.activate(tokens)
        self._state.install(active)
        if is_login:
            self._dispatcher.emit(LoggedIn(tokens.version))
            self._dispatcher.tokens_changed(tokens)
        return active

    def activate(self, tokens: Tokens) -> ActiveTokens:
        """Return *tokens*, made ready for the hot path. Raise SessionOver if another key is theirs (rule 12)."""
        check_bound_to(tokens, self._prover)
        jitter = random.random()  # noqa: S311  # spreads load only
        header, has_credentials = self._dialect.header_value(tokens), self._port.has_credentials
        return ActiveTokens(tokens, header, self._clock, self._leeway, jitter, has_credentials=has_credentials)
