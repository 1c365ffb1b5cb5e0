"""The check of a password or a code: under the rate limit, and with an event for each failure.

1. The rate limit is asked first, so that a refused attempt costs no password hash.
2. A wrong password stays charged. A check that has no result (the directory does not respond, the request is invalid)
   is refunded.
3. A failed login is an event each time. A rate-limited one is an event once a minute for an account and address, and
   at most ten times a minute for an address: an attack must not become a flood of events. Names cost an attacker
   nothing.
4. Who is preferred by the rate limit waits for no stranger's password to be checked (``worker_pool`` rule 4).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple, TypeVar

from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError, LoginRefused, Refused, TooManyAttempts, TryLater
from unbroken.server.core.events import LoginFailed, LoginRateLimited, ServerEvent
from unbroken.server.core.session_info import Caller
from unbroken.server.login.rate_limit import Attempt, LoginRateLimiter, address_key
from unbroken.server.worker_pool import preferred

__all__ = ["CredentialCheck"]

T = TypeVar("T")
EVENT_INTERVAL_SECONDS = 60.0
MAX_EVENTS_PER_ADDRESS = 10  # in one interval
MAX_TRACKED_SOURCES = 1000


class _AddressEvents(NamedTuple):
    """How many events an address has caused in the interval that began at ``since``."""

    since: float
    number: int


class CredentialCheck:
    """Checks credentials under *rate_limiter*, if there is one, and reports failures to *notify*."""

    def __init__(self, rate_limiter: LoginRateLimiter | None, notify: Callable[[ServerEvent], None]) -> None:
        self._rate_limiter, self._notify = rate_limiter, notify
        self._notified: BoundedCache[tuple[bytes, bytes], float] = BoundedCache(MAX_TRACKED_SOURCES)
        self._addresses: BoundedCache[bytes, _AddressEvents] = BoundedCache(MAX_TRACKED_SOURCES)

    async def check(
        self,
        caller: Caller,
        account: bytes,
        why_failed: str,
        credentials: Callable[[], Awaitable[T]],
        spelling: bytes = b"",
        device: bytes = b"",
    ) -> tuple[T, Attempt | None]:
        """Return the result of *credentials*, and the attempt for ``record_success``.

        *credentials* raises LoginRefused if they are wrong. *device* is the id of a device that is known to this
        account. Raise what *credentials* raises, and TooManyAttempts.
        """
        attempt = await self._acquire(caller, account, spelling, device)  # rule 1
        try:
            with preferred(attempt is not None and attempt.is_preferred):  # rule 4
                return await credentials(), attempt
        except LoginRefused as error:
            self.notify_failed(caller, account, why_failed if error.reason == error.code else error.reason)
            raise
        except (Refused, TryLater, ConfigurationError):
            await self.refund(attempt)  # rule 2
            raise

    def notify_failed(self, caller: Caller, account: bytes, why: str) -> None:
        """Report a failed login."""
        ip, user_agent = caller
        self._notify(LoginFailed(account=_label(account), why=why, ip=ip, user_agent=user_agent))

    async def record_success(self, attempt: Attempt | None) -> None:
        """Tell the rate limit that the credentials of *attempt* were right."""
        if self._rate_limiter and attempt:
            await self._rate_limiter.record_success(attempt)

    async def record_earlier_success(self, caller: Caller, account: bytes, spelling: bytes) -> None:
        """Tell the rate limit that a password was right whose attempt was refunded while MFA was pending."""
        if self._rate_limiter:
            attempt = self._rate_limiter.uncharged_attempt(account, caller.ip, spelling)
            await self._rate_limiter.record_success(attempt)

    def count_junk(self, caller: Caller) -> None:
        """Count a token that no server of ours has made, without the store. Raise TooManyAttempts."""
        if self._rate_limiter:
            self._rate_limiter.count_junk(caller.ip)

    async def refund(self, attempt: Attempt | None) -> None:
        """Undo the charge of *attempt*."""
        if self._rate_limiter and attempt:
            await self._rate_limiter.refund(attempt)

    async def _acquire(self, caller: Caller, account: bytes, spelling: bytes, device: bytes) -> Attempt | None:
        if self._rate_limiter is None:
            return None
        try:
            return await self._rate_limiter.acquire(account, caller.ip, spelling, device)
        except TooManyAttempts as error:
            self._notify_rate_limited(caller, account, error.retry_after)
            raise

    def _notify_rate_limited(self, caller: Caller, account: bytes, retry_after: float) -> None:
        if not self._should_notify(account, address_key(caller.ip)):
            return
        ip, user_agent = caller
        event = LoginRateLimited(account=_label(account), retry_after=retry_after, ip=ip, user_agent=user_agent)
        self._notify(event)

    def _should_notify(self, account: bytes, address: bytes) -> bool:
        """Return whether one more event is due (rule 3), and count it."""
        now, source = monotonic(), (account, address)
        since, number = self._addresses.get(address, _AddressEvents(now, 0))
        if now - since >= EVENT_INTERVAL_SECONDS:
            since, number = now, 0
        if number >= MAX_EVENTS_PER_ADDRESS:
            return False
        if now - self._notified.get(source, float("-inf")) < EVENT_INTERVAL_SECONDS:
            return False
        self._notified.discard(source)  # puts it at the end of the cache
        self._notified.put(source, now)
        self._addresses.discard(address)
        self._addresses.put(address, _AddressEvents(since, number + 1))
        return True


def _label(account: bytes) -> str:
    """Return what stands for an account in events: no name, and enough of its key to tell accounts apart."""
    return account.hex()[:16]
