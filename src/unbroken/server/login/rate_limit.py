"""The guard against guessing: how often a password, or a code, may be wrong.

1. It is arithmetic over one time for each key (GCRA, as in ITU-T I.371): a try moves that time ahead by ``every``
   seconds; who is further ahead of the clock than ``burst`` tries has to wait. Nothing is counted, nothing is cleared.
2. A try counts before the password is looked at, in one atomic step of the store: of a hundred that come at once, no
   more pass than ``burst``. A right password gives back what its own try has cost.
3. A stranger is counted twice, by account and by address. The account is forgiven by a right password, the address is
   not: one account of his own buys an attacker no guesses at others. Nor does one that is called nearly the same: a
   right password forgives, and makes known, the very spelling it came with.
4. An address from which somebody has logged in to an account is *known* to it. From there its logins are counted apart,
   and by nothing else: so nobody locks a user out of the places where that user is at home.
5. Accounts are counted by their folded name, whether there is such an account or not. It is folded as far as any
   directory may do it: capitals, accents, spaces and what cannot be seen make no other account. IPv6 addresses count by
   their /64, which one customer has; a port counts for nothing.
6. Who is refused already costs the store one read, and no write. The one who waits is not punished for asking again.
7. A store that does not answer refuses logins (503): it could not have kept the session either. What a right password
   gives back is worth no refusal: there the store may fail.

The door that every guess goes through: the guard before it, and the news of it after it.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import unicodedata
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError, LoginRefused, Refused, TooManyAttempts, TryLater
from unbroken.server.core import events
from unbroken.server.core.session_info import Caller
from unbroken.server.stores.markers import MarkerStore, marker_key
from unbroken.server.worker_pool import run_in_worker

__all__ = [
    "Attempt",
    "CredentialCheck",
    "LoginRateLimiter",
    "Rate",
    "RateLimitPolicy",
    "address_key",
    "name_key",
    "spelling_key",
]

_log = logging.getLogger("unbroken")
UNSEEN = ("Mn", "Me", "Cf", "Cc")  # categories of characters that directories may pass over: accents, zero widths
PORT = re.compile(r"\[([^\]]*)\](?::[0-9]*)?|([0-9.]+):[0-9]*")  # as some proxies write it behind an address


@dataclass(frozen=True, slots=True)
class Rate:
    """*burst* tries at once, then one each *every* seconds."""

    burst: int
    every: float

    def __post_init__(self) -> None:
        if self.burst < 1 or not 0.0 < self.every < float("inf"):
            raise ConfigurationError("a guard allows at least one try at once, and another after some seconds")

    @property
    def most(self) -> float:
        """How far ahead of the clock a key can be: a little further than allowed, so that one can see it is too far."""
        return (self.burst + 0.02) * self.every

    def wait(self, kept: float, now: float) -> float:
        """How long from *now* until another try is allowed, when *kept* is the time of the key; 0 if it is now."""
        seconds = max(kept, now) - now - (self.burst - 1 + 0.01) * self.every
        return max(seconds, 0.0)

    def is_over(self, kept: float, now: float) -> bool:
        """Whether the try that has moved the key to *kept* is one too many."""
        return kept - now > (self.burst + 0.01) * self.every


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """How often passwords and codes may be wrong, in seconds: ``burst`` at once, then one each ``every``."""

    account_burst: int = 10
    account_every: float = 60.0
    address_burst: int = 50
    address_every: float = 10.0
    known_for: float = 90 * 86400.0  # since the last login from there

    def __post_init__(self) -> None:
        if not self.known_for > 0.0:
            raise ConfigurationError("an address is known for some seconds at least")
        _ = self.account, self.address

    @property
    def account(self) -> Rate:
        """For one account, and for one known address of it."""
        return Rate(self.account_burst, self.account_every)

    @property
    def address(self) -> Rate:
        """For all that comes from one address."""
        return Rate(self.address_burst, self.address_every)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One guess that was let through; the guard is told what came of it."""

    account: bytes
    spelling: bytes  # the key of what this very spelling has cost the account
    known: bytes | None  # the key of this spelling at this address; None if there is no address
    marker_times: tuple[tuple[bytes, Rate], ...]
    is_known: bool = False


class LoginRateLimiter:
    """Lets guesses through, or raises TooManyAttempts. All of a store's guards share what it keeps."""

    def __init__(self, store: MarkerStore, policy: RateLimitPolicy, clock: Callable[[], float]) -> None:
        self._store, self._policy, self._clock = store, policy, clock

    async def acquire(self, account: bytes, ip: str, spelling: bytes = b"") -> Attempt:
        """A try at *account*, spelled so, from the address *ip*; it counts as wrong until the guard hears otherwise.

        Raises TooManyAttempts, or StoreUnavailable.
        """
        return await run_in_worker(self._store, lambda: self._acquire(account, ip, spelling or account))

    async def record_success(self, one: Attempt) -> None:
        """The guess was right: the account is forgiven, and the address is known to it from now on."""
        await self._best_effort(lambda: self._reward(one))

    async def refund(self, one: Attempt) -> None:
        """The guess was no guess: nobody could say whether it was right, or there is more to ask."""
        await self._best_effort(lambda: self._refund(one))

    @staticmethod
    def uncounted_attempt(account: bytes, ip: str, spelling: bytes = b"") -> Attempt:
        """A try that costs nothing, and was let through somewhere else."""
        spelling = spelling or account
        return Attempt(account, marker_key(b"spelled", spelling), _known_key(spelling, address_key(ip)), ())

    async def _acquire(self, account: bytes, ip: str, spelling: bytes) -> Attempt:
        now, address, spelled = self._clock(), address_key(ip), marker_key(b"spelled", spelling)
        known, own = _known_key(spelling, address), marker_key(b"own", spelling, address)
        keys = [key for key in (account, address, known, own) if key]
        kept = dict(zip(keys, await self._store.read_markers(keys), strict=True))
        is_known = known is not None and kept[known] > now
        if is_known:
            counted: tuple[tuple[bytes, Rate], ...] = ((own, self._policy.account),)
        else:
            counted = ((address, self._policy.address),) if address else ()
            counted += ((account, self._policy.account),)
        _refuse_if(max(rate.wait(kept[key], now) for key, rate in counted))
        for key, rate in counted:
            after = await self._store.advance_marker(key, now, rate.every, rate.most)
            if rate.is_over(after, now):
                _refuse_if(rate.wait(after, now))
        if not is_known:
            await self._store.advance_marker(spelled, now, self._policy.account.every, self._policy.account.most)
        return Attempt(account, spelled, known, counted, is_known)

    async def _reward(self, one: Attempt) -> None:
        now = self._clock()
        if one.is_known:
            await self._store.clear_markers([key for key, _ in one.marker_times])
        else:
            await self._refund(one, self._policy.account.most)
        if one.known:
            await self._store.advance_marker(one.known, now, self._policy.known_for, self._policy.known_for)

    async def _refund(self, one: Attempt, of_account: float = 0.0) -> None:
        """What the try has cost; with *of_account*, as many seconds of what its spelling has cost the account."""
        now = self._clock()
        for key, rate in one.marker_times:
            if key != one.account:
                await self._store.advance_marker(key, now, -rate.every, rate.most)
        if not one.is_known:
            await self._give_back(one, of_account or self._policy.account.every, now)

    async def _give_back(self, one: Attempt, seconds: float, now: float) -> None:
        """Gives the account back what its spelling still holds of these *seconds*. They are taken from the spelling in
        one atomic step, so that nobody gives back twice what was struck once.
        """
        most = self._policy.account.most
        held = await self._store.advance_marker(one.spelling, now, -seconds, most) + seconds - now
        await self._store.advance_marker(one.account, now, -min(max(held, 0.0), seconds), most)

    async def _best_effort(self, flow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await run_in_worker(self._store, flow)
        except TryLater as error:
            _log.warning("a right password could not be noted, and counts as a wrong one: %s", error)


def _refuse_if(wait: float) -> None:
    if wait > 0.0:
        raise TooManyAttempts("too many attempts: wait, and try again", retry_after=wait)


def _known_key(spelling: bytes, address: bytes) -> bytes | None:
    return marker_key(b"known", spelling, address) if address else None


def name_key(name: str) -> bytes:
    """The key of an account's *name*, however it is spelled. *name* is of bounded length."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    seen = "".join(char if char.isspace() or unicodedata.category(char) not in UNSEEN else "" for char in folded)
    return marker_key(b"account", " ".join(seen.split()).encode("utf-8", "replace"))


def spelling_key(name: str) -> bytes:
    """The key of *name* as it is spelled."""
    return marker_key(b"spelling", name.encode("utf-8", "replace"))


def address_key(ip: str) -> bytes:
    """The key of an address, of the whole /64 for IPv6; empty if there is none."""
    return marker_key(b"address", _network(ip).encode("utf-8", "replace")) if ip else b""


def _network(ip: str) -> str:
    if found := PORT.fullmatch(ip):
        ip = found[1] or found[2] or ip
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip  # what a test client or a socket file calls itself
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))


T = TypeVar("T")
NOTIFY_INTERVAL_SECONDS = 60.0  # seconds between two pieces of news of the same throttled account and address
MAX_NOTIFICATIONS_PER_ADDRESS = (
    10  # pieces of news in that time of one address, whatever the accounts: names cost an attacker nothing
)
MAX_TRACKED_SOURCES = 1000


class CredentialCheck:
    """Lets guesses be made, under *guard* if there is one, and tells of those that fail."""

    def __init__(self, guard: LoginRateLimiter | None, tell: Callable[[events.ServerEvent], None]) -> None:
        self._guard, self._tell = guard, tell
        self._told: BoundedCache[tuple[bytes, bytes], float] = BoundedCache(MAX_TRACKED_SOURCES)
        self._crowds: BoundedCache[bytes, tuple[float, int]] = BoundedCache(MAX_TRACKED_SOURCES)

    async def check(
        self, caller: Caller, account: bytes, why: str, look: Callable[[], Awaitable[T]], spelling: bytes = b""
    ) -> tuple[T, Attempt | None]:
        """What *look* gives, which raises LoginRefused for a wrong guess; and the try, for ``was_right``.

        Raises what *look* raises, and TooManyAttempts.
        """
        one = await self._acquire(caller, account, spelling)
        try:
            return await look(), one
        except LoginRefused as error:
            said = why if error.reason == error.code else error.reason
            self.notify_failed(caller, account, said)
            raise
        except (Refused, TryLater, ConfigurationError):
            await self.refund(one)
            raise

    def notify_failed(self, caller: Caller, account: bytes, why: str) -> None:
        """Tells of a login that was refused."""
        ip, agent = caller
        self._tell(events.LoginFailed(account=_account_label(account), why=why, ip=ip, user_agent=agent))

    async def record_success(self, one: Attempt | None) -> None:
        """The guess was right."""
        if self._guard and one:
            await self._guard.record_success(one)

    async def record_earlier_success(self, caller: Caller, account: bytes, spelling: bytes) -> None:
        """A guess at *account*, which was taken back because there was more to ask, was right after all."""
        if self._guard:
            await self._guard.record_success(self._guard.uncounted_attempt(account, caller.ip, spelling))

    async def refund(self, one: Attempt | None) -> None:
        """The guess was none."""
        if self._guard and one:
            await self._guard.refund(one)

    async def _acquire(self, caller: Caller, account: bytes, spelling: bytes) -> Attempt | None:
        if self._guard is None:
            return None
        try:
            return await self._guard.acquire(account, caller.ip, spelling)
        except TooManyAttempts as error:
            self._notify_rate_limited(caller, account, error.retry_after)
            raise

    def _notify_rate_limited(self, caller: Caller, account: bytes, retry_after: float) -> None:
        """Not for every request: an attack must not become a flood of news."""
        if not self._should_notify(account, address_key(caller.ip)):
            return
        word, agent = _account_label(account), caller.user_agent
        self._tell(events.LoginRateLimited(account=word, retry_after=retry_after, ip=caller.ip, user_agent=agent))

    def _should_notify(self, account: bytes, address: bytes) -> bool:
        now, whom = monotonic(), (account, address)
        since, count = self._crowds.get(address, (now, 0))
        if now - since >= NOTIFY_INTERVAL_SECONDS:
            since, count = now, 0
        if (
            count >= MAX_NOTIFICATIONS_PER_ADDRESS
            or now - self._told.get(whom, float("-inf")) < NOTIFY_INTERVAL_SECONDS
        ):
            return False
        self._told.discard(whom)
        self._told.put(whom, now)
        self._crowds.discard(address)
        self._crowds.put(address, (since, count + 1))
        return True


def _account_label(account: bytes) -> str:
    """What stands for an account in events: as much of its key as tells accounts apart."""
    return account.hex()[:16]
