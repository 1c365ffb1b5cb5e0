"""Sessions in one SQLite file, shared by all processes of one host that open it.

1. Rotation commits without a flush to the disk, because rule R1h of rotation heals what a power failure takes away.
   Login, logout, revocation, keys and accounts are on the disk when they return.
2. The file is in WAL mode: readers never wait. Writers wait for each other ``BUSY_SECONDS``; in an event loop, which
   stands still meanwhile, ``SHORT_BUSY_SECONDS`` (``short_timeout``).
3. Each thread has its own connections, one for each durability and each timeout. All are closed before the process is
   forked, and opened again when they are needed, in the parent and in the child (``_sqlite.py``).
4. An older schema is upgraded when the file is opened; a newer one is refused (``sqlite_schema.py``).
5. One row a session, changed in place: no number of refreshes adds a row.
6. The file belongs to its owner alone (mode 0600). The file of another program is refused and left unchanged, and so is
   one that other users may have put there or may change (``_private_files.py``).
7. Errors of the driver become StoreUnavailable (try again later), ConfigurationError (an operator must act) or
   InvalidRequest (text that SQLite cannot store).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple
from pathlib import Path
from typing import Any
from weakref import WeakSet

from unbroken._arguments import checked_class
from unbroken._private_files import ensure_private, resolve_private
from unbroken._sqlite import BUSY_CODES, fork_gate, use_wal
from unbroken.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from unbroken.server.core.rotation import (
    Policy,
    PresentedToken,
    SessionBinding,
    SessionFacts,
    SessionRow,
    hour_of,
)
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores import sqlite_statements as sql
from unbroken.server.stores.base import (
    COMPARED_FIELDS,
    KEY_FILE_SUFFIX,
    MAX_TRIMMED_SESSIONS,
    Account,
    DatabaseLocked,
    StoreProblem,
)
from unbroken.server.stores.migrations import SchemaVersion
from unbroken.server.stores.pages import next_page_cursor, page_position
from unbroken.server.stores.sqlite_schema import STEPS, read_version, upgrade

__all__ = ["SqliteFile", "SqliteSessionStore", "open_url", "path_of", "schema_version", "upgrade_schema"]

OLDEST_SQLITE = (3, 35)  # the first with RETURNING
BUSY_SECONDS = 5.0
SHORT_BUSY_SECONDS = 0.005


@checked_class()
class SqliteSessionStore:
    """Sessions, keys, accounts and markers in the SQLite file at *path*, which is created if it is missing.

    Raise ConfigurationError, in one line that says why, if the file cannot be used.
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
            db.execute(sql.DELETE_EXPIRED, (row.created_at,))
            db.execute(sql.INSERT, astuple(row))

    async def read(self, key: bytes) -> SessionRow | None:
        rows = self._rows(sql.READ, (key,))
        return _session_row(rows[0]) if rows else None

    async def rotate(self, key: bytes, token: PresentedToken, now: float, policy: Policy) -> bool:
        return self._file.changes(sql.ROTATE, _rotate_values(key, token, now, policy))

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, policy: Policy, binding: SessionBinding | None
    ) -> SessionFacts | None:
        values = _rotate_values(key, token, now, policy)
        values |= dict(zip(SessionBinding._fields, binding or (None, None, None), strict=True))
        rows = self._rows(sql.ROTATE_RETURNING, values)
        return SessionFacts(key, *rows[0]) if rows else None

    async def compare_and_set(self, before: SessionRow, after: SessionRow, announce_until: float) -> bool:
        values = {"key": before.key} | {name: getattr(before, name) for name in COMPARED_FIELDS}
        values |= {f"new_{name}": value for name, value in zip(sql.FIELDS, astuple(after), strict=True)}
        if after.revoked_at is None:
            return bool(self._rows(sql.COMPARE_AND_SET, values))
        with self._file.transaction() as db:
            changed = bool(db.execute(sql.COMPARE_AND_SET, values).fetchall())
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
            statement = sql.REVOKE.format(conditions=_conditions(given))
            revoked = [one for (one,) in db.execute(statement, {"now": now, "reason": reason, **given}).fetchall()]
            _announce(db, revoked, announce_until, now)
            return revoked

    async def trim(self, subject: str, keep: int, now: float, reason: str, announce_until: float) -> list[str]:
        values = {"subject": subject, "keep": keep, "most": keep + MAX_TRIMMED_SESSIONS, "now": now, "reason": reason}
        if self._rows(sql.COUNT_UNREVOKED, {"subject": subject, "most": keep + 1})[0][0] <= keep:
            return []
        with self._file.transaction() as db:
            trimmed = db.execute(sql.TRIM, values).fetchall()
            active = [sid for sid, why in trimmed if why == reason]
            _announce(db, active, announce_until, now)
            return active

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        self._rows(sql.RECORD_FIRST_USE, (branch, sid, generation))

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        given = {"sid": sid, "subject": subject}
        return [_session_row(one) for one in self._rows(sql.SESSIONS.format(conditions=_conditions(given)), given)]

    async def page(
        self, subject: str | None, limit: int, cursor: str, *, include_revoked: bool
    ) -> tuple[list[SessionRow], str]:
        expires_at, sid = page_position(cursor)
        conditions = "" if subject is None else sql.CONDITIONS["subject"]
        if subject is not None and not include_revoked:
            conditions += " AND revoked_at IS NULL"
        values = {"expires_at": expires_at, "sid": sid, "subject": subject, "limit": limit}
        found = [_session_row(one) for one in self._rows(sql.PAGE.format(conditions=conditions), values)]
        return found, next_page_cursor(found, limit)

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        rows = self._rows(sql.REVOCATIONS, (after,))
        if rows[0][0] < after:  # the file was restored from a backup: its revocations may be unknown to the caller
            rows = self._rows(sql.REVOCATIONS, (0,))
        return rows[0][0], [(sid, until) for _, sid, until in rows if sid is not None]

    # ---- keys and accounts ---------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyRecord]:
        return [KeyRecord(*one) for one in self._rows(sql.KEYS)]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        with self._file.transaction() as db:
            if first and db.execute(sql.KEYS).fetchone():
                return
            db.executemany(sql.SAVE_KEY, map(astuple, records))

    async def accounts(self) -> list[Account]:
        return [Account(*one) for one in self._rows(sql.ACCOUNTS)]

    async def account(self, name: str) -> Account | None:
        rows = self._rows(sql.ACCOUNT, (name,))
        return Account(*rows[0]) if rows else None

    async def add_account(self, account: Account) -> bool:
        with self._file.transaction() as db:
            return bool(db.execute(sql.ADD_ACCOUNT, astuple(account)).fetchall())

    async def change_account(
        self, name: str, password_hash: str | None, *, expected: str | None = None, scope: str | None = None
    ) -> bool:
        statement = sql.DELETE_ACCOUNT if password_hash is None else sql.CHANGE_ACCOUNT
        with self._file.transaction() as db:
            values = {"hash": password_hash, "name": name, "expected": expected, "scope": scope}
            return bool(db.execute(statement, values).fetchall())

    # ---- markers -------------------------------------------------------------------------------------------------

    async def advance_marker(self, key: bytes, now: float, step: float, max_ahead: float) -> float:
        with self._file.transaction(durable=False) as db:
            db.execute(sql.DELETE_PAST_MARKERS, (now,))
            values = {"key": key, "now": now, "step": step, "max_ahead": max_ahead}
            [(until,)] = db.execute(sql.ADVANCE_MARKER, values).fetchall()
            return float(until)

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        statement = sql.READ_MARKERS.format(places=", ".join("?" * len(keys)))
        found = dict(self._rows(statement, tuple(keys)))
        return [found.get(key, 0.0) for key in keys]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        with self._file.transaction(durable=False) as db:
            db.executemany(sql.CLEAR_MARKER, [(key,) for key in keys])

    # ---- the store -----------------------------------------------------------------------------------------------

    def notifications(self) -> None:
        """Return None: to poll a file costs as little as to wait for a notification."""

    async def health(self) -> None:
        self._rows(sql.HEALTH)

    async def problems(self) -> list[StoreProblem]:
        return []

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close this thread's connections; those of other threads close with their threads."""
        self._file.close()


def _announce(db: sqlite3.Connection, sids: list[str], announce_until: float, now: float) -> None:
    db.executemany(sql.ANNOUNCE, [(sid, announce_until) for sid in sids])
    db.execute(sql.DELETE_OLD_REVOCATIONS, (now,))


def _conditions(given: dict[str, str | None]) -> str:
    return "".join(sql.CONDITIONS[name] for name, value in given.items() if value is not None)


def _rotate_values(key: bytes, token: PresentedToken, now: float, policy: Policy) -> dict[str, Any]:
    return {
        "key": key,
        "generation": token.generation,
        "branch": token.branch,
        "idempotency_hash": token.idempotency_hash,
        "party": token.party,
        "scope": token.scope,
        "jkt": token.jkt,
        "now": now,
        "hour": hour_of(now),
        "refresh_ttl": policy.refresh_ttl,
        "grace": policy.grace,
    }


def _session_row(values: Sequence[Any]) -> SessionRow:
    named: dict[str, Any] = dict(zip(sql.FIELDS, values, strict=True))
    named |= {name: bool(named[name]) for name in sql.BOOL_FIELDS}  # SQLite has no booleans
    return SessionRow(**named)


# ---- the file --------------------------------------------------------------------------------------------------------


class SqliteFile:
    """The SQLite file at *path*, created if it is missing, with the tables that *steps* make (rule 4).

    Raise ConfigurationError, in one line that says why, if the file cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], steps: Sequence[str]) -> None:
        self.path = resolve_private(path, "the database")
        self._local = threading.local()  # connections of a thread, the fork that they came after, its timeout (rule 3)
        self._all: WeakSet[_Connection] = WeakSet()
        self._forks = 0
        self.short_timeout = ShortTimeout(self._local)
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise ConfigurationError(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}")
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"the folder {self.path.parent} does not exist: create it, or name another file")
        try:
            ensure_private(self.path, "the database", closed_by_folder=True)  # rule 6
            with fork_gate:
                self._refuse_other_file()
                upgrade(self.connection(durable=True), self.path, steps)
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{self.path} cannot be used as a database: {error}") from error
        fork_gate.guard(self)

    def __repr__(self) -> str:
        return f"<SqliteFile {self.path}>"

    def connection(self, *, durable: bool) -> sqlite3.Connection:
        """Return this thread's connection, inside the gate. *durable*: its commits are flushed to the disk (rule 1)."""
        mine = self._local.__dict__
        connections: dict[tuple[bool, bool], sqlite3.Connection] = mine.get("connections", {})
        if mine.get("forks") != self._forks:
            mine["forks"], mine["connections"] = self._forks, (connections := {})
        kind = durable, mine.get("short", False)
        if kind not in connections:
            db = self._connect(SHORT_BUSY_SECONDS if kind[1] else BUSY_SECONDS)
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connections[kind] = db
        return connections[kind]

    def _connect(self, timeout: float) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=timeout, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        self._all.add(db)
        use_wal(db, timeout)
        return db

    def _refuse_other_file(self) -> None:
        """Raise ConfigurationError for the file of another program, before anything in it changes (rule 6)."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as db:
            read_version(db, self.path)

    def rows(self, statement: str, values: Any = ()) -> list[Any]:
        """Return the rows of one statement; a write is committed without a flush. Raise our errors (rule 7)."""
        try:
            with fork_gate:
                return self.connection(durable=False).execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise self._translate_error(error) from error

    def changes(self, statement: str, values: Any) -> bool:
        """Return whether one statement changed a row; it is committed without a flush. Raise our errors."""
        try:
            with fork_gate:
                return self.connection(durable=False).execute(statement, values).rowcount > 0
        except (sqlite3.Error, UnicodeError) as error:
            raise self._translate_error(error) from error

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Run the block in a write transaction. *durable*: it is on the disk when the block ends. Raise our errors."""
        with fork_gate:
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

    def close_before_fork(self) -> None:
        """Close the connections of all threads (rule 3)."""
        self._forks += 1
        for db in list(self._all):
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def leave_to_parent(self) -> None:
        """Neither use nor close the connections that a forked child has inherited: they are the parent's."""
        self._forks += 1
        _connections_of_parents.extend(self._all)

    def _translate_error(self, error: sqlite3.Error | UnicodeError) -> StoreUnavailable | InvalidRequest:
        if isinstance(error, UnicodeError):
            return InvalidRequest("the request contains text that the database cannot store")
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY_CODES
        kind = DatabaseLocked if busy else StoreUnavailable
        return kind(f"the database {self.path} does not respond: {error}", retry_after=1.0)


class ShortTimeout:
    """A block within which this thread uses the connections with the short timeout (rule 2)."""

    def __init__(self, local: threading.local) -> None:
        self._local = local

    def __enter__(self) -> None:
        self._local.short = True

    def __exit__(self, *_: object) -> None:
        self._local.short = False


class _Connection(sqlite3.Connection):
    """A connection of a ``WeakSet``: sqlite3's own class takes no weak references."""


_connections_of_parents: list[sqlite3.Connection] = []


# ---- by URL ----------------------------------------------------------------------------------------------------------


def open_url(url: str) -> SqliteSessionStore:
    """Return the store in the file that *url* names. Raise ConfigurationError."""
    return SqliteSessionStore(path_of(url))


def path_of(url: str) -> str:
    """Return the path in ``sqlite:///relative/path`` or ``sqlite:////absolute/path``. Raise ConfigurationError."""
    rest = url.partition(":")[2]
    path = rest.removeprefix("///")
    if path == ":memory:" or rest in ("", "//"):
        raise ConfigurationError("a store in memory is memory:, a file is sqlite:///FILE")
    if not rest.startswith("///") or not path:
        name = rest.lstrip("/") or "FILE"
        raise ConfigurationError(f"write sqlite:///{name} for a relative path, sqlite:////{name} for an absolute one")
    return path


def schema_version(url: str) -> SchemaVersion:
    """Return the schema in the file that *url* names, which is only read. Raise ConfigurationError."""
    path = Path(path_of(url)).expanduser().absolute()
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as db:
            return SchemaVersion(read_version(db, path), len(STEPS))
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path} cannot be read as a database: {error}") from error


def upgrade_schema(url: str) -> None:
    """Upgrade the schema in the file that *url* names: opening does that (rule 4). Raise ConfigurationError."""
    open_url(url).close()
