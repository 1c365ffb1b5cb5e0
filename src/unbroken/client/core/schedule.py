"""When a token is renewed, and when not yet again. Pure arithmetic on seconds.

    age     0 ─────────────── behind ─────────── first ───── lifetime
            use it as it is   renew behind       renew       dead
                              the request        first

1. Every margin shrinks with the lifetime, so that a token of a few seconds is used, not renewed in a loop.
2. Jitter spreads the renewals of many sessions; it only ever makes them earlier within the advisory window.
3. A failure is remembered: the next try waits, longer each time, or as long as the server asked for.
4. Renewals that were due by the clock are no storm, however short the lifetime; all others count.

The tokens that this process uses now, made ready for the hot path: one header value and six moments.

1. A moment has come when the monotonic *or* the wall clock says so. The monotonic clock stands still while the machine
   sleeps, the wall clock may be set: whichever is wrong costs at most one exchange too many, never a failed request.
2. Tokens that were stored before this process began count from when they were received, and never live longer than
   their lifetime from now, whatever the wall clock was then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from unbroken._clock import Clock
from unbroken.tokens import Tokens

__all__ = [
    "ActiveTokens",
    "Leeway",
    "RefreshAges",
    "RefreshWindow",
    "cooldown_seconds",
    "due_by_age",
    "refresh_ages",
    "seconds_until_allowed",
]


@dataclass(frozen=True, slots=True)
class Leeway:
    """How long before its expiry a token is renewed, in seconds.

    ``advisory``: as a part of the lifetime, and at most ``advisory_most`` seconds; renewal runs behind the request.
    ``mandatory``: at most so many seconds, and at most a tenth of the lifetime; the request waits.
    """

    advisory: float = 0.2
    advisory_max_seconds: float = 300.0
    mandatory: float = 10.0


@dataclass(frozen=True, slots=True)
class RefreshWindow:
    """At most ``attempts`` renewals in ``interval`` seconds that the clock did not ask for; then RefreshStorm."""

    interval: float = 30.0
    attempts: int = 5


class RefreshAges(NamedTuple):
    """The ages of a token, in seconds since it was received, at which its treatment changes."""

    refresh_in_background_at: float
    refresh_before_use_at: float
    expires_at: float


NEVER = RefreshAges(float("inf"), float("inf"), float("inf"))


def refresh_ages(tokens: Tokens, leeway: Leeway, jitter: float) -> RefreshAges:
    """The ages of *tokens*; *jitter* is a random number in [0, 1). Unknown lifetimes are driven by challenges."""
    lifetime = tokens.expires_in
    if lifetime is None:
        return NEVER
    if not tokens.refresh_token:
        return RefreshAges(lifetime, lifetime, lifetime)
    advisory = min(lifetime * leeway.advisory, leeway.advisory_max_seconds)
    mandatory = min(leeway.mandatory, lifetime * 0.1, advisory)
    behind = lifetime - advisory + (advisory - mandatory) * 0.5 * jitter
    return RefreshAges(behind, lifetime - mandatory, lifetime)


def cooldown_seconds(failures: int, asked_for: float, jitter: float) -> float:
    """Seconds until the next try after *failures* in a row: one, two, four … up to thirty, or what the server asked."""
    return max(asked_for, min(30.0, 2.0 ** min(failures - 1, 5)) * (0.5 + 0.5 * jitter))  # also after days of failures


def due_by_age(tokens: Tokens, age: float, leeway: Leeway) -> bool:
    """Whether tokens of this *age* are renewed because of their age alone, and were meant to live a second at least."""
    return (tokens.expires_in or 0.0) >= 1.0 and age >= refresh_ages(tokens, leeway, 0.0).refresh_in_background_at


def seconds_until_allowed(renewals: list[float], now: float, window: RefreshWindow) -> float:
    """Seconds until another renewal is allowed, 0 when one is now; *renewals* are the times of the ones that count."""
    recent = [at for at in renewals if now - at < window.interval]
    if len(recent) < window.attempts:
        return 0.0
    return window.interval - (now - recent[-window.attempts]) if window.attempts else window.interval


class ActiveTokens:
    """Tokens in use. Immutable; compare by identity."""

    __slots__ = ("ages", "behind_mono", "behind_wall", "born_mono", "born_wall", "header", "tokens")

    def __init__(self, tokens: Tokens, header: str, clock: Clock, leeway: Leeway, jitter: float) -> None:
        wall, mono = clock.wall(), clock.monotonic()
        age = max(wall - tokens.received_at, 0.0)
        self.tokens, self.header = tokens, header
        self.ages: RefreshAges = refresh_ages(tokens, leeway, jitter)
        self.born_wall, self.born_mono = wall - age, mono - age
        self.behind_wall = self.born_wall + self.ages.refresh_in_background_at
        self.behind_mono = self.born_mono + self.ages.refresh_in_background_at

    def age(self, clock: Clock) -> float:
        """Seconds since the tokens were received: the larger of what the two clocks say."""
        return max(clock.wall() - self.born_wall, clock.monotonic() - self.born_mono)

    def __repr__(self) -> str:
        return f"<Live {self.tokens!r}>"
