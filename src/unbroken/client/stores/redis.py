"""Tokens in Redis (or Valkey), shared by hosts.

1. Both keys of a session are in one hash slot, so that a cluster serves.
2. A save is one script that compares and sets. Give Redis ``appendfsync everysec`` or better, and no eviction.
3. The lock is a lease with its holder's name in it; only its holder gives it back.
4. Every call is bounded by *timeout* seconds: a dead Redis is told at once, by StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from unbroken.client.core.record import EMPTY, Lease, StoredSession
from unbroken.client.stores.codec import CorruptRecord, EncryptionKey, SessionCodec
from unbroken.client.stores.lease import LEASE_SECONDS, LeaseLock
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["RedisStore"]

T = TypeVar("T")

SAVE = """
    local stamp = redis.call('HGET', KEYS[1], 'stamp') or ARGV[1]
    if stamp ~= ARGV[2] then return 0 end
    redis.call('HSET', KEYS[1], 'stamp', ARGV[3], 'data', ARGV[4])
    return 1
"""
TAKE = """
    local holder = redis.call('GET', KEYS[1])
    if holder and holder ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1
"""
LENGTHEN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisStore:
    """Tokens in the Redis at *url* (``redis://``, ``rediss://``, ``unix://``), for the session called *name*.

    *url* may be a client of redis-py of one's own, also a cluster's. *key* seals the tokens (``form.py``). *lease* is
    how long a holder of the renewal lock that died is waited for, *timeout* how long Redis may take; both in seconds.
    """

    def __init__(
        self,
        url: str | Any,
        name: str = "default",
        *,
        key: EncryptionKey | None = None,
        lease: float = LEASE_SECONDS,
        timeout: float = 2.0,
    ) -> None:
        self._made_of = (url, name, key, lease, timeout)
        try:
            self._redis: Any = redis.Redis.from_url(url, **_bounds(timeout)) if isinstance(url, str) else url
        except ValueError:  # its message may hold a part of the password
            raise ConfigurationError(
                "the URL of the Redis store cannot be read: redis://, rediss:// or unix://, password percent-encoded"
            ) from None
        self.name, self.lease, self._lender = name, lease, LeaseLock(self)
        self._form = SessionCodec(f"the session {name!r} in Redis", key)
        self._tokens, self._lock = f"{{unbroken:{name}}}:tokens", f"{{unbroken:{name}}}:lock"

    def __reduce__(self) -> tuple[object, ...]:
        if not isinstance(self._made_of[0], str):
            raise TypeError("a RedisStore over a client of one's own cannot be pickled: give it a URL")
        return (_rebuild, self._made_of)

    def load(self) -> StoredSession:
        """The record as it stands now; ``EMPTY`` when there is none."""
        data = self._asked(lambda: self._redis.hget(self._tokens, "data"))
        if data is None:
            return EMPTY
        try:
            return self._form.decode(data if isinstance(data, bytes) else data.encode())
        except CorruptRecord as error:
            raise StoreUnavailable(f"{error}: remove the key, and log in again") from error

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replaces *expected* by *record*; False if it is another one now."""
        values = (EMPTY.stamp, expected.stamp, record.stamp, self._form.encode(record))
        return bool(self._asked(lambda: self._redis.eval(SAVE, 1, self._tokens, *values)))

    def lock(self, timeout: float) -> AbstractContextManager[Lease]:
        """Held by one renewal at a time. Raises StoreBusy after *timeout* seconds, or StoreUnavailable."""
        return self._lender.acquire(timeout)

    def take_lease(self, holder: str) -> bool:
        """Lends the lock to *holder*, if nobody else has it now."""
        lasting = int(self.lease * 1000)
        return bool(self._asked(lambda: self._redis.eval(TAKE, 1, self._lock, holder, lasting)))

    def extend_lease(self, holder: str) -> bool:
        """Lends the lock for another while, if *holder* was the last to have it."""
        lasting = int(self.lease * 1000)
        return bool(self._asked(lambda: self._redis.eval(LENGTHEN, 1, self._lock, holder, lasting)))

    def release_lease(self, holder: str) -> None:
        """Frees the lock, if *holder* has it."""
        self._asked(lambda: self._redis.eval(GIVE_BACK, 1, self._lock, holder))

    def _asked(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"the token store in Redis cannot be used: {type(error).__name__}") from error


def _bounds(timeout: float) -> dict[str, Any]:
    """One more try for a connection that was closed while nobody used it; then the caller is told."""
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": Retry(NoBackoff(), 1)}


def _rebuild(url: str, name: str, key: EncryptionKey | None, lease: float, timeout: float) -> RedisStore:
    return RedisStore(url, name, key=key, lease=lease, timeout=timeout)
