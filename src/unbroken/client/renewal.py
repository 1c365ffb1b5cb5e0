"""What a session decides about its tokens, and the work of a renewal in its own thread.

1. Decisions block nobody: each gives tokens that can be used now, a flight to wait for, or both.
2. A late challenge is answered with the current tokens; a challenge to the current ones with a renewal, unless it is
   the endpoint's own affair, or there is nothing to renew with.
3. While tokens are good for something, a renewal that does not work now is nobody's error.
4. During a cool-down the store is asked, and nobody else: somebody may have renewed meanwhile.
"""

from __future__ import annotations

import random

from unbroken._once import run_once
from unbroken.client.dialect import Dialect
from unbroken.client.events import (
    Adopted,
    Joined,
    LateChallenge,
    RenewalFailed,
    RenewalOver,
    RenewalStarted,
    StormStopped,
)
from unbroken.client.flight import Flight
from unbroken.client.hooks import Hooks
from unbroken.client.known import Known
from unbroken.client.live import Clock, Live
from unbroken.client.port import BlockingPort
from unbroken.client.record import Store
from unbroken.client.rules import current_for, renew
from unbroken.client.timing import Leeway
from unbroken.errors import ConfigurationError, RenewalStorm, SessionOver, TryLater, UnbrokenError
from unbroken.tokens import Tokens

__all__ = ["NOT_NOW", "Renewal"]

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
