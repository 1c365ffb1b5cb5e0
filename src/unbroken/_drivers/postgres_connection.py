"""One connection to PostgreSQL: its URL, its settings, its time limits, and the meaning of its errors.

1. Each wait for the server has a time limit. A late or broken connection raises StoreUnavailable.
2. Text that PostgreSQL cannot store raises InvalidRequest. Missing tables or missing rights raise ConfigurationError.
3. No name and no message of this file contains the password.
"""

from __future__ import annotations

import re
import select
import time
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from unbroken.errors import ConfigurationError, InvalidRequest, StoreUnavailable, UnbrokenError

__all__ = [
    "CONNECT_SECONDS",
    "RESPONSE_SECONDS",
    "AsyncConnection",
    "BlockingConnection",
    "LastFailure",
    "configure",
    "configure_async",
    "is_stale",
    "parse_url",
    "translate_error",
]

DEFAULT_POOL_SIZE = 10
CONNECT_SECONDS = 3.0
STATEMENT_SECONDS = 4.0  # the server cancels a statement that takes longer
RESPONSE_SECONDS = 5.0  # a server that sends nothing for so long is considered dead
IDLE_TRANSACTION_SECONDS = 10.0  # the server rolls back the transaction of a client that vanished: it may hold locks
CONNECT_PARAMETERS: dict[str, Any] = {
    "connect_timeout": int(CONNECT_SECONDS),
    "application_name": "unbroken",
    "target_session_attrs": "read-write",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": int(RESPONSE_SECONDS * 1000),
}
# These settings override those of the database. READ COMMITTED: a statement that loses a race looks at the row again,
# it does not fail. synchronous_commit: a database that is set to off would lose logins, so it becomes on.
CONFIGURE = f"""
SELECT pg_backend_pid(), set_config('statement_timeout', %s, false),
    set_config('idle_in_transaction_session_timeout', '{IDLE_TRANSACTION_SECONDS}s', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)
"""


@dataclass
class LastFailure:
    """The last failure of an action that several callers share, and its time on the monotonic clock."""

    error: Exception | None = None
    failed_at: float = float("-inf")

    def record(self, error: Exception) -> None:
        self.error, self.failed_at = error, time.monotonic()


class BlockingConnection(psycopg.Connection[Any]):
    """A blocking connection with a time limit for each wait (rule 1)."""

    response_seconds = RESPONSE_SECONDS

    @classmethod
    def connect(cls, conninfo: str = "", *, failure: LastFailure, **kwargs: Any) -> BlockingConnection:  # type: ignore[override]
        try:
            return super().connect(conninfo, **kwargs)
        except Exception as error:
            failure.record(error)
            raise

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.response_seconds if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as late:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no response within {self.response_seconds:g} s") from late


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """A connection of asyncio with a time limit for each wait (rule 1)."""

    response_seconds = RESPONSE_SECONDS

    @classmethod
    async def connect(cls, conninfo: str = "", *, failure: LastFailure, **kwargs: Any) -> AsyncConnection:  # type: ignore[override]
        try:
            return await super().connect(conninfo, **kwargs)
        except Exception as error:
            failure.record(error)
            raise

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return await super().wait(gen, interval, self.response_seconds if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as late:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no response within {self.response_seconds:g} s") from late


def parse_url(url: str) -> tuple[str, str, int]:
    """Return the connection string, a name without secrets, and the pool size (``?pool_size=20``, default 10).

    Raise ConfigurationError if libpq cannot read *url*.
    """
    pool_size = DEFAULT_POOL_SIZE
    if found := re.search(r"[?&]pool_size=(\d+)(&|$)", url):
        pool_size = max(int(found[1]), 1)
        rest = url[found.end() :]
        url = url[: found.start()] + (found[0][0] + rest if rest else "")
    try:
        parts = conninfo_to_dict(url)
        conninfo = make_conninfo("", **{**CONNECT_PARAMETERS, **parts, "client_encoding": "utf8"})
    except (psycopg.ProgrammingError, UnicodeError):
        # rule 3: the driver's message repeats the text that it cannot read
        raise ConfigurationError("the URL of the PostgreSQL database cannot be read") from None
    host, port = parts.get("host") or parts.get("hostaddr") or "localhost", parts.get("port") or 5432
    return conninfo, f"PostgreSQL at {host}:{port}/{parts.get('dbname') or ''}", pool_size


def configure(connection: psycopg.Connection[Any]) -> None:
    """Apply ``CONFIGURE`` to a new connection."""
    row = connection.execute(CONFIGURE, (f"{STATEMENT_SECONDS}s",)).fetchone()
    _prepare_nothing_behind_pooler(connection, row)


async def configure_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """Apply ``CONFIGURE`` to a new connection of asyncio."""
    cursor = await connection.execute(CONFIGURE, (f"{STATEMENT_SECONDS}s",))
    _prepare_nothing_behind_pooler(connection, await cursor.fetchone())


def _prepare_nothing_behind_pooler(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], row: Any
) -> None:
    """Disable prepared statements if a pooler, such as PgBouncer, is between this process and the server.

    Then the next transaction may run in another process of the server, which does not know the prepared statement.
    The pooler shows itself: the process that responds is not the one that the connection was opened to.
    """
    if row[0] != connection.info.backend_pid:
        connection.prepare_threshold = None


def is_stale(connection: BlockingConnection | AsyncConnection) -> bool:
    """Return whether the server has sent something unasked: almost always, that it closed the connection."""
    try:
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        return bool(waiting.poll(0))
    except (psycopg.Error, OSError):
        return True


def translate_error(error: psycopg.Error | UnicodeError, name: str) -> UnbrokenError:
    """Return our error for the driver's *error* about the database *name*: StoreUnavailable unless rule 2 applies."""
    if isinstance(error, psycopg.DataError | UnicodeError):
        return InvalidRequest("the request contains text that the database cannot store")
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return ConfigurationError(f"{name} lacks tables ({why}): run `unbroken db upgrade`")
    if isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidAuthorizationSpecification):
        return ConfigurationError(f"{name} does not allow this user to do that: {why}")
    return StoreUnavailable(f"{name} does not respond: {why}", retry_after=1.0)
