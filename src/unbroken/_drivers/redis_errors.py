"""What a Redis server says of itself, and what its errors mean to whoever runs it.

1. A server that may throw keys away when its memory is full loses sessions: that is refused at the first question.
2. One that keeps no log of its writes loses them when it stops: that is said once, in the log.
3. Messages name no key, no value and no password.
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

__all__ = ["DEFINITE", "ServerInfo", "translate_error"]

_log = logging.getLogger("unbroken")
REFUSALS = (redis.AuthenticationError, AuthorizationError, AuthenticationWrongNumberOfArgsError, NoPermissionError)
# What a server has answered, though redis-py counts it among broken connections: asking again gives the same.
DEFINITE = (*REFUSALS, BusyLoadingError)
MEANINGS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (BusyLoadingError, "it is loading its data"),
    (ReadOnlyError, "it is a replica now, and takes no writes"),
    (OutOfMemoryError, "its memory is full: see maxmemory"),
    ((ClusterDownError, AskError, TryAgainError, RedisClusterException), "its cluster is down, or being changed"),
    ((redis.TimeoutError, TimeoutError), "it does not answer in time"),
    ((redis.ConnectionError, OSError), "no connection to it"),
)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What matters of one server. ``waits_for_disk``: it can be asked whether a write is on the disk (WAITAOF)."""

    waits_for_disk: bool = False

    @classmethod
    def of(cls, info: dict[str, Any], cluster: bool) -> ServerInfo:
        """From the answer to INFO. Raises ConfigurationError for a server that would lose sessions."""
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy != "noeviction" and int(info.get("maxmemory", 0)):
            raise ConfigurationError(f"this Redis throws sessions away ({policy}): set maxmemory-policy noeviction")
        if int(info.get("cluster_enabled", 0)) and not cluster:
            raise ConfigurationError("this Redis is one of a cluster: write redis+cluster:// in the store's URL")
        logs = bool(int(info.get("aof_enabled", 1)))
        if not logs:
            _log.warning("this Redis loses sessions and logouts when it stops: set appendonly yes")
        version = tuple(int(part) for part in re.findall(r"\d+", str(info.get("redis_version", "0")))[:2])
        return cls(waits_for_disk=logs and "aof_enabled" in info and version >= (7, 2) and not cluster)


@contextlib.contextmanager
def translate_error() -> Iterator[None]:
    """Within it, errors of redis-py come out as ours."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest("a name or an id is not valid text") from error
    except (redis.RedisError, RedisClusterException, OSError) as error:
        chain = list(_chain(error))
        if any(isinstance(one, REFUSALS) for one in chain):
            raise ConfigurationError("Redis refuses this user or password: see the URL of the store") from None
        # What a server answered may repeat what it was sent: it is not shown.
        shown = None if isinstance(error, redis.ResponseError) else error
        raise StoreUnavailable(f"the store in Redis cannot be used: {_meaning(chain)}") from shown


def _meaning(chain: list[BaseException]) -> str:
    said = re.search(r"\b(MISCONF|NOREPLICAS|WRONGTYPE|CROSSSLOT|EXECABORT|BUSY)\b", str(chain[0]))
    if said:
        return {"MISCONF": "it cannot write to its disk (MISCONF)"}.get(said[1], said[1])
    for kinds, meaning in MEANINGS:
        if isinstance(chain[0], kinds):
            return meaning
    return type(chain[0]).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
