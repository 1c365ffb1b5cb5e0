"""When a refresh is due, and when none is allowed. Pure: callers pass the clocks and the randomness.

    age     0 ──────────────── advisory ────────────── mandatory ───────── lifetime
            no refresh is due  a background refresh     the request waits   expired
                               runs                     for a refresh

1. Every margin shrinks with the lifetime, so that a token of a few seconds is used and not refreshed in a loop.
2. Jitter spreads the background refreshes of many sessions over the first half of the advisory window.
3. A moment has come when the monotonic *or* the wall clock says so. The monotonic clock stands still while the machine
   sleeps, and the wall clock may be set: a wrong one costs one refresh too many at most, never a failed request.
4. Tokens that were stored before this process began count from their receipt, and never live longer than their
   lifetime from now, whatever the wall clock was then.
5. After a failure no refresh is sent during a cool-down: longer after each failure in a row (exponential backoff), or
   as long as the server asked for. It belongs to the tokens that could not be refreshed.
6. A refresh storm is too many refreshes in a short time. One that was due by age does not count, unless its tokens had
   a lifetime below one second.
7. An endpoint that rejects brand-new tokens has reasons of its own: no refresh follows its challenges for a while, nor
   those of any endpoint while new tokens have helped nowhere.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from unbroken._time import Clock, Duration, to_seconds
from unbroken.client.core.proof import access_token_hash
from unbroken.errors import ConfigurationError, RefreshStorm, TryLater, UnbrokenError
from unbroken.tokens import Tokens

__all__ = [
    "TRANSIENT_ERRORS",
    "ActiveTokens",
    "Cooldown",
    "Leeway",
    "RefreshAges",
    "RefreshWindow",
    "RejectingEndpoints",
    "StormLimit",
    "cooldown_seconds",
    "due_by_age",
    "refresh_ages",
    "seconds_until_allowed",
]

BRAND_NEW_SECONDS = 10.0  # the age up to which rejected tokens tell of their endpoint
EXCLUSION_SECONDS = 30.0
MAX_EXCLUDED_ENDPOINTS = 256
MAX_USELESS_REFRESHES = 2  # in a row, after which all endpoints are excluded
MAX_COOLDOWN_SECONDS = 30.0
TRANSIENT_ERRORS = (TryLater, ConfigurationError)  # of a refresh; they do not end the session


@dataclass(frozen=True, slots=True, init=False)
class Leeway:
    """How long before it expires a token is refreshed.

    ``advisory`` is a fraction of the lifetime, at most ``advisory_max_seconds``: a background refresh runs.
    ``mandatory`` is in seconds, at most a tenth of the lifetime: the request waits for the refresh. Durations are
    seconds or a ``timedelta``. Raise ConfigurationError for a negative value, or a fraction above 1.
    """

    advisory: float
    advisory_max_seconds: float
    mandatory: float

    def __init__(
        self, advisory: float = 0.2, advisory_max_seconds: Duration = 300.0, mandatory: Duration = 10.0
    ) -> None:
        if isinstance(advisory, bool) or not isinstance(advisory, (int, float)) or not 0.0 <= advisory <= 1.0:
            raise ConfigurationError(f"Leeway.advisory must be a fraction of the lifetime, 0 to 1, not {advisory!r}")
        object.__setattr__(self, "advisory", advisory)
        object.__setattr__(
            self, "advisory_max_seconds", to_seconds("Leeway.advisory_max_seconds", advisory_max_seconds)
        )
        object.__setattr__(self, "mandatory", to_seconds("Leeway.mandatory", mandatory))


@dataclass(frozen=True, slots=True, init=False)
class RefreshWindow:
    """At most ``attempts`` refreshes in ``interval`` seconds that were not due by age; then RefreshStorm.

    ``interval`` is seconds or a ``timedelta``. Raise ConfigurationError for a negative value.
    """

    interval: float
    attempts: int

    def __init__(self, interval: Duration = 30.0, attempts: int = 5) -> None:
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 0:
            raise ConfigurationError(f"RefreshWindow.attempts must be a whole number, 0 or more, not {attempts!r}")
        object.__setattr__(self, "interval", to_seconds("RefreshWindow.interval", interval))
        object.__setattr__(self, "attempts", attempts)


# ---- when a refresh is due -------------------------------------------------------------------------------------------


class RefreshAges(NamedTuple):
    """The ages of an access token, in seconds since its receipt, at which its treatment changes."""

    refresh_in_background_at: float
    refresh_before_use_at: float
    expires_at: float


NEVER = RefreshAges(float("inf"), float("inf"), float("inf"))


def refresh_ages(tokens: Tokens, leeway: Leeway, jitter: float, *, has_credentials: bool = False) -> RefreshAges:
    """Return the ages of *tokens*; *jitter* is a random number in [0, 1). Credentials refresh any tokens."""
    lifetime = tokens.expires_in
    if lifetime is None:
        return NEVER  # only a challenge tells
    if not (tokens.refresh_token or has_credentials):
        return RefreshAges(lifetime, lifetime, lifetime)
    advisory = min(lifetime * leeway.advisory, leeway.advisory_max_seconds)
    mandatory = min(leeway.mandatory, lifetime * 0.1, advisory)  # rule 1
    in_background = lifetime - advisory + (advisory - mandatory) * 0.5 * jitter  # rule 2
    return RefreshAges(in_background, lifetime - mandatory, lifetime)


def due_by_age(tokens: Tokens, age: float, leeway: Leeway, *, has_credentials: bool = False) -> bool:
    """Return whether a refresh of *tokens* at this *age* is due by age, and so counts towards no storm (rule 6)."""
    ages = refresh_ages(tokens, leeway, 0.0, has_credentials=has_credentials)
    return (tokens.expires_in or 0.0) >= 1.0 and age >= ages.refresh_in_background_at


class ActiveTokens:
    """The tokens that this process uses, made ready for the hot path. Immutable; compared by identity.

    ``refresh_at_monotonic`` and ``refresh_at_wall`` are the moments up to which no refresh is due. ``ath`` is the hash
    of a bound access token, for its proofs; empty if it is bound to no key.
    """

    __slots__ = (
        "ages",
        "ath",
        "has_credentials",
        "header",
        "received_at_monotonic",
        "received_at_wall",
        "refresh_at_monotonic",
        "refresh_at_wall",
        "tokens",
    )

    def __init__(
        self, tokens: Tokens, header: str, clock: Clock, leeway: Leeway, jitter: float, *, has_credentials: bool = False
    ) -> None:
        wall, monotonic = clock.wall(), clock.monotonic()
        age = max(wall - tokens.received_at, 0.0)  # rule 4
        self.tokens, self.header, self.has_credentials = tokens, header, has_credentials
        self.ath = access_token_hash(tokens.access_token) if tokens.is_bound else ""
        self.ages: RefreshAges = refresh_ages(tokens, leeway, jitter, has_credentials=has_credentials)
        self.received_at_wall, self.received_at_monotonic = wall - age, monotonic - age
        self.refresh_at_wall = self.received_at_wall + self.ages.refresh_in_background_at
        self.refresh_at_monotonic = self.received_at_monotonic + self.ages.refresh_in_background_at

    def age(self, clock: Clock) -> float:
        """Return the seconds since the tokens were received."""
        return max(clock.wall() - self.received_at_wall, clock.monotonic() - self.received_at_monotonic)  # rule 3

    def __repr__(self) -> str:
        return f"<ActiveTokens {self.tokens!r}>"


# ---- when none is allowed --------------------------------------------------------------------------------------------


class Cooldown:
    """The pause after a failed refresh (rule 5). Times are seconds on the monotonic clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._last: tuple[int, UnbrokenError, float] | None = None  # version, error, when the pause ends

    def record_failure(
        self, version: int, error: UnbrokenError, retry_after: float, now: float, jitter: float
    ) -> float:
        """Remember that the tokens of *version* could not be refreshed; return the seconds until the next try."""
        self._failures += 1
        wait = cooldown_seconds(self._failures, retry_after, jitter)
        self._last = (version, error, now + wait)
        return wait

    def error_for(self, version: int, now: float) -> UnbrokenError | None:
        """Return a copy of the error that the tokens of *version* are cooling down from; None if they are not."""
        if self._last is None or self._last[0] != version:
            return None
        _, error, ends = self._last
        if now >= ends:
            return None
        copy = error.copy()
        if isinstance(copy, TryLater):
            copy.retry_after = ends - now
        return copy


def cooldown_seconds(failures: int, retry_after: float, jitter: float) -> float:
    """Return the pause after *failures* in a row: one, two, four … thirty seconds, or what the server asked for."""
    backoff = 2.0 ** min(failures - 1, 5)  # bounded, because after days of failures the power would overflow
    return max(retry_after, min(MAX_COOLDOWN_SECONDS, backoff) * (0.5 + 0.5 * jitter))


class StormLimit:
    """Counts the refreshes that were not due by age (rule 6). Times are seconds on the monotonic clock."""

    def __init__(self, window: RefreshWindow | None) -> None:
        self._window = window
        self.refreshes: list[float] = []

    def count(self, now: float) -> None:
        """Count one refresh. Raise RefreshStorm if it is one too many."""
        window = self._window
        if window is None:
            return
        self.refreshes = [at for at in self.refreshes if now - at < window.interval]
        if wait := seconds_until_allowed(self.refreshes, now, window):
            raise RefreshStorm(
                f"{window.attempts} refreshes in {window.interval:g} seconds: new tokens are being rejected",
                retry_after=wait,
            )
        self.refreshes.append(now)


def seconds_until_allowed(refreshes: list[float], now: float, window: RefreshWindow) -> float:
    """Return the seconds until another refresh is allowed; *refreshes* are the times of those that count."""
    recent = [at for at in refreshes if now - at < window.interval]
    if len(recent) < window.attempts:
        return 0.0
    return window.interval - (now - recent[-window.attempts]) if window.attempts else window.interval


class RejectingEndpoints:
    """The endpoints that reject brand-new tokens (rule 7). Times are seconds on the monotonic clock."""

    def __init__(self) -> None:
        self._excluded_until: OrderedDict[object, float] = OrderedDict()
        self._useless_refreshes, self._last_useless_at, self._last_useless_version = 0, 0.0, 0

    def record(self, endpoint: object, version: int, age: float, accepted: bool, now: float) -> None:
        """Record whether *endpoint* accepted the tokens of *version*, which were refreshed for it."""
        if accepted:
            self._useless_refreshes, self._last_useless_at, self._last_useless_version = 0, 0.0, 0
            self._excluded_until.pop(endpoint, None)
        elif age < BRAND_NEW_SECONDS:
            self._useless_refreshes += version != self._last_useless_version
            self._last_useless_at, self._last_useless_version = now, version
            self._excluded_until[endpoint] = now + EXCLUSION_SECONDS
            self._excluded_until.move_to_end(endpoint)
            if len(self._excluded_until) > MAX_EXCLUDED_ENDPOINTS:
                self._excluded_until.popitem(last=False)

    def is_excluded(self, endpoint: object, age: float, now: float) -> bool:
        """Return whether a challenge by *endpoint* to tokens of this *age* is its own affair."""
        if age >= EXCLUSION_SECONDS:
            return False
        is_useless = self._useless_refreshes >= MAX_USELESS_REFRESHES
        return now < self._excluded_until.get(endpoint, 0.0) or (
            is_useless and now - self._last_useless_at < EXCLUSION_SECONDS
        )
