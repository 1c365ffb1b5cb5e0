"""One connection to PostgreSQL: how it is made, how long it may be waited for, and what its errors mean.

What does not come in time, or breaks, is StoreUnavailable; a text that is none is InvalidRequest; missing tables and
missing rights are ConfigurationError. What is said of a database never has its password.
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
    "ConnectFailure",
    "aconfigure",
    "configure",
    "is_stale",
    "read_url",
    "settings",
    "translate_error",
]

CONNECT_SECONDS = 3.0
STATEMENT_SECONDS = 4.0  # after which the server gives up by itself
RESPONSE_SECONDS = 5.0  # after which the server is taken for dead
BOUNDS: dict[str, Any] = {
    "connect_timeout": int(CONNECT_SECONDS),
    "application_name": "unbroken",
    "target_session_attrs": "read-write",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
IDLE_SECONDS = 10.0  # after which the server forgets a transaction whose client is gone: it may hold locks
# Whatever the database is set to: who loses a race looks again, and does not fail. A server that is set to lose commits
# is not asked to where they must last.
CONFIGURE = f"""
SELECT pg_backend_pid(), set_config('statement_timeout', %s, false),
    set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)
"""


@dataclass
class ConnectFailure:
    """What became of attempts to connect."""

    failed_at: float = float("-inf")
    error: Exception | None = None

    def failed(self, error: Exception) -> None:
        self.error, self.failed_at = error, time.monotonic()


class BlockingConnection(psycopg.Connection[Any]):
    """A connection whose every wait has an end."""

    answer_seconds = RESPONSE_SECONDS

    @classmethod
    def connect(cls, conninfo: str = "", *, luck: ConnectFailure, **kwargs: Any) -> BlockingConnection:  # type: ignore[override]
        try:
            return super().connect(conninfo, **kwargs)
        except Exception as error:
            luck.failed(error)
            raise

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as late:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.answer_seconds:g} s") from late


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """The same for asyncio."""

    answer_seconds = RESPONSE_SECONDS

    @classmethod
    async def connect(cls, conninfo: str = "", *, luck: ConnectFailure, **kwargs: Any) -> AsyncConnection:  # type: ignore[override]
        try:
            return await super().connect(conninfo, **kwargs)
        except Exception as error:
            luck.failed(error)
            raise

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return await super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as late:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.answer_seconds:g} s") from late


def read_url(url: str) -> tuple[str, str, int]:
    """The connection string, a name for people, and the size of the pool. Raises ConfigurationError."""
    size = 10
    if found := re.search(r"[?&]pool_size=(\d+)(&|$)", url):
        size = max(int(found[1]), 1)
        rest = url[found.end() :]
        url = url[: found.start()] + (found[0][0] + rest if rest else "")
    try:
        parts = conninfo_to_dict(url)
        conninfo = make_conninfo("", **{**BOUNDS, **parts, "client_encoding": "utf8"})
    except (psycopg.ProgrammingError, UnicodeError):
        # Not from the driver's error, which repeats what it could not read.
        raise ConfigurationError("the URL of the PostgreSQL database cannot be read") from None
    host, port = parts.get("host") or parts.get("hostaddr") or "localhost", parts.get("port") or 5432
    return conninfo, f"PostgreSQL at {host}:{port}/{parts.get('dbname') or ''}", size


def settings(size: int, luck: ConnectFailure) -> dict[str, Any]:
    """What a pool of either kind is told. It does not try again by itself: the next one who needs a connection does."""
    kwargs = {"autocommit": True, "luck": luck}
    return {"kwargs": kwargs, "min_size": 0, "max_size": size, "reconnect_timeout": 0.0, "num_workers": 2}


def configure(connection: psycopg.Connection[Any]) -> None:
    _refuse_unsuitable_poolers(connection, connection.execute(CONFIGURE, (f"{STATEMENT_SECONDS}s",)).fetchone())


async def aconfigure(connection: psycopg.AsyncConnection[Any]) -> None:
    _refuse_unsuitable_poolers(
        connection, await (await connection.execute(CONFIGURE, (f"{STATEMENT_SECONDS}s",))).fetchone()
    )


def _refuse_unsuitable_poolers(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], found: Any) -> None:
    """Has nothing prepared if another process answers than the one that was greeted: there is a pooler in between, as
    PgBouncer, by which the next transaction may be yet another's, that knows of no such statement.
    """
    if found[0] != connection.info.backend_pid:
        connection.prepare_threshold = None


def is_stale(connection: BlockingConnection | AsyncConnection) -> bool:
    """Whether the server has said something unasked: nearly always, that it is gone."""
    try:
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        return bool(waiting.poll(0))
    except (psycopg.Error, OSError):
        return True


def translate_error(error: psycopg.Error | UnicodeError, name: str) -> UnbrokenError:
    """Unavailable, unless it is known to be a mistake: of who asked, or of who set the database up."""
    if isinstance(error, psycopg.DataError | UnicodeError):
        return InvalidRequest("what was asked for is not valid text")
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return ConfigurationError(f"{name} lacks tables ({why}): run `unbroken db upgrade`")
    if isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidAuthorizationSpecification):
        return ConfigurationError(f"{name} does not let this user do that: {why}")
    return StoreUnavailable(f"{name} does not answer: {why}", retry_after=1.0)
