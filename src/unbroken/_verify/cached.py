"""A remote value, cached by each process and refreshed in the background.

    age of the value   0 ──────── background ──────── blocking ──────── unusable
    a caller gets it   at once    at once, while a    after a refresh   TryLater
                                  refresh runs        has been tried

1. One refresh runs at a time, in a thread of its own (``_single_flight.py``); callers that have to wait share it.
2. After a failure no refresh starts for a while, longer after each further one. Meanwhile callers do not wait if the
   value is usable: a source that hangs costs one wait, not one for each request. Without a usable value they wait
   for half a second at most.
3. ``get_newer`` is for a caller with a reason to think that the value has changed. A stranger can cause such a reason,
   so it starts a refresh every ``UNKNOWN_KEY_RETRY_SECONDS`` at most.
4. A forked child shares only the value with its parent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from unbroken._concurrency import in_sync_context, register_fork_aware
from unbroken._single_flight import SingleFlight
from unbroken.errors import TryLater

__all__ = ["CacheAges", "RefreshingValue", "retry_delay", "wait_for"]

T = TypeVar("T")
_log = logging.getLogger("unbroken")
UNKNOWN_KEY_RETRY_SECONDS = 5.0
FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 10.0
MAX_RETRY_AFTER_SECONDS = 60.0
WAIT_AFTER_FAILURE_SECONDS = 0.5
NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class CacheAges:
    """The ages of a value, in seconds, from which it is refreshed in the background, refreshed before use, unusable."""

    background: float
    blocking: float
    unusable: float


class RefreshingValue(Generic[T]):
    """The value that *fetch* returns with its ages. *fetch* gets the previous value, and raises TryLater.

    *name* is for errors and the log. *timeout*: the seconds that a caller waits for a refresh. *initial* is used until
    the first refresh has succeeded.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[T | None], tuple[T, CacheAges]],
        monotonic: Callable[[], float],
        timeout: float,
        initial: T | None = None,
    ) -> None:
        self._name, self._fetch, self._monotonic, self._timeout = name, fetch, monotonic, timeout
        self._value: T | None = initial
        self._ages = CacheAges(0.0, 0.0, 0.0 if initial is None else float("inf"))
        self._fetched_at = monotonic()  # when the refresh started that brought the value
        self._started_at = NEVER  # when the latest refresh started
        self._fresh_until = self._no_refresh_until = NEVER
        self._failures, self._outcome_unknown = 0, False
        self._error: TryLater | None = None
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Replace what a forked child must not share with its parent (rule 4)."""
        self._lock = threading.Lock()
        self._refresh: SingleFlight[None] | None = None
        self._no_refresh_until, self._outcome_unknown = NEVER, False

    async def get(self) -> T:
        """Return the value. Raise TryLater if none is usable."""
        now = self._monotonic()
        if now < self._fresh_until and self._value is not None:
            return self._value
        refresh = self._current_refresh(may_start=now >= self._no_refresh_until)
        if refresh is not None and self._must_wait(now):
            with suppress(TryLater):
                await wait_for(refresh, self._wait_seconds())
        return self._usable_value()

    async def get_newer(self) -> T:
        """Return the value after a refresh (rule 3). Raise TryLater if no refresh was possible."""
        now = self._monotonic()
        allowed_from = max(self._no_refresh_until, self._started_at + UNKNOWN_KEY_RETRY_SECONDS)
        refresh = self._current_refresh(may_start=now >= allowed_from)
        if refresh is not None:
            await wait_for(refresh, self._wait_seconds())
        elif self._failures:
            raise self._unavailable()
        return self._usable_value()

    def _current_refresh(self, *, may_start: bool) -> SingleFlight[None] | None:
        """Return the refresh that runs (rule 1), or a new one if it *may_start*; else None."""
        with self._lock:
            if self._refresh is not None and not self._refresh.done:
                return self._refresh
            if not may_start:
                return None
            self._failures += self._outcome_unknown  # the previous one still hangs in a name lookup of the system
            self._started_at, self._outcome_unknown = self._monotonic(), True
            limit = self._timeout + 1.0
            refresh = self._refresh = SingleFlight(self._run_refresh, limit)
            self._no_refresh_until = self._started_at + limit
        refresh.start()
        return refresh

    def _must_wait(self, now: float) -> bool:
        age = now - self._fetched_at
        if self._value is None or age >= self._ages.unusable:
            return True
        return not self._failures and age >= self._ages.blocking  # rule 2

    def _wait_seconds(self) -> float:
        return min(self._timeout, WAIT_AFTER_FAILURE_SECONDS) if self._failures else self._timeout  # rule 2

    def _usable_value(self) -> T:
        if self._value is None or self._monotonic() >= self._fetched_at + self._ages.unusable:
            raise self._unavailable()
        return self._value

    def _unavailable(self) -> TryLater:
        retry_after = max(self._no_refresh_until - self._monotonic(), 0.5)
        error = TryLater(f"{self._name} cannot be fetched now", retry_after=retry_after)
        error.__cause__ = self._error
        return error

    def _run_refresh(self) -> None:
        started_at = self._monotonic()
        try:
            value, ages = self._fetch(self._value)
        except TryLater as error:
            self._record_failure(error, started_at)
            raise
        except Exception as error:
            _log.exception("unexpected error while fetching %s", self._name)
            later = TryLater(f"{self._name} cannot be fetched now")
            self._record_failure(later, started_at)
            raise later from error
        self._record_success(value, ages, started_at)

    def _record_success(self, value: T, ages: CacheAges, started_at: float) -> None:
        with self._lock:
            if started_at < self._fetched_at:
                return  # a refresh that started later has ended before
            if self._failures:
                _log.info("%s can be fetched again", self._name)
            self._value, self._ages, self._fetched_at = value, ages, started_at
            self._fresh_until, self._no_refresh_until = started_at + ages.background, NEVER
            self._failures, self._error, self._outcome_unknown = 0, None, False

    def _record_failure(self, error: TryLater, started_at: float) -> None:
        with self._lock:
            if started_at < self._fetched_at:
                return
            self._failures += 1
            self._error, self._outcome_unknown = error, False
            self._no_refresh_until = self._monotonic() + retry_delay(self._failures, error)
        if self._failures == 1:
            _log.warning("%s cannot be fetched: %s", self._name, error)


async def wait_for(flight: SingleFlight[T], timeout: float) -> T:
    """Return the result of *flight*, blocking or awaiting. Raise its error, or TryLater after *timeout* seconds."""
    return flight.wait(timeout) if in_sync_context() else await flight.wait_async(timeout)


def retry_delay(failures: int, error: TryLater) -> float:
    """Return the seconds without a further attempt after *failures* in a row, of which *error* was the last."""
    backoff = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 9), MAX_RETRY_SECONDS)
    return max(backoff, min(error.retry_after, MAX_RETRY_AFTER_SECONDS))
