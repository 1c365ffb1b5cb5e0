"""The tables in SQLite, and how they are created and upgraded.

1. The schema has a number, ``user_version``. Each of ``STEPS`` makes the next schema from the one before; a released
   step never changes.
2. An older schema is upgraded when the file is opened; a newer one is refused.
3. A file of ours has our ``application_id``. The file of another program is refused and left unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from unbroken._sqlite import require_own_file
from unbroken.server.stores.migrations import SchemaVersion, refuse_newer

__all__ = ["STEPS", "read_version", "upgrade"]

APPLICATION_ID = 0x756E6272  # "unbr": the mark of a file of ours (rule 3)

STEPS = (
    """
CREATE TABLE session (
    key BLOB PRIMARY KEY, sid TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,
    created_at REAL NOT NULL, used_at REAL NOT NULL, idle_expires_at REAL NOT NULL, expires_at REAL NOT NULL,
    client_id TEXT NOT NULL, scope TEXT NOT NULL, coordinated INTEGER NOT NULL,
    generation INTEGER NOT NULL, branch INTEGER NOT NULL,
    rotated_at REAL, promoted_branch INTEGER, previous_rotated_at REAL, previous_promoted_branch INTEGER,
    idempotency_hash BLOB, first_used_branch INTEGER,
    revoked_at REAL, revoked_why TEXT, evidence TEXT,
    label TEXT NOT NULL, ip TEXT NOT NULL, user_agent TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX session_subject ON session (subject);
CREATE INDEX session_expires_at ON session (expires_at);
CREATE TABLE revocation (seq INTEGER PRIMARY KEY AUTOINCREMENT, sid TEXT NOT NULL, until REAL NOT NULL);
CREATE TABLE key (
    kid TEXT PRIMARY KEY, use TEXT NOT NULL, alg TEXT NOT NULL, secret TEXT NOT NULL,
    created_at REAL NOT NULL, signs_from REAL NOT NULL, verifies_until REAL, token_ttl REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE account (
    name TEXT PRIMARY KEY, shown TEXT NOT NULL, password_hash TEXT NOT NULL, created_at REAL NOT NULL
) WITHOUT ROWID;
""",
    """
CREATE TABLE marker (key BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX marker_until ON marker (until);
""",
    """
ALTER TABLE session ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN audience TEXT NOT NULL DEFAULT '';
""",
    "ALTER TABLE account ADD COLUMN subject TEXT NOT NULL DEFAULT ''",
    """
CREATE INDEX session_unrevoked ON session (subject, expires_at, sid) WHERE revoked_at IS NULL;
""",
    """
ALTER TABLE session ADD COLUMN idempotency_key_repeated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN presenter TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN shared INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN shared_streak INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN used_earlier_at REAL;
""",
    "ALTER TABLE session ADD COLUMN jkt BLOB",
    "ALTER TABLE session ADD COLUMN stamp BLOB",
    """
ALTER TABLE session ADD COLUMN newest_scope BLOB;
ALTER TABLE account ADD COLUMN scope TEXT NOT NULL DEFAULT '';
""",
)


def read_version(db: sqlite3.Connection, path: Path) -> int:
    """Return the schema number; 0 for an empty file. Raise ConfigurationError for another program's file (rule 3)."""
    return require_own_file(db, path, APPLICATION_ID)


def upgrade(db: sqlite3.Connection, path: Path, steps: Sequence[str]) -> None:
    """Create the tables, or upgrade them by *steps* (rule 2).

    Raise ConfigurationError if the file is not ours, or newer.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        version = read_version(db, path)
        refuse_newer(SchemaVersion(version, len(steps)), str(path))
        for statement in ";\n".join(steps[version:]).split(";\n"):
            db.execute(statement)
        if version < len(steps):
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {len(steps)}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
