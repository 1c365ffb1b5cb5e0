"""A value that is kept elsewhere: asked for by one for all, renewed behind those who use it.

    age      0 ──────── behind ──────── waits ──────── dead
    its use  at once    at once, and    after a look   not at all:
                        one asks        for a newer    TryLater

1. One asks at a time, in a thread of its own (``flight.py``); whoever has to wait waits for that one.
2. After a failure nobody asks for a while, longer and longer, and nobody waits while there is a value that is not dead:
   a source that hangs costs one wait, not one a request. Without such a value they wait for half a second at most.
3. ``newer`` is for who has reason to believe that the value has changed. Anybody can give such a reason, so it asks
   every ``AGAIN`` seconds at most.
4. A forked child shares nothing of this with its parent but the value.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from unbroken._fork import register_fork_aware
from unbroken._single_flight import SingleFlight
from unbroken._sync import in_sync_context
from unbroken.errors import TryLater

__all__ = ["CacheAges", "RefreshingValue", "pause", "wait_for"]

T = TypeVar("T")
_log = logging.getLogger("unbroken")
UNKNOWN_KEY_RETRY_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.5  # seconds that one waits for what has failed just before
MAX_RETRY_SECONDS = 10.0
MAX_RETRY_AFTER_SECONDS = 60.0
LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True)
class CacheAges:
    """Seconds since a value was asked for: when a newer one is asked for behind its users, when these wait for it, and
    when this one is dead.
    """

    behind: float
    waits: float
    dead: float


class RefreshingValue(Generic[T]):
    """What *ask* gives, which is told what it gave last and raises TryLater. *what* it is, for errors and the log.

    *timeout* is how long somebody waits for it. *first* is used until there is an answer.
    """

    def __init__(
        self,
        what: str,
        ask: Callable[[T | None], tuple[T, CacheAges]],
        mono: Callable[[], float],
        timeout: float,
        first: T | None = None,
    ) -> None:
        self._what, self._ask, self._mono, self._timeout = what, ask, mono, timeout
        self._value: T | None = first
        self._ages = CacheAges(0.0, 0.0, 0.0 if first is None else float("inf"))
        self._asked = mono()  # when the value was asked for
        self._begun = LONG_AGO  # when somebody asked last
        self._calm_until = self._quiet_until = LONG_AGO
        self._failures, self._unsettled = 0, False
        self._error: TryLater | None = None
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._flight: SingleFlight[None] | None = None
        self._quiet_until, self._unsettled = LONG_AGO, False

    async def now(self) -> T:
        """The value. Raises TryLater if there is none that may be used."""
        now = self._mono()
        if now < self._calm_until and self._value is not None:
            return self._value
        flight = self._asking(now >= self._quiet_until)
        if flight is not None and self._should_wait(now):
            with suppress(TryLater):
                await wait_for(flight, self._patience())
        return self._usable()

    async def newer(self) -> T:
        """The value, after a look for a newer one. Raises TryLater if nobody could look."""
        now = self._mono()
        flight = self._asking(now >= max(self._quiet_until, self._begun + UNKNOWN_KEY_RETRY_SECONDS))
        if flight is not None:
            await wait_for(flight, self._patience())
        elif self._failures:
            raise self._unknown()
        return self._usable()

    def _asking(self, may: bool) -> SingleFlight[None] | None:
        """The one who asks; begins to if that *may* be. None: nobody does."""
        with self._lock:
            if self._flight is not None and not self._flight.done:
                return self._flight
            if not may:
                return None
            self._failures += self._unsettled  # the last one hangs still, in the system's name lookup
            self._begun, self._unsettled = self._mono(), True
            flight = self._flight = SingleFlight(self._look, self._timeout + 1.0)
            self._quiet_until = self._begun + self._timeout + 1.0
        flight.start()
        return flight

    def _should_wait(self, now: float) -> bool:
        age = now - self._asked
        return self._value is None or age >= self._ages.dead or (not self._failures and age >= self._ages.waits)

    def _patience(self) -> float:
        return min(self._timeout, FIRST_RETRY_SECONDS) if self._failures else self._timeout

    def _usable(self) -> T:
        if self._value is None or self._mono() >= self._asked + self._ages.dead:
            raise self._unknown()
        return self._value

    def _unknown(self) -> TryLater:
        error = TryLater(f"{self._what} cannot be had now", retry_after=max(self._quiet_until - self._mono(), 0.5))
        error.__cause__ = self._error
        return error

    def _look(self) -> None:
        begun = self._mono()
        try:
            value, ages = self._ask(self._value)
        except TryLater as error:
            self._failed(error, begun)
            raise
        except Exception as error:
            _log.exception("%s: nobody expected this", self._what)
            later = TryLater(f"{self._what} cannot be had now")
            self._failed(later, begun)
            raise later from error
        with self._lock:
            if begun < self._asked:
                return  # overtaken by a later question
            if self._failures:
                _log.info("%s can be had again", self._what)
            self._value, self._ages, self._asked = value, ages, begun
            self._calm_until, self._quiet_until = begun + ages.behind, LONG_AGO
            self._failures, self._error, self._unsettled = 0, None, False

    def _failed(self, error: TryLater, begun: float) -> None:
        with self._lock:
            if begun < self._asked:
                return
            self._failures += 1
            self._error, self._unsettled = error, False
            self._quiet_until = self._mono() + pause(self._failures, error)
        if self._failures == 1:
            _log.warning("%s cannot be had: %s", self._what, error)


async def wait_for(flight: SingleFlight[T], timeout: float) -> T:
    """What *flight* brings, in either style. Raises what it raises, or TryLater."""
    return flight.wait(timeout) if in_sync_context() else await flight.wait_async(timeout)


def pause(failures: int, error: TryLater) -> float:
    """For how many seconds nobody asks, after so many failures in a row of which *error* was the last."""
    return max(min(0.5 * 2.0 ** min(failures, 10), MAX_RETRY_SECONDS), min(error.retry_after, MAX_RETRY_AFTER_SECONDS))
