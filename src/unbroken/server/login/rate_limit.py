"""The rate limit of logins, against brute force: how often a password or a code may be wrong (GCRA, ITU-T I.371).

1. Each key has one time in the store. An attempt moves it ahead by ``every`` seconds; a key that is more than ``burst``
   attempts ahead of the clock has to wait. There is no counter, and nothing to reset.
2. An attempt is charged before the password is checked, in one atomic step of the store: of a hundred attempts at once
   no more than ``burst`` pass. A right password gets its own charge back.
3. An attempt is charged twice, to the account and to the address. A right password pays the account back, but not the
   address: an attacker's own account buys no attempts at other accounts. And it pays back only what the very spelling
   of the name has cost: an account whose name looks alike pays nothing back. Who gets in by rule 4 or 5 pays only its
   own attempt back: the guesses of others stay charged.
4. An attempt from a *device* that has logged in to this account before (``devices.py``) is charged to the device alone:
   neither an attacker elsewhere nor a neighbour behind the same address can lock the user out. So there is no account
   lockout. A device that is over its own limit counts as none.
5. Beside its own limit an account has a *reserve*, as large, for networks from which its password was hardly ever
   wrong: a traveller without a device gets in while a few addresses guess for days.
6. No limit depends on who has logged in from which address. So the pattern of responses is the same for every name,
   and does not tell whose address this is.
7. Accounts are told apart by their folded name, whether they exist or not. Case, accents, spaces and invisible
   characters are folded away, as a directory may do. An IPv6 address counts as its /64, the network of one customer,
   and with more attempts as its /56 and its /48, because many customers have all of that; a port does not count.
8. A refused attempt costs the store one read and no write, and does not lengthen the wait.
9. While the store does not respond, attempts fail with StoreUnavailable: there could be no session either. A refund
   that fails is only logged.
10. Under a flood some attempts go first (``worker_pool``): those of a known device, and those from an address where
   a user has logged in and few passwords were wrong lately. That decides who waits, never who may try.
"""

from __future__ import annotations

import ipaddress
import logging
import unicodedata
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unbroken._arguments import checked_class
from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError, TooManyAttempts, TryLater
from unbroken.server.core.addresses import read_address
from unbroken.server.stores.base import run_in_worker
from unbroken.server.stores.markers import MarkerStore, marker_key

__all__ = [
    "Attempt",
    "LoginRateLimiter",
    "Rate",
    "RateLimitPolicy",
    "address_key",
    "name_key",
    "network_key",
    "spelling_key",
]

_log = logging.getLogger("unbroken")
INVISIBLE_CATEGORIES = ("Mn", "Me", "Cf", "Cc")  # of Unicode: accents, zero widths, control characters
IPV6_PREFIXES = {64: 1, 56: 4, 48: 16}  # how many times the attempts of a single address each may have (rule 7)
ROUNDING_ATTEMPTS = 0.01  # of an attempt: stores and clocks differ in their last digits
MAX_JUNK_SOURCES = 10_000
JUNK_FACTOR = 4  # junk costs less than a password: so many times the attempts of its address
NEWCOMER_BURST = 2  # a network was hardly ever wrong (rule 5): not more often than this, and then one attempt in
NEWCOMER_SECONDS = 86400.0  # so long
PREFERRED_BELOW = 0.5  # of the burst of an address: more wrong passwords than that, and it waits with the others


@dataclass(frozen=True, slots=True)
class Rate:
    """*burst* attempts at once, then one attempt per *every* seconds."""

    burst: int
    every: float

    def __post_init__(self) -> None:
        is_count = isinstance(self.burst, int) and self.burst >= 1  # NaN attempts would be a limit that never holds
        if not is_count or not isinstance(self.every, int | float) or not 0.0 < self.every < float("inf"):
            raise ConfigurationError("a rate limit needs a burst of at least 1, and a positive number of seconds")

    @property
    def max_ahead(self) -> float:
        """How many seconds a key may be ahead of the clock: slightly above the limit, to show an attempt over it."""
        return (self.burst + 2 * ROUNDING_ATTEMPTS) * self.every

    def seconds_to_wait(self, marker: float, now: float) -> float:
        """Return the seconds until the next attempt is allowed for a key with the time *marker*; 0 if it is now."""
        return max(max(marker, now) - now - (self.burst - 1 + ROUNDING_ATTEMPTS) * self.every, 0.0)

    def is_exceeded(self, marker: float, now: float) -> bool:
        """Return whether the attempt that moved the key to *marker* was one too many."""
        return marker - now > (self.burst + ROUNDING_ATTEMPTS) * self.every  # rule 1


@checked_class()
@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """How often passwords and codes may be wrong: ``burst`` times at once, then once per ``every`` seconds.

    ``known_for``: the seconds for which a device is known to an account after a login, 400 days at most.
    """

    account_burst: int = 10
    account_every: float = 60.0
    address_burst: int = 50
    address_every: float = 10.0
    known_for: float = 90 * 86400.0

    def __post_init__(self) -> None:
        for name in ("account_burst", "address_burst"):
            if (value := getattr(self, name)) < 1:
                raise ConfigurationError(f"RateLimitPolicy.{name} must be a whole number, 1 or more, not {value!r}")
        for name in ("account_every", "address_every", "known_for"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 < value < float("inf"):
                raise ConfigurationError(f"RateLimitPolicy.{name} must be a positive number of seconds, not {value!r}")


def account_rate(policy: RateLimitPolicy) -> Rate:
    """Return the rate of one account, and of one known device of it."""
    return Rate(policy.account_burst, policy.account_every)


class Charge(NamedTuple):
    """A key to which an attempt is charged, and the rate of that key."""

    key: bytes
    rate: Rate


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was admitted, and what it was charged to."""

    account: bytes
    spelling: bytes  # key of what this spelling of the name has cost the account
    charges: tuple[Charge, ...] = ()  # to the device; or to the address, the pair of account and network, the reserve
    charges_account: bool = False
    known_address: bytes | None = None  # key that a login leaves for its address (rule 10); None without an address
    has_device: bool = False
    is_preferred: bool = False  # goes first under a flood (rule 10)


class LoginRateLimiter:
    """Admits attempts, or raises TooManyAttempts. All limiters over one store share what it remembers."""

    def __init__(self, store: MarkerStore, policy: RateLimitPolicy, clock: Callable[[], float]) -> None:
        self._store, self.policy, self._clock = store, policy, clock
        self._junk: BoundedCache[bytes, float] = BoundedCache(MAX_JUNK_SOURCES)

    async def acquire(self, account: bytes, ip: str, spelling: bytes = b"", device: bytes = b"") -> Attempt:
        """Return an admitted attempt at *account* from the address *ip*. It counts as wrong until told otherwise.

        *device* is the id of a device that is known to this account. Raise TooManyAttempts, or StoreUnavailable.
        """
        return await run_in_worker(self._store, lambda: self._acquire(account, ip, spelling or account, device))

    async def record_success(self, attempt: Attempt) -> None:
        """Pay the account back. Never raises."""
        await self._best_effort(lambda: self._reward(attempt))

    async def refund(self, attempt: Attempt) -> None:
        """Undo the charges of an attempt that was neither right nor wrong. Never raises."""
        await self._best_effort(lambda: self._refund(attempt, account_rate(self.policy).every))

    def count_junk(self, ip: str) -> None:
        """Count a value that no server of ours has made, in the memory of this process. Raise TooManyAttempts.

        It costs the store nothing, and it counts for its address alone: it says nothing about any account.
        """
        key, now = address_key(ip), self._clock()
        rate = Rate(JUNK_FACTOR * self.policy.address_burst, self.policy.address_every / JUNK_FACTOR)
        marker = self._junk.get(key, 0.0)
        _refuse_if(rate.seconds_to_wait(marker, now))
        self._junk.discard(key)  # puts it at the end of the cache
        self._junk.put(key, max(marker, now) + rate.every)

    @staticmethod
    def uncharged_attempt(account: bytes, ip: str, spelling: bytes = b"") -> Attempt:
        """Return an attempt that costs nothing, because it was admitted under another key."""
        spelled = marker_key(b"spelled", spelling or account)
        return Attempt(account, spelled, charges_account=True, known_address=_known_key(address_key(ip)))

    async def _acquire(self, account: bytes, ip: str, spelling: bytes, device: bytes) -> Attempt:
        now, spelled = self._clock(), marker_key(b"spelled", spelling)
        known = _known_key(address_key(ip))
        if device and await self._is_admitted(charge := self._device_charge(account, device), now):
            return Attempt(account, spelled, (charge,), False, known, has_device=True, is_preferred=True)
        pair, charges = self._pair_charge(account, ip), self._address_charges(ip)
        uses_reserve, is_preferred = await self._check_waits(account, charges, pair, known, now)
        for key, rate in pair:  # before the account: who finds that exhausted at the same time is no newcomer
            await self._store.advance_marker(key, now, rate.every, rate.max_ahead)
        if uses_reserve:
            await self._charge(charges := (*charges, self._reserve_charge(account)), now)
            return Attempt(account, spelled, (*charges, *pair), False, known, is_preferred=is_preferred)
        rate = account_rate(self.policy)
        await self._charge((*charges, Charge(account, rate)), now)  # rule 3
        await self._store.advance_marker(spelled, now, rate.every, rate.max_ahead)
        return Attempt(account, spelled, (*charges, *pair), True, known, is_preferred=is_preferred)

    async def _charge(self, charges: Sequence[Charge], now: float) -> None:
        """Charge an attempt (rule 2). Raise TooManyAttempts if others at the same time were quicker."""
        for key, rate in charges:
            after = await self._store.advance_marker(key, now, rate.every, rate.max_ahead)
            if rate.is_exceeded(after, now):
                _refuse_if(rate.seconds_to_wait(after, now))

    async def _is_admitted(self, charge: Charge, now: float) -> bool:
        """Return whether the device may try, and charge it (rule 4)."""
        key, rate = charge
        if rate.seconds_to_wait((await self._store.read_markers([key]))[0], now):
            return False
        return not rate.is_exceeded(await self._store.advance_marker(key, now, rate.every, rate.max_ahead), now)

    async def _check_waits(
        self, account: bytes, addresses: Sequence[Charge], pair: Sequence[Charge], known: bytes | None, now: float
    ) -> tuple[bool, bool]:
        """Return whether an attempt uses the reserve (rule 5), and whether it is preferred (rule 10).

        Raise TooManyAttempts for one that has to wait. Reads the store once (rule 8).
        """
        reserve, usual = self._reserve_charge(account), Charge(account, account_rate(self.policy))
        keys = [key for key, _ in (usual, reserve, *addresses, *pair)] + ([known] if known else [])
        markers = dict(zip(keys, await self._store.read_markers(keys), strict=True))
        waits = {key: rate.seconds_to_wait(markers[key], now) for key, rate in (usual, reserve, *addresses, *pair)}
        uses_reserve = waits[account] > 0.0 and any(not waits[key] for key, _ in pair)
        needed = reserve if uses_reserve else usual
        _refuse_if(max(waits[key] for key, _ in (needed, *addresses)))
        if not known or markers[known] <= now:
            return uses_reserve, False
        few = (markers[key] - now < PREFERRED_BELOW * rate.burst * rate.every for key, rate in addresses)
        return uses_reserve, all(few)

    def _reserve_charge(self, account: bytes) -> Charge:
        return Charge(marker_key(b"reserve", account), account_rate(self.policy))

    def _device_charge(self, account: bytes, device: bytes) -> Charge:
        return Charge(marker_key(b"device attempts", account, device), account_rate(self.policy))

    def _address_charges(self, ip: str) -> tuple[Charge, ...]:
        """Return what an attempt costs its address, and the networks around it (rule 7)."""
        burst, every = self.policy.address_burst, self.policy.address_every
        return tuple(Charge(key, Rate(burst * factor, every / factor)) for key, factor in _networks(ip).items())

    def _pair_charge(self, account: bytes, ip: str) -> tuple[Charge, ...]:
        """Return what an attempt costs the pair of its account and the widest network around *ip* (rule 5)."""
        rate = Rate(min(NEWCOMER_BURST, self.policy.account_burst), NEWCOMER_SECONDS)
        return tuple(Charge(marker_key(b"pair", account, key), rate) for key in list(_networks(ip))[-1:])

    async def _reward(self, attempt: Attempt) -> None:
        if attempt.has_device:
            await self._store.clear_markers([key for key, _ in attempt.charges])
        else:
            await self._refund(attempt, account_rate(self.policy).max_ahead)
        if attempt.known_address:
            known_for = self.policy.known_for
            await self._store.advance_marker(attempt.known_address, self._clock(), known_for, known_for)

    async def _refund(self, attempt: Attempt, account_seconds: float) -> None:
        """Undo the charges; the account gets back *account_seconds* of what this spelling has cost it."""
        now = self._clock()
        for key, rate in attempt.charges:
            await self._store.advance_marker(key, now, -rate.every, rate.max_ahead)
        if attempt.charges_account:
            await self._refund_account(attempt, account_seconds, now)

    async def _refund_account(self, attempt: Attempt, seconds: float, now: float) -> None:
        """Take *seconds* from the spelling first, in one atomic step: what it holds can be paid back only once."""
        max_ahead = account_rate(self.policy).max_ahead
        held = await self._store.advance_marker(attempt.spelling, now, -seconds, max_ahead) + seconds - now
        await self._store.advance_marker(attempt.account, now, -min(max(held, 0.0), seconds), max_ahead)

    async def _best_effort(self, flow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await run_in_worker(self._store, flow)
        except TryLater as error:  # rule 9
            _log.warning("the refund of a login attempt failed, it stays charged: %s", error)


def _refuse_if(wait_seconds: float) -> None:
    if wait_seconds > 0.0:
        raise TooManyAttempts("too many attempts: wait before the next one", retry_after=wait_seconds)


def _known_key(address: bytes) -> bytes | None:
    return marker_key(b"known address", address) if address else None


def name_key(name: str) -> bytes:
    """Return the key of the account *name*, the same for every spelling (rule 7). The caller bounds its length."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    visible = (char for char in folded if char.isspace() or unicodedata.category(char) not in INVISIBLE_CATEGORIES)
    return marker_key(b"account", " ".join("".join(visible).split()).encode("utf-8", "replace"))


def spelling_key(name: str) -> bytes:
    """Return the key of *name* exactly as it is written."""
    return marker_key(b"spelling", name.encode("utf-8", "replace"))


def address_key(ip: str) -> bytes:
    """Return the key of an address, of the whole /64 for IPv6; empty for no address (rule 7)."""
    return next(iter(_networks(ip)), b"")


def network_key(ip: str) -> bytes:
    """Return the key of the widest network around *ip* that one customer may have; empty for no address (rule 7)."""
    return next(reversed(_networks(ip)), b"")


def _networks(ip: str) -> dict[bytes, int]:
    """Return the keys of the networks around *ip*, the narrowest first, and how many times the attempts each has."""
    if not ip:
        return {}
    names = _names(ip)
    return {marker_key(b"address", name.encode("utf-8", "replace")): factor for name, factor in names.items()}


def _names(ip: str) -> dict[str, int]:
    address = read_address(ip)
    if address is None:
        return {ip: 1}  # the name of a test client, or of a Unix socket
    if isinstance(address, ipaddress.IPv4Address):
        return {str(address): 1}
    return {
        str(ipaddress.ip_network((address, prefix), strict=False)): factor for prefix, factor in IPV6_PREFIXES.items()
    }
