"""The guard against guessing: how often a password, or a code, may be wrong.

1. It is arithmetic over one time for each key (GCRA, as in ITU-T I.371): a try moves that time ahead by ``every``
   seconds; who is further ahead of the clock than ``burst`` tries has to wait. Nothing is counted, nothing is cleared.
2. A try counts before the password is looked at, in one atomic step of the store: of a hundred that come at once, no
   more pass than ``burst``. A right password gives back what its own try has cost.
3. A stranger is counted twice, by account and by address. The account is forgiven by a right password, the address is
   not: one account of his own buys an attacker no guesses at others.
4. An address from which somebody has logged in to an account is *known* to it. From there its logins are counted apart,
   and by nothing else: so nobody locks a user out of the places where that user is at home.
5. Accounts are known by their folded name, whether there is such an account or not. IPv6 addresses count by their /64,
   which one customer has.
6. Who is refused already costs the store one read, and no write. The one who waits is not punished for asking again.
7. A store that does not answer refuses logins (503): it could not have kept the session either. What a right password
   gives back is worth no refusal: there the store may fail.
"""

from __future__ import annotations

import ipaddress
import logging
import unicodedata
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from unbroken.errors import ConfigurationError, TooManyAttempts, TryLater
from unbroken.server.marks import Marks, in_its_place, key_of

__all__ = ["Guard", "GuardPolicy", "Rate", "Try", "address_key", "name_key"]

_log = logging.getLogger("unbroken")


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
class GuardPolicy:
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
class Try:
    """One guess that was let through; the guard is told what came of it."""

    account: bytes
    known: bytes | None  # the key of this account at this address; None if there is no address
    struck: tuple[tuple[bytes, Rate], ...]
    is_known: bool = False


class Guard:
    """Lets guesses through, or raises TooManyAttempts. All of a store's guards share what it keeps."""

    def __init__(self, store: Marks, policy: GuardPolicy, clock: Callable[[], float]) -> None:
        self._store, self._policy, self._clock = store, policy, clock

    async def admit(self, account: bytes, ip: str) -> Try:
        """A try at *account* from the address *ip*; it counts as wrong until the guard hears otherwise.

        Raises TooManyAttempts, or StoreUnavailable.
        """
        return await in_its_place(self._store, lambda: self._admit(account, ip))

    async def was_right(self, one: Try) -> None:
        """The guess was right: the account is forgiven, and the address is known to it from now on."""
        await self._kindly(lambda: self._reward(one))

    async def take_back(self, one: Try) -> None:
        """The guess was no guess: nobody could say whether it was right, or there is more to ask."""
        await self._kindly(lambda: self._take_back(one.struck))

    @staticmethod
    def free_try(account: bytes, ip: str) -> Try:
        """A try that costs nothing, and was let through somewhere else."""
        return Try(account, _known_key(account, address_key(ip)), ())

    async def _admit(self, account: bytes, ip: str) -> Try:
        now, address = self._clock(), address_key(ip)
        known, own = _known_key(account, address), key_of(b"own", account, address)
        keys = [key for key in (account, address, known, own) if key]
        kept = dict(zip(keys, await self._store.struck(keys), strict=True))
        is_known = known is not None and kept[known] > now
        if is_known:
            counted: tuple[tuple[bytes, Rate], ...] = ((own, self._policy.account),)
        else:
            counted = ((address, self._policy.address),) if address else ()
            counted += ((account, self._policy.account),)
        _refuse_if(max(rate.wait(kept[key], now) for key, rate in counted))
        for key, rate in counted:
            after = await self._store.strike(key, now, rate.every, rate.most)
            if rate.is_over(after, now):
                _refuse_if(rate.wait(after, now))
        return Try(account, known, counted, is_known)

    async def _reward(self, one: Try) -> None:
        now = self._clock()
        if one.is_known:
            await self._store.forgive([key for key, _ in one.struck])
        else:
            await self._take_back(tuple((key, rate) for key, rate in one.struck if key != one.account))
            await self._store.forgive([one.account])
        if one.known:
            await self._store.strike(one.known, now, self._policy.known_for, self._policy.known_for)

    async def _take_back(self, struck: tuple[tuple[bytes, Rate], ...]) -> None:
        now = self._clock()
        for key, rate in struck:
            await self._store.strike(key, now, -rate.every, rate.most)

    async def _kindly(self, flow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await in_its_place(self._store, flow)
        except TryLater as error:
            _log.warning("a right password could not be noted, and counts as a wrong one: %s", error)


def _refuse_if(wait: float) -> None:
    if wait > 0.0:
        raise TooManyAttempts("too many attempts: wait, and try again", retry_after=wait)


def _known_key(account: bytes, address: bytes) -> bytes | None:
    return key_of(b"known", account, address) if address else None


def name_key(name: str) -> bytes:
    """The key of an account's *name*, however it is spelled. *name* is of bounded length."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()
    return key_of(b"account", folded.encode("utf-8", "replace"))


def address_key(ip: str) -> bytes:
    """The key of an address, of the whole /64 for IPv6; empty if there is none."""
    return key_of(b"address", _network(ip).encode("utf-8", "replace")) if ip else b""


def _network(ip: str) -> str:
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip  # what a test client or a socket file calls itself
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
