"""What a Redis server tells about itself, and what its errors mean for an operator.

1. A server that evicts keys when its memory is full loses sessions: it is refused at first use.
2. A server without an append-only file loses sessions when it stops: that is one warning in the log.
3. No message contains a key, a value or a password.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)

from unbroken.errors import ConfigurationError, InvalidRequest, StoreUnavailable

__all__ = ["DEFINITE", "ServerInfo", "translating_errors"]

_log = logging.getLogger("unbroken")
WAITAOF_SINCE = (7, 2)
REFUSALS = (redis.AuthenticationError, AuthorizationError, AuthenticationWrongNumberOfArgsError, NoPermissionError)
# Responses of the server that redis-py counts among broken connections: a second attempt gets the same response.
DEFINITE = (*REFUSALS, BusyLoadingError)
MEANINGS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (BusyLoadingError, "it is loading its data"),
    (ReadOnlyError, "it is a replica now and accepts no writes"),
    (OutOfMemoryError, "its memory is full: see maxmemory"),
    ((ClusterDownError, AskError, TryAgainError, RedisClusterException), "its cluster is down or changing"),
    ((redis.TimeoutError, TimeoutError), "it does not respond in time"),
    ((redis.ConnectionError, OSError), "no connection"),
)
KEYWORD_MEANINGS = {"MISCONF": "it cannot write to its disk (MISCONF)"}


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What matters of one server. ``waits_for_disk``: its WAITAOF tells whether a write is on the disk."""

    waits_for_disk: bool = False

    @classmethod
    def of(cls, info: dict[str, Any], cluster: bool) -> ServerInfo:
        """Read the response to INFO. Raise ConfigurationError for a server that would lose sessions (rule 1)."""
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy != "noeviction" and int(info.get("maxmemory", 0)):
            raise ConfigurationError(f"this Redis evicts sessions ({policy}): set maxmemory-policy noeviction")
        if int(info.get("cluster_enabled", 0)) and not cluster:
            raise ConfigurationError("this Redis is part of a cluster: write redis+cluster:// in the store's URL")
        append_only = bool(int(info.get("aof_enabled", 1)))
        if not append_only:
            _log.warning("this Redis loses sessions and logouts when it stops: set appendonly yes")  # rule 2
        version = tuple(int(part) for part in re.findall(r"\d+", str(info.get("redis_version", "0")))[:2])
        return cls(append_only and "aof_enabled" in info and version >= WAITAOF_SINCE and not cluster)


@contextlib.contextmanager
def translating_errors() -> Iterator[None]:
    """Raise errors of redis-py within this block as our errors."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest("a name or an id is not valid text") from error
    except (redis.RedisError, RedisClusterException, OSError) as error:
        chain = list(_chain(error))
        if any(isinstance(one, REFUSALS) for one in chain):
            raise ConfigurationError("Redis refuses this user or password: see the URL of the store") from None
        # rule 3: a response of the server may repeat what was sent to it
        cause = None if isinstance(error, redis.ResponseError) else error
        raise StoreUnavailable(f"the Redis store is unavailable: {_meaning(chain)}") from cause


def _meaning(chain: list[BaseException]) -> str:
    keyword = re.search(r"\b(MISCONF|NOREPLICAS|WRONGTYPE|CROSSSLOT|EXECABORT|BUSY)\b", str(chain[0]))
    if keyword:
        return KEYWORD_MEANINGS.get(keyword[1], keyword[1])
    for types, meaning in MEANINGS:
        if isinstance(chain[0], types):
            return meaning
    return type(chain[0]).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
