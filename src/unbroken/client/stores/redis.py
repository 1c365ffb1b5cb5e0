"""Tokens in Redis (or Valkey), shared by hosts.

1. Both keys of a session are in one hash slot, as a cluster needs it.
2. A save is one script that compares and sets. Give Redis ``appendfsync everysec`` or better, and no eviction.
3. The lock is a lease under its holder's name (``lease.py``); only its holder releases it. While it is held, its holder
   subscribes to a channel that has no messages: when the channel has no subscriber any more, its process has ended.
   The lease says whether Redis saw the subscription at its last heartbeat. Where it is not allowed (ACL), not supported
   (a proxy), or on another node, Redis does not see it, and the lease alone counts.
4. Every call is bounded by *timeout* seconds: a dead Redis raises StoreUnavailable.
5. A fork waits until no thread of this store is inside redis-py: its locks, some of them of the whole process, stay
   locked in a child for ever. The child connects anew.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

try:
    import redis
except ImportError as error:
    raise ImportError("RedisStore needs redis: pip install 'unbroken[redis]'") from error

from redis.backoff import NoBackoff
from redis.retry import Retry

from unbroken._arguments import checked_class
from unbroken._concurrency import Closeable, ForkGate, register_fork_aware
from unbroken._time import Duration, to_seconds
from unbroken.client.core.token_store import EMPTY, Lease, StoredSession
from unbroken.client.stores.codec import CorruptRecord, EncryptionKey, SessionCodec
from unbroken.client.stores.lease import (
    LEASE_SECONDS,
    LeaseLock,
    lease_seconds,
    machine_lock_path,
    seconds_after_connection,
)
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["RedisStore"]

T = TypeVar("T")

SAVE = """
    local stamp = redis.call('HGET', KEYS[1], 'stamp') or ARGV[1]
    if stamp ~= ARGV[2] then return 0 end
    redis.call('HSET', KEYS[1], 'stamp', ARGV[3], 'data', ARGV[4])
    return 1
"""
IS_CONNECTED = """
    local holder, connected = string.match(redis.call('GET', KEYS[1]) or '', '^(%S*)(.*)$')
    local function is_connected(name)
        local subscribers = redis.pcall('PUBSUB', 'NUMSUB', KEYS[1] .. ':' .. name)
        return not subscribers.err and subscribers[2] > 0
    end
"""
TAKE_LEASE = f"""{IS_CONNECTED}
    if holder ~= '' and holder ~= ARGV[1] then
        local has_ended = connected ~= '' and not is_connected(holder)
        if has_ended and redis.call('PTTL', KEYS[1]) > tonumber(ARGV[3]) then
            redis.call('PEXPIRE', KEYS[1], ARGV[3])
        end
        return 0
    end
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1
"""
EXTEND_LEASE = f"""{IS_CONNECTED}
    if holder ~= ARGV[1] then return 0 end
    connected = ARGV[3] == '1' and is_connected(holder) and ' connected' or ''
    redis.call('SET', KEYS[1], holder .. connected, 'PX', ARGV[2])
    return 1
"""
RELEASE_LEASE = f"{IS_CONNECTED} if holder == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


@checked_class()
class RedisStore(Closeable):
    """Tokens in the Redis at *url* (``redis://``, ``rediss://``, ``unix://``), for the session called *name*.

    *url* may be a client of redis-py, also of a cluster. *key* encrypts the tokens (``codec.py``). *lease* is after how
    many seconds the lock of a crashed holder expires, *timeout* how many seconds Redis may take.
    """

    def __init__(
        self,
        url: str | Any,
        name: str = "default",
        *,
        key: EncryptionKey | None = None,
        lease: Duration = LEASE_SECONDS,
        timeout: Duration = 2.0,
    ) -> None:
        self.name, self.lease = name, lease_seconds(lease)
        seconds = to_seconds("timeout", timeout, above_zero=True)
        self._arguments = (url, name, key, self.lease, seconds)
        try:
            self._redis: Any = _connect(url, seconds) if isinstance(url, str) else url
        except ValueError:  # its message may hold a part of the password
            raise ConfigurationError(
                "the URL of the Redis store cannot be read: redis://, rediss:// or unix://, password percent-encoded"
            ) from None
        self._codec = SessionCodec(f"the session {name!r} in Redis", key)
        self._lease_lock = LeaseLock(self, machine_lock_path("redis", _place(self._redis), name))
        self._subscriptions: dict[str, Any] = {}  # by holder
        self._tokens, self._lock = f"{{unbroken:{name}}}:tokens", f"{{unbroken:{name}}}:lock"  # rule 1

    def __reduce__(self) -> tuple[object, ...]:
        if not isinstance(self._arguments[0], str):
            raise TypeError("a RedisStore over a redis-py client cannot be pickled: give it a URL")
        return (_rebuild, self._arguments)

    def load(self) -> StoredSession:
        """Return the record; ``EMPTY`` if there is none."""
        data = self._run(lambda: self._redis.hget(self._tokens, "data"))
        if data is None:
            return EMPTY
        try:
            return self._codec.decode(data if isinstance(data, bytes) else data.encode())
        except CorruptRecord as error:
            raise StoreUnavailable(f"{error}: remove the key, and log in again") from error

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record*. Return False if another record is there."""
        values = (EMPTY.stamp, expected.stamp, record.stamp, self._codec.encode(record))
        return bool(self._run(lambda: self._redis.eval(SAVE, 1, self._tokens, *values)))  # rule 2

    def lock(self, timeout: float) -> AbstractContextManager[Lease]:
        """Return the lock of a refresh; entering it raises StoreBusy after *timeout* seconds."""
        return self._lease_lock.acquire(timeout)

    def take_lease(self, holder: str) -> bool:
        """Give the lease to *holder*, if no other has it now; return whether *holder* has it.

        Cut the lease of a holder whose connection has ended.
        """
        times = (_milliseconds(self.lease), _milliseconds(seconds_after_connection(self.lease)))
        return bool(self._run(lambda: self._redis.eval(TAKE_LEASE, 1, self._lock, holder, *times)))  # rule 3

    def extend_lease(self, holder: str) -> bool:
        """Extend the lease, if *holder* was the last to have it; return whether it was."""
        return bool(self._run(lambda: self._extend(holder)))

    def release_lease(self, holder: str) -> None:
        """Release the lease, if *holder* has it."""
        try:
            self._run(lambda: self._redis.eval(RELEASE_LEASE, 1, self._lock, holder))
        finally:
            self._disconnect_holder(holder)

    def connect_holder(self, holder: str) -> None:
        """Subscribe, so that Redis sees when this process ends (rule 3)."""
        try:
            with _gate:
                subscription = self._subscriptions[holder] = self._redis.pubsub()
                subscription.subscribe(f"{self._lock}:{holder}")
                subscription.get_message(timeout=self._arguments[-1])  # the confirmation, or an error
                self._extend(holder)
        except Exception:  # noqa: BLE001  # of whatever client: the lease alone counts
            self._disconnect_holder(holder)

    def _disconnect_holder(self, holder: str) -> None:
        subscription = self._subscriptions.pop(holder, None)
        with suppress(Exception), _gate:
            if subscription is not None:
                subscription.close()

    def _extend(self, holder: str) -> Any:
        is_subscribed = int(holder in self._subscriptions)
        return self._redis.eval(EXTEND_LEASE, 1, self._lock, holder, _milliseconds(self.lease), is_subscribed)

    def close(self) -> None:
        """Close the connections, unless they are those of a client that was passed in. The next use opens new ones."""
        if isinstance(self._arguments[0], str):
            self._redis.close()

    def _run(self, command: Callable[[], T]) -> T:
        try:
            with _gate:  # rule 5
                return command()
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"the token store in Redis cannot be used: {type(error).__name__}") from error


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _connect(url: str, timeout: float) -> Any:
    """Return a client whose calls are bounded by *timeout*, with one retry: idle connections are closed by servers."""
    bounds: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}  # rule 4
    client: Any = redis.Redis.from_url(url, **bounds, retry=Retry(NoBackoff(), 1))
    pool = client.connection_pool
    pool.connection_class = type("Connection", (_ForkAwareConnection, pool.connection_class), {})
    return client


class _ForkAwareConnection:
    """A connection that a forked child closes, on its own side only (``disconnect`` knows its process)."""

    disconnect: Callable[[], None]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        self.disconnect()


_gate = ForkGate()


def _place(client: Any) -> str:
    """Return where *client* connects to, without a password; the same text for all processes with the same URL."""
    pool = getattr(client, "connection_pool", None)
    settings = getattr(pool, "connection_kwargs", {})
    return " ".join(str(settings.get(name, "")) for name in ("host", "port", "path", "db"))


def _rebuild(url: str, name: str, key: EncryptionKey | None, lease: float, timeout: float) -> RedisStore:
    return RedisStore(url, name, key=key, lease=lease, timeout=timeout)
