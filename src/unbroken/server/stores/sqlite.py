"""Sessions in one SQLite file, shared by all processes of one host that open it.

1. Rotation commits without a flush to the disk, because rule R1h of rotation heals what a power failure takes away.
   Login, logout, revocation, keys and accounts are on the disk when they return.
2. The file is in WAL mode: readers never wait. Writers wait for each other ``BUSY_SECONDS``; in an event loop, which
   stands still meanwhile, ``SHORT_BUSY_SECONDS`` (``short_timeout``).
3. Each thread has its own connections, one for each durability and each timeout. A forked child opens new ones.
4. The schema has a number. An older schema is upgraded when the file is opened; a newer one is refused.
5. One row a session, changed in place: no number of refreshes adds a row.
6. The file belongs to its owner alone (mode 0600). The file of another program is refused and left unchanged, and so is
   one that other users may have put there or may change (``_private_files.py``).
7. Errors of the driver become StoreUnavailable (try again later), ConfigurationError (an operator must act) or
   InvalidRequest (text that SQLite cannot store).
"""

# ruff: noqa: S608  # statements consist of constants of this file

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

from unbroken._private_files import ensure_private, resolve_private
from unbroken.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from unbroken.server.core.rotation import (
    RETURNED_COLUMNS,
    Policy,
    PresentedToken,
    SessionBinding,
    SessionRow,
    hour_of,
    rotated_row,
)
from unbroken.server.keys.keyring import ENCRYPTED_PREFIX, KeyRecord
from unbroken.server.stores.base import (
    COMPARED_FIELDS,
    KEY_FILE_SUFFIX,
    MAX_TRIMMED,
    Account,
    DatabaseLocked,
    StoreProblem,
)
from unbroken.server.stores.migrations import SchemaVersion, refuse_newer
from unbroken.server.stores.pages import next_page_cursor, page_position

__all__ = ["SqliteFile", "SqliteSessionStore", "open_url", "path_of", "schema_version", "upgrade_schema"]

APPLICATION_ID = 0x756E6272  # "unbr": the mark of a file of ours (rule 6)
OLDEST_SQLITE = (3, 35)  # the first with RETURNING
BUSY_SECONDS = 5.0
SHORT_BUSY_SECONDS = 0.005
BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

# ---- schema: each step makes the next schema from the one before (rule 4) --------------------------------------------

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
)

# ---- statements ------------------------------------------------------------------------------------------------------

FIELDS = tuple(column.name for column in fields(SessionRow))
BOOL_FIELDS = ("coordinated", "idempotency_key_repeated", "shared")
COLUMNS = ", ".join(FIELDS)
INSERT = f"INSERT INTO session ({COLUMNS}) VALUES ({', '.join('?' * len(FIELDS))})"
DELETE_EXPIRED = "DELETE FROM session WHERE key IN (SELECT key FROM session WHERE expires_at < ? LIMIT 100)"
READ = f"SELECT {COLUMNS} FROM session WHERE key = ?"
# R1: the condition is that of ``rotation.present``, the change that of ``rotation.rotate``.
ROTATE = """
UPDATE session SET
    generation = generation + 1, branch = 0,
    previous_rotated_at = rotated_at, previous_promoted_branch = promoted_branch,
    rotated_at = :now, promoted_branch = :branch,
    idempotency_key_repeated = coalesce(idempotency_hash = :idempotency_hash, 0),
    idempotency_hash = :idempotency_hash, first_used_branch = NULL, presenter = :party, shared = 0,
    shared_streak = CASE WHEN shared THEN shared_streak + 1
                         WHEN abs(:now - rotated_at) < :grace THEN shared_streak ELSE 0 END,
    used_earlier_at = CASE WHEN used_at < :hour THEN used_at ELSE used_earlier_at END,
    used_at = :now, idle_expires_at = min(:now + :refresh_ttl, expires_at)
WHERE key = :key AND generation = :generation
    AND CASE WHEN first_used_branch IS NULL THEN branch = :branch OR NOT coordinated
             ELSE first_used_branch = :branch END
    AND revoked_at IS NULL AND idle_expires_at > :now AND expires_at > :now
"""
ROTATE_RETURNING = f"""{ROTATE}
    AND client_id = coalesce(:client_id, client_id) AND issuer = coalesce(:issuer, issuer)
    AND audience = coalesce(:audience, audience)
RETURNING {RETURNED_COLUMNS}
"""
COMPARE_AND_SET = f"""
UPDATE session SET {", ".join(f"{name} = :new_{name}" for name in FIELDS)}
WHERE key = :key AND {" AND ".join(f"{name} IS :{name}" for name in COMPARED_FIELDS)} AND revoked_at IS NULL
RETURNING generation
"""
REVOKE = """
UPDATE session SET revoked_at = :now, revoked_why = :reason
WHERE revoked_at IS NULL AND idle_expires_at > :now AND expires_at > :now{conditions} RETURNING sid
"""
COUNT_UNREVOKED = """
SELECT count(*) FROM (
    SELECT 1 FROM session INDEXED BY session_unrevoked WHERE subject = :subject AND revoked_at IS NULL LIMIT :most
)
"""
TRIM = """
WITH first AS (
    SELECT key, used_at, created_at FROM session INDEXED BY session_unrevoked
    WHERE subject = :subject AND revoked_at IS NULL ORDER BY expires_at LIMIT :most
)
UPDATE session SET revoked_at = :now,
    revoked_why = CASE WHEN min(idle_expires_at, expires_at) > :now THEN :reason ELSE 'expired' END
WHERE key IN (
    SELECT key FROM first ORDER BY used_at, created_at, key LIMIT (SELECT max(count(*) - :keep, 0) FROM first)
)
RETURNING sid, revoked_why
"""
PAGE = f"""
SELECT {COLUMNS} FROM session WHERE expires_at <= :expires_at AND (expires_at, sid) < (:expires_at, :sid){{conditions}}
ORDER BY expires_at DESC, sid DESC LIMIT :limit
"""
SESSIONS = f"SELECT {COLUMNS} FROM session WHERE true{{conditions}} ORDER BY used_at DESC"
# A statement contains only the conditions that are given, so that SQLite uses an index.
CONDITIONS = {
    "sid": " AND sid = :sid",
    "subject": " AND subject = :subject",
    "except_sid": " AND sid <> :except_sid",
}
RECORD_FIRST_USE = """
UPDATE session SET first_used_branch = ?
WHERE sid = ? AND generation = ? AND first_used_branch IS NULL RETURNING generation
"""
ANNOUNCE = "INSERT INTO revocation (sid, until) VALUES (?, ?)"
DELETE_OLD_REVOCATIONS = """
DELETE FROM revocation WHERE seq IN (SELECT seq FROM revocation ORDER BY seq LIMIT 100) AND until < ?
"""
# The newest number ever given out, beside each revocation after the cursor; one row without a sid if there is none.
REVOCATIONS = """
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'revocation'), 0), sid, until
FROM (SELECT 1) LEFT JOIN revocation ON seq > ? ORDER BY seq
"""
KEYS = "SELECT * FROM key ORDER BY created_at, kid"
# What ``KeyRecord.merged_with`` returns.
SAVE_KEY = f"""
INSERT INTO key VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kid) DO UPDATE SET
    verifies_until = min(coalesce(verifies_until, excluded.verifies_until),
                         coalesce(excluded.verifies_until, verifies_until)),
    token_ttl = max(token_ttl, excluded.token_ttl),
    secret = CASE WHEN substr(excluded.secret, 1, {len(ENCRYPTED_PREFIX)}) = '{ENCRYPTED_PREFIX}'
                  THEN excluded.secret ELSE secret END
"""
ACCOUNTS = "SELECT * FROM account ORDER BY name"
ACCOUNT = "SELECT * FROM account WHERE name = ?"
ADD_ACCOUNT = "INSERT INTO account VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING name"
CHANGE_ACCOUNT = """
UPDATE account SET password_hash = :hash
WHERE name = :name AND password_hash = coalesce(:expected, password_hash) RETURNING name
"""
DELETE_ACCOUNT = """
DELETE FROM account WHERE name = :name AND password_hash = coalesce(:expected, password_hash) RETURNING name
"""
ADVANCE_MARKER = """
INSERT INTO marker VALUES (:key, min(:now + :step, :now + :max_ahead))
ON CONFLICT (key) DO UPDATE SET until = min(max(until, :now) + :step, :now + :max_ahead) RETURNING until
"""
DELETE_PAST_MARKERS = "DELETE FROM marker WHERE key IN (SELECT key FROM marker WHERE until < ? LIMIT 100)"
READ_MARKERS = "SELECT key, until FROM marker WHERE key IN ({places})"
CLEAR_MARKER = "DELETE FROM marker WHERE key = ?"


class SqliteSessionStore:
    """Sessions, keys, accounts and markers in the SQLite file at *path*, which is created if it is missing.

    Raises ConfigurationError, in one line that says why, if the file cannot be used.
    """

    blocking = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = SqliteFile(path, STEPS)
        self._rows = self._file.rows

    def __repr__(self) -> str:
        return f"<SqliteSessionStore {self._file.path}>"

    @property
    def encryption_key_file(self) -> str:
        """The path of the file with the encryption key, beside the database."""
        return f"{self._file.path}{KEY_FILE_SUFFIX}"

    def short_timeout(self) -> AbstractContextManager[object]:
        return self._file.short_timeout

    # ---- sessions ------------------------------------------------------------------------------------------------

    async def insert(self, row: SessionRow) -> None:
        with self._file.transaction() as db:
            db.execute(DELETE_EXPIRED, (row.created_at,))
            db.execute(INSERT, astuple(row))

    async def read(self, key: bytes) -> SessionRow | None:
        rows = self._rows(READ, (key,))
        return _session_row(rows[0]) if rows else None

    async def rotate(self, key: bytes, token: PresentedToken, now: float, policy: Policy) -> bool:
        return self._file.changes(ROTATE, _rotate_values(key, token, now, policy))

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, policy: Policy, binding: SessionBinding | None
    ) -> SessionRow | None:
        values = _rotate_values(key, token, now, policy)
        values |= dict(zip(SessionBinding._fields, binding or (None, None, None), strict=True))
        rows = self._rows(ROTATE_RETURNING, values)
        return rotated_row(key, token, now, policy, rows[0]) if rows else None

    async def compare_and_set(self, before: SessionRow, after: SessionRow, announce_until: float) -> bool:
        values = {"key": before.key} | {name: getattr(before, name) for name in COMPARED_FIELDS}
        values |= {f"new_{name}": value for name, value in zip(FIELDS, astuple(after), strict=True)}
        if after.revoked_at is None:
            return bool(self._rows(COMPARE_AND_SET, values))
        with self._file.transaction() as db:
            changed = bool(db.execute(COMPARE_AND_SET, values).fetchall())
            if changed:
                _announce(db, [after.sid], announce_until, after.revoked_at)
            return changed

    async def revoke(
        self,
        now: float,
        reason: str,
        announce_until: float,
        *,
        sid: str | None = None,
        subject: str | None = None,
        except_sid: str | None = None,
    ) -> list[str]:
        given = {"sid": sid, "subject": subject, "except_sid": except_sid}
        with self._file.transaction() as db:
            statement = REVOKE.format(conditions=_conditions(given))
            revoked = [one for (one,) in db.execute(statement, {"now": now, "reason": reason, **given}).fetchall()]
            _announce(db, revoked, announce_until, now)
            return revoked

    async def trim(self, subject: str, keep: int, now: float, reason: str, announce_until: float) -> list[str]:
        values = {"subject": subject, "keep": keep, "most": keep + MAX_TRIMMED, "now": now, "reason": reason}
        if self._rows(COUNT_UNREVOKED, {"subject": subject, "most": keep + 1})[0][0] <= keep:
            return []
        with self._file.transaction() as db:
            trimmed = db.execute(TRIM, values).fetchall()
            active = [sid for sid, why in trimmed if why == reason]
            _announce(db, active, announce_until, now)
            return active

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        self._rows(RECORD_FIRST_USE, (branch, sid, generation))

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        given = {"sid": sid, "subject": subject}
        return [_session_row(one) for one in self._rows(SESSIONS.format(conditions=_conditions(given)), given)]

    async def page(
        self, subject: str | None, limit: int, cursor: str, *, include_revoked: bool
    ) -> tuple[list[SessionRow], str]:
        expires_at, sid = page_position(cursor)
        conditions = "" if subject is None else " AND subject = :subject"
        if subject is not None and not include_revoked:
            conditions += " AND revoked_at IS NULL"
        values = {"expires_at": expires_at, "sid": sid, "subject": subject, "limit": limit}
        found = [_session_row(one) for one in self._rows(PAGE.format(conditions=conditions), values)]
        return found, next_page_cursor(found, limit)

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        rows = self._rows(REVOCATIONS, (after,))
        if rows[0][0] < after:  # the file was restored from a backup: its revocations may be unknown to the caller
            rows = self._rows(REVOCATIONS, (0,))
        return rows[0][0], [(sid, until) for _, sid, until in rows if sid is not None]

    # ---- keys and accounts ---------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyRecord]:
        return [KeyRecord(*one) for one in self._rows(KEYS)]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        with self._file.transaction() as db:
            if first and db.execute(KEYS).fetchone():
                return
            db.executemany(SAVE_KEY, map(astuple, records))

    async def accounts(self) -> list[Account]:
        return [Account(*one) for one in self._rows(ACCOUNTS)]

    async def account(self, name: str) -> Account | None:
        rows = self._rows(ACCOUNT, (name,))
        return Account(*rows[0]) if rows else None

    async def add_account(self, account: Account) -> bool:
        with self._file.transaction() as db:
            return bool(db.execute(ADD_ACCOUNT, astuple(account)).fetchall())

    async def change_account(self, name: str, password_hash: str | None, *, expected: str | None = None) -> bool:
        statement = DELETE_ACCOUNT if password_hash is None else CHANGE_ACCOUNT
        with self._file.transaction() as db:
            values = {"hash": password_hash, "name": name, "expected": expected}
            return bool(db.execute(statement, values).fetchall())

    # ---- markers -------------------------------------------------------------------------------------------------

    async def advance_marker(self, key: bytes, now: float, step: float, max_ahead: float) -> float:
        with self._file.transaction(durable=False) as db:
            db.execute(DELETE_PAST_MARKERS, (now,))
            values = {"key": key, "now": now, "step": step, "max_ahead": max_ahead}
            [(until,)] = db.execute(ADVANCE_MARKER, values).fetchall()
            return float(until)

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        statement = READ_MARKERS.format(places=", ".join("?" * len(keys)))
        found = dict(self._rows(statement, tuple(keys)))
        return [found.get(key, 0.0) for key in keys]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        with self._file.transaction(durable=False) as db:
            db.executemany(CLEAR_MARKER, [(key,) for key in keys])

    # ---- the store -----------------------------------------------------------------------------------------------

    def notifications(self) -> None:
        """Return None: to poll a file costs as little as to wait for a notification."""

    async def health(self) -> None:
        self._rows("SELECT 1 FROM key LIMIT 1")

    async def problems(self) -> list[StoreProblem]:
        return []

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close this thread's connections; those of other threads close with their threads."""
        self._file.close()


def _announce(db: sqlite3.Connection, sids: list[str], announce_until: float, now: float) -> None:
    db.executemany(ANNOUNCE, [(sid, announce_until) for sid in sids])
    db.execute(DELETE_OLD_REVOCATIONS, (now,))


def _conditions(given: dict[str, str | None]) -> str:
    return "".join(CONDITIONS[name] for name, value in given.items() if value is not None)


def _rotate_values(key: bytes, token: PresentedToken, now: float, policy: Policy) -> dict[str, Any]:
    return {
        "key": key,
        "generation": token.generation,
        "branch": token.branch,
        "idempotency_hash": token.idempotency_hash,
        "party": token.party,
        "now": now,
        "hour": hour_of(now),
        "refresh_ttl": policy.refresh_ttl,
        "grace": policy.grace,
    }


def _session_row(values: Sequence[Any]) -> SessionRow:
    named: dict[str, Any] = dict(zip(FIELDS, values, strict=True))
    named |= {name: bool(named[name]) for name in BOOL_FIELDS}  # SQLite has no booleans
    return SessionRow(**named)


# ---- the file --------------------------------------------------------------------------------------------------------


class SqliteFile:
    """The SQLite file at *path*, created if it is missing, with the tables that *steps* make (rule 4).

    Raises ConfigurationError, in one line that says why, if the file cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], steps: Sequence[str]) -> None:
        self._steps = steps
        self.path = resolve_private(path, "the database")
        self._local = threading.local()  # connections of a thread, the process that opened them, its timeout (rule 3)
        self.short_timeout = ShortTimeout(self._local)
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise ConfigurationError(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}")
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"the folder {self.path.parent} does not exist: create it, or name another file")
        try:
            ensure_private(self.path, "the database", closed_by_folder=True)  # rule 6
            self._upgrade(self.connection(durable=True))
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{self.path} cannot be used as a database: {error}") from error

    def __repr__(self) -> str:
        return f"<SqliteFile {self.path}>"

    def connection(self, *, durable: bool) -> sqlite3.Connection:
        """Return this thread's connection. *durable*: its commits are flushed to the disk (rule 1)."""
        mine = self._local.__dict__
        connections: dict[tuple[bool, bool], sqlite3.Connection] = mine.get("connections", {})
        if mine.get("pid") != os.getpid():
            mine["pid"], mine["connections"] = os.getpid(), (connections := {})
        kind = durable, mine.get("short", False)
        if kind not in connections:
            timeout = SHORT_BUSY_SECONDS if kind[1] else BUSY_SECONDS
            db = sqlite3.connect(self.path, timeout=timeout, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connections[kind] = db
        return connections[kind]

    def rows(self, statement: str, values: Any = ()) -> list[Any]:
        """Return the rows of one statement; a write is committed without a flush. Raises our errors (rule 7)."""
        try:
            return self.connection(durable=False).execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise self._translate_error(error) from error

    def changes(self, statement: str, values: Any) -> bool:
        """Return whether one statement changed a row; it is committed without a flush. Raises our errors."""
        try:
            return self.connection(durable=False).execute(statement, values).rowcount > 0
        except (sqlite3.Error, UnicodeError) as error:
            raise self._translate_error(error) from error

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Run the block in a write transaction. *durable*: it is on the disk when the block ends. Raises our errors."""
        db = None
        try:
            db = self.connection(durable=durable)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as error:
            raise self._translate_error(error) from error
        finally:
            if db is not None and db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")

    def close(self) -> None:
        """Close this thread's connections."""
        for db in vars(self._local).get("connections", {}).values():
            db.close()
        vars(self._local).clear()

    def _translate_error(self, error: sqlite3.Error | UnicodeError) -> StoreUnavailable | InvalidRequest:
        if isinstance(error, UnicodeError):
            return InvalidRequest("the request contains text that the database cannot store")
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY_CODES
        kind = DatabaseLocked if busy else StoreUnavailable
        return kind(f"the database {self.path} does not respond: {error}", retry_after=1.0)

    def _upgrade(self, db: sqlite3.Connection) -> None:
        """Create the tables or upgrade them (rule 4). Raises ConfigurationError if the file is not ours, or newer."""
        db.execute("BEGIN IMMEDIATE")
        try:
            version = _read_version(db, self.path)
            refuse_newer(SchemaVersion(version, len(self._steps)), str(self.path))
            for statement in ";\n".join(self._steps[version:]).split(";\n"):
                db.execute(statement)
            if version < len(self._steps):
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {len(self._steps)}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


class ShortTimeout:
    """A block within which this thread uses the connections with the short timeout (rule 2)."""

    def __init__(self, local: threading.local) -> None:
        self._local = local

    def __enter__(self) -> None:
        self._local.short = True

    def __exit__(self, *_: object) -> None:
        self._local.short = False


def _read_version(db: sqlite3.Connection, path: Path) -> int:
    """Return the schema number; 0 for an empty file. Raises ConfigurationError for another program's file (rule 6)."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner != APPLICATION_ID and (tables or version):
        raise ConfigurationError(f"{path} is a database of another program: name another file")
    return int(version)


# ---- by URL ----------------------------------------------------------------------------------------------------------


def open_url(url: str) -> SqliteSessionStore:
    """Return the store in the file that *url* names. Raises ConfigurationError."""
    return SqliteSessionStore(path_of(url))


def path_of(url: str) -> str:
    """Return the path in ``sqlite:///relative/path`` or ``sqlite:////absolute/path``. Raises ConfigurationError."""
    rest = url.partition(":")[2]
    path = rest.removeprefix("///")
    if path == ":memory:" or rest in ("", "//"):
        raise ConfigurationError("a store in memory is memory:, a file is sqlite:///FILE")
    if not rest.startswith("///") or not path:
        name = rest.lstrip("/") or "FILE"
        raise ConfigurationError(f"write sqlite:///{name} for a relative path, sqlite:////{name} for an absolute one")
    return path


def schema_version(url: str) -> SchemaVersion:
    """Return the schema in the file that *url* names, which is only read. Raises ConfigurationError."""
    path = Path(path_of(url)).expanduser().absolute()
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as db:
            return SchemaVersion(_read_version(db, path), len(STEPS))
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path} cannot be read as a database: {error}") from error


def upgrade_schema(url: str) -> None:
    """Upgrade the schema in the file that *url* names: opening does that (rule 4). Raises ConfigurationError."""
    open_url(url).close()
