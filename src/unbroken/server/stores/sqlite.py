"""Sessions in one SQLite file, shared by all processes that open it.

1. WAL: readers never wait. Rotation commits without a flush (``synchronous=NORMAL``), because R1h heals what a
   power cut takes away; login, logout, revocation, keys and accounts are on the disk when they return (``FULL``).
2. Each thread has its own connections, and a forked child makes new ones.
3. What the driver raises becomes StoreUnavailable (wait and try again) or ConfigurationError (one line: what to do).
4. The schema has a number. An older one is brought forward, a newer one is refused.
5. One row a session, changed in place: no number of refreshes adds a row.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from unbroken.errors import ConfigurationError, StoreUnavailable
from unbroken.server.keys import KeyRecord
from unbroken.server.rotation import Presented, Row
from unbroken.server.stores import Account

__all__ = ["SqliteStore"]

APPLICATION_ID = 0x756E6272  # "unbr"
SCHEMA = 1
BUSY_SECONDS = 5.0

TABLES = """
CREATE TABLE session (
    key BLOB PRIMARY KEY, sid TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,
    created_at REAL NOT NULL, used_at REAL NOT NULL, idle_expires_at REAL NOT NULL, expires_at REAL NOT NULL,
    client_id TEXT NOT NULL, scope TEXT NOT NULL, coordinated INTEGER NOT NULL,
    g INTEGER NOT NULL, b INTEGER NOT NULL, at1 REAL, b1 INTEGER, at2 REAL, b2 INTEGER, attempt BLOB, seen INTEGER,
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
"""

NAMES = tuple(column.name for column in fields(Row))
COLUMNS = ", ".join(NAMES)
INSERT = f"INSERT INTO session ({COLUMNS}) VALUES ({', '.join('?' * len(fields(Row)))})"
READ = f"SELECT {COLUMNS} FROM session WHERE key = ?"

# R1: the condition is that of ``rotation.present``, the change that of ``rotation.rotate``.
ROTATE = """
UPDATE session SET g = g + 1, b = 0, at2 = at1, b2 = b1, at1 = :now, b1 = :b, attempt = :attempt, seen = NULL,
    used_at = :now, idle_expires_at = min(:now + :refresh_ttl, expires_at)
WHERE key = :key AND g = :g AND (seen IS NULL OR seen = :b)
    AND revoked_at IS NULL AND idle_expires_at > :now AND expires_at > :now
RETURNING g
"""
SWAP = f"""
UPDATE session SET {", ".join(f"{column.name} = ?" for column in fields(Row))}
WHERE key = ? AND g = ? AND b = ? AND at1 IS ? AND attempt IS ? AND seen IS ? AND revoked_at IS NULL RETURNING g
"""
# What ``KeyRecord.joined`` does.
SAVE_KEY = """
INSERT INTO key VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kid) DO UPDATE SET
    verifies_until = min(coalesce(verifies_until, excluded.verifies_until),
                         coalesce(excluded.verifies_until, verifies_until)),
    token_ttl = max(token_ttl, excluded.token_ttl)
"""
REVOKE = """
UPDATE session SET revoked_at = :now, revoked_why = :why
WHERE revoked_at IS NULL AND (:sid = '' OR sid = :sid) AND (:subject = '' OR subject = :subject) AND sid <> :keep
RETURNING sid
"""


class SqliteStore:
    """Sessions, keys and accounts in the SQLite file at *path*; made, for its owner alone, if it is missing.

    Raises ConfigurationError when the file cannot be used, in one line that says why.
    """

    blocking = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).expanduser().absolute()
        self._local = threading.local()
        if sqlite3.sqlite_version_info < (3, 35):
            raise ConfigurationError(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}")
        if not self._path.parent.is_dir():
            raise ConfigurationError(f"the folder {self._path.parent} does not exist: make it, or name another file")
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._prepare(self._connection(durable=True))
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be written: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{self._path} cannot be used as a database: {error}") from error

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path}>"

    # ---- sessions ----------------------------------------------------------------------------------------------

    async def insert(self, row: Row) -> None:
        with self._writing() as db:
            db.execute(
                "DELETE FROM session WHERE key IN (SELECT key FROM session WHERE expires_at < ? LIMIT 100)",
                (row.created_at,),
            )
            db.execute(INSERT, astuple(row))

    async def read(self, key: bytes) -> Row | None:
        rows = self._select(READ, (key,))
        return _row(rows[0]) if rows else None

    async def rotate(self, key: bytes, token: Presented, now: float, refresh_ttl: float) -> bool:
        values = {
            "key": key,
            "g": token.g,
            "b": token.b,
            "attempt": token.attempt,
            "now": now,
            "refresh_ttl": refresh_ttl,
        }
        return bool(self._select(ROTATE, values))

    async def swap(self, before: Row, after: Row, dead_until: float) -> bool:
        values = (*astuple(after), before.key, before.g, before.b, before.at1, before.attempt, before.seen)
        if after.revoked_at is None:
            return bool(self._select(SWAP, values))
        with self._writing() as db:
            changed = bool(db.execute(SWAP, values).fetchall())
            if changed:
                self._announce(db, [after.sid], dead_until, after.revoked_at)
            return changed

    async def revoke(
        self, now: float, why: str, dead_until: float, *, sid: str = "", subject: str = "", keep: str = ""
    ) -> list[str]:
        values = {"now": now, "why": why, "sid": sid, "subject": subject, "keep": keep}
        with self._writing() as db:
            ended = [found for (found,) in db.execute(REVOKE, values).fetchall()]
            self._announce(db, ended, dead_until, now)
            return ended

    async def confirm(self, sid: str, g: int, b: int) -> None:
        self._select("UPDATE session SET seen = ? WHERE sid = ? AND g = ? AND seen IS NULL RETURNING g", (b, sid, g))

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[Row]:
        conditions = {"subject": subject, "sid": sid}
        given = {name: value for name, value in conditions.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "1"
        statement = f"SELECT {COLUMNS} FROM session WHERE {where} ORDER BY used_at DESC"
        return [_row(found) for found in self._select(statement, tuple(given.values()))]

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        rows = self._select("SELECT seq, sid, until FROM revocation WHERE seq > ? ORDER BY seq", (after,))
        return (rows[-1][0] if rows else after), [(sid, until) for _, sid, until in rows]

    # ---- keys and accounts -------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyRecord]:
        return [KeyRecord(*found) for found in self._select("SELECT * FROM key ORDER BY created_at, kid")]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        with self._writing() as db:
            if first and db.execute("SELECT 1 FROM key LIMIT 1").fetchone():
                return
            db.executemany(SAVE_KEY, map(astuple, records))

    async def accounts(self) -> list[Account]:
        return [Account(*found) for found in self._select("SELECT * FROM account ORDER BY name")]

    async def account(self, name: str) -> Account | None:
        rows = self._select("SELECT * FROM account WHERE name = ?", (name,))
        return Account(*rows[0]) if rows else None

    async def add_account(self, account: Account) -> bool:
        with self._writing() as db:
            statement = "INSERT INTO account VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING name"
            return bool(db.execute(statement, astuple(account)).fetchall())

    async def change_account(self, name: str, password_hash: str | None) -> bool:
        with self._writing() as db:
            if password_hash is None:
                return bool(db.execute("DELETE FROM account WHERE name = ? RETURNING name", (name,)).fetchall())
            statement = "UPDATE account SET password_hash = ? WHERE name = ? RETURNING name"
            return bool(db.execute(statement, (password_hash, name)).fetchall())

    def close(self) -> None:
        """Closes this thread's connections; those of other threads close with their threads."""
        for db in vars(self._local).get("held", {}).values():
            db.close()
        vars(self._local).clear()

    # ---- connections -------------------------------------------------------------------------------------------

    def _connection(self, *, durable: bool) -> sqlite3.Connection:
        mine = self._local.__dict__
        held: dict[bool, sqlite3.Connection] = mine.get("held", {})
        if mine.get("pid") != os.getpid():
            mine["pid"], mine["held"] = os.getpid(), (held := {})
        if durable not in held:
            db = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            held[durable] = db
        return held[durable]

    def _select(self, statement: str, values: Any = ()) -> list[Any]:
        """One statement, and its rows; a write is committed without a flush."""
        try:
            return self._connection(durable=False).execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when it ends."""
        db = None
        try:
            db = self._connection(durable=True)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        finally:
            if db is not None and db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        return StoreUnavailable(f"the database {self._path} does not answer: {error}", retry_after=1.0)

    @staticmethod
    def _announce(db: sqlite3.Connection, sids: list[str], dead_until: float, now: float) -> None:
        """Tells other processes; what they no longer need to know is forgotten."""
        db.executemany("INSERT INTO revocation (sid, until) VALUES (?, ?)", [(sid, dead_until) for sid in sids])
        db.execute("DELETE FROM revocation WHERE until < ?", (now,))

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Makes the tables, or checks that they are ours and not from the future."""
        db.execute("BEGIN IMMEDIATE")
        try:
            (version,), (owner,) = (
                db.execute("PRAGMA user_version").fetchone(),
                db.execute("PRAGMA application_id").fetchone(),
            )
            empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
            if empty and not version:
                for statement in TABLES.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA}")
            elif owner != APPLICATION_ID:
                raise ConfigurationError(f"{self._path} is a database of another program: name another file")
            elif version > SCHEMA:
                raise ConfigurationError(
                    f"{self._path} was made by a newer unbroken (schema {version}, this one knows {SCHEMA}): upgrade"
                )
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def _row(values: Sequence[Any]) -> Row:
    named: dict[str, Any] = dict(zip(NAMES, values, strict=True))
    named["coordinated"] = bool(named["coordinated"])  # SQLite has no booleans
    return Row(**named)
