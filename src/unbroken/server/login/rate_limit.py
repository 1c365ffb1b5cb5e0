"""The rate limit of logins: how often the password or the code of an account may be wrong (GCRA, as in ITU-T I.371).

1. Each key has one time in the store. An attempt moves it ahead by ``every`` seconds; a key that is more than ``burst``
   attempts ahead of the clock has to wait. There is no counter, and nothing to reset.
2. An attempt is charged before the password is checked, in one atomic step of the store: of a hundred attempts at once
   no more than ``burst`` pass. A right password gets its own charge back.
3. An attempt from an unknown address is charged twice, to the account and to the address. A right password pays the
   account back, but not the address: an attacker's own account buys no attempts at other accounts. And it pays back
   only what the very spelling of the name has cost: an account whose name looks alike pays nothing back.
4. After a login the address is *known* to that account. Attempts from there are charged to this pair alone, so that
   an attacker elsewhere cannot lock the user out.
5. Accounts are told apart by their folded name, whether they exist or not. Case, accents, spaces and invisible
   characters are folded away, as a directory may do. IPv6 addresses count by /64, the network of one customer; a port
   does not count.
6. A refused attempt costs the store one read and no write, and does not lengthen the wait.
7. While the store does not answer, attempts fail with StoreUnavailable: there could be no session either. A refund that
   fails is only logged.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import unicodedata
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

from unbroken.errors import ConfigurationError, TooManyAttempts, TryLater
from unbroken.server.stores.markers import MarkerStore, marker_key
from unbroken.server.worker_pool import run_in_worker

__all__ = ["Attempt", "LoginRateLimiter", "Rate", "RateLimitPolicy", "address_key", "name_key", "spelling_key"]

_log = logging.getLogger("unbroken")
INVISIBLE_CATEGORIES = ("Mn", "Me", "Cf", "Cc")  # of Unicode: accents, zero widths, control characters
ADDRESS_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]*)?|([0-9.]+):[0-9]*")  # as some proxies write it
ROUNDING_ATTEMPTS = 0.01  # of an attempt: stores and clocks differ in their last digits


@dataclass(frozen=True, slots=True)
class Rate:
    """*burst* attempts at once, then one attempt per *every* seconds."""

    burst: int
    every: float

    def __post_init__(self) -> None:
        if self.burst < 1 or not 0.0 < self.every < float("inf"):
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
        return marker - now > (self.burst + ROUNDING_ATTEMPTS) * self.every


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """How often passwords and codes may be wrong: ``burst`` times at once, then once per ``every`` seconds.

    ``known_for``: the seconds for which an address is known to an account after a login.
    """

    account_burst: int = 10
    account_every: float = 60.0
    address_burst: int = 50
    address_every: float = 10.0
    known_for: float = 90 * 86400.0

    def __post_init__(self) -> None:
        if not self.known_for > 0.0:
            raise ConfigurationError("known_for must be a positive number of seconds")
        _ = self.account, self.address  # each checks itself

    @property
    def account(self) -> Rate:
        """The rate of one account, and of one known address of it."""
        return Rate(self.account_burst, self.account_every)

    @property
    def address(self) -> Rate:
        """The rate of one address, whatever the accounts."""
        return Rate(self.address_burst, self.address_every)


class Charge(NamedTuple):
    """A key to which an attempt is charged, and the rate of that key."""

    key: bytes
    rate: Rate


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was admitted, and what it was charged to."""

    account: bytes
    spelling: bytes  # key of what this spelling of the name has cost the account
    known: bytes | None  # key that makes the address known to this spelling; None without an address
    charges: tuple[Charge, ...]
    is_known: bool = False


class LoginRateLimiter:
    """Admits attempts, or raises TooManyAttempts. All limiters over one store share what it remembers."""

    def __init__(self, store: MarkerStore, policy: RateLimitPolicy, clock: Callable[[], float]) -> None:
        self._store, self._policy, self._clock = store, policy, clock

    async def acquire(self, account: bytes, ip: str, spelling: bytes = b"") -> Attempt:
        """Return an admitted attempt at *account* from the address *ip*. It counts as wrong until told otherwise.

        Raises TooManyAttempts, or StoreUnavailable.
        """
        return await run_in_worker(self._store, lambda: self._acquire(account, ip, spelling or account))

    async def record_success(self, attempt: Attempt) -> None:
        """Pay the account back, and make the address known to it. Never raises."""
        await self._best_effort(lambda: self._reward(attempt))

    async def refund(self, attempt: Attempt) -> None:
        """Undo the charges of an attempt that was neither right nor wrong. Never raises."""
        await self._best_effort(lambda: self._refund(attempt, self._policy.account.every))

    @staticmethod
    def uncharged_attempt(account: bytes, ip: str, spelling: bytes = b"") -> Attempt:
        """Return an attempt that costs nothing, because it was admitted under another key."""
        spelling = spelling or account
        return Attempt(account, marker_key(b"spelled", spelling), _known_key(spelling, address_key(ip)), ())

    async def _acquire(self, account: bytes, ip: str, spelling: bytes) -> Attempt:
        now, address, spelled = self._clock(), address_key(ip), marker_key(b"spelled", spelling)
        known, own = _known_key(spelling, address), marker_key(b"own", spelling, address)
        keys = [key for key in (account, address, known, own) if key]
        markers = dict(zip(keys, await self._store.read_markers(keys), strict=True))
        is_known = known is not None and markers[known] > now
        charges = self._charges(account, address, own if is_known else None)
        _refuse_if(max(rate.seconds_to_wait(markers[key], now) for key, rate in charges))  # rule 6
        for key, rate in charges:  # rule 2
            after = await self._store.advance_marker(key, now, rate.every, rate.max_ahead)
            if rate.is_exceeded(after, now):
                _refuse_if(rate.seconds_to_wait(after, now))
        if not is_known:
            await self._store.advance_marker(spelled, now, self._policy.account.every, self._policy.account.max_ahead)
        return Attempt(account, spelled, known, charges, is_known)

    def _charges(self, account: bytes, address: bytes, own: bytes | None) -> tuple[Charge, ...]:
        """Return what an attempt is charged to. *own*: the key of a known address."""
        if own is not None:  # rule 4
            return (Charge(own, self._policy.account),)
        charges = (Charge(address, self._policy.address),) if address else ()
        return (*charges, Charge(account, self._policy.account))  # rule 3

    async def _reward(self, attempt: Attempt) -> None:
        if attempt.is_known:
            await self._store.clear_markers([key for key, _ in attempt.charges])
        else:
            await self._refund(attempt, self._policy.account.max_ahead)
        if attempt.known:
            known_for = self._policy.known_for
            await self._store.advance_marker(attempt.known, self._clock(), known_for, known_for)

    async def _refund(self, attempt: Attempt, account_seconds: float) -> None:
        """Undo the charges; the account gets back *account_seconds* of what this spelling has cost it."""
        now = self._clock()
        for key, rate in attempt.charges:
            if key != attempt.account:
                await self._store.advance_marker(key, now, -rate.every, rate.max_ahead)
        if not attempt.is_known:
            await self._refund_account(attempt, account_seconds, now)

    async def _refund_account(self, attempt: Attempt, seconds: float, now: float) -> None:
        """Take *seconds* from the spelling first, in one atomic step: what it holds can be paid back only once."""
        max_ahead = self._policy.account.max_ahead
        held = await self._store.advance_marker(attempt.spelling, now, -seconds, max_ahead) + seconds - now
        await self._store.advance_marker(attempt.account, now, -min(max(held, 0.0), seconds), max_ahead)

    async def _best_effort(self, flow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await run_in_worker(self._store, flow)
        except TryLater as error:  # rule 7
            _log.warning("the refund of a login attempt failed, it stays charged: %s", error)


def _refuse_if(wait_seconds: float) -> None:
    if wait_seconds > 0.0:
        raise TooManyAttempts("too many attempts: wait before the next one", retry_after=wait_seconds)


def _known_key(spelling: bytes, address: bytes) -> bytes | None:
    return marker_key(b"known", spelling, address) if address else None


def name_key(name: str) -> bytes:
    """Return the key of the account *name*, the same for every spelling (rule 5). The caller bounds its length."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    visible = (char for char in folded if char.isspace() or unicodedata.category(char) not in INVISIBLE_CATEGORIES)
    return marker_key(b"account", " ".join("".join(visible).split()).encode("utf-8", "replace"))


def spelling_key(name: str) -> bytes:
    """Return the key of *name* exactly as it is written."""
    return marker_key(b"spelling", name.encode("utf-8", "replace"))


def address_key(ip: str) -> bytes:
    """Return the key of an address, of the whole /64 for IPv6; empty for no address (rule 5)."""
    return marker_key(b"address", _network(ip).encode("utf-8", "replace")) if ip else b""


def _network(ip: str) -> str:
    if found := ADDRESS_WITH_PORT.fullmatch(ip):
        ip = found[1] or found[2] or ip
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip  # the name of a test client, or of a Unix socket
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
