"""The tables in PostgreSQL, and how they are created and upgraded.

1. ``unbroken_schema`` holds one number. Each of ``STEPS`` makes the next schema from the one before; a released step
   never changes.
2. The first process that uses an empty database creates the tables. Only ``upgrade`` changes an older schema, because
   processes of the older version may still use it. A newer schema is refused.
3. A process that changes tables holds an advisory lock, so any number of processes may start at once.
4. No index contains a column that a refresh changes, and pages keep free space. So a refresh writes one new version
   of its row on the same page and no index entry (a HOT update), and the next access to the page removes the old one.
5. Indexes contain hashes, to be small. That of subjects is a B-tree, because a subject has
   many sessions, which have an order; the entries of the others are all different, so they may be hash indexes.
6. Text is compared by its bytes (``COLLATE "C"``): an upgrade of the system's locales cannot corrupt an index.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

import psycopg

from unbroken._drivers.postgres import PostgresDriver
from unbroken._drivers.postgres_connection import RESPONSE_SECONDS
from unbroken.errors import ConfigurationError
from unbroken.server.stores.migrations import SchemaVersion, refuse_newer

__all__ = ["NAMES", "STEPS", "create_or_check", "read_version", "upgrade"]

LOCK_ID = 0x756E6272  # "unbr"
LOCK_SECONDS = 60  # another process may be upgrading
UPGRADE_SECONDS = 3600.0  # a step on a large table takes its time
LIFT_LIMITS = "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', %s, true)"
LOCK = "SELECT pg_advisory_xact_lock(%s)"
# The tables, and the one index that a step drops: what a schema of the application's choice stands before.
NAMES = (
    r"(?<![\w.])unbroken_(?:session|revocation|key|account|marker|schema)\b"
    r"|(?<=DROP INDEX )unbroken_session_subject\b"
)
HAS_SCHEMA = "SELECT to_regclass('unbroken_schema') IS NOT NULL"
READ_VERSION = "SELECT number FROM unbroken_schema"
WRITE_VERSION = "UPDATE unbroken_schema SET number = %s"
CREATE_SCHEMA = "CREATE TABLE unbroken_schema (number int4 NOT NULL); INSERT INTO unbroken_schema VALUES (0)"

SESSIONS = """
CREATE TABLE unbroken_session (
    created_at float8 NOT NULL, used_at float8 NOT NULL, idle_expires_at float8 NOT NULL, expires_at float8 NOT NULL,
    rotated_at float8, previous_rotated_at float8, revoked_at float8,
    generation int8 NOT NULL, branch int4 NOT NULL,
    promoted_branch int4, previous_promoted_branch int4, first_used_branch int4, coordinated bool NOT NULL,
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
MARKERS = """
CREATE TABLE unbroken_marker (key bytea PRIMARY KEY, until float8 NOT NULL);
CREATE INDEX unbroken_marker_until ON unbroken_marker (until);
"""
BINDINGS = """
ALTER TABLE unbroken_session ADD COLUMN issuer text NOT NULL DEFAULT '', ADD COLUMN audience text NOT NULL DEFAULT '';
"""
SUBJECTS = "ALTER TABLE unbroken_account ADD COLUMN subject text NOT NULL DEFAULT ''"
# The sessions of a subject that were not revoked are what a login counts, and what a page lists. They are sorted when
# they are read: a time in the index would cost each session nine bytes, and a subject has a limited number of sessions.
UNREVOKED = """
DROP INDEX unbroken_session_subject;
CREATE INDEX unbroken_session_subject ON unbroken_session (hashtext(subject), (revoked_at IS NULL));
"""
PARTIES = """
ALTER TABLE unbroken_session
    ADD COLUMN shared_streak int2 NOT NULL DEFAULT 0,
    ADD COLUMN idempotency_key_repeated bool NOT NULL DEFAULT false,
    ADD COLUMN shared bool NOT NULL DEFAULT false,
    ADD COLUMN presenter text NOT NULL DEFAULT '',
    ADD COLUMN used_earlier_at float8;
"""
KEYS_OF_CLIENTS = "ALTER TABLE unbroken_session ADD COLUMN jkt bytea"  # NULL takes no space in a row
STAMPS = "ALTER TABLE unbroken_session ADD COLUMN stamp bytea"
SCOPES = """
ALTER TABLE unbroken_session ADD COLUMN newest_scope bytea;
ALTER TABLE unbroken_account ADD COLUMN scope text NOT NULL DEFAULT '';
"""
STEPS = (SESSIONS, MARKERS, BINDINGS, SUBJECTS, UNREVOKED, PARTIES, KEYS_OF_CLIENTS, STAMPS, SCOPES)

Connection = psycopg.Connection[Any]
T = TypeVar("T")


def create_or_check(driver: PostgresDriver) -> None:
    """Create the tables in an empty database (rule 2). Raise ConfigurationError for an older or a newer schema."""
    version = read_version(driver)
    if version.found == 0:
        seconds = LOCK_SECONDS + RESPONSE_SECONDS
        version = _on_connection(driver, seconds, lambda db: _run_steps(db, driver, only_if_empty=True))
    refuse_newer(version, driver.name)
    if version.found < version.known:
        numbers = f"schema {version.found}, this unbroken needs {version.known}"
        raise ConfigurationError(f"{driver.name} is from an older unbroken ({numbers}): run `unbroken db upgrade`")


def read_version(driver: PostgresDriver) -> SchemaVersion:
    """Return the schema of the database, and change nothing."""
    return _on_connection(driver, RESPONSE_SECONDS, lambda db: _read_version(db, driver))


def upgrade(driver: PostgresDriver) -> None:
    """Create or upgrade the tables. Raise ConfigurationError for a newer schema."""
    _on_connection(driver, UPGRADE_SECONDS, lambda db: _run_steps(db, driver))


def _on_connection(driver: PostgresDriver, response_seconds: float, work: Callable[[Connection], T]) -> T:
    try:
        with closing(driver.connection(response_seconds=response_seconds)) as db:
            return work(db)
    except psycopg.Error as error:
        raise driver.translate_error(error) from error


def _read_version(db: Connection, driver: PostgresDriver) -> SchemaVersion:
    has_schema = db.execute(driver.qualified(HAS_SCHEMA)).fetchone()
    row = db.execute(driver.qualified(READ_VERSION)).fetchone() if has_schema and has_schema[0] else None
    return SchemaVersion(int(row[0]) if row else 0, len(STEPS))


def _run_steps(db: Connection, driver: PostgresDriver, *, only_if_empty: bool = False) -> SchemaVersion:
    """Return the schema after the missing steps ran, in one transaction."""
    with db.transaction():
        db.execute(LIFT_LIMITS, (f"{LOCK_SECONDS}s",))
        db.execute(LOCK, (LOCK_ID,))  # rule 3
        version = _read_version(db, driver)
        refuse_newer(version, driver.name)
        if version.found == version.known or (version.found and only_if_empty):
            return version
        if not version.found:
            if driver.schema:
                db.execute(f"CREATE SCHEMA IF NOT EXISTS {driver.schema}")
            db.execute(driver.qualified(CREATE_SCHEMA))
        for step in STEPS[version.found :]:
            db.execute(driver.qualified(step))
        db.execute(driver.qualified(WRITE_VERSION), (len(STEPS),))
        return SchemaVersion(len(STEPS), len(STEPS))
