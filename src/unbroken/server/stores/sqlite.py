"""Sessions in one SQLite file, shared by all processes that open it.

1. Rotation commits without a flush, because R1h heals what a power cut takes away; login, logout, revocation, keys and
   accounts are on the disk when they return.
2. The schema has a number. An older one is brought forward when it is opened, a newer one is refused.
3. One row a session, changed in place: no number of refreshes adds a row.

How the file is opened, and waited for, is in ``sqlite_file.py``.

One SQLite file: how it is opened, by whom, and how long anybody waits for it.

1. WAL: readers never wait. A connection either flushes each commit to the disk (``FULL``), or not (``NORMAL``).
2. Each thread has its own connections, and a forked child makes new ones. In an event loop they wait for other writers
   some milliseconds only (``short_timeout``).
3. What the driver raises becomes StoreUnavailable (wait and try again), ConfigurationError (one line: what to do), or
   InvalidRequest (a text that is none).
4. The file is its owner's alone, and another program's file is left alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from unbroken.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from unbroken.server.core.rotation import RETURNED_COLUMNS, PresentedToken, SessionRow, rotated_row
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores import Account, DatabaseLocked

__all__ = ["SqliteFile", "SqliteSessionStore", "schema_of"]

APPLICATION_ID = 0x756E6272  # "unbr"
BUSY_SECONDS = 5.0
BRIEF_SECONDS = 0.005
BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class SqliteFile:
    """The file at *path*, made if it is missing. Each of *steps* makes the tables of the next schema.

    Raises ConfigurationError when it cannot be used, in one line that says why.
    """

    def __init__(self, path: str | os.PathLike[str], steps: Sequence[str]) -> None:
        self._steps = steps
        self.path = Path(path).expanduser().absolute()
        self._local = threading.local()
        self.short_timeout = ShortTimeout(self._local)
        if sqlite3.sqlite_version_info < (3, 35):
            raise ConfigurationError(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}")
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"the folder {self.path.parent} does not exist: make it, or name another file")
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._prepare(self.connection(durable=True))
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{self.path} cannot be used as a database: {error}") from error

    def __repr__(self) -> str:
        return f"<SqliteFile {self.path}>"

    def close(self) -> None:
        """Closes this thread's connections; those of other threads close with their threads."""
        for db in vars(self._local).get("held", {}).values():
            db.close()
        vars(self._local).clear()

    def connection(self, *, durable: bool) -> sqlite3.Connection:
        """This thread's connection; *durable*: what it commits is on the disk."""
        mine = self._local.__dict__
        held: dict[tuple[bool, bool], sqlite3.Connection] = mine.get("held", {})
        if mine.get("pid") != os.getpid():
            mine["pid"], mine["held"] = os.getpid(), (held := {})
        kind = durable, mine.get("brief", False)
        if kind not in held:
            wait = BRIEF_SECONDS if kind[1] else BUSY_SECONDS
            db = sqlite3.connect(self.path, timeout=wait, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            held[kind] = db
        return held[kind]

    def select(self, statement: str, values: Any = ()) -> list[Any]:
        """One statement, and its rows; a write is committed without a flush."""
        try:
            return self.connection(durable=False).execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise self._said(error) from error

    def change(self, statement: str, values: Any) -> bool:
        """One statement, committed without a flush; whether it has changed a row."""
        try:
            return self.connection(durable=False).execute(statement, values).rowcount > 0
        except (sqlite3.Error, UnicodeError) as error:
            raise self._said(error) from error

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction; *durable*: it is on the disk when it ends."""
        db = None
        try:
            db = self.connection(durable=durable)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as error:
            raise self._said(error) from error
        finally:
            if db is not None and db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")

    def _said(self, error: sqlite3.Error | UnicodeError) -> StoreUnavailable | InvalidRequest:
        """The error to raise for the driver's."""
        if isinstance(error, UnicodeError):
            return InvalidRequest("what was asked for is not valid text")
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY_CODES
        kind = DatabaseLocked if busy else StoreUnavailable
        return kind(f"the database {self.path} does not answer: {error}", retry_after=1.0)

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Makes the tables, brings older ones forward, and checks that they are ours and not from the future."""
        db.execute("BEGIN IMMEDIATE")
        try:
            version, owner, empty = _state(db)
            if not empty and owner != APPLICATION_ID:
                raise ConfigurationError(f"{self.path} is a database of another program: name another file")
            if version > len(self._steps):
                known = f"schema {version}, this one knows {len(self._steps)}"
                raise ConfigurationError(f"{self.path} was made by a newer unbroken ({known}): upgrade")
            for statement in ";\n".join(self._steps[version:]).split(";\n"):
                db.execute(statement)
            if version < len(self._steps):
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {len(self._steps)}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def schema_of(path: str | os.PathLike[str]) -> int:
    """The number of the schema in the file at *path*, which is only read; 0 for one that has none yet.

    Raises ConfigurationError if it is missing or not ours.
    """
    where = Path(path).expanduser().absolute()
    try:
        with contextlib.closing(sqlite3.connect(f"{where.as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as db:
            version, owner, empty = _state(db)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{where} cannot be read as a database: {error}") from error
    if not empty and owner != APPLICATION_ID:
        raise ConfigurationError(f"{where} is a database of another program: name another file")
    return version


def _state(db: sqlite3.Connection) -> tuple[int, int, bool]:
    """The number of the schema, whose it is, and whether nothing is there yet."""
    (version,), (owner,) = db.execute("PRAGMA user_version").fetchone(), db.execute("PRAGMA application_id").fetchone()
    empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    return version, owner, empty and not version


class ShortTimeout:
    """While it is entered, this thread's connections are those that wait for a short time only."""

    def __init__(self, local: threading.local) -> None:
        self._local = local

    def __enter__(self) -> None:
        self._local.brief = True

    def __exit__(self, *_: object) -> None:
        self._local.brief = False


# Each step makes the next schema of the one before; what was released once is never changed.
STEPS = (
    """
CREATE TABLE session (
    key BLOB PRIMARY KEY, sid TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,
    created_at REAL NOT NULL, used_at REAL NOT NULL, idle_expires_at REAL NOT NULL, expires_at REAL NOT NULL,
    client_id TEXT NOT NULL, scope TEXT NOT NULL, coordinated INTEGER NOT NULL,
    generation INTEGER NOT NULL, branch INTEGER NOT NULL, rotated_at REAL, promoted_branch INTEGER, previous_rotated_at REAL, previous_promoted_branch INTEGER, idempotency_hash BLOB, first_used_branch INTEGER,
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
CREATE TABLE strike (key BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX strike_until ON strike (until);
""",
)

NAMES = tuple(column.name for column in fields(SessionRow))
COLUMNS = ", ".join(NAMES)
INSERT = f"INSERT INTO session ({COLUMNS}) VALUES ({', '.join('?' * len(fields(SessionRow)))})"
READ = f"SELECT {COLUMNS} FROM session WHERE key = ?"

# R1: the condition is that of ``rotation.present``, the change that of ``rotation.rotate``.
ROTATE = """
UPDATE session SET generation = generation + 1, branch = 0, previous_rotated_at = rotated_at, previous_promoted_branch = promoted_branch, rotated_at = :now, promoted_branch = :branch, idempotency_hash = :idempotency_hash, first_used_branch = NULL,
    used_at = :now, idle_expires_at = min(:now + :refresh_ttl, expires_at)
WHERE key = :key AND generation = :generation AND (first_used_branch IS NULL OR first_used_branch = :branch)
    AND revoked_at IS NULL AND idle_expires_at > :now AND expires_at > :now
"""
ROTATE_UNREAD = f"{ROTATE} AND client_id = coalesce(:client_id, client_id) RETURNING {RETURNED_COLUMNS}"
SWAP = f"""
UPDATE session SET {", ".join(f"{column.name} = ?" for column in fields(SessionRow))}
WHERE key = ? AND generation = ? AND branch = ? AND label = ? AND rotated_at IS ? AND idempotency_hash IS ? AND first_used_branch IS ? AND revoked_at IS NULL
RETURNING generation
"""
# What ``KeyRecord.joined`` does.
SAVE_KEY = """
INSERT INTO key VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kid) DO UPDATE SET
    verifies_until = min(coalesce(verifies_until, excluded.verifies_until),
                         coalesce(excluded.verifies_until, verifies_until)),
    token_ttl = max(token_ttl, excluded.token_ttl),
    secret = CASE WHEN substr(excluded.secret, 1, 7) = 'sealed:' THEN excluded.secret ELSE secret END
"""
# What is newer than a cursor, beside the number that was given out last; one row without a sid where nothing is.
REVOCATIONS = """
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'revocation'), 0), sid, until
FROM (SELECT 1) LEFT JOIN revocation ON seq > ? ORDER BY seq
"""
REVOKE = """
UPDATE session SET revoked_at = :now, revoked_why = :why
WHERE revoked_at IS NULL AND idle_expires_at > :now AND expires_at > :now
"""
FORGET = """
DELETE FROM revocation WHERE seq IN (SELECT seq FROM revocation ORDER BY seq LIMIT 100) AND until < ?
"""
STRIKE = """
INSERT INTO strike VALUES (:key, min(:now + :every, :now + :most))
ON CONFLICT (key) DO UPDATE SET until = min(max(until, :now) + :every, :now + :most) RETURNING until
"""
FORGET_STRIKES = "DELETE FROM strike WHERE key IN (SELECT key FROM strike WHERE until < ? LIMIT 100)"
AMONG = {"sid": " AND sid = :sid", "subject": " AND subject = :subject", "keep": " AND sid <> :keep"}


class SqliteSessionStore:
    """Sessions, keys and accounts in the SQLite file at *path*; made, for its owner alone, if it is missing.

    Raises ConfigurationError when the file cannot be used, in one line that says why.
    """

    blocking = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = SqliteFile(path, STEPS)
        self._connection, self._select, self._writing = self._file.connection, self._file.select, self._file.writing

    def __repr__(self) -> str:
        return f"<SqliteSessionStore {self._file.path}>"

    def short_timeout(self) -> AbstractContextManager[object]:
        return self._file.short_timeout

    def close(self) -> None:
        """Closes this thread's connections; those of other threads close with their threads."""
        self._file.close()

    # ---- sessions ----------------------------------------------------------------------------------------------

    async def insert(self, row: SessionRow) -> None:
        with self._writing() as db:
            db.execute(
                "DELETE FROM session WHERE key IN (SELECT key FROM session WHERE expires_at < ? LIMIT 100)",
                (row.created_at,),
            )
            db.execute(INSERT, astuple(row))

    async def read(self, key: bytes) -> SessionRow | None:
        rows = self._select(READ, (key,))
        return _row(rows[0]) if rows else None

    async def rotate(self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float) -> bool:
        return self._file.change(ROTATE, _presented(key, token, now, refresh_ttl))

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float, client_id: str | None
    ) -> SessionRow | None:
        values = _presented(key, token, now, refresh_ttl)
        values["client_id"] = client_id
        rows = self._select(ROTATE_UNREAD, values)
        return rotated_row(key, token, now, refresh_ttl, rows[0]) if rows else None

    async def compare_and_set(self, before: SessionRow, after: SessionRow, dead_until: float) -> bool:
        same = (
            before.key,
            before.generation,
            before.branch,
            before.label,
            before.rotated_at,
            before.idempotency_hash,
            before.first_used_branch,
        )
        values = (*astuple(after), *same)
        if after.revoked_at is None:
            return bool(self._select(SWAP, values))
        with self._writing() as db:
            changed = bool(db.execute(SWAP, values).fetchall())
            if changed:
                self._announce(db, [after.sid], dead_until, after.revoked_at)
            return changed

    async def revoke(
        self,
        now: float,
        why: str,
        dead_until: float,
        *,
        sid: str | None = None,
        subject: str | None = None,
        keep: str | None = None,
    ) -> list[str]:
        values = {"now": now, "why": why, "sid": sid, "subject": subject, "keep": keep}
        # Only what is given stands in the statement: so SQLite finds the rows by an index.
        among = "".join(condition for name, condition in AMONG.items() if values[name] is not None)
        with self._writing() as db:
            ended = [found for (found,) in db.execute(f"{REVOKE}{among} RETURNING sid", values).fetchall()]
            self._announce(db, ended, dead_until, now)
            return ended

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        self._select(
            "UPDATE session SET first_used_branch = ? WHERE sid = ? AND generation = ? AND first_used_branch IS NULL RETURNING generation",
            (branch, sid, generation),
        )

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        conditions = {"subject": subject, "sid": sid}
        given = {name: value for name, value in conditions.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "1"
        statement = f"SELECT {COLUMNS} FROM session WHERE {where} ORDER BY used_at DESC"
        return [_row(found) for found in self._select(statement, tuple(given.values()))]

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        rows = self._select(REVOCATIONS, (after,))
        if rows[0][0] < after:  # the file was put back to what it once was: what it has is news
            rows = self._select(REVOCATIONS, (0,))
        return rows[0][0], [(sid, until) for _, sid, until in rows if sid is not None]

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

    async def change_account(self, name: str, password_hash: str | None, *, expected: str | None = None) -> bool:
        change = "DELETE FROM account" if password_hash is None else "UPDATE account SET password_hash = :hash"
        statement = f"{change} WHERE name = :name AND password_hash = coalesce(:expected, password_hash) RETURNING name"
        with self._writing() as db:
            values = {"hash": password_hash, "name": name, "expected": expected}
            return bool(db.execute(statement, values).fetchall())

    # ---- strikes, and the store itself ---------------------------------------------------------------------------

    async def advance_marker(self, key: bytes, now: float, every: float, most: float) -> float:
        values = {"key": key, "now": now, "every": every, "most": most}
        with self._writing(durable=False) as db:
            db.execute(FORGET_STRIKES, (now,))
            [(until,)] = db.execute(STRIKE, values).fetchall()
            return float(until)

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        among = ", ".join("?" * len(keys))
        known = dict(self._select(f"SELECT key, until FROM strike WHERE key IN ({among})", tuple(keys)))
        return [known.get(key, 0.0) for key in keys]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        with self._writing(durable=False) as db:
            db.executemany("DELETE FROM strike WHERE key = ?", [(key,) for key in keys])

    def notifications(self) -> None:
        """A file announces nothing: it is asked, which costs no more than that would."""

    async def health(self) -> None:
        self._select("SELECT 1 FROM key LIMIT 1")

    async def aclose(self) -> None:
        self.close()

    @staticmethod
    def _announce(db: sqlite3.Connection, sids: list[str], dead_until: float, now: float) -> None:
        """Tells other processes; of what is oldest, some that they need no longer is forgotten."""
        db.executemany("INSERT INTO revocation (sid, until) VALUES (?, ?)", [(sid, dead_until) for sid in sids])
        db.execute(FORGET, (now,))


def _presented(key: bytes, token: PresentedToken, now: float, refresh_ttl: float) -> dict[str, Any]:
    """The values of ``ROTATE``."""
    return {
        "key": key,
        "generation": token.generation,
        "branch": token.branch,
        "idempotency_hash": token.idempotency_hash,
        "now": now,
        "refresh_ttl": refresh_ttl,
    }


def _row(values: Sequence[Any]) -> SessionRow:
    named: dict[str, Any] = dict(zip(NAMES, values, strict=True))
    named["coordinated"] = bool(named["coordinated"])  # SQLite has no booleans
    return SessionRow(**named)
