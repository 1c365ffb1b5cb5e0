"""The tables in PostgreSQL, and how they are brought forward.

1. ``unbroken_schema`` holds one number. Each of ``STEPS`` makes the next schema of the one before; what was released
   once is never changed.
2. An empty database is made ready by whoever opens it first. An older one is brought forward only by ``upgrade``: nodes
   of the old version may still be at work on it. A newer one is refused.
3. Whoever changes tables holds an advisory lock: any number of processes may start at once.
4. No index is on a column that a refresh changes, and pages keep some room: then a refresh writes one new version of
   its row on the same page, and no index (a HOT update), and the next visitor of the page clears the old one away.
5. An index is small: it holds hashes. That of subjects is a tree, in which the many sessions of one are one entry; the
   others' entries differ, and may be in a hash index.
6. Text is compared by its bytes: an upgrade of the system's locales cannot break an index.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

import psycopg

from unbroken._drivers.postgres import PostgresDriver
from unbroken.errors import ConfigurationError

__all__ = ["STEPS", "found_in", "make_ready", "upgrade"]

LOCK = 0x756E6272  # "unbr"
LOCK_SECONDS = "60s"  # others may be at work
PATIENCE = 3600.0  # large tables take their time
BOUNDS = "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', %s, true)"
SESSIONS = """
CREATE TABLE unbroken_session (
    created_at float8 NOT NULL, used_at float8 NOT NULL, idle_expires_at float8 NOT NULL, expires_at float8 NOT NULL,
    rotated_at float8, previous_rotated_at float8, revoked_at float8,
    generation int8 NOT NULL, branch int4 NOT NULL, promoted_branch int4, previous_promoted_branch int4, first_used_branch int4, coordinated bool NOT NULL,
    key bytea NOT NULL, idempotency_hash bytea,
    sid text COLLATE "C" NOT NULL, subject text COLLATE "C" NOT NULL,
    client_id text NOT NULL, scope text NOT NULL, revoked_why text, evidence text,
    label text NOT NULL, ip text NOT NULL, user_agent text NOT NULL
) WITH (fillfactor = 78);
CREATE INDEX unbroken_session_key ON unbroken_session USING hash (key) WITH (fillfactor = 100);
CREATE INDEX unbroken_session_sid ON unbroken_session USING hash (sid) WITH (fillfactor = 100);
CREATE INDEX unbroken_session_subject ON unbroken_session (hashtext(subject));
CREATE INDEX unbroken_session_expires_at ON unbroken_session (expires_at);
CREATE TABLE unbroken_revocation (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(), sid text COLLATE "C" NOT NULL, until float8 NOT NULL
);
CREATE INDEX unbroken_revocation_xid ON unbroken_revocation (xid);
CREATE INDEX unbroken_revocation_until ON unbroken_revocation (until);
CREATE TABLE unbroken_key (
    kid text COLLATE "C" PRIMARY KEY, use text NOT NULL, alg text NOT NULL, secret text NOT NULL,
    created_at float8 NOT NULL, signs_from float8 NOT NULL, verifies_until float8, token_ttl float8 NOT NULL
);
CREATE TABLE unbroken_account (
    name text COLLATE "C" PRIMARY KEY, shown text NOT NULL, password_hash text NOT NULL, created_at float8 NOT NULL
);
"""
STRIKES = """
CREATE TABLE unbroken_strike (key bytea PRIMARY KEY, until float8 NOT NULL);
CREATE INDEX unbroken_strike_until ON unbroken_strike (until);
"""
STEPS = (SESSIONS, STRIKES)

Connection = psycopg.Connection[Any]
T = TypeVar("T")


def make_ready(sql: PostgresDriver) -> None:
    """Makes the tables in an empty database. Raises ConfigurationError for an older or newer one."""
    version = found_in(sql) or _connected(sql, lambda connection: _forward(connection, sql.name, only_empty=True))
    if version < len(STEPS):
        step = f"schema {version}, this unbroken needs {len(STEPS)}"
        raise ConfigurationError(f"{sql.name} is from an older unbroken ({step}): run `unbroken db upgrade`")
    _refuse_newer(version, sql.name)


def found_in(sql: PostgresDriver) -> int:
    """The number of the schema; 0 where there is none."""
    return _connected(sql, _found)


def upgrade(sql: PostgresDriver) -> None:
    """Brings the tables forward, or makes them. Raises ConfigurationError for those of a newer unbroken."""
    _connected(sql, lambda connection: _forward(connection, sql.name))


def _connected(sql: PostgresDriver, work: Callable[[Connection], T]) -> T:
    try:
        with closing(sql.connection(answer_seconds=PATIENCE)) as connection:
            return work(connection)
    except psycopg.Error as error:
        raise sql.translate_error(error) from error


def _found(connection: Connection) -> int:
    there = connection.execute("SELECT to_regclass('unbroken_schema') IS NOT NULL").fetchone()
    if not there or not there[0]:
        return 0
    number = connection.execute("SELECT number FROM unbroken_schema").fetchone()
    return int(number[0]) if number else 0


def _forward(connection: Connection, name: str, *, only_empty: bool = False) -> int:
    """The number of the schema after it."""
    with connection.transaction():
        connection.execute(BOUNDS, (LOCK_SECONDS,))
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        version = _found(connection)
        _refuse_newer(version, name)
        if version == len(STEPS) or (version and only_empty):
            return version
        if not version:
            connection.execute("CREATE TABLE unbroken_schema (number int4 NOT NULL)")
            connection.execute("INSERT INTO unbroken_schema VALUES (0)")
        for step in STEPS[version:]:
            connection.execute(step)
        connection.execute("UPDATE unbroken_schema SET number = %s", (len(STEPS),))
        return len(STEPS)


def _refuse_newer(version: int, name: str) -> None:
    if version > len(STEPS):
        known = f"schema {version}, this one knows {len(STEPS)}"
        raise ConfigurationError(f"{name} was made by a newer unbroken ({known}): upgrade unbroken")
